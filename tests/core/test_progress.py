"""How far a run is says the same by its state and by its events without their contents."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core import event as ev
from stanchion.core.chain import Outline, PartRef
from stanchion.core.fold import fold
from stanchion.core.progress import course_of, progress_of
from stanchion.journal.record import kind_of, pack
from tests.loop.play import Play
from tests.loop.random_runs import agent, crashes, fates, scripts
from tests.loop.test_random_runs import erratic


def outlined(entry: ev.Entry) -> Outline:
    """An entry as the store gives it without contents."""
    refs = tuple(PartRef(kind_of(part), part.label, "k", "c", len(pack(part))) for part in entry.event.parts)
    return Outline(entry.seq, entry.at_ms, entry.event, refs)


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999))
@settings(max_examples=100)
def test_a_course_is_what_the_state_said_before_each_turn(script: Any, luck: Any, dies: Any, seed: int) -> None:
    """Whatever failed, was lost, or waited for a person."""
    play = Play(agent(), script, luck, person=erratic(seed), crashes=dies).play()
    course = course_of(map(outlined, play.entries))
    came_to_its_end = play.state.outcome in ("done", "escalated") and play.state.totals.turns > 0
    assert (course is not None) == came_to_its_end
    if course is None:
        return
    begins = [
        place
        for place, entry in enumerate(play.entries)
        if isinstance(entry.event, ev.ModelCallStarted)
        and not any(
            isinstance(before.event, ev.ModelCallStarted) and before.event.turn == entry.event.turn
            for before in play.entries[:place]
        )
    ]
    assert [step.turns for step in course.steps] == list(range(len(begins)))
    assert list(course.steps) == [progress_of(fold(play.entries[:place])) for place in begins]
    assert course.cost == play.state.totals.cost


def test_what_refreshes_a_cache_or_was_stopped_is_no_course() -> None:
    """Nobody waits for the one; what the other would have cost is not known."""
    started = ev.RunStarted(run="r", tenant="t", session="s", agent="a", bundle="b")
    asked = ev.ModelCallStarted(turn=1, attempt=1, route=0, provider="p", model="m", messages=1, prefix="")

    def of(first: ev.RunStarted, outcome: Any) -> bool:
        events = (
            first,
            asked,
            ev.ModelCallFinished(turn=1, attempt=1, finish="stop", cost=7),
            ev.RunFinished(outcome=outcome),
        )
        return course_of(Outline(n, 0, event) for n, event in enumerate(events, 1)) is not None

    refresh = ev.RunStarted(run="r", tenant="t", session="s", agent="a", bundle="b", refreshes=ev.Base("q", 3, "00"))
    assert of(started, "done")
    assert not of(refresh, "done")
    assert not any(of(started, outcome) for outcome in ("halted", "failed", "cancelled"))
