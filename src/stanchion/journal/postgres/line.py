"""The line between processes: who has written tells the others by NOTIFY, after its commit and on its own connection.

A NOTIFY inside the writing transaction would have every commit of the database wait for a lock that is held until the
disk has it. Here a ring holds up nobody, and what happened meanwhile rings once. A ring may be late, or lost with its
process: it is a hint, and who listens also looks from time to time. After a
lost connection nobody knows what was missed: all listeners are told to look at everything.

The relay's letters go the same way, on a channel of the schema's for all and on one of each process for it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.errors import LOST
from stanchion.journal.postgres.write import RunPlace
from stanchion.journal.relay import Letter, Overheard
from stanchion.journal.store import Change, Heard

log = logging.getLogger("stanchion.journal")

PAYLOAD_BYTES = 7_900
"""PostgreSQL takes less than 8,000."""
CHECK_S = 10.0
"""How often a silent connection is asked whether it is still there."""
_NOTIFY = "SELECT pg_notify(c, p) FROM unnest($1::text[], $2::text[]) AS t(c, p)"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, list[Change]]).decode


class DatabaseClock:
    """The database's clock, as it was read last and went on since. Wall clocks of this machine play no part in it."""

    def __init__(self) -> None:
        self._offset_ns = 0
        self._read_ns: int | None = None
        self._last_ms = 0

    def read(self, now_ms: int, started_ns: int) -> None:
        """Take a reading: it was made between `started_ns` (monotonic) and now."""
        self._read_ns = time.monotonic_ns()
        middle_ns = (started_ns + self._read_ns) // 2
        self._offset_ns = now_ms * 1_000_000 + 500_000 - middle_ns

    def age_s(self) -> float:
        """Tell how long ago it was read."""
        return (time.monotonic_ns() - self._read_ns) / 1e9 if self._read_ns is not None else float("inf")

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, never going back."""
        self._last_ms = max(self._last_ms, (time.monotonic_ns() + self._offset_ns) // 1_000_000)
        return self._last_ms


class Line:
    """One process's end of the line."""

    limit_bytes = PAYLOAD_BYTES

    def __init__(self, channel: str, connect: Callable[[], Awaitable[Connection]]) -> None:
        self.clock = DatabaseClock()
        self.name = secrets.token_urlsafe(9)
        """Of this process, on the relay."""
        self.changed = False
        """Others wrote since this was last reset."""
        self._channel = channel
        self._to_all = channel.replace("stanchion ", "relay ", 1)
        """A channel's name has at most 63 bytes, and a schema's may take 51 of them."""
        self._connect = connect
        self._me = secrets.token_urlsafe(6)
        self._heard: list[Heard] = []
        self._overheard: list[Overheard] = []
        self._letters: list[tuple[str, str]] = []
        self._sent: list[asyncio.Future[bool]] = []
        self._moved: dict[RunPlace, Change] = {}
        self._ring = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen. Raises what asyncpg raises."""
        connection = await self._listening()
        try:
            await self._say(connection, [])
        except BaseException:
            connection.terminate()
            raise
        self._task = asyncio.create_task(self._run(connection), name="stanchion-line")

    def listen(self, heard: Heard) -> None:
        """Tell `heard`, in the event loop, what others write from now on."""
        self._heard.append(heard)

    def overhear(self, overheard: Overheard) -> None:
        """Tell `overheard`, in the event loop, what the relay brings from now on."""
        self._overheard.append(overheard)

    async def send(self, letters: Sequence[Letter]) -> bool:
        """Send letters. False: the line is down, or was cut meanwhile."""
        if not self._up.is_set():
            return False
        sent = asyncio.get_running_loop().create_future()
        self._letters += [(_channel_of(letter.to) if letter.to else self._to_all, letter.text) for letter in letters]
        self._sent.append(sent)
        self._ring.set()
        return await sent

    def tell(self, moved: Mapping[RunPlace, Change]) -> None:
        """Ring for runs that were committed here."""
        self._moved.update(moved)
        self._ring.set()

    async def aclose(self) -> None:
        """Ring for what is left and hang up."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self._moved and self._up.is_set():  # noqa: ASYNC110  (the line has it within a round trip)
                    await asyncio.sleep(0.005)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _listening(self) -> Connection:
        connection = await self._connect()
        try:
            await connection.add_listener(self._channel, self._on_ring)
            for channel in (self._to_all, _channel_of(self.name)):
                await connection.add_listener(channel, self._on_letter)
        except BaseException:
            connection.terminate()
            raise
        self._up.set()
        return connection

    async def _run(self, connection: Connection) -> None:
        while True:
            try:
                await self._serve(connection)
            except (*LOST, asyncpg.PostgresError) as error:
                log.warning("the line between processes was lost (%s); it is set up again", error)
            finally:
                self._up.clear()
                self._letters.clear()
                self._sent = _answered(self._sent, yes=False)
                connection.terminate()
            connection = await self._again()
            self._hear(None)
            self._overhear(None)

    async def _again(self) -> Connection:
        pause_s = 0.1
        while True:
            try:
                return await self._listening()
            except (*LOST, asyncpg.PostgresError):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    async def _serve(self, connection: Connection) -> None:
        """Ring whenever there is something to tell; look now and then whether the connection still stands."""
        connection.add_termination_listener(lambda _: self._ring.set())
        self._ring.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._ring.wait()
            self._ring.clear()
            if connection.is_closed():
                raise ConnectionResetError("the database ended the connection")
            moved, self._moved = self._moved, {}
            letters, self._letters = self._letters, []
            sent, self._sent = self._sent, []
            try:
                rings = [(self._channel, payload) for payload in _payloads(self._me, moved)]
                await self._say(connection, [*rings, *letters])
            except BaseException:
                self._moved = moved | self._moved
                self._sent += sent
                raise
            _answered(sent, yes=True)

    async def _say(self, connection: Connection, said: list[tuple[str, str]]) -> None:
        if said:
            channels, payloads = zip(*said, strict=True)
            await connection.fetch(_NOTIFY, channels, payloads, timeout=CHECK_S)
        if self.clock.age_s() < CHECK_S / 2:
            return
        started = time.monotonic_ns()
        now_ms = await connection.fetchval("SELECT now_ms()", timeout=CHECK_S)
        self.clock.read(now_ms, started)

    def _on_ring(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        try:
            origin, moved = _decode(str(payload))
        except msgspec.MsgspecError:
            self._hear(None)
            return
        if origin != self._me:
            self._hear(moved or None)

    def _on_letter(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        self._overhear(str(payload))

    def _overhear(self, text: str | None) -> None:
        for overheard in self._overheard:
            try:
                overheard(text)
            except Exception:
                log.exception("a listener failed")

    def _hear(self, changes: Sequence[Change] | None) -> None:
        self.changed = True
        for heard in self._heard:
            try:
                heard(changes)
            except Exception:
                log.exception("a listener failed")


def _channel_of(name: str) -> str:
    return f"stanchion to {name}"


def _answered(sent: list[asyncio.Future[bool]], *, yes: bool) -> list[asyncio.Future[bool]]:
    """Answer those who wait for their letters to be sent."""
    for future in sent:
        if not future.done():
            future.set_result(yes)
    return []


def _payloads(origin: str, moved: Mapping[RunPlace, Change]) -> list[str]:
    """Pack what is to be told into as few rings as their size allows."""
    payloads: list[str] = []
    rows: list[Change] = []
    size = 0
    for row in moved.values():
        weight = len(_encode(row)) + 1
        if rows and size + weight > PAYLOAD_BYTES - 64:
            payloads.append(_encode((origin, rows)).decode())
            rows, size = [], 0
        rows.append(row)
        size += weight
    if rows:
        text = _encode((origin, rows)).decode()
        payloads.append(text if len(text.encode()) <= PAYLOAD_BYTES else _encode((origin, ())).decode())
    return payloads
