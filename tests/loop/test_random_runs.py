"""What holds of every run, whatever happens in it."""

from __future__ import annotations

import random
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core import event as ev
from stanchion.core.chain import Outline
from stanchion.core.charge import charges
from stanchion.core.fold import evolve, fold
from stanchion.core.message import MODEL, RUNTIME, Text, ToolResult
from stanchion.core.policy import Grant
from stanchion.core.state import Call, State
from tests.loop.play import Play, truthful
from tests.loop.random_runs import TOOLS, agent, caps, crashes, fates, scripts
from tests.loop.script import decided

TIER = {spec.name: spec for spec in TOOLS}


def erratic(seed: int) -> Any:
    """A person who decides anything, or nothing."""
    chance = random.Random(seed)

    def person(play: Play, waiting: Call) -> ev.CallDecided | None:
        said = chance.choice(("approve", "edit", "reject", "retry", "record", "fail", ""))
        return decided(waiting, said, '{"n":3}') if said else None

    return person


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999), cap=caps)
@settings(max_examples=300)
def test_a_keyless_effect_is_repeated_only_when_it_is_known_not_to_be_done(
    script: Any, luck: Any, dies: Any, seed: int, cap: Any
) -> None:
    """Between two starts of it stand a definite failure, a reconciler's "not done", or a person's "retry" (I2, I5)."""
    play = Play(agent(), script, luck, person=erratic(seed), crashes=dies, caps=cap).play()
    allowed: dict[str, bool] = {}
    tools: dict[str, str] = {}
    for event in (entry.event for entry in play.entries):
        match event:
            case ev.ToolCallJudged(action="allow"):
                allowed[event.call], tools[event.call] = True, event.tool
            case ev.ToolCallJudged(action="ask"):
                allowed[event.call], tools[event.call] = False, event.tool
            case ev.CallDecided(decision="approve" | "retry"):
                allowed[event.call] = True
            case ev.ToolCallReconciled(answer="not_done"):
                allowed[event.call] = True
            case ev.ToolCallFailed():
                spec = TIER[tools[event.call]]
                safe = spec.effect == "read" or spec.keyed or (not event.in_doubt and event.retryable)
                allowed[event.call] = allowed[event.call] or safe
            case ev.ToolCallStarted(mode="run"):
                assert allowed[event.call], f"{tools[event.call]} was started again"
                allowed[event.call] = False
            case _:
                pass


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999), cap=caps)
@settings(max_examples=100)
def test_charges_add_up_to_what_a_run_cost(script: Any, luck: Any, dies: Any, seed: int, cap: Any) -> None:
    """Read from the journal alone, whatever failed, was lost or was refused."""
    play = Play(agent(), script, luck, person=erratic(seed), crashes=dies, caps=cap).play()
    found = list(charges((Outline(entry.seq, entry.at_ms, entry.event) for entry in play.entries), {}))
    assert sum(charge.cost for charge in found) == play.state.totals.cost


@given(script=scripts, luck=fates, dies=crashes)
@settings(max_examples=300)
def test_deaths_change_neither_the_outcome_nor_the_effects(script: Any, luck: Any, dies: Any) -> None:
    """Killed anywhere, the run says the same, ends the same, and has done the same to the world (D1, D2)."""
    whole = Play(agent(), script, luck, person=truthful).play()
    killed = Play(agent(), script, luck, person=truthful, crashes=dies).play()
    assert killed.end == whole.end
    assert killed.effects() == whole.effects()
    assert said(killed.state) == said(whole.state)
    assert len(set(killed.effects())) <= len(killed.effects())


@given(script=scripts, luck=fates)
@settings(max_examples=20)
def test_killed_after_every_single_append(script: Any, luck: Any) -> None:
    """One death at each place in turn, before and after what was to be done had left."""
    whole = Play(agent(), script, luck, person=truthful).play()
    for after in range(1, whole.appends):
        for left in (False, True):
            killed = Play(agent(), script, luck, person=truthful, crashes={after: left}).play()
            assert (killed.end, killed.effects(), said(killed.state)) == (whole.end, whole.effects(), said(whole.state))


def said(state: State) -> list[tuple[str, str, str]]:
    """The conversation without who settled what."""
    return [
        (m.role, type(p).__name__, p.text if isinstance(p, ToolResult) else getattr(p, "text", ""))
        for m in state.messages
        for p in m.parts
    ]


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999), cut=st.integers(0, 200))
@settings(max_examples=200)
def test_fold_is_incremental(script: Any, luck: Any, dies: Any, seed: int, cut: int) -> None:
    """A state and the rest of the events give what all the events give (I3)."""
    play = Play(agent(), script, luck, person=erratic(seed), crashes=dies).play()
    assert fold(play.entries) == fold(play.entries[cut:], fold(play.entries[:cut])) == play.state


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999), data=st.data())
@settings(max_examples=200)
def test_a_session_goes_on_after_any_run(script: Any, luck: Any, dies: Any, seed: int, data: Any) -> None:
    """Cancelled at any time or ended: the next run's requests are well formed and go on from the last (I8)."""
    after = data.draw(st.integers(1, 12))
    cancel = {after: [ev.CancelRequested(by="ann")]}
    first = Play(agent(), script, luck, person=erratic(seed), crashes=dies, inject=cancel).play()
    if not first.state.ended:
        first.post(ev.CancelRequested(by="ann")).play()
    second = Play(agent(), data.draw(scripts), luck, person=truthful, base=first).play()
    assert second.state.ended
    assert not second.state.calls


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999), data=st.data())
@settings(max_examples=150)
def test_every_event_folds_in_every_state(script: Any, luck: Any, dies: Any, seed: int, data: Any) -> None:
    """`evolve` is total: events of one run, in any order, on the states of another, raise nothing."""
    one = Play(agent(), script, luck, person=erratic(seed), crashes=dies).play()
    events = data.draw(st.permutations([entry.event for entry in one.entries]))
    state = one.first
    for place, event in enumerate([*events, *EVERY]):
        state = evolve(state, ev.Entry(state.seq + 1, one.now_ms + place, 1, event))


