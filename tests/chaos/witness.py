"""The world outside: a process that counts the effects it was asked for. It forgets nothing and is never killed.

Keyed calls are deduplicated, keyless ones are not: each request counts. A request that says until when it is good (`until_ms`)
is refused after that, as a bank's would be; no other is. A trap sends a signal to the process that asks next, at the moment its
call was received or applied. `python -m tests.chaos.witness` prints its address as a JSON line and serves until its standard
input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from typing import Any

from aiohttp import web

MARGIN_MS = 25
"""So much earlier than it says a request is refused: nobody's clock is exact."""


class Witness:
    """What was asked for, by run and call."""

    def __init__(self) -> None:
        self.applied: dict[str, Counter[str]] = {}
        self.asked: dict[str, Counter[str]] = {}
        self.late: Counter[str] = Counter()
        self._keys: set[tuple[str, str]] = set()
        self._traps: dict[int, tuple[str, int, asyncio.Future[float]]] = {}

    async def effect(self, request: web.Request) -> web.Response:
        """Apply an effect, unless its key was seen."""
        said: dict[str, Any] = await request.json()
        run, call, key, pid = said["case"], said["call"], said.get("key", ""), said.get("pid", 0)
        self._spring(pid, "received")
        self.asked.setdefault(run, Counter())[call] += 1
        if said.get("until_ms") and time.time() * 1000 > said["until_ms"] - MARGIN_MS:
            self.late[run] += 1
            return web.json_response({"ok": False, "late": True}, status=409)
        if not key or (run, key) not in self._keys:
            self.applied.setdefault(run, Counter())[call] += 1
        if key:
            self._keys.add((run, key))
        self._spring(pid, "applied")
        await asyncio.sleep(said.get("takes_s", 0.0))  # done, and its asker does not know it yet
        return web.json_response({"ok": True})

    def _spring(self, pid: int, point: str) -> None:
        trap = self._traps.get(pid)
        if trap is None or trap[0] != point:
            return
        del self._traps[pid]
        os.kill(pid, trap[1])
        trap[2].set_result(time.time())

    async def trap(self, request: web.Request) -> web.Response:
        """Set a trap for a process, and say when it was sprung; 0: it was not, within `wait_s`."""
        said: dict[str, Any] = await request.json()
        sprung: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._traps[said["pid"]] = (said["point"], signal.Signals(said["signal"]), sprung)
        try:
            async with asyncio.timeout(said["wait_s"]):
                at_s = await sprung
        except TimeoutError:
            self._traps.pop(said["pid"], None)
            at_s = 0.0
        return web.json_response({"at_s": at_s})

    async def counts(self, request: web.Request) -> web.Response:
        """Tell what was applied, asked for and refused as late in a case."""
        case = request.match_info["case"]
        return web.json_response(
            {"applied": self.applied.get(case, {}), "asked": self.asked.get(case, {}), "late": self.late[case]}
        )


async def main() -> None:
    """Serve until standard input ends."""
    witness = Witness()
    app = web.Application()
    app.add_routes([web.post("/effect", witness.effect), web.get("/counts/{case}", witness.counts)])
    app.add_routes([web.post("/trap", witness.trap)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"address": f"http://127.0.0.1:{port}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
