"""Agents from files: `my_agent.py`, `my_agent.py:support`, or a module's name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from stanchion.agent import Agent
from stanchion.core.errors import ConfigError, InputError


def load_agents(target: str) -> list[Agent]:
    """Load the agents of a file or module. Raises `ConfigError` that says where it went wrong."""
    path, _, wanted = target.partition(":") if not _is_windows_path(target) else (target, "", "")
    module = _load_file(Path(path)) if path.endswith(".py") or "/" in path else _load_module(path)
    found = {id(value): value for value in vars(module).values() if isinstance(value, Agent)}
    agents = list(found.values())
    if wanted:
        agents = [agent for agent in agents if agent.name == wanted or getattr(module, wanted, None) is agent]
        if not agents:
            names = ", ".join(agent.name for agent in found.values()) or "none"
            raise ConfigError(f"{path} has no agent {wanted!r}; its agents are: {names}")
    if not agents:
        raise ConfigError(f"{path} has no agent; it needs a line like: support = Agent(name='support', model=..)")
    names = [agent.name for agent in agents]
    if double := next((name for name in names if names.count(name) > 1), ""):
        raise ConfigError(f"{path} has two agents named {double!r}; give each its own name=")
    return agents


def _is_windows_path(target: str) -> bool:
    return len(target) > 2 and target[1] == ":" and target[2] in "\\/"


def _load_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the Python file that holds the agent")
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; name the Python file that holds the agent")
    name = f"stanchion_agent_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # what stands beside the file can be imported, as when Python runs it
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except (ConfigError, InputError) as error:  # its message says what to do
        raise ConfigError(f"{_where(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{_where(path, error)}: {type(error).__name__}: {error}") from error
    return module


def _where(path: Path, error: BaseException) -> str:
    """The last line of the agent's own file that led to the error."""
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path.resolve()
    ]
    return f"{path}:{own[-1].lineno}" if own else str(path)


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"there is no module {name!r} (a file's name ends in .py): {error}") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"module {name}: {type(error).__name__}: {error}") from error
