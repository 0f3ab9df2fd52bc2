"""The world outside: counts the effects it was asked for, and can keep callers waiting after an effect has landed.

Calls with a key it has seen are not applied again; calls without one always are. `python -m bench.peers.witness` prints
its address as a JSON line and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from aiohttp import web


class Witness:
    """What was asked for and what was applied, by call."""

    def __init__(self) -> None:
        self.applied: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.told = asyncio.Condition()
        self.open = asyncio.Event()
        self.open.set()
        self._keys: set[str] = set()

    async def effect(self, request: web.Request) -> web.Response:
        """Apply an effect, unless its key was seen; then answer, or wait until answers are let go."""
        said: dict[str, Any] = await request.json()
        call, key = said["call"], said["key"]
        self.asked[call] += 1
        self.applied[call] += not key or key not in self._keys
        if key:
            self._keys.add(key)
        async with self.told:
            self.told.notify_all()
        await self.open.wait()
        return web.json_response({"ok": True})

    async def hold(self, request: web.Request) -> web.Response:
        """Forget what was counted, and keep callers waiting from now on."""
        self.applied.clear()
        self.asked.clear()
        self._keys.clear()
        self.open.clear()
        return web.json_response({})

    async def release(self, request: web.Request) -> web.Response:
        """Answer all who wait, and all who come."""
        self.open.set()
        return web.json_response({})

    async def landed(self, request: web.Request) -> web.Response:
        """Wait until so many different effects have landed."""
        wanted = int(request.match_info["n"])
        async with self.told:
            await self.told.wait_for(lambda: len(self.applied) >= wanted)
        return web.json_response({})

    async def counts(self, request: web.Request) -> web.Response:
        """Tell what was applied and asked for."""
        return web.json_response({"applied": self.applied, "asked": self.asked})


async def main() -> None:
    """Serve until standard input ends."""
    witness = Witness()
    app = web.Application()
    app.add_routes(
        [
            web.post("/effect", witness.effect),
            web.post("/hold", witness.hold),
            web.post("/release", witness.release),
            web.get("/landed/{n}", witness.landed),
            web.get("/counts", witness.counts),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"address": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
