"""The frameworks that are compared, how each is set up, and the environments they run in.

Stanchion runs in the environment of whoever calls this; each peer in one of its own under `.peers/`, which is made on
first use from its `requirements.txt` (exact versions of everything; `requirements.in` says what was asked for).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ENVIRONMENTS = ROOT / ".peers"
ALL = ("cpu", "crowd", "bytes", "kill", "spend", "first", "memory", "streams")
"""The comparisons, as the cells are named; `cpu` and `crowd` are the first, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A framework in one configuration."""

    name: str
    title: str
    folder: str
    packages: tuple[str, ...]
    durability: str
    variant: str = ""
    parts: tuple[str, ...] = ALL
    limit: str = ""
    """What the framework's own limit of spending is: "dollars", "dollars a run", "calls a run", "tool calls a run"."""
    stream_variant: str = ""
    """The configuration that serves streams, where it is another one."""
    other_worker: bool = False
    """Whether something in another live process could take a dead one's runs over."""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return Path(sys.executable) if self.folder == "stanchion" else ENVIRONMENTS / self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        """Whether its environment is there, as its requirements say."""
        stamp = _stamp(self.folder)
        return self.folder == "stanchion" or (stamp.is_file() and stamp.read_text() == _wanted(self.folder))

    def versions(self) -> dict[str, str]:
        """Read the versions of its packages from its environment."""
        code = "import json,sys;from importlib.metadata import version as v;print(json.dumps({n:v(n) for n in sys.argv[1:]}))"
        return json.loads(subprocess.check_output([self.python, "-c", code, *self.packages], text=True))


def _stamp(folder: str) -> Path:
    """Where an environment keeps what it was made from."""
    return ENVIRONMENTS / folder / ".made-from"


def _wanted(folder: str) -> str:
    return hashlib.sha256((HERE / folder / "requirements.txt").read_bytes()).hexdigest()


def make(peer: Peer) -> None:
    """Make its environment, if it is not there."""
    if peer.ready:
        return
    target = ENVIRONMENTS / peer.folder
    print(f"making .peers/{peer.folder} (once)", file=sys.stderr, flush=True)
    if not peer.python.exists():
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run([_interpreter(), "-m", "venv", target], check=True)
    pip = [peer.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", HERE / peer.folder / "requirements.txt"], check=True)
    _stamp(peer.folder).write_text(_wanted(peer.folder))


def _interpreter() -> str:
    """Find Python 3.11, for which the requirements were pinned; else whoever runs this."""
    return shutil.which("python3.11") or sys.executable


PEERS = (
    Peer(
        "stanchion", "Stanchion", "stanchion", ("stanchion",),
        "every intent and outcome synced before the next step", limit="dollars", other_worker=True,
    ),
    Peer(
        "langgraph-sync", "LangGraph, durability=sync", "langgraph",
        ("langgraph", "langgraph-checkpoint-postgres", "langchain", "langchain-anthropic"),
        "every step synced before the next", variant="sync", limit="calls a run",
    ),
    Peer(
        "langgraph", "LangGraph, default (async)", "langgraph",
        ("langgraph", "langgraph-checkpoint-postgres", "langchain", "langchain-anthropic"),
        "every step, written while the next runs", limit="calls a run",
    ),
    Peer(
        "langgraph-delta", "LangGraph, DeltaChannel (beta)", "langgraph",
        ("langgraph", "langgraph-checkpoint-postgres", "langchain", "langchain-anthropic"),
        "every step synced before the next", variant="delta", parts=("bytes",),
    ),
    Peer(
        "pydantic-ai", "Pydantic AI + DBOS", "pydantic_ai", ("pydantic-ai-slim", "dbos", "anthropic"),
        "every step's outcome synced before the next step", limit="dollars a run", stream_variant="durable_stream",
        other_worker=True,
    ),
    Peer(
        "openai-agents", "OpenAI Agents SDK", "openai_agents", ("openai-agents", "openai", "sqlalchemy"),
        "session store: after each turn", limit="calls a run",
    ),
    Peer(
        "agno", "Agno, checkpoint=tool-batch", "agno", ("agno", "anthropic", "sqlalchemy"),
        "after each batch of tools", limit="tool calls a run",
    ),
    Peer(
        "agno-queue", "Agno, durable queue", "agno", ("agno", "anthropic", "sqlalchemy"),
        "the request synced; the run starts over", variant="queue", parts=("kill",), other_worker=True,
    ),
    Peer(
        "adk", "Google ADK, resumable", "adk", ("google-adk", "anthropic", "sqlalchemy"),
        "every event synced before the next step", limit="calls a run",
    ),
)  # fmt: skip
BY_NAME = {peer.name: peer for peer in PEERS}
