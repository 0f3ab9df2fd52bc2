"""What follows an attempt without a definite answer (I2): every tier, key, reconciler and way to fail."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import RetryPolicy, ToolSpec
from stanchion.core.state import Call
from tests.loop.play import Play
from tests.loop.script import Done, Doubt, Not, Wrong, bundle, call, decided, tool

TIERS = ("read", "write", "irreversible", "destructive")
WAYS: dict[str, Any] = {
    "lost": None,  # the worker dies while it is under way
    "timeout": Doubt(done=True),
    "http_500": Doubt(done=True, code="http_500"),
    "crashed": Doubt(done=True, code="tool_crashed", retryable=False),
    "not_done": Not(),
    "tool_error": Wrong(),
}


def approving(play: Play, waiting: Call) -> ev.CallDecided | None:
    """Approves, and knows nothing of what is in doubt."""
    return None if waiting.in_doubt else decided(waiting, "approve")


def expected(effect: str, keyed: bool, reconciles: bool, way: str) -> str:
    """What I2 says, in words."""
    if way == "tool_error" or (effect == "read" and way == "crashed"):
        return "error"
    if way == "not_done" or effect == "read" or (keyed and way != "crashed"):
        return "again"
    return "reconcile" if reconciles else "ask"


@pytest.mark.parametrize(
    ("effect", "keyed", "reconciles", "way"),
    [
        (tier, keyed, reconciles, way)
        for tier, keyed, reconciles, way in product(TIERS, (False, True), (False, True), WAYS)
        if tier != "read" or not (keyed or reconciles)
    ],
)
def test_after_a_failed_attempt(effect: str, keyed: bool, reconciles: bool, way: str) -> None:
    """Run again (same key), reconcile, ask a person, or tell the model: by tier, and nothing else."""
    play, spec = fail_once(effect, keyed, reconciles, way)
    next_is = expected(effect, keyed, reconciles, way)
    modes = [a.mode for a in play.attempts]
    if next_is == "ask":
        assert [(c.phase, c.in_doubt) for c in play.state.calls] == [("asking", True)]
        assert play.events(ev.ToolCallJudged)[-1].rule == "in_doubt"
        assert modes == ["run"]
        return
    assert modes == {"again": ["run", "run"], "reconcile": ["run", "reconcile"], "error": ["run"]}[next_is]
    assert play.end == ("done", "")
    assert play.results[0].error == (next_is == "error")
    keys = {a.key for a in play.attempts}
    assert len(keys) == 1
    assert bool(keys.pop()) == spec.keyed


def fail_once(effect: str, keyed: bool, reconciles: bool, way: str) -> tuple[Play, ToolSpec]:
    spec = tool("act", effect, keyed=keyed, reconciles=reconciles)
    options: dict[str, Any] = {"tools": {"act": [WAYS[way], Done()]}, "person": approving}
    if way == "lost":
        options = {"person": approving, "crashes": {3 if effect == "destructive" else 2: True}}
    return Play(bundle(spec), [call("act"), "done"], **options).play(), spec


@pytest.mark.parametrize(("keyed", "reconciles"), [*product((False, True), (False, True))])
@pytest.mark.parametrize("attempts", [1, 3])
def test_doubt_that_lasts_is_asked_about(keyed: bool, reconciles: bool, attempts: int) -> None:
    """Every attempt times out: keyed ones are used up, what cannot be reconciled is asked, and it all ends."""
    spec = tool("act", "write", keyed=keyed, reconciles=reconciles, retry=RetryPolicy(attempts=attempts))
    play = Play(
        bundle(spec), [call("act")], {"act": [Doubt(done=False)]}, person=approving, reconcile=lambda e, d: "unknown"
    ).play()
    assert [(c.phase, c.in_doubt) for c in play.state.calls] == [("asking", True)]
    modes = [a.mode for a in play.attempts]
    assert modes == ["run"] * (attempts if keyed else 1) + ["reconcile"] * (reconciles and modes[-1] == "reconcile")
    assert reconciles == ("reconcile" in modes)


def test_a_later_attempt_that_was_not_done_leaves_the_doubt() -> None:
    """The first may have landed: what says that the second and third did not does not settle it."""
    spec = tool("act", "irreversible", keyed=True)
    play = Play(bundle(spec), [call("act")], {"act": [Doubt(done=True), Not()]}, person=approving).play()
    assert len(play.attempts) == 3
    assert [(c.phase, c.in_doubt) for c in play.state.calls] == [("asking", True)]


def test_the_answer_of_the_receiver_that_knows_the_key_settles_it() -> None:
    """A definite error under the same key is an answer."""
    spec = tool("act", "irreversible", keyed=True)
    play = Play(bundle(spec), [call("act"), "done"], {"act": [Doubt(done=False), Wrong()]}).play()
    assert [f.outcome for f in play.events(ev.ToolCallFinished)] == ["error"]


def test_reconciled_as_not_done_it_runs_once_more() -> None:
    """And when that is in doubt too, it is asked again, until the attempts are used up: known not to be done."""
    spec = tool("act", "irreversible", reconciles=True)
    play = Play(bundle(spec), [call("act"), "done"], {"act": [Doubt(done=False), Done()]}).play()
    assert [a.mode for a in play.attempts] == ["run", "reconcile", "run"]
    assert play.effects() == [("act", "{}")]
    endless = Play(bundle(spec), [call("act"), "done"], {"act": [Doubt(done=False)]}, person=approving).play()
    assert [a.mode for a in endless.attempts] == ["run", "reconcile"] * 3
    assert next(f.outcome for f in endless.events(ev.ToolCallFinished)) == "error"


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize(("effect", "keyed"), [("read", False), ("write", True)])
def test_deaths_of_the_worker_use_up_no_attempts(effect: Any, keyed: bool, attempts: int) -> None:
    """Killed four times under way, a read or a keyed call still gets its answer."""
    spec = tool("act", effect, keyed=keyed, retry=RetryPolicy(attempts=attempts))
    play = Play(bundle(spec), [call("act"), "done"], crashes=dict.fromkeys((2, 3, 4, 5), True)).play()
    assert [f.code for f in play.events(ev.ToolCallFailed)] == ["lost"] * 4
    assert play.end == ("done", "")
    assert len(play.effects()) == (effect != "read")


def test_a_worker_that_dies_while_reconciling_is_asked_for_again() -> None:
    """The doubt stays, the reconciler is called again."""
    spec = tool("act", "irreversible", reconciles=True)
    play = Play(bundle(spec), [call("act"), "done"], crashes={2: True, 4: True})
    assert [a.mode for a in play.play().attempts] == ["run", "reconcile", "reconcile"]
    assert play.effects() == [("act", "{}")]
    assert play.end == ("done", "")


def test_a_keyless_call_is_asked_about_again_after_a_retry_that_is_in_doubt() -> None:
    """A person's retry is one attempt."""
    spec = tool("act", "irreversible")
    play = Play(bundle(spec), [call("act")], {"act": [Doubt(done=False)]}, person=approving).play()
    (waiting,) = play.state.calls
    play.post(decided(waiting, "retry")).play()
    assert len(play.attempts) == 2
    assert play.state.asking


