"""The environment that AgentDojo runs in: one of its own under `.peers/`, made on first use from `requirements.txt`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLACE = ROOT / ".peers" / "agentdojo"
PYTHON = PLACE / "bin" / "python"
_STAMP = PLACE / ".made-from"


def ready() -> bool:
    """Whether the environment is there, as its requirements say."""
    return _STAMP.is_file() and _STAMP.read_text() == _wanted()


def make() -> None:
    """Make the environment, if it is not there."""
    if ready():
        return
    print("making .peers/agentdojo (once)", file=sys.stderr, flush=True)
    if not PYTHON.exists():
        shutil.rmtree(PLACE, ignore_errors=True)
        subprocess.run([shutil.which("python3.11") or sys.executable, "-m", "venv", PLACE], check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
    _STAMP.write_text(_wanted())


def inside(module: str) -> None:
    """Go on in the environment: this process becomes `python -m module` there, with the same arguments."""
    if Path(sys.prefix) == PLACE:
        return
    make()
    sys.stdout.flush()
    os.execve(PYTHON, [str(PYTHON), "-m", module, *sys.argv[1:]], variables())


def variables() -> dict[str, str]:
    """Give what the interpreter there must be told: where the product and the benches are."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONWARNINGS": "ignore"}


def _wanted() -> str:
    return hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()
