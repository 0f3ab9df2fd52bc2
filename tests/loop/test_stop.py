"""Stopping: cancelled at every point, over budget, parked. Nothing new is begun, and the last event lists what was done."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import ApprovalRule, Caps
from stanchion.core.message import MODEL, USER, Text, Usage
from tests.loop.play import Play, truthful
from tests.loop.script import Break, Done, Doubt, Not, Refuse, Say, bundle, call, decided, tool

CANCEL = ev.CancelRequested(by="ann")
TOOLS = (tool("look"), tool("save", "write", keyed=True), tool("pay", "irreversible"), tool("wipe", "destructive"))


def script() -> list[Any]:
    return [
        call("look"),
        [call("look", '{"n":2}'), call("save"), call("pay")],
        Break(),
        [call("wipe")],
        "done",
    ]


def outcomes() -> dict[str, Any]:
    return {"look": [Not(), Done(took_ms=400)], "save": [Doubt(done=True), Done()], "pay": [Doubt(done=True)]}


def whole(**options: Any) -> Play:
    return Play(bundle(*TOOLS), script(), outcomes(), person=truthful, **options).play()


APPENDS = whole().appends


def test_the_run_that_is_cancelled_below_has_many_places() -> None:
    """It ends well, over reads, keyed and keyless effects, doubt, retries, approval."""
    assert whole().end == ("done", "")
    assert APPENDS > 15


@pytest.mark.parametrize("after", range(1, APPENDS))
def test_cancelled_anywhere_it_begins_nothing_and_tells_the_truth(after: int) -> None:
    """No attempt after the cancellation; what the world saw is listed as done or in doubt, and nothing else is."""
    play = whole(inject={after: [CANCEL]})
    assert play.end == ("cancelled", "cancelled")
    rest = play.types[play.types.index("cancel_requested") + 1 :]
    assert not {"model_call_started", "tool_call_started", "tool_call_judged"} & set(rest)
    (end,) = play.events(ev.RunFinished)
    told = {*end.done, *end.in_doubt}
    truth = {c for c, _ in play._done_calls if _tier(play, c) != "read"}
    assert truth <= told
    assert set(end.done) <= truth
    assert play.state.calls == ()
    assert play.state.model is None


def _tier(play: Play, call_id: str) -> str:
    name = next(j.tool for j in play.events(ev.ToolCallJudged) if j.call == call_id)
    spec = play.bundle.tool(name)
    assert spec is not None
    return spec.effect


@pytest.mark.parametrize("after", range(1, APPENDS))
@pytest.mark.parametrize("died", [False, True])
def test_cancelled_and_crashed_at_once(after: int, died: bool) -> None:
    """The cancellation waits in the inbox of a run whose worker dies: it still ends, with what may have left in doubt."""
    crashed = Play(bundle(*TOOLS), script(), outcomes(), person=truthful, crashes={after: died})
    crashed._outcomes.append(crashed._started())
    while crashed.epoch == 1 and crashed._round():
        pass
    crashed.post(CANCEL).play()
    assert crashed.state.outcome in ("cancelled", "done")
    (end,) = crashed.events(ev.RunFinished)
    assert {c for c, _ in crashed._done_calls if _tier(crashed, c) != "read"} <= {*end.done, *end.in_doubt}


def test_the_model_call_and_reads_are_aborted_and_effects_awaited() -> None:
    """The read is stopped at once, the payment is waited for."""
    tools = {"look": [Done(took_ms=9_000)], "pay": [Done(took_ms=20_000)]}
    play = Play(bundle(*TOOLS), [[call("look"), call("pay")], "x"], tools, inject={2: [CANCEL]}).play()
    assert [(f.call, f.outcome) for f in play.events(ev.ToolCallFinished)] == [("3.1", "ok"), ("3.0", "cancelled")]
    assert play.events(ev.RunFinished)[0].done == ("3.1",)
    talking = Play(bundle(), [Say((), took_ms=60_000)], inject={1: [CANCEL]}).play()
    assert talking.now_ms == talking.entries[0].at_ms
    assert [f.code for f in talking.events(ev.ModelCallFailed)] == ["cancelled"]


def test_a_decision_made_before_the_cancellation_stands() -> None:
    """Recorded is recorded, rejected is rejected, whatever stops the run in the same breath."""
    for said, outcome in ((("record", "paid"), "ok"), (("fail", "no"), "error")):
        play = Play(bundle(*TOOLS), [call("pay"), "x"], {"pay": [Doubt(done=True)]}).play()
        (waiting,) = play.state.calls
        play.post(decided(waiting, *said), CANCEL).play()
        assert [f.outcome for f in play.events(ev.ToolCallFinished)] == [outcome]
        assert play.events(ev.RunFinished)[0].in_doubt == ()
    play = Play(bundle(*TOOLS), [call("wipe"), "x"]).play()
    (waiting,) = play.state.calls
    play.post(decided(waiting, "reject", "no"), CANCEL).play()
    assert [f.outcome for f in play.events(ev.ToolCallFinished)] == ["rejected"]


def test_cancelled_while_in_doubt_it_is_said_to_be_in_doubt() -> None:
    """Nobody decided; the list says so."""
    play = Play(bundle(*TOOLS), [call("pay"), "x"], {"pay": [Doubt(done=True)]}).play()
    play.post(CANCEL).play()
    assert play.events(ev.RunFinished)[0].in_doubt == ("3.0",)
    assert "not known" in play.results[0].text


def test_after_a_cancellation_the_session_goes_on() -> None:
    """The transcript is whole: the next run's requests are well formed, and go on from what was said."""
    for after in range(1, APPENDS, 2):
        first = whole(inject={after: [CANCEL]})
        second = Play(first.bundle, ["hello again"], base=first).play()
        assert second.end == ("done", "")


