"""A provider that is down: after a few failures runs go to another model at once, one tries now and then, and all come back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from stanchion import Breaker, ConfigError, Model, Runtime, price_usd
from stanchion.core import event as ev
from stanchion.core.bundle import RetryPolicy, Timeouts
from stanchion.core.errors import JournalError, ModelError
from stanchion.core.message import MODEL, ModelRequest, ModelResponse, Text, Usage
from stanchion.engine import breaker
from stanchion.engine.breaker import Breakers
from stanchion.journal.quota import BreakerRow
from stanchion.model.client import ModelClient, OnDeltas
from stanchion.testing import ScriptedModel
from stanchion.testing.memory import MemoryStore
from tests.engine.rig import agent, events, running

FIRST, SECOND = "openai:test-model", "groq:other"
ACCOUNT = ("openai", "test-model")


class Provider:
    """One that is up, down, or answers when the test lets it."""

    def __init__(self) -> None:
        self.code = ""
        self.asked = 0
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def encode(self, request: ModelRequest) -> bytes:
        return msgspec.json.encode(request)

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        self.asked += 1
        self.began.set()
        await self.gate.wait()
        if self.code:
            raise ModelError("no", code=self.code, retryable=True)  # type: ignore[arg-type]
        return ModelResponse((Text("From the first.", MODEL),), "stop", Usage(10, output_tokens=5))

    async def aclose(self) -> None: ...


class Clock:
    """The loop's time, and what the test adds to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        real = breaker._now_s
        monkeypatch.setattr(breaker, "_now_s", lambda: real() + self.ahead_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def model(name: str, given: Breaker | None, attempts: int = 3) -> Model:
    retries = RetryPolicy(attempts=attempts, base_s=0.001, cap_s=0.002)
    return Model(name, price=price_usd(input="1", output="2"), retries=retries, breaker=given)


def desk(given: Breaker | None = Breaker(failures=4, open_s=30), attempts: int = 3):  # type: ignore[no-untyped-def]  # noqa: B008
    return agent(tools=[], approvals=[], model=model(FIRST, given, attempts), fallbacks=[model(SECOND, None)])


def both(first: Provider) -> dict[str, ModelClient]:
    return {"openai": first, "groq": ScriptedModel(lambda request: "From the second.")}


async def answered(runtime: Runtime) -> tuple[str, list[str]]:
    """Run once; give the answer, and what it was without."""
    view = await runtime.wait((await runtime.start("desk", "Hello.")).run, timeout_s=20)
    assert view.outcome == "done"
    return view.text, view.degraded


async def opened(path: Path, first: Provider, **more: object) -> Runtime:
    return await Runtime.open(desk(**more), data=path / "t.db", clients=both(first))  # type: ignore[arg-type]


async def test_runs_go_to_the_other_model_at_once(tmp_path: Path, clock: Clock) -> None:
    """Three attempts of the first run, one of the second, none of the third; each run says what it was without; then it is back."""
    first = Provider()
    async with await opened(tmp_path, first) as runtime:
        first.code = "server_error"
        failed = [f"The model {FIRST}: failed on its side"]
        assert await answered(runtime) == ("From the second.", failed)
        assert first.asked == 3
        assert await answered(runtime) == ("From the second.", failed)
        assert first.asked == 4  # (it opened by this one, and the run did not go on trying)
        left = [f"The model {FIRST}: its last calls failed, so it was left alone"]
        assert await answered(runtime) == ("From the second.", left)
        assert first.asked == 4
        (row,) = (await runtime.quotas.view()).breakers
        assert row.name == "model:openai:test-model"
        clock.ahead_s += 31
        first.code = "connect"  # the one that tries fails: for as long again nobody does
        assert (await answered(runtime))[0] == "From the second."
        assert (await answered(runtime))[1] == left
        assert first.asked == 5
        clock.ahead_s += 31
        first.code = ""
        assert [await answered(runtime) for _ in range(3)] == [("From the first.", [])] * 3
        assert (await runtime.quotas.view()).breakers == ()


async def test_one_run_tries_for_all(tmp_path: Path, clock: Clock) -> None:
    """Of twenty that come when the time is up one asks the model; while it waits for its answer the others have theirs."""
    first = Provider()
    async with await opened(tmp_path, first) as runtime:
        first.code = "overloaded"
        for _ in range(2):
            await answered(runtime)
        before = first.asked
        clock.ahead_s += 31
        first.code = ""
        first.gate.clear()
        first.began.clear()
        trying = (await runtime.start("desk", "Hello.")).run
        await first.began.wait()
        said = await asyncio.gather(*(answered(runtime) for _ in range(20)))
        assert {text for text, _ in said} == {"From the second."}
        assert first.asked == before + 1
        first.gate.set()
        assert (await runtime.wait(trying, timeout_s=20)).text == "From the first."
        assert (await answered(runtime))[0] == "From the first."


async def test_a_request_that_no_provider_answers_is_not_an_outage(tmp_path: Path) -> None:
    """However often one run fails, the next asks the model; and what the provider refuses for a reason does not count."""
    first = Provider()
    async with await opened(tmp_path, first, attempts=9) as runtime:
        first.code = "server_error"
        await answered(runtime)
        assert first.asked == 9
        first.code = ""
        assert (await answered(runtime))[0] == "From the first."
        first.code = "rate_limited"
        for _ in range(3):
            await answered(runtime)
        assert first.asked == 10 + 27
        assert (await runtime.quotas.view()).breakers == ()


async def test_without_a_breaker_or_another_model_all_is_tried(tmp_path: Path) -> None:
    """`breaker=None`; and an agent with one model asks it whether its breaker is open or not."""
    first = Provider()
    first.code = "server_error"
    async with await opened(tmp_path, first, given=None) as runtime:
        for _ in range(3):
            await answered(runtime)
        assert first.asked == 9
    alone = agent(tools=[], approvals=[], model=model(FIRST, Breaker(failures=2)))
    (tmp_path / "other").mkdir()
    async with running(tmp_path / "other", first, alone) as runtime:
        first.asked = 0
        for _ in range(3):
            run = (await runtime.start("desk", "Hello.")).run
            assert (await runtime.wait(run, timeout_s=20)).reason == "model:server_error"
        assert first.asked == 9
        assert [row.name for row in (await runtime.quotas.view()).breakers] == ["model:openai:test-model"]
        first.code = ""
        run = (await runtime.start("desk", "Hello.")).run
        assert (await runtime.wait(run, timeout_s=20)).text == "From the first."


async def test_what_another_worker_learned_is_heard() -> None:
    """The rows of the store; a run that tries and is stopped lets the next one try; one that never answers, too, after a time."""
    store = MemoryStore()
    one, other = Breakers(store.quotas, "a"), Breakers(store.quotas, "b")
    for run in ("r1", "r2"):
        await one.model_told(*ACCOUNT, Breaker(failures=2, open_s=30), run, "connect")
    assert one.is_down(*ACCOUNT, "r3")
    assert not other.is_down(*ACCOUNT, "r3")
    other.hear((await store.quotas.signals()).breakers, breaker._now_s())
    assert other.is_down(*ACCOUNT, "r3")
    other.hear([BreakerRow("model:openai:test-model", -1)], breaker._now_s())
    other.tries(*ACCOUNT, "r3")
    assert (other.is_down(*ACCOUNT, "r3"), other.is_down(*ACCOUNT, "r4")) == (False, True)
    await other.model_told(*ACCOUNT, Breaker(), "r3", "cancelled")
    assert not other.is_down(*ACCOUNT, "r4")
    other.tries(*ACCOUNT, "r4")
    await other.model_told(*ACCOUNT, Breaker(), "r4", "")
    assert not other.any_open
    assert (await store.quotas.signals()).breakers == ()


async def test_who_tries_and_never_answers_is_not_waited_for_by_all(clock: Clock) -> None:
    """Its process may be gone: after a minute another run tries."""
    store = MemoryStore()
    known = Breakers(store.quotas, "a")
    known.hear([BreakerRow("model:openai:test-model", -1)], breaker._now_s())
    known.tries(*ACCOUNT, "r1")
    assert known.is_down(*ACCOUNT, "r2")
    clock.ahead_s += breaker.TRIES_FOR_S + 1
    assert not known.is_down(*ACCOUNT, "r2")


async def test_a_dead_database_takes_no_answer_with_it(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A worker that cannot tell the others leaves the model alone by itself; one that cannot close it tries again."""
    store = MemoryStore()
    known, often = Breakers(store.quotas, "a"), Breaker(failures=2, open_s=30)

    async def dead(*_: object) -> None:
        raise JournalError("the database is away")

    monkeypatch.setattr(store.quotas, "trip", dead)
    monkeypatch.setattr(store.quotas, "mend", dead)
    for run in ("r1", "r2"):
        await known.model_told(*ACCOUNT, often, run, "connect")
    assert known.is_down(*ACCOUNT, "r3")
    clock.ahead_s += 31
    known.tries(*ACCOUNT, "r3")
    await known.model_told(*ACCOUNT, often, "r3", "")
    assert known.any_open
    assert not known.is_down(*ACCOUNT, "r4")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "must be a Breaker"),
        (Breaker(failures=0), "breaker.failures=0 must be a whole number"),
        (Breaker(open_s=-1), "breaker.open_s=-1 must be a number of seconds"),
    ],
)
def test_a_breaker_that_cannot_be(given: object, says: str) -> None:
    """The message names the model and the field."""
    with pytest.raises(ConfigError, match=says) as raised:
        Model(FIRST, breaker=given)  # type: ignore[arg-type]
    assert str(raised.value).startswith(f"model {FIRST!r}")


async def test_the_journal_says_which_model_had_the_turn(tmp_path: Path) -> None:
    """`instead_of` names the one that was passed over, and the state that is folded from the journal says so too."""
    first = Provider()
    first.code = "server_error"
    async with await opened(tmp_path, first) as runtime:
        for _ in range(2):
            await answered(runtime)
        run = (await runtime.start("desk", "Hello.")).run
        await runtime.wait(run, timeout_s=20)
        (started,) = await events(runtime, run, ev.ModelCallStarted)
        assert (started.route, started.model, started.instead_of) == (1, "other", FIRST)
        (ended,) = await events(runtime, run, ev.RunFinished)
        assert ended.degraded == (f"model:{FIRST}:breaker_open",)
