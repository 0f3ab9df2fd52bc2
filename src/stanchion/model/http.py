"""HTTP for model calls: pooled connections, coalesced reads, a timeout for each phase, every failure a `ModelError`.

One `aiohttp.ClientSession` serves all clients of an event loop. It has no limit of connections: a limit would make a
thousand live runs wait for each other; how many calls there are is the engine's to bound.

Reads are coalesced. A provider sends an event every 10-30 ms, and being woken for each is what a stream costs. So the
first event is handed on at once, then the socket is left alone (`pause_reading`: the kernel collects) for a pause that
grows to `PAUSE_S`, and what has come is read in one go. A fast answer meets only the first short pauses. Pauses end on
the ticks of one `Wheel`, so that a hundred streams wake the loop no more often than ten do.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ConnectionTimeoutError,
    InvalidURL,
    ServerDisconnectedError,
)
from aiohttp.client_proto import ResponseHandler

from stanchion.core.errors import ModelError, ModelErrorCode
from stanchion.model.client import Timeouts
from stanchion.model.failure import failure

FIRST_PAUSE_S: Final = 0.004
PAUSE_S: Final = 0.070
TICK_S: Final = 0.010
KEEPALIVE_S: Final = 30.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_ERROR_BYTES: Final = 256 * 1024
DRAIN_S: Final = 1.0
READ_BUFFER_BYTES: Final = 256 * 1024


class Wheel:
    """Ends pauses on shared ticks. Measured with 100 turns at once: a wake-up of its own costs 30 us, a turn has 48."""

    __slots__ = ("_loop", "_slots")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, list[ResponseHandler]] = {}

    def resume_after(self, protocol: ResponseHandler, delay_s: float) -> None:
        """Read from the connection again after the delay, or up to a tick later."""
        if delay_s < TICK_S:
            self._loop.call_later(delay_s, protocol.resume_reading)
            return
        tick = int((self._loop.time() + delay_s) / TICK_S) + 1
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = []
            self._loop.call_at(tick * TICK_S, self._resume, tick)
        slot.append(protocol)

    def _resume(self, tick: int) -> None:
        for protocol in self._slots.pop(tick):
            # Harmless where the call has ended since: at worst another call on this connection reads a little earlier.
            protocol.resume_reading()


class HttpPool:
    """The sessions, one per event loop, opened at the first call and closed with the last lease."""

    def __init__(self, *, trust_env: bool = False, ssl_context: ssl.SSLContext | None = None) -> None:
        self._trust_env = trust_env
        self._ssl = ssl_context
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, Wheel]] = (
            WeakKeyDictionary()
        )
        self._draining: set[asyncio.Task[None]] = set()
        self._leases = 0

    def lease(self) -> Lease:
        """A share in the pool, to be closed by its holder."""
        self._leases += 1
        return Lease(self)

    def session(self) -> tuple[aiohttp.ClientSession, Wheel]:
        """The session of the running loop, and its wheel."""
        loop = asyncio.get_running_loop()
        found = self._sessions.get(loop)
        if found is None or found[0].closed:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60, ssl=self._ssl or True
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=self._trust_env,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
                skip_auto_headers=("User-Agent",),
                read_bufsize=READ_BUFFER_BYTES,
            )
            found = self._sessions[loop] = session, Wheel()
        return found

    def let_go(self, response: aiohttp.ClientResponse) -> None:
        """Take the connection back: at once if the body was read to its end, else when its last bytes have come."""
        connection = response.connection
        if response.content.is_eof() or connection is None:
            response.release()
            return
        if connection.protocol is not None:
            connection.protocol.resume_reading()
        task = asyncio.get_running_loop().create_task(_drain(response))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def give_back(self) -> None:
        """One lease less; the last one closes the sessions of this loop."""
        self._leases -= 1
        loop = asyncio.get_running_loop()
        if self._leases > 0 or loop not in self._sessions:
            return
        session, _ = self._sessions.pop(loop)
        draining = [task for task in self._draining if task.get_loop() is loop]
        for task in draining:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)
        await session.close()


class Lease:
    """A client's share in the pool."""

    __slots__ = ("_open", "_pool")

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._open = True

    @asynccontextmanager
    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AsyncGenerator[Answer]:
        """Send the body; the answer, once its status and headers are there. Raises `ModelError`."""
        clock = PhaseClock(timeouts)
        response: aiohttp.ClientResponse | None = None
        try:
            async with clock:
                session, wheel = self._pool.session()
                response = await _send(session, url, headers, body, timeouts)
                clock.enter("timeout_idle", timeouts.idle_s)
                yield Answer(response, clock, wheel)
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, TimeoutError) and clock.expired:
                raise clock.failure() from error
            raise
        self._pool.let_go(response)

    async def aclose(self) -> None:
        """Give the share back, once."""
        if self._open:
            self._open = False
            await self._pool.give_back()


