"""How long the command line takes to start: wall and CPU of whole processes, the fastest of several."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

COMMANDS = {
    "empty": ("-c", "pass"),
    "import": ("-c", "import stanchion"),
    "help": ("-m", "stanchion.cli", "--help"),
    "version": ("-m", "stanchion.cli", "version"),
}


async def imports(size: Any, _: Any) -> dict[str, Any]:
    """Measure an empty interpreter, the import, and two commands."""
    return await asyncio.to_thread(_imports, size.starts)


def _imports(starts: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, arguments in COMMANDS.items():
        taken = [_start(arguments) for _ in range(starts + 1)][1:]
        result[f"{name}_s"] = round(min(wall for wall, _ in taken), 3)
        result[f"{name}_cpu_s"] = round(min(cpu for _, cpu in taken), 3)
    result["slowest_imports_ms"] = _slowest()
    return result


def _start(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "100"}
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: python {' '.join(arguments)} ended with exit code {process.returncode}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime


def _slowest() -> dict[str, float]:
    """The modules that the command line spends the most time in, without what they import."""
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stanchion.cli", "version"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    own: dict[str, float] = {}
    for line in said.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdigit():
            own[fields[2].strip()] = int(fields[0]) / 1e3
    return dict(sorted(own.items(), key=lambda item: -item[1])[:5])