def test_what_was_said_during_a_call_that_failed_for_good_is_not_lost() -> None:
    """It stands before what the next run says."""
    said = ev.MessageAdded(by="ann", parts=(Text("in between", USER),))
    first = Play(bundle(), [Break("auth", retryable=False)], inject={1: [said]}).play()
    second = Play(bundle(), ["hi"], base=first, user="later").play()
    texts = [p.text for p in second.state.messages[0].parts if isinstance(p, Text)]
    assert texts == ["hello", "in between", "later"]


# --- shared budgets --------------------------------------------------------------------------------------------------


def test_refused_by_what_is_spent_the_run_halts_at_once() -> None:
    """Nothing is called."""
    play = Play(bundle(), ["hi"], ledgers=("tenant/day",), refuse=[Refuse(hard=True)]).play()
    assert play.types == ["run_started", "budget_refused", "run_finished"]
    assert play.end == ("halted", "budget:tenant/day")
    assert play.requests == []


def test_refused_by_others_reservations_the_run_waits_and_goes_on() -> None:
    """One refusal is journaled however often it is asked; the money came back in time."""
    play = Play(bundle(), ["hi"], ledgers=("tenant/day",), refuse=[Refuse(hard=False)] * 5).play()
    assert play.types.count("budget_refused") == 1
    assert play.end == ("done", "")
    assert play.state.refused is None


def test_waiting_for_money_is_bounded() -> None:
    """Then it halts, and says which budget."""
    caps = Caps(budget_wait_s=10)
    play = Play(bundle(), ["hi"], ledgers=("tenant/day",), refuse=[Refuse(hard=False)] * 500, caps=caps).play()
    assert play.end == ("halted", "budget:tenant/day")
    assert 10_000 <= play.now_ms - play.entries[0].at_ms <= 11_000


def test_waiting_for_money_that_is_spent_meanwhile_ends() -> None:
    """Soft turns hard."""
    refuse = [Refuse(hard=False), Refuse(hard=False), Refuse(hard=True)]
    play = Play(bundle(), ["hi"], ledgers=("tenant/day",), refuse=refuse).play()
    assert play.types.count("budget_refused") == 2
    assert play.end == ("halted", "budget:tenant/day")


def test_a_bill_above_its_reservation_is_an_overrun() -> None:
    """It is said, counted in full, and the run's own cap stops it."""
    big = Say((Text("x", MODEL), call("look")), "tool_calls", Usage(10**7, output_tokens=1))
    play = Play(bundle(*TOOLS, caps=Caps(nano_usd=10**9)), [big, "x"], ledgers=("tenant",)).play()
    assert play.state.overrun
    assert play.types.count("budget_overrun") == 1
    assert play.end == ("halted", "usd")


# --- parked ----------------------------------------------------------------------------------------------------------


def test_a_parked_run_does_nothing_until_it_is_revived() -> None:
    """Then it goes on where it was."""
    parked = ev.RunParked(reason="dead_letter")
    play = Play(bundle(tool("look")), [call("look"), "done"], inject={2: [parked]}).play()
    assert play.types[-1] == "run_parked"
    play.epoch += 1
    play._flights.clear()
    play.post(ev.RunRevived(by="ann")).play()
    assert play.end == ("done", "")


def test_a_parked_run_can_be_cancelled() -> None:
    """Without being revived first."""
    play = Play(bundle(tool("look")), [call("look"), "done"], inject={2: [ev.RunParked(reason="dead_letter")]}).play()
    play.epoch += 1
    play._flights.clear()
    play.post(CANCEL).play()
    assert play.end == ("cancelled", "cancelled")


def test_an_approval_rule_that_expires_ends_no_run_that_is_over() -> None:
    """A run that ended decides nothing, whatever comes."""
    play = Play(
        bundle(tool("pay", "irreversible"), approvals=(ApprovalRule(tool="pay", expires_s=5),)), [call("pay"), "done"]
    ).play()
    assert play.end == ("done", "")
    before = len(play.entries)
    play.post(CANCEL, ev.RunRevived(by="x"), ev.MessageAdded()).play()
    assert len(play.entries) == before