EVERY: tuple[ev.Event, ...] = (
    ev.RunStarted(run="r", tenant="t", session="s", agent="a", bundle="b"),
    ev.MessageAdded(),
    ev.MemoryRecalled(facts=("f",)),
    ev.NoticeAdded(kind="output"),
    ev.PrefixReset(reason="compaction"),
    ev.ModelCallStarted(turn=1, attempt=1, route=7, provider="p", model="m", messages=0, prefix=""),
    ev.ModelCallFailed(turn=1, attempt=1, code="lost"),
    ev.ModelCallStarted(
        turn=1, attempt=1, route=0, provider="p", model="m", messages=0, prefix="", view="brief", trial=True
    ),
    ev.ModelCallFinished(turn=1, attempt=1, finish="stop", cost=0),
    ev.ModelCallStarted(turn=1, attempt=2, route=0, provider="p", model="m", messages=0, prefix="", view="judge"),
    ev.ModelCallFinished(turn=1, attempt=2, finish="stop", cost=0),
    ev.AnswerJudged(turn=1, attempt=2, model="p:m", step="act", action="escalate", by="judge", score=3),
    ev.AnswerJudged(turn=1, attempt=2, model="p:m", step="act", action="take"),
    ev.ModelCallFinished(turn=1, attempt=1, finish="stop", cost=0),
    ev.ToolCallJudged(call="9.9", revision=0, action="deny", rule="r"),
    ev.CallDecided(call="9.9", revision=0, decision="edit", by="x"),
    ev.GrantAdded(grant=Grant(kind="email"), by="x"),
    ev.GrantRevoked(id="g", by="x"),
    ev.PolicyApplied(policy="p"),
    ev.PlanDeclared(tools=("t",)),
    ev.CheckStarted(check="c", where="input", of="1", attempt=1, reserved=1),
    ev.CheckFailed(check="c", where="input", of="1", attempt=1, code="lost", cost=1),
    ev.ContentChecked(check="c", where="input", action="flag", cost=1),
    ev.ContentChecked(check="c", where="result", action="redact", call="9.9", of="9.9", spans=((0, 1),), settled=True),
    ev.CompactionStarted(attempt=1, reason="cost", covers=1, route=0, provider="p", model="m", reserved=1),
    ev.CompactionFailed(attempt=1, code="lost", cost=1),
    ev.CompactionStarted(attempt=2, reason="room", covers=9, route=0, provider="p", model="m"),
    ev.SummaryWritten(attempt=2, cost=1, parts=(Text("s", MODEL),)),
    ev.Compacted(
        reason="room", covers=2, trimmed=9, declared=7, summed=True, parts=(Text("h", RUNTIME), Text("s", MODEL))
    ),
    ev.Compacted(reason="overflow", covers=-1, trimmed=3),
    ev.EmbeddingFailed(attempt=1, code="lost", cost=1),
    ev.EmbeddingStarted(attempt=1, model="p:v", texts=1, reserved=1),
    ev.EmbeddingFailed(attempt=1, code="lost", cost=1),
    ev.EmbeddingStarted(attempt=2, model="p:v", texts=1, reserved=1),
    ev.EmbeddingMade(attempt=2, cost=1),
    ev.EmbeddingStarted(attempt=3, model="p:v", texts=1, reserved=1),
    ev.CredentialUsed(call="9.9", attempt=1, name="n", adapter="env"),
    ev.ToolCallStarted(call="9.9", attempt=1, revision=0),
    ev.ToolCallFailed(call="9.9", attempt=1, code="x"),
    ev.ToolCallReconciled(call="9.9", attempt=1, answer="done"),
    ev.ToolCallFinished(call="9.9", outcome="ok", lacked="embedding:p:v:budget"),
    ev.BudgetRefused(ledger="l", needed=1, left=0, hard=True),
    ev.BudgetOverrun(turn=1, reserved=1, cost=2),
    ev.LimitWarned(limit="turns", used=1, max=2),
    ev.LoopDetected(kind="storm", count=1),
    ev.CancelRequested(by=""),
    ev.BundleChanged(bundle="c"),
    ev.RunParked(reason="agent_missing"),
    ev.RunRevived(by="x"),
    ev.RunFinished(outcome="done"),
)


def test_every_type_of_event_is_tried_above() -> None:
    """A new type of event has to be added to the list."""
    assert {type(event) for event in EVERY} == set(get_args(ev.Event))
