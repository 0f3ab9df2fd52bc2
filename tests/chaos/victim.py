"""The process that is killed: the runtime and its HTTP server on a data file, with kill points around the store.

`python -m tests.chaos.victim` reads one JSON line: {"data", "case", "witness", "point", "at"}. Points: "append" (before the
n-th append is handed to the store), "sync" (before the n-th sync of the database's files), "synced" (after it, before the
commit is told), "appended" (after the append returned, before anything is performed), "effect" (after the n-th effect
landed, before its outcome is written), "" (none: killed from outside, or not).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import apsw

from stanchion.journal.sqlite import SqliteStore
from stanchion.runtime import Runtime
from stanchion.server.serve import serve
from tests.chaos import agent as agent_module


class Fuse:
    """Counts the passings of a point, and kills this process at one of them."""

    def __init__(self, point: str, at: int) -> None:
        self.point = point
        self.at = at
        self.passed: dict[str, int] = {}

    def burn(self, point: str) -> None:
        """Pass a point."""
        self.passed[point] = self.passed.get(point, 0) + 1
        if point == self.point and self.passed[point] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class FusedStore:
    """A store with a fuse before and after every write of a run's journal."""

    def __init__(self, store: SqliteStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def start(self, start: Any) -> Any:
        """Start a run between two fuses."""
        return await self._fused(self._store.start(start))

    async def append(self, append: Any) -> Any:
        """Append between two fuses."""
        return await self._fused(self._store.append(append))

    async def _fused(self, write: Any) -> Any:
        self._fuse.burn("append")
        result = await write
        self._fuse.burn("appended")
        return result


class FusedVfs(apsw.VFS):
    """SQLite's file system with a fuse before and after every sync."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        super().__init__("fused", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open a file with fuses."""
        return FusedFile(self.fuse, name, flags)


class FusedFile(apsw.VFSFile):
    """A file of it."""

    def __init__(self, fuse: Fuse, name: Any, flags: list[int]) -> None:
        self.fuse = fuse
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Sync between two fuses."""
        self.fuse.burn("sync")
        super().xSync(flags)
        self.fuse.burn("synced")


async def main(case: dict[str, Any]) -> None:
    """Serve the agent until killed or told to stop."""
    os.environ["WITNESS"], os.environ["CASE"] = case["witness"], case["case"]
    fuse = Fuse(case["point"], case["at"])
    vfs = FusedVfs(fuse) if case["point"] in ("sync", "synced") else None
    agent_module.after_effect = lambda: fuse.burn("effect")
    agent, model = agent_module.make_agent()
    store = await SqliteStore.open(Path(case["data"]), vfs="fused" if vfs else None)
    runtime = await Runtime.open(agent, store=FusedStore(store, fuse), clients={"*": model})  # type: ignore[arg-type]

    def ready(address: str) -> None:
        print(json.dumps({"address": address}), flush=True)

    await serve(runtime, host="127.0.0.1", port=0, grace_s=5.0, ready_callback=ready)


def run(line: str) -> None:
    """Run one case; with the fuses' counts on standard error at the end."""
    asyncio.run(main(json.loads(line)))


if __name__ == "__main__":
    run(sys.stdin.readline())