async def _send(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
) -> aiohttp.ClientResponse:
    try:
        return await session.post(
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s),
        )
    except ConnectionTimeoutError as error:
        message = f"no connection within {timeouts.connect_s:g} s"
        raise failure("timeout_connect", message, sent=False) from error
    except (ClientError, OSError, ValueError) as error:
        raise translate(error, answered=False) from error


class PhaseClock:
    """The running timeout of a call: one timer, moved from phase to phase and from read to read."""

    __slots__ = ("_loop", "_timeout", "_total_at", "phase", "timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.phase: ModelErrorCode = "timeout_first_byte"
        self._loop = asyncio.get_running_loop()
        self._total_at = self._loop.time() + timeouts.total_s
        self._timeout = asyncio.timeout_at(self._next(timeouts.connect_s + timeouts.first_byte_s))

    async def __aenter__(self) -> PhaseClock:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._timeout.__aexit__(kind, error, trace)

    def enter(self, phase: ModelErrorCode, seconds: float) -> None:
        """The phase begins, or begins again."""
        self.phase = phase
        self._timeout.reschedule(self._next(seconds))

    @property
    def expired(self) -> bool:
        """It was this clock that ended the call."""
        return self._timeout.expired()

    def failure(self) -> ModelError:
        """The error of the phase that took too long."""
        limits = {"timeout_first_byte": self.timeouts.first_byte_s, "timeout_idle": self.timeouts.idle_s}
        what = {"timeout_first_byte": "no answer", "timeout_idle": "nothing more came"}
        limit_s = limits.get(self.phase, self.timeouts.total_s)
        return failure(self.phase, f"{what.get(self.phase, 'not done')} within {limit_s:g} s")

    def _next(self, seconds: float) -> float:
        at = self._loop.time() + seconds
        if at >= self._total_at:
            self.phase = "timeout_total"
            return self._total_at
        return at


class Answer:
    """A response whose body is still to be read."""

    __slots__ = ("_clock", "_pause_s", "_response", "_wheel", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, clock: PhaseClock, wheel: Wheel) -> None:
        self._wheel = wheel
        self._response = response
        self._clock = clock
        self._pause_s = 0.0
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        """What has come, b"" at the end. The first call returns at once, later ones after a pause."""
        content = self._response.content
        if self._pause_s:
            self._pause()
        else:
            # A read of aiohttp's resumes the connection once for every HTTP chunk below this mark, which here would be
            # for every event: 1 ms of CPU a turn. The wheel resumes it once for every read.
            setattr(content, "_low_water", 0)  # noqa: B010  # private, and harmless should it not be there any more
        self._pause_s = min(self._pause_s * 2 or FIRST_PAUSE_S, PAUSE_S)
        self._clock.enter("timeout_idle", self._clock.timeouts.idle_s)
        try:
            return await content.readany()
        except (ClientError, OSError) as error:
            raise translate(error, answered=True) from error

    def _pause(self) -> None:
        """Leave the socket alone for a while; the wheel comes back to it."""
        connection = self._response.connection
        protocol = connection.protocol if connection is not None else None
        transport = protocol.transport if protocol is not None else None
        if protocol is None or transport is None or self._response.content.is_eof():
            return
        if transport.is_reading():
            # The transport, not the protocol: that would stop the parser as well, after each chunk.
            transport.pause_reading()
            self._wheel.resume_after(protocol, self._pause_s)

    async def rest(self) -> bytes:
        """The whole body, up to a bound; a longer one is cut off."""
        limit = MAX_BODY_BYTES if self.status == 200 else MAX_ERROR_BYTES
        chunks: list[bytes] = []
        size = 0
        try:
            while size < limit and (chunk := await self._response.content.readany()):
                self._clock.enter("timeout_idle", self._clock.timeouts.idle_s)
                chunks.append(chunk)
                size += len(chunk)
        except (ClientError, OSError) as error:
            raise translate(error, answered=True) from error
        return b"".join(chunks)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Wait a moment for the end of a body whose last event was read, so that the connection can serve again."""
    try:
        async with asyncio.timeout(DRAIN_S):
            size = 0
            while size < READ_BUFFER_BYTES and (chunk := await response.content.readany()):
                size += len(chunk)
    except (TimeoutError, ClientError, OSError):
        pass
    finally:
        if response.content.is_eof():
            response.release()
        else:
            response.close()


def translate(error: Exception, *, answered: bool) -> ModelError:
    """The `ModelError` of a foreign exception."""
    if isinstance(error, InvalidURL):
        return failure("bad_request", f"the base URL cannot be used: {error}", sent=False)
    if isinstance(error, ClientConnectorError | ssl.SSLError) and not answered:
        return failure("connect", f"no connection: {error}", sent=False)
    if isinstance(error, ClientPayloadError | ServerDisconnectedError | ClientConnectionError | OSError):
        return failure("cut", f"the connection broke {'in mid-answer' if answered else 'before an answer'}: {error}")
    return failure("garbled", f"not the answer of an HTTP server: {error}")
