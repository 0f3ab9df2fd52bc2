"""Decisions through the facade: late, twice, undriven; and grants as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stanchion.agent import Approve
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, InputError, NotFound
from stanchion.policy import Grant, Param
from stanchion.runtime import Decision, Reviewer
from stanchion.runtime.capabilities import kept, read_grants, written
from stanchion.testing import FakeClock, call
from tests.engine.rig import events, over, running, unchanged, until_event
from tests.server.test_approvals import EVIL, OTHER, mailer, plays


async def test_a_yes_that_comes_after_its_time_is_refused_though_nobody_drives(tmp_path: Path) -> None:
    """The call still stands in the journal as waiting: the clock says that it is too late. Before that it counts."""
    clock, agent = FakeClock(), mailer(approvals=[Approve(tool="send", expires_s=60)])
    async with running(tmp_path, plays(call("send", to=EVIL)), agent, clock=clock) as runtime:
        run = (await runtime.start("support", "Hi")).run
        view = await runtime.wait(run, timeout_s=10)
        [ask] = view.waiting
        assert ask.expires_ms == clock.now_ms() + 60_000
    async with running(tmp_path, plays(), agent, clock=clock, drive=False) as beside:
        clock.advance(59)
        other = (await beside.start("support", "Hi")).run  # what is not driven waits for nobody
        with pytest.raises(NotFound):
            await beside.decide(other, "1.0", "approve")
        clock.advance(1)
        with pytest.raises(Conflict, match=r"expired at .* counts as rejected") as caught:
            await beside.decide(run, ask.call, "approve")
        assert (caught.value.code, caught.value.field) == ("expired", "call")
        with pytest.raises(Conflict, match="expired"):
            await beside.decide(run, ask.call, "reject")
        assert await beside.store.inbox("default", run) == []


async def test_decisions_that_nobody_has_taken_in_count(tmp_path: Path) -> None:
    """While nothing drives, a second yes of the same person and a third after the quorum learn that they come too late."""
    agent = mailer(approvals=[Approve(tool="send", quorum=2)])
    async with running(tmp_path, plays(call("send", to=EVIL)), agent) as runtime:
        run = (await runtime.start("support", "Hi")).run
        [ask] = (await runtime.wait(run, timeout_s=10)).waiting
    async with running(tmp_path, plays(), agent, drive=False) as beside:
        await beside.decide(run, ask.call, "approve", reviewer=Reviewer("ann"))
        with pytest.raises(Conflict, match="ann has approved this already"):
            await beside.decide(run, ask.call, "approve", reviewer=Reviewer("ann"), by="bob")
        await beside.decide(run, ask.call, "approve", reviewer=Reviewer("bob"), allow="destination")
        with pytest.raises(Conflict, match="decided already"):
            await beside.decide(run, ask.call, "reject", reviewer=Reviewer("eve"))
    async with running(tmp_path, plays(call("send", to=EVIL)), agent) as runtime:
        view = await over(runtime, run)
        assert len(view.done) == 1
        decided = await events(runtime, run, ev.CallDecided)
        assert [each.by for each in decided] == ["ann", "bob"]
        [granted] = await events(runtime, run, ev.GrantAdded)
        assert (granted.grant.kind, granted.grant.value, granted.by) == ("email", "", "bob")  # the value is content
        [shown] = await runtime.grants(view.session)
        assert shown.value == EVIL
        await unchanged(runtime)


async def test_what_a_refused_decision_allowed_is_not_allowed(tmp_path: Path) -> None:
    """A grant goes with its decision: where the run was cancelled first, neither is taken in."""
    async with running(tmp_path, plays(call("send", to=EVIL)), mailer()) as runtime:
        run = (await runtime.start("support", "Hi")).run
        [ask] = (await runtime.wait(run, timeout_s=10)).waiting
    async with running(tmp_path, plays(), mailer(), drive=False) as beside:
        await beside.decide(run, ask.call, "reject", reason="no")
        late = [
            ev.CallDecided(call=ask.call, revision=ask.revision, decision="approve", by="eve"),
            ev.GrantAdded(grant=Grant(tools=("*",), kind="email", id="grant_x"), by="eve"),
        ]
        await beside.store.post("default", run, "decision", msgspec.json.encode(late))
    async with running(tmp_path, plays(call("send", to=EVIL)), mailer()) as runtime:
        view = await over(runtime, run)
        assert view.done == []
        assert await events(runtime, run, ev.GrantAdded) == []
        assert await runtime.grants(view.session) == []


async def test_a_reviewers_edit_is_held_to_his_grants_when_it_is_judged(tmp_path: Path) -> None:
    """The journal keeps what he may allow: an edit is judged again within it."""
    limits = (Grant(tools=("pay",), params=(Param("cents", most="500"),)),)
    async with running(tmp_path, plays(call("pay", to=EVIL, cents=900)), mailer()) as runtime:
        run = (await runtime.start("support", "Hi")).run
        [ask] = (await runtime.wait(run, timeout_s=10)).waiting
        await runtime.decide_all(
            run,
            [Decision(ask.call, "edit", arguments={"to": OTHER, "cents": 5})],
            reviewer=Reviewer("ann", limits),
        )
        view = await over(runtime, run)
        assert len(view.done) == 1
        [decided] = await events(runtime, run, ev.CallDecided)
        assert decided.grants == limits
        assert (await until_event(runtime, run, ev.ToolCallStarted)).revision == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("{", "grants"),
        ('"send"', "grants"),
        ('[{"tool": ["send"]}]', "grants"),
        ('[{"tools": []}]', "grants[0].tools"),
        ('[{"tools": ["send"]}, {"tools": [""]}]', "grants[1].tools"),
        ('[{"tools": ["*"], "until_ms": -1}]', "grants[0].until_ms"),
        ('[{"tools": ["*"], "kind": "email", "value": "a@b.example"}]', "grants"),
        ('[{"tools": ["pay"], "params": [{"path": "", "most": "1"}]}]', "grants[0].params[0].path"),
        ('[{"tools": ["pay"], "params": [{"path": "cents"}]}]', "grants[0].params[0]"),
        ('[{"tools": ["pay"], "params": [{"path": "cents", "most": "NaN"}]}]', "grants[0].params[0].most"),
        ([{"tools": ["x"]}] * 201, "grants"),
    ],
)
def test_a_grant_that_says_something_else_than_was_meant_is_refused(given: Any, field: str) -> None:
    """A misspelt constraint would be none: unknown fields, empty patterns and numbers that are none name the field."""
    with pytest.raises(InputError) as caught:
        read_grants(given, field="grants")
    assert caught.value.field == field


def test_grants_are_kept_as_they_are_written() -> None:
    """One or a list; none at all is not the same as nothing said; what cannot be read grants nothing."""
    grants = read_grants('{"tools": ["pay"], "params": [{"path": "cents", "most": "5"}]}', field="grants")
    assert kept(written(grants)) == grants
    assert kept("") is None
    assert kept(written(read_grants([], field="grants"))) == ()
    assert kept("{") == ()


async def test_what_was_erased_is_not_shown_to_a_reviewer(tmp_path: Path) -> None:
    """A view that was made before is forgotten with the content."""
    async with running(tmp_path, plays(call("inbox"), call("send", to=EVIL)), mailer()) as runtime:
        started = await runtime.start("support", "Read my mail")
        assert EVIL in (await runtime.wait(started.run, timeout_s=10)).waiting[0].why
        assert await runtime.erase(started.session)
        view = await runtime.view(started.run)
        assert len(view.waiting) == 1
        assert EVIL not in str(view)
