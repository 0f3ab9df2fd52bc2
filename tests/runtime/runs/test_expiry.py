"""Sessions that were idle for too long: they take no more runs, and can still be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion import Runtime
from stanchion.core.errors import ConfigError, Conflict
from stanchion.journal.sqlite import SqliteStore
from tests.engine.rig import HeldModel, agent, echo, over


class _Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at_ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def draw(self) -> float:
        return 0.5


async def test_an_idle_session_expires(tmp_path: Path) -> None:
    """A start is refused with what to do; an earlier request under its key is answered; a live session does not expire."""
    clock = _Clock()
    model = HeldModel()
    store = await SqliteStore.open(tmp_path / "t.db", clock=clock.now_ms)
    kept = agent(name="kept", session_expires_s=60)
    async with await Runtime.open(
        kept, agent(), store=store, clock=clock, clients={"*": model}, environment={}
    ) as runtime:
        first = await runtime.start("kept", "Hello", session="s", idempotency_key="k")
        other = await runtime.start("desk", "Hello", session="t")
        await model.began.wait()
        clock.at_ms += 3_600_000
        assert not runtime.is_expired(await runtime.session("s"))
        model.gate.set()
        await over(runtime, first.run)
        await over(runtime, other.run)
        clock.at_ms += 59_000
        assert not runtime.is_expired(await runtime.session("s"))
        clock.at_ms += 1_000
        assert [(row.session, runtime.is_expired(row)) for row in await runtime.sessions()] == [
            ("t", False),
            ("s", True),
        ]
        with pytest.raises(Conflict, match="begin afresh") as refused:
            await runtime.start("kept", "And now?", session="s")
        assert refused.value.code == "session_expired"
        again = await runtime.start("kept", "Hello", session="s", idempotency_key="k")
        assert (again.run, again.existing) == (first.run, True)
        with pytest.raises(Conflict) as refused:
            await runtime.start("kept", "And now?", session="s", idempotency_key="k")
        assert refused.value.code == "idempotency_mismatch"
        with pytest.raises(Conflict):
            await runtime.start("kept", "And now?", session="s", idempotency_key="k2")
        assert len(await runtime.messages("s")) == 2
        await over(runtime, (await runtime.start("desk", "And now?", session="t")).run)
        await over(runtime, (await runtime.start("kept", "And now?")).run)


@pytest.mark.parametrize("wrong", [-1, True, "60", float("inf"), float("nan")])
def test_an_expiry_that_is_none_is_refused(wrong: object) -> None:
    """It names the setting."""
    with pytest.raises(ConfigError, match="session_expires_s"):
        agent(session_expires_s=wrong)


async def test_a_session_without_an_expiry_never_expires(tmp_path: Path) -> None:
    """The default."""
    async with await Runtime.open(agent(), data=tmp_path / "t.db", clients={"*": echo()}) as runtime:
        await over(runtime, (await runtime.start("desk", "Hello", session="s")).run)
        assert not runtime.is_expired(await runtime.session("s"))
