"""A run that is not to be expected to end within its money: told once, two turns more, then stopped; the journal says why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.context.forecast import Forecast
from stanchion.core import event as ev
from stanchion.core.bundle import Caps
from stanchion.core.fold import fold
from stanchion.core.message import MODEL, Text, text_of
from stanchion.core.state import State
from tests.loop.play import Play
from tests.loop.random_runs import agent, crashes, fates, scripts
from tests.loop.script import Done, Say, bundle
from tests.loop.test_limits import FREE, LOOK, turning
from tests.loop.test_random_runs import erratic

CAP = 1_000_000_000
EARLY = Caps(turns=30, nano_usd=CAP, stop_early=True)


def told(low: int, coverage: float = 0.9) -> Any:
    """Past runs that tell the same of every run after its first turn."""
    return lambda state: Forecast(2 * low, low, 3 * low, coverage, 40) if state.totals.turns else None


def play(caps: Caps, foretold: Any, **more: Any) -> Play:
    looks = {"look": [Done("ok", 100)]}
    return Play(bundle(LOOK, caps=caps, loop=FREE), turning(8), looks, foretold=foretold, **more).play()


def test_it_is_told_once_and_has_two_turns_more() -> None:
    """After its first turn; the text names the amounts and the turns; the last thing it said is its answer."""
    run = play(EARLY, told(CAP + 1))
    assert run.end == ("halted", "forecast")
    assert run.answer == "so far 2"
    (warned,) = run.events(ev.LimitWarned)
    assert (warned.limit, warned.used, warned.max) == ("forecast", CAP + 1, CAP)
    assert "more than $1.000000001" in text_of(warned.parts)
    assert "may cost $1.00" in text_of(warned.parts)
    assert run.state.totals.turns == 3


@pytest.mark.parametrize(
    ("caps", "foretold"),
    [
        (EARLY, told(CAP)),
        (EARLY, told(CAP + 1, coverage=0.8)),
        (EARLY, lambda _: None),
        (msgspec.structs.replace(EARLY, stop_early=False), told(CAP + 1)),
        (msgspec.structs.replace(EARLY, nano_usd=0), told(CAP + 1)),
    ],
    ids=["it may just fit", "too few past runs", "none", "not asked for", "without a limit"],
)
def test_nothing_is_said_to_others(caps: Caps, foretold: Any) -> None:
    """They go on until they end, or until another limit."""
    run = play(msgspec.structs.replace(caps, turns=5), foretold)
    assert run.end == ("halted", "turns")
    assert [warned.limit for warned in run.events(ev.LimitWarned)] == ["turns"]


def test_what_turned_out_well_goes_on() -> None:
    """Told after its first turn; two turns later past runs say that it will do after all."""
    run = play(
        msgspec.structs.replace(EARLY, turns=6),
        lambda state: told(CAP + 1 if state.totals.turns < 2 else CAP)(state),
    )
    assert run.end == ("halted", "turns")
    assert [warned.limit for warned in run.events(ev.LimitWarned)] == ["forecast", "turns"]


def test_a_model_that_heeds_it_is_done() -> None:
    """It answers in its next turn: an end like any other."""
    script = [*turning(1), Say((Text("here is what I have", MODEL),), "stop")]
    run = Play(bundle(LOOK, caps=EARLY, loop=FREE), script, {"look": [Done("ok", 100)]}, foretold=told(CAP + 1)).play()
    assert run.end == ("done", "")
    assert run.answer == "here is what I have"


@given(dies=crashes, odd=st.booleans())
@settings(max_examples=60)
def test_deaths_change_nothing(dies: Any, odd: bool) -> None:
    """Killed anywhere, by a process whose past runs tell another amount: told once, stopped after as many turns; and its journal folds to it."""
    run = play(EARLY, told(CAP + 1 + odd), crashes=dies)
    assert run.end == ("halted", "forecast")
    assert [warned.limit for warned in run.events(ev.LimitWarned)] == ["forecast"]
    assert fold(run.entries) == run.state


@given(
    script=scripts,
    luck=fates,
    dies=crashes,
    seed=st.integers(0, 999),
    low=st.integers(0, 2 * CAP),
    at=st.integers(0, 5),
)
@settings(max_examples=100)
def test_whatever_is_foretold_a_run_ends(script: Any, luck: Any, dies: Any, seed: int, low: int, at: int) -> None:
    """Whenever it is known, and however it changes: told at most once, and never stopped without."""

    def foretold(state: State) -> Forecast | None:
        return None if state.totals.turns < at else Forecast(low + state.seq, low, low + state.seq, 0.9, 20)

    caps = Caps(nano_usd=CAP, stop_early=True)
    run = Play(agent(), script, luck, person=erratic(seed), crashes=dies, caps=caps, foretold=foretold).play()
    warned = [each for each in run.events(ev.LimitWarned) if each.limit == "forecast"]
    assert len(warned) <= 1
    assert run.end[1] != "forecast" or len(warned) == 1
    if low <= CAP:
        assert not warned
