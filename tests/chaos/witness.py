"""The world outside: a process that counts the effects it was asked for. It forgets nothing and is never killed.

Keyed calls are deduplicated, keyless ones are not: each request counts. `python -m tests.chaos.witness` prints its
address as a JSON line and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from aiohttp import web

Counts = dict[str, dict[str, int]]


class Witness:
    """What was asked for, by run and call."""

    def __init__(self) -> None:
        self.applied: dict[str, Counter[str]] = {}
        self.asked: dict[str, Counter[str]] = {}
        self._keys: set[tuple[str, str]] = set()

    async def effect(self, request: web.Request) -> web.Response:
        """Apply an effect, unless its key was seen."""
        said: dict[str, Any] = await request.json()
        run, call, key = said["case"], said["call"], said.get("key", "")
        self.asked.setdefault(run, Counter())[call] += 1
        if not key or (run, key) not in self._keys:
            self.applied.setdefault(run, Counter())[call] += 1
        if key:
            self._keys.add((run, key))
        return web.json_response({"ok": True})

    async def counts(self, request: web.Request) -> web.Response:
        """Tell what was applied and asked for in a case."""
        case = request.match_info["case"]
        return web.json_response({"applied": self.applied.get(case, {}), "asked": self.asked.get(case, {})})


async def main() -> None:
    """Serve until standard input ends."""
    witness = Witness()
    app = web.Application()
    app.add_routes([web.post("/effect", witness.effect), web.get("/counts/{case}", witness.counts)])
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
