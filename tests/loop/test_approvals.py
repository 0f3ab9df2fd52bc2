"""Calls that wait for a person: who is asked, what can be decided, what it binds to, and what the model is told."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import ApprovalRule
from stanchion.core.fold import evolve
from stanchion.core.state import Call
from tests.loop.play import Play
from tests.loop.script import Done, Doubt, bundle, call, decided, tool

PAY = tool("pay", "irreversible", keyed=True, parameters={"type": "object", "required": ["usd"]})
WIPE = tool("wipe", "destructive")
ASK = ApprovalRule(tool="pay")


def person(*answers: Any) -> Any:
    """A person who gives these answers one after the other: a name, or a name and texts."""
    left = list(answers)

    def answer(play: Play, waiting: Call) -> ev.CallDecided | None:
        if not left:
            return None
        said = left.pop(0)
        return decided(waiting, said) if isinstance(said, str) else decided(waiting, *said)

    return answer


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (ApprovalRule(tool="pay"), True),
        (ApprovalRule(tool="other"), False),
        (ApprovalRule(effect="irreversible"), True),
        (ApprovalRule(effect="write"), False),
        (ApprovalRule(tool="pay", above={"usd": 10}), False),
        (ApprovalRule(tool="pay", above={"usd": 9.99}), True),
        (ApprovalRule(tool="pay", above={"eur": 10}), True),
        (ApprovalRule(), True),
    ],
)
def test_a_rule_asks_for_what_it_names(rule: ApprovalRule, asked: bool) -> None:
    """By tool, by tier, above an amount; an amount that is not there cannot be shown to be small."""
    play = Play(bundle(PAY, approvals=(rule,)), [call("pay", '{"usd":10}'), "done"]).play()
    assert bool([c for c in play.state.calls if c.phase == "asking"]) == asked
    assert bool(play.attempts) != asked


def test_destructive_calls_always_wait() -> None:
    """No rule is needed, and none that fits something else lets it through."""
    play = Play(bundle(WIPE, approvals=(ApprovalRule(tool="wipe", above={"n": 5}),)), [call("wipe", '{"n":1}')]).play()
    assert play.state.asking
    assert play.attempts == []


def test_approved_it_runs_as_shown() -> None:
    """Once, and the run goes on."""
    play = Play(bundle(PAY, approvals=(ASK,)), [call("pay", '{"usd":1}'), "done"], person=person("approve")).play()
    assert play.effects() == [("pay", '{"usd":1}')]
    assert play.end == ("done", "")


def test_edited_it_is_judged_again_under_a_new_revision_and_key() -> None:
    """The edit runs, not the proposal; the verdict names the new revision, and the model is told the arguments."""
    play = Play(
        bundle(PAY, approvals=(ASK,)),
        [call("pay", '{"usd":100}'), "done"],
        person=person(("edit", '{"usd":50}', "too much")),
    ).play()
    assert play.effects() == [("pay", '{"usd":50}')]
    assert [(j.revision, j.action, j.rule) for j in play.events(ev.ToolCallJudged)] == [
        (0, "ask", "approval:pay"),
        (1, "allow", "approved:approval:pay"),
    ]
    digests = [j.digest for j in play.events(ev.ToolCallJudged)]
    assert len(set(digests)) == 2
    assert [t for t in play.told if '{"usd":50}' in t]
    assert "too much" not in "".join(play.told)


@pytest.mark.parametrize("bad", ["{", "{}", "[]"])
def test_an_edit_that_cannot_be_used_asks_again(bad: str) -> None:
    """It can be edited again or rejected, but not approved; the model never sees it."""
    agent = bundle(PAY, approvals=(ASK,))
    play = Play(agent, [call("pay", '{"usd":100}'), "done"], person=person(("edit", bad))).play()
    (waiting,) = play.state.calls
    assert (waiting.phase, waiting.rule, waiting.revision) == ("asking", "edit_invalid", 1)
    play.post(decided(waiting, "approve")).play()
    assert play.state.asking
    play.post(decided(waiting, "edit", '{"usd":7}')).play()
    assert play.effects() == [("pay", '{"usd":7}')]
    assert [r.error for r in play.results] == [False]


def test_rejected_it_is_not_done_and_the_model_reads_why() -> None:
    """The reason is the person's."""
    play = Play(
        bundle(PAY, approvals=(ASK,)), [call("pay", '{"usd":1}'), "done"], person=person(("reject", "not today"))
    ).play()
    assert play.attempts == []
    assert "not today" in play.results[0].text
    assert play.events(ev.ToolCallFinished)[0].outcome == "rejected"


