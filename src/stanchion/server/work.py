"""A process that drives runs and takes no requests: until a signal comes, with a health port where one is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stanchion.core.errors import StanchionError
from stanchion.runtime import Runtime
from stanchion.server.edge import reply
from stanchion.server.log import configure
from stanchion.server.routes.health import STORE_TIMEOUT_S
from stanchion.server.serve import Server, address_of, configured, either, listen, signals, watch_loop
from stanchion.server.settings import Settings

log = logging.getLogger("stanchion.server")


async def work(
    runtime: Runtime,
    *,
    grace_s: float,
    health: Settings | None = None,
    ready_callback: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Drive runs until a signal comes or `stop` is set, then drain and close the runtime within the grace (seconds).

    `health`: where to answer GET /live and /ready. `ready_callback` is given that address, or "" where there is none.
    Raises `ConfigError`: the port is in use.
    """
    configure((health or Settings()).log)
    stop = stop or asyncio.Event()
    watching = asyncio.create_task(watch_loop())
    try:
        with signals(stop):
            async with _answering(runtime, health, stop) as address:
                if ready_callback is not None:
                    ready_callback(address)
                await stop.wait()
                log.info("stopping", extra={"active": runtime.active, "grace_s": grace_s})
                with contextlib.suppress(TimeoutError):  # what is in flight then is taken over when its lease ends
                    await asyncio.wait_for(runtime.aclose(grace_s=grace_s * 0.8), max(grace_s, 0.1))
                log.info("stopped")
    finally:
        watching.cancel()


@contextlib.asynccontextmanager
async def _answering(runtime: Runtime, settings: Settings | None, stop: asyncio.Event) -> AsyncGenerator[str]:
    """Answer health checks while the runtime works, and while it drains."""
    if settings is None:
        yield ""
        return
    listener = listen(settings)
    server = Server(configured(_app(runtime, stop), settings))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await either(server.listening, serving)
        yield address_of(settings.host, listener)
    finally:
        server.should_exit = server.force_exit = True
        await serving


def _app(runtime: Runtime, stop: asyncio.Event) -> Starlette:
    async def live(_: Request) -> Response:
        """Say that the process lives. Asks nothing of the store: a restart would not mend it."""
        return reply({"live": True, "active": runtime.active})

    async def ready(_: Request) -> Response:
        """Say whether it takes up runs: the store answers, and it is not about to stop."""
        if stop.is_set() or not runtime.ready:
            return reply({"ready": False, "why": "draining"}, 503)
        try:
            await asyncio.wait_for(runtime.store.now_ms(), STORE_TIMEOUT_S)
        except (StanchionError, TimeoutError):
            return reply({"ready": False, "why": "the store does not answer"}, 503)
        return reply({"ready": True, "active": runtime.active})

    return Starlette(routes=[Route("/live", live), Route("/ready", ready)])
