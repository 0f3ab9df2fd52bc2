"""The process: listen, serve, and on SIGTERM or SIGINT go within the grace.

The order of going: no new runs and every stream ends with its reason; no new connections, answers under way are
finished; the runtime lets go of its runs. A second signal ends the process at once: the journal is made for that.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec
import uvicorn

from stanchion.core.errors import ConfigError
from stanchion.runtime import Runtime
from stanchion.server.app import create_app
from stanchion.server.edge import Edge
from stanchion.server.log import configure
from stanchion.server.protocol import BoundedHttp
from stanchion.server.settings import Settings

log = logging.getLogger("stanchion.server")

_SEND_BUFFER_BYTES = 128 * 1024
"""What the kernel keeps for a client that does not read. Left alone it grows to megabytes for each."""
_KEEP_ALIVE_S = 30
STALL_S = 1.0
"""An event loop that stands still for so long is a line in the log."""
_HTTP_PART = 0.3
"""The part of the grace that answers under way may take."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make the event loop to serve on: uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(
    runtime: Runtime,
    *,
    host: str | None = None,
    port: int | None = None,
    grace_s: float | None = None,
    ready_callback: Callable[[str], None] | None = None,
    settings: Settings | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve a runtime until a signal comes or `stop` is set, then drain and close it.

    `ready_callback` is given the address (http://127.0.0.1:8420) when it listens. Raises `ConfigError` before that: the
    port is in use, or the address is open to others and there is no API key.
    """
    given = {"host": host, "port": port, "grace_s": grace_s}
    settings = msgspec.structs.replace(
        settings or Settings(), **{name: value for name, value in given.items() if value is not None}
    )
    configure(settings.log)
    app = create_app(runtime, settings)
    edge: Edge = app.state.edge
    await edge.door.check_start()
    listener = listen(settings)
    stop = stop or asyncio.Event()
    server = Server(configured(app, settings))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(watch_loop())
    try:
        with signals(stop):
            await either(server.listening, serving)
            address = address_of(settings.host, listener)
            log.info("serving", extra={"address": address})
            if ready_callback is not None:
                ready_callback(address)
            await either(stop, serving)
            await _go(edge, server, serving)
    finally:
        watching.cancel()
        server.should_exit = server.force_exit = True
        await serving


async def watch_loop() -> None:
    """Tell the operator when the event loop stood still: meanwhile no run and no request went on."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + STALL_S
        await asyncio.sleep(STALL_S)
        late_s = loop.time() - due_s
        if late_s >= STALL_S:
            log.warning(
                "the event loop stood still for %.1f s: an `async` tool blocks it (make it a plain function, which runs "
                "in a thread), or the process was stopped",
                late_s,
            )


async def _go(edge: Edge, server: Server, serving: asyncio.Task[None]) -> None:
    """Drain, within the grace."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + edge.settings.grace_s
    log.info("stopping", extra={"streams": edge.streams, "grace_s": edge.settings.grace_s})
    edge.drain()
    server.should_exit = True
    await serving
    left_s = max(until_s - loop.time(), 0.1)
    try:
        # The runtime keeps to its grace; the rest is so that a broken tool cannot hold up the process for ever.
        await asyncio.wait_for(edge.runtime.aclose(grace_s=left_s * 0.8), left_s)
    except TimeoutError:
        log.warning("the grace is over; what was in flight is taken up at the next start")
    log.info("stopped")


class Server(uvicorn.Server):
    """A server that listens where it is told and leaves the signals to us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to us."""
        yield


def configured(app: object, settings: Settings) -> uvicorn.Config:
    """Give uvicorn our settings."""
    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.grace_s * _HTTP_PART,  # pyright: ignore[reportArgumentType] seconds, any number
    )


def listen(settings: Settings) -> socket.socket:
    """Bind the port. Raises `ConfigError`."""
    host, port = settings.host, settings.port
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port} does not exist; choose one from 1 to 65535, or 0 for a free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"host {host!r} is not an address of this machine; try 127.0.0.1") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        _shape(listener, settings)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(error, host, port)) from None
    return listener


def _shape(listener: socket.socket, settings: Settings) -> None:
    """Set what every connection inherits: small buffers, and an end for peers that are gone or take nothing."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.send_timeout_s * 1000))
    listener.setblocking(False)


def _why_not(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is in use; stop what uses it, or choose another with --port (0: a free one)"
        case errno.EACCES:
            return f"port {port} needs more rights than this process has; choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"host {host!r} is not an address of this machine; try 127.0.0.1"
        case _:
            return f"cannot listen on {host} port {port}: {error.strerror}"


def address_of(host: str, listener: socket.socket) -> str:
    """Give the address (http://127.0.0.1:8420) of what listens."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


@contextmanager
def signals(stop: asyncio.Event) -> Generator[None, None, None]:
    """Set `stop` at the first signal and end at once at the second. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def either(event: asyncio.Event, serving: asyncio.Task[None]) -> None:
    """Wait for an event. Raises what ended the server, if that comes first."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((waiting, serving), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if serving.done():
        serving.result()