def test_arguments_that_do_not_fit_any_more_do_not_hide_the_doubt() -> None:
    """The tool's checks changed while a keyed call was in doubt: a person decides."""
    spec = tool("act", "irreversible", keyed=True)
    play = Play(bundle(spec), [call("act")], {"act": [Doubt(done=True)]}, person=approving)
    play._outcomes.append(play._started())
    while not (play.state.calls and play.state.calls[0].in_doubt):
        play._round()
    stricter = bundle(tool("act", "irreversible", keyed=True, parameters={"required": ["q"]}))
    play.view = Play(stricter, []).view
    play.play()
    assert [(c.phase, c.in_doubt) for c in play.state.calls] == [("asking", True)]


def test_a_decision_about_one_doubt_does_not_answer_the_next() -> None:
    """A "retry" that was sent twice, or slept on its way, is one attempt; without saying which doubt it means it counts."""
    spec = tool("act", "irreversible")
    play = Play(bundle(spec), [call("act")], {"act": [Doubt(done=False)]}, person=approving).play()
    (waiting,) = play.state.calls
    retry = msgspec.structs.replace(decided(waiting, "retry"), attempt=waiting.attempt)
    play.post(retry).play()
    play.post(retry).play()
    assert len(play.attempts) == 2
    assert play.state.asking
    play.post(decided(play.state.calls[0], "retry")).play()
    assert len(play.attempts) == 3
