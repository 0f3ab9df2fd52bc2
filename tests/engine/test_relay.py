"""The relay between processes, here over a wire of the test's that loses what the test wants to be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from stanchion.core import event as ev
from stanchion.core.message import Delta
from stanchion.engine import relay
from stanchion.engine.letters import Message, Said, Speech, Unwatched, Watched, WhoWatches, decode
from stanchion.engine.live import Live, LiveDelta, Watch
from stanchion.engine.relay import Relay
from stanchion.journal.relay import Letter, Overheard
from stanchion.testing.memory import MemoryStore
from tests.engine.rig import texts
from tests.waiting import until

TENANT, RUN = "default", "run_1"


class Air:
    """What is between the processes. `lost` says of a message whether it gets lost; `sent` keeps all of them."""

    def __init__(self) -> None:
        self.ears: dict[str, Overheard] = {}
        self.sent: list[Message] = []
        self.lost: Callable[[Message], bool] = lambda _: False
        self.down: set[str] = set()

    def speeches(self) -> list[Said]:
        """List all that was said of what models said."""
        return [said for message in self.sent if isinstance(message, Speech) for said in message.said]

    def cut(self, name: str) -> None:
        """Tell a process that its line was lost and stands again."""
        self.down.discard(name)
        self.ears[name](None)


class Process(MemoryStore):
    """The store of one process, with its end of the wire, and its part of the relay."""

    limit_bytes = 1_000

    def __init__(self, air: Air, name: str) -> None:
        super().__init__()
        self.air, self.name = air, name
        self.live = Live()
        self.relay_ = Relay.of(self, self.live)

    def relay(self, overheard: Overheard) -> Process:  # type: ignore[override]
        self.air.ears[self.name] = overheard
        return self

    async def send(self, letters: Sequence[Letter]) -> bool:
        await asyncio.sleep(0)
        if self.name in self.air.down:
            return False
        for letter in letters:
            assert len(letter.text.encode()) <= self.limit_bytes
            message = decode(letter.text)
            assert message is not None
            self.air.sent.append(message)
            for name, ear in list(self.air.ears.items()):
                if letter.to in ("", name) and name not in self.air.down and not self.air.lost(message):
                    ear(letter.text)
        return True

    def begin(self, seq: int, attempt: int = 1) -> None:
        """Drive the run: a call begins."""
        self.live.open(TENANT, RUN)
        started = ev.ModelCallStarted(1, attempt, route=0, provider="p", model="m", messages=1, prefix="")
        self.live.publish(TENANT, RUN, [ev.Entry(seq, 0, 1, started)])

    def say(self, *said: str, attempt: int = 1, index: int = 0) -> None:
        """The model says something."""
        self.live.delta(TENANT, RUN, 1, attempt, [Delta("text", index, text) for text in said])

    def fail(self, seq: int, attempt: int = 1) -> ev.Entry:
        """The attempt ends."""
        entry = ev.Entry(seq, 0, 1, ev.ModelCallFailed(1, attempt, "cut"))
        self.live.publish(TENANT, RUN, [entry])
        return entry


class Reader:
    """Reads a run's deltas; `at` is the last event he has read."""

    def __init__(self, process: Process, at: int, began: int | None = None) -> None:
        self.live = process.live
        self.at = at
        self.watch: Watch = self.live.watch(TENANT, RUN, after=at if began is None else began)
        self.read: list[LiveDelta] = []
        self.take()

    def take(self) -> str:
        """Take what there is; give all of the text so far."""
        self.read += self.watch.deltas(self.at)
        return texts(self.read)

    async def until(self, text: str) -> None:
        """Wait until this much was read; it comes piece by piece, and none of it twice."""
        async with asyncio.timeout(10):
            while self.take() != text:
                assert text.startswith(texts(self.read)), (text[:80], texts(self.read)[:80])
                self.watch.wake.clear()
                await self.watch.wake.wait()
        sizes: dict[tuple[int, int], int] = {}
        for piece in self.read:
            assert piece.offset == sizes.get((piece.attempt, piece.index), 0)
            sizes[piece.attempt, piece.index] = piece.offset + len(piece.text)

    def leave(self) -> None:
        """Go."""
        self.live.unwatch(TENANT, RUN, self.watch)


@asynccontextmanager
async def processes(*names: str) -> AsyncIterator[tuple[Air, list[Process]]]:
    """Make processes that hear each other."""
    air = Air()
    made = [Process(air, name) for name in names]
    try:
        yield air, made
    finally:
        for process in made:
            await process.relay_.aclose()


async def test_the_text_so_far_and_the_rest() -> None:
    """Who comes in mid-call has what was said, however long, and then what is said; parts keep their order."""
    async with processes("worker", "server") as (air, (worker, server)):
        worker.begin(2)
        so_far = ["wörd\0 " * 100, "x" * 3_000, "👩‍👩‍👧" * 200]
        worker.say(*so_far)
        reader = Reader(server, 2)
        await reader.until("".join(so_far))
        assert len(air.speeches()) > 5
        worker.say(" and on", " it goes")
        worker.say("{}", index=1)
        await reader.until("".join(so_far) + " and on it goes{}")
        assert {piece.index for piece in reader.read} == {0, 1}