@pytest.mark.parametrize("revision", [-1, 1, 2])
def test_a_decision_on_another_revision_is_none(revision: int) -> None:
    """What was decided is what was shown."""
    play = Play(bundle(PAY, approvals=(ASK,)), [call("pay", '{"usd":1}'), "done"]).play()
    (waiting,) = play.state.calls
    stale = ev.CallDecided(call=waiting.id, revision=revision, decision="approve", by="bob")
    assert play.post(stale).play().state.asking
    before = play.state.calls
    folded = evolve(play.state, ev.Entry(play.state.seq + 1, play.now_ms, 1, stale))
    assert folded.calls == before


def test_a_decision_after_the_edit_binds_to_the_edit() -> None:
    """Approving revision 0 after it was edited does nothing."""
    play = Play(bundle(PAY, approvals=(ASK,)), [call("pay", '{"usd":1}'), "done"]).play()
    (first,) = play.state.calls
    play.post(decided(first, "edit", "{"), decided(first, "approve")).play()
    assert play.state.asking
    assert play.attempts == []


@pytest.mark.parametrize("decision", ["retry", "record", "fail"])
def test_what_is_decided_about_doubt_is_no_approval(decision: str) -> None:
    """A call that was never made cannot be recorded or retried."""
    play = Play(bundle(PAY, approvals=(ASK,)), [call("pay", '{"usd":1}'), "done"], person=person(decision)).play()
    assert play.state.asking
    assert play.attempts == []


def test_an_approval_expires_as_rejected() -> None:
    """And an approval that comes later is nothing."""
    agent = bundle(PAY, approvals=(ApprovalRule(tool="pay", expires_s=30),))
    play = Play(agent, [call("pay", '{"usd":1}'), "done"], person=person("approve"), person_ms=31_000).play()
    assert play.attempts == []
    assert play.events(ev.ToolCallFinished)[0].outcome == "rejected"
    in_time = Play(agent, [call("pay", '{"usd":1}'), "done"], person=person("approve"), person_ms=29_000).play()
    assert len(in_time.attempts) == 1


def test_an_edit_that_cannot_be_used_still_expires() -> None:
    """The wait does not become endless by it."""
    agent = bundle(PAY, approvals=(ApprovalRule(tool="pay", expires_s=30),))
    play = Play(agent, [call("pay", '{"usd":1}'), "done"], person=person(("edit", "{")), person_ms=10_000).play()
    assert play.events(ev.ToolCallFinished)[0].outcome == "rejected"


def test_others_go_on_while_one_waits() -> None:
    """A read beside it runs at once; the results still go in call order."""
    play = Play(
        bundle(tool("look"), WIPE), [[call("wipe", id="a"), call("look", id="b")], "done"], person=person("approve")
    ).play()
    assert [a.tool for a in play.attempts] == ["look", "wipe"]
    assert [r.id for r in play.results] == ["a", "b"]


def test_an_approval_holds_for_retries_of_the_same_revision() -> None:
    """The person is not asked again to repeat a keyed call."""
    play = Play(
        bundle(PAY, approvals=(ASK,)),
        [call("pay", '{"usd":1}'), "done"],
        {"pay": [Doubt(done=True), Doubt(done=True), Done()]},
        person=person("approve"),
    ).play()
    assert len(play.attempts) == 3
    assert len({a.key for a in play.attempts}) == 1
    assert len(play.effects()) == 1


@pytest.mark.parametrize(
    ("decision", "text", "outcome", "read"),
    [
        (("record", "paid 7", "I saw it in the ledger"), "paid 7", "ok", "paid 7"),
        (("fail", "it never arrived"), "", "error", "it never arrived"),
    ],
)
def test_doubt_is_settled_by_what_a_person_says(decision: Any, text: str, outcome: str, read: str) -> None:
    """A recorded result is the tool's, without the note; a failure is told with its reason."""
    agent = bundle(tool("send", "irreversible"))
    play = Play(agent, [call("send"), "done"], {"send": [Doubt(done=True)]}, person=person(decision)).play()
    (finished,) = play.events(ev.ToolCallFinished)
    assert (finished.outcome, finished.parts[0].text) == (outcome, read)
    (end,) = play.events(ev.RunFinished)
    assert (end.done, end.in_doubt) == ((finished.call,) if outcome == "ok" else (), ())
    assert len(play.attempts) == 1


def test_doubt_is_retried_when_a_person_says_so() -> None:
    """Once more, and no further without being asked again."""
    agent = bundle(tool("send", "irreversible"))
    play = Play(agent, [call("send"), "done"], {"send": [Doubt(done=False)]}, person=person("retry")).play()
    assert len(play.attempts) == 2
    assert play.state.asking
