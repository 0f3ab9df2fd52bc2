"""Follow a run to its end in a terminal: show it, ask about what waits for a person, cancel it on Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import msgspec

from stanchion.cli.approval import waiting_lines
from stanchion.cli.desk import Decided, Desk, Json
from stanchion.cli.errors import say_error
from stanchion.cli.output import print_line, say
from stanchion.cli.show import Screen
from stanchion.core.errors import Conflict, InputError, NotFound, StanchionError

OnWaiting = Callable[[Json], Awaitable[Decided | None]]
"""Asked about a call that waits: a decision, or None to leave it waiting."""
SETTLING_S = 0.05


class Follower:
    """A run and the person who watches it. `left` is set when they leave it to go on without them."""

    def __init__(self, desk: Desk, run: str, screen: Screen, on_waiting: OnWaiting, *, by: str, lines: bool) -> None:
        self.left = False
        self._desk = desk
        self._run = run
        self._screen = screen
        self._on_waiting = on_waiting
        self._by = by
        self._lines = lines
        self._interrupted = asyncio.Event()
        self._moved = asyncio.Event()

    async def follow(self) -> Json:
        """Follow until the run ended, or waits and nobody here decides, or Ctrl-C came twice."""
        following = asyncio.create_task(self._follow())
        with _on_interrupt(lambda: self._interrupt(following)):
            try:
                return await following
            except asyncio.CancelledError:
                if not self.left:
                    raise
                return await self._desk.view(self._run)

    async def _follow(self) -> Json:
        tailing = asyncio.create_task(self._tail())
        answered: set[tuple[str, int, int]] = set()
        try:
            while True:
                view = await self._or_broken(self._desk.wait(self._run), tailing)
                if view["status"] == "ended":
                    await tailing
                    return view
                if view["status"] == "parked":
                    return view
                open_ = [ask for ask in view["waiting"] if _place(ask) not in answered]
                if not open_:
                    await asyncio.sleep(SETTLING_S)
                    continue
                await self._caught_up(view["seq"], tailing)
                if not await self._answer(open_, answered):
                    return await self._desk.view(self._run)
        finally:
            tailing.cancel()
            with contextlib.suppress(asyncio.CancelledError, StanchionError):
                await tailing
            self._screen.end_line()

    async def _or_broken(self, waiting: Awaitable[Json], tailing: asyncio.Task[None]) -> Json:
        """Wait for the run, unless the tail breaks off first: then raise what broke it."""
        task = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait({task, tailing}, return_when=asyncio.FIRST_COMPLETED)
            if tailing.done() and not task.done():
                tailing.result()
            return await task
        finally:
            task.cancel()

    async def _tail(self) -> None:
        async for kind, item in self._desk.tail(self._run, deltas=self._screen.live):
            if kind == "delta":
                self._screen.delta(item)
                continue
            if self._lines:
                print_line(item)
            self._screen.event(item)
            self._moved.set()

    async def _caught_up(self, seq: int, tailing: asyncio.Task[None]) -> None:
        """Wait until everything up to an event is shown, so that a question comes after what it is about."""
        while self._screen.seq < seq and not tailing.done():
            self._moved.clear()
            moved = asyncio.create_task(self._moved.wait())
            await asyncio.wait({moved, tailing}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()

    async def _answer(self, asks: list[Json], answered: set[tuple[str, int, int]]) -> bool:
        """Ask about each call and post the decisions. False: one is left waiting."""
        for ask in asks:
            while (decided := await self._asked(ask)) is not None:
                try:
                    await self._desk.decide(self._run, decided)
                except (Conflict, NotFound) as error:
                    say(f"  {error}")
                except InputError as error:
                    say_error(str(error))
                    continue
                break
            else:
                return self._interrupted.is_set()
            answered.add(_place(ask))
        return True

    async def _asked(self, ask: Json) -> Decided | None:
        """Ask, unless the run is cancelled meanwhile."""
        if self._interrupted.is_set():
            return None
        asking = asyncio.ensure_future(self._on_waiting(ask))
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait({asking, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            asking.cancel()
            interrupted.cancel()

    def _interrupt(self, following: asyncio.Task[Json]) -> None:
        if self._interrupted.is_set():
            self.left = True
            following.cancel()
            return
        self._interrupted.set()
        self._screen.end_line()
        say("cancelling the run; Ctrl-C again leaves it to go on when it is served")
        self._cancelling = asyncio.create_task(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._desk.cancel(self._run, by=self._by, reason="Ctrl-C in the terminal")
        except StanchionError as error:
            say(f"  {error}")


def _place(ask: Json) -> tuple[str, int, int]:
    """What makes a question another one: an edit, or another attempt that ended in doubt."""
    return ask["call"], ask["revision"], ask.get("attempt", 0)


@contextlib.contextmanager
def _on_interrupt(call: Callable[[], None]) -> Generator[None]:
    """Handle SIGINT on the loop, where the system can."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, call)
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


class Lines:
    """Lines from stdin, without a thread that outlives the program."""

    def __init__(self) -> None:
        self._buffer = b""
        self._ended = False

    async def line(self, prompt: str) -> str | None:
        """Ask for a line; None at the end of the input."""
        sys.stderr.write(prompt)
        sys.stderr.flush()
        while b"\n" not in self._buffer and not self._ended:
            await self._readable()
            piece = os.read(0, 4096)
            self._buffer, self._ended = self._buffer + piece, not piece
        if not self._buffer:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").strip()

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(0, ready.set)
        except (PermissionError, OSError):
            return  # a regular file is always readable, and cannot be waited for
        try:
            await ready.wait()
        finally:
            loop.remove_reader(0)


async def ask_person(lines: Lines, ask: Json, by: str) -> Decided | None:
    """Show a call that waits and ask what is to be done; None: later."""
    say("\n".join(waiting_lines(ask)))
    decisions: list[str] = [*ask["decisions"], "later"]
    while (said := await lines.line(f"{', '.join(decisions)}? ")) is not None:
        chosen = [decision for decision in decisions if said and decision.startswith(said.lower())]
        match chosen[0] if len({*chosen}) == 1 else "":
            case "later":
                return None
            case "":
                say(f"write one of: {', '.join(decisions)} (or its first letters)")
            case decision:
                decided = await _details(lines, ask, decision, by)
                if decided is not None:
                    return decided
    return None


async def _details(lines: Lines, ask: Json, decision: str, by: str) -> Decided | None:
    base = msgspec.structs.replace(on_shown(ask, by), decision=decision)
    match decision:
        case "edit":
            said = await lines.line("arguments (JSON): ")
            try:
                return msgspec.structs.replace(base, arguments=msgspec.json.decode(said or "", type=dict[str, Any]))
            except msgspec.DecodeError as error:
                say_error(f"this is no JSON object: {error}")
                return None
        case "record":
            return msgspec.structs.replace(base, result=await lines.line("result to tell the model: ") or "")
        case "reject" | "fail":
            return msgspec.structs.replace(base, reason=await lines.line("reason (the model sees it): ") or "")
        case _:
            return base


def approve(ask: Json, by: str) -> Decided | None:
    """Approve what waits for approval. A call in doubt is not decided by anybody unseen."""
    if ask["kind"] != "approval":
        return None
    return on_shown(ask, by)


def on_shown(ask: Json, by: str) -> Decided:
    """Approve what was shown, and nothing that came after it."""
    attempt, policy = ask.get("attempt"), ask.get("policy")
    return Decided(ask["call"], "approve", ask["revision"], by=by, attempt=attempt, policy=policy)