async def test_nothing_is_sent_that_nobody_watches() -> None:
    """A run without readers elsewhere costs no message, nor does one whose reader has left or is in the same process."""
    async with processes("worker", "server") as (air, (worker, server)):
        worker.begin(2)
        here = Reader(worker, 2)
        worker.say("One")
        await here.until("One")
        await asyncio.sleep(2 * relay.GAP_S)
        assert air.sent == []
        reader = Reader(server, 2)
        await reader.until("One")
        reader.leave()
        await until(lambda: isinstance(air.sent[-1], Unwatched))
        assert worker.relay_._ears == {}
        before = len(air.sent)
        worker.say(" two")
        await asyncio.sleep(2 * relay.GAP_S)
        assert len(air.sent) == before
        assert server.live._topics == {}


async def test_deltas_wait_for_their_event() -> None:
    """What is heard before the call's start was read is held until then."""
    async with processes("worker", "server") as (_air, (worker, server)):
        worker.begin(7)
        reader = Reader(server, 6)
        worker.say("One")
        await until(lambda: server.live._topics[TENANT, RUN].draft is not None)
        assert reader.take() == ""
        reader.at = 7
        assert reader.take() == "One"


async def test_a_lost_message_leaves_no_hole() -> None:
    """A missing number is asked for: the reader has every character once, in order."""
    async with processes("worker", "server") as (air, (worker, server)):
        worker.begin(2)
        reader = Reader(server, 2)
        worker.say("a")
        await reader.until("a")
        air.lost = lambda message: isinstance(message, Speech)
        worker.say("b" * 3_000)
        await until(lambda: len(air.speeches()) > 3)
        air.lost = lambda _: False
        worker.say("c")
        await reader.until("a" + "b" * 3_000 + "c")
        asked = [message.runs for message in air.sent if isinstance(message, Watched)]
        assert asked == [[(TENANT, RUN, True)]] * 2


@pytest.mark.parametrize("whose", ["worker", "server"])
async def test_a_lost_line_heals(whose: str) -> None:
    """Either end's line is cut while the model speaks: when it stands again the reader gets what he missed."""
    async with processes("worker", "server") as (air, (worker, server)):
        worker.relay_.drives()
        worker.begin(2)
        reader = Reader(server, 2)
        worker.say("a")
        await reader.until("a")
        air.down.add(whose)
        worker.say("b")
        await asyncio.sleep(2 * relay.GAP_S)
        worker.say("c")
        assert reader.take() == "a"
        air.cut(whose)
        await reader.until("abc")


async def test_a_worker_that_takes_over_speaks_at_once() -> None:
    """The next driver knows who watches, though it heard of it before it drove; the first attempt's late words are void."""
    async with processes("old", "new", "server") as (air, (old, new, server)):
        old.begin(2)
        reader = Reader(server, 2)
        old.say("Wrong")
        await reader.until("Wrong")
        failed = new.fail(3)
        new.begin(4, attempt=2)
        reader.watch.passed(failed)
        reader.at = 4
        new.say("Right", attempt=2)
        old.say(" and late")
        await reader.until("WrongRight")
        old.say(" still")
        new.say(" one", attempt=2)
        await reader.until("WrongRight one")
        assert [message for message in air.sent if isinstance(message, Watched)] == air.sent[:1]


async def test_an_attempt_that_was_over_is_not_shown() -> None:
    """Who comes back behind an attempt's end gets none of it, though another reader here still holds it."""
    async with processes("worker", "server") as (_air, (worker, server)):
        worker.begin(2)
        slow = Reader(server, 2)
        worker.say("Wrong")
        await slow.until("Wrong")
        assert Reader(server, 3).take() == ""
        slow.watch.passed(worker.fail(3))
        assert Reader(server, 2).take() == ""


async def test_a_new_worker_asks_who_watches() -> None:
    """A worker that begins after the watch hears of it at once, not at the next renewal."""
    async with processes("server") as (air, (server,)):
        reader = Reader(server, 2)
        await until(lambda: len(air.sent) == 1)
        worker = Process(air, "worker")
        worker.relay_.drives()
        worker.begin(2)
        worker.say("Hello")
        await reader.until("Hello")
        assert any(isinstance(message, WhoWatches) for message in air.sent)
        await worker.relay_.aclose()


async def test_a_reader_that_is_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died leaves a watch that ends by itself; one that lives renews it in time."""
    monkeypatch.setattr(relay, "RENEW_S", 0.05)
    monkeypatch.setattr(relay, "TTL_S", 0.15)
    async with processes("worker", "dead", "server") as (air, (worker, dead, server)):
        worker.begin(2)
        readers = [Reader(process, 2) for process in (dead, server)]
        worker.say("One")
        for reader in readers:
            await reader.until("One")
        await dead.relay_.aclose()
        del air.ears["dead"]
        await until(lambda: set(worker.relay_._ears.get((TENANT, RUN), ())) == {"server"})
        worker.say(" two")
        await readers[1].until("One two")


async def test_a_run_that_is_driven_here_now_is_not_asked_for() -> None:
    """A server that begins to drive what it watched takes its watch back, and asks again when it lets go."""
    async with processes("worker", "server") as (air, (_worker, server)):
        reader = Reader(server, 2)
        await until(lambda: len(air.sent) == 1)
        server.begin(2)
        await until(lambda: isinstance(air.sent[-1], Unwatched))
        server.say("Here")
        assert reader.take() == "Here"
        server.live.close(TENANT, RUN)
        await until(lambda: isinstance(air.sent[-1], Watched))
