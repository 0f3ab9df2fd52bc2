"""What waits for a person: approvals, decisions, expiry, doubt. A run that waits is nothing but rows."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stanchion import Approve, Done, InputError, Runtime, Undone, Unknown, tool
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, NotFound
from stanchion.core.message import USER, Text
from stanchion.core.state import State
from stanchion.engine.drive import Drive
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Append
from stanchion.testing import FakeClock, ScriptedModel, call
from tests.engine.rig import World, agent, events, once, over, results, running, unchanged
from tests.waiting import until

REFUND = call("refund", order="A-17", cents=1250)


async def test_approve(tmp_path: Path) -> None:
    """An approved call is made once, under its idempotency key."""
    world = World()
    async with running(tmp_path, once("refund", order="A-17", cents=1250), agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund it.")).run
        view = await runtime.wait(run, timeout_s=10)
        (waiting,) = view.waiting
        assert (view.status, waiting.kind, waiting.tool, waiting.tier) == (
            "waiting",
            "approval",
            "refund",
            "irreversible",
        )
        assert waiting.arguments == {"order": "A-17", "cents": 1250}
        assert waiting.decisions == ["approve", "edit", "reject"]
        assert "approval" in waiting.reason
        assert world.done == []
        await runtime.decide(run, waiting.call, "approve", revision=0, by="eve")
        view = await over(runtime, run)
        assert (view.outcome, view.text, world.done) == ("done", "refunded 1250", ["refund A-17 1250"])
        assert view.done == [f"{waiting.call} refund"]
        assert world.keys[0]
        (decided,) = await events(runtime, run, ev.CallDecided)
        assert decided.by == "eve"
        await unchanged(runtime)


async def test_edit_makes_a_revision(tmp_path: Path) -> None:
    """Edited arguments are judged as a new revision, and what was approved is what is done."""
    world = World()
    mine = agent(world, approvals=[Approve(tool="refund", above={"cents": 1000})])
    async with running(tmp_path, once("refund", order="A-17", cents=1250), mine) as runtime:
        run = (await runtime.start("desk", "Refund it.")).run
        waiting = (await runtime.wait(run, timeout_s=10)).waiting[0]
        for arguments, field in (
            ({"order": "A-17", "cents": "lots"}, "arguments"),
            ({"cents": 5}, "arguments"),
            (None, "arguments"),
        ):
            with pytest.raises(InputError, match=field):
                await runtime.decide(run, waiting.call, "edit", arguments=arguments)
        with pytest.raises(InputError, match="arguments"):
            await runtime.decide(run, waiting.call, "approve", arguments={"order": "A-17", "cents": 5})
        with pytest.raises(InputError, match="result"):
            await runtime.decide(run, waiting.call, "approve", result="done")
        await runtime.decide(run, waiting.call, "edit", arguments={"order": "A-17", "cents": 700}, reason="partly")
        assert (await over(runtime, run)).text == "refunded 700"
        assert world.done == ["refund A-17 700"]
        assert [event.revision for event in await events(runtime, run, ev.ToolCallJudged)] == [0, 1]


async def test_reject_is_told_to_the_model(tmp_path: Path) -> None:
    """A rejected call is not made, and the model reads why."""
    world = World()
    async with running(tmp_path, once("refund", order="A-17", cents=1250), agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund it.")).run
        waiting = (await runtime.wait(run, timeout_s=10)).waiting[0]
        await runtime.decide(run, waiting.call, "reject", reason="not our fault")
        view = await over(runtime, run)
        assert "not our fault" in view.text
        assert world.done == []


async def test_decisions_that_come_too_late_or_do_not_fit(tmp_path: Path) -> None:
    """A decision binds to the revision shown; of two, the second is a conflict; no call, no decision."""
    world = World()
    async with running(tmp_path, once("refund", order="A-17", cents=1250), agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund it.")).run
        waiting = (await runtime.wait(run, timeout_s=10)).waiting[0]
        with pytest.raises(Conflict, match="revision 0 waits, not 3"):
            await runtime.decide(run, waiting.call, "approve", revision=3)
        for wrong in ("retry", "record", "fail", "perhaps"):
            with pytest.raises(Conflict, match="approve, edit, reject"):
                await runtime.decide(run, waiting.call, wrong)
        with pytest.raises(NotFound, match=f"waiting: {waiting.call}"):
            await runtime.decide(run, "99.0", "approve")
        with pytest.raises(NotFound, match="no run"):
            await runtime.decide("run_none", waiting.call, "approve")
        said = await asyncio.gather(
            *(runtime.decide(run, waiting.call, "approve", by=f"p{n}") for n in range(5)), return_exceptions=True
        )
        assert sorted(type(error).__name__ for error in said) == ["Conflict"] * 4 + ["NoneType"]
        await over(runtime, run)
        with pytest.raises(Conflict) as late:
            await runtime.decide(run, waiting.call, "reject")
        assert late.value.code == "decided"
        assert world.done == ["refund A-17 1250"]


async def test_expiry(tmp_path: Path) -> None:
    """What nobody approves in time is not done, and the model is told."""
    world, clock = World(), FakeClock()
    mine = agent(world, approvals=[Approve(tool="refund", expires_s=3600)])
    async with running(tmp_path, once("refund", order="A-17", cents=1250), mine, clock=clock) as runtime:
        run = (await runtime.start("desk", "Refund it.")).run
        waiting = (await runtime.wait(run, timeout_s=10)).waiting[0]
        assert waiting.expires_ms == waiting.asked_ms + 3_600_000
        await until(lambda: runtime.active == 0)
        clock.advance(3599)
        assert (await runtime.wait(run, timeout_s=1)).status == "waiting"
        clock.advance(2)
        view = await over(runtime, run)
        assert "Nobody approved this in time" in view.text
        assert world.done == []


async def test_expiry_and_deadline_while_nobody_is_there(tmp_path: Path) -> None:
    """Time goes on while the process is down: what expired or ended meanwhile is so when it is back."""
    world, clock = World(), FakeClock()
    mine = agent(world, approvals=[Approve(tool="refund", expires_s=3600)])
    model = once("refund", order="A-17", cents=1250)
    async with running(tmp_path, model, mine, clock=clock) as runtime:
        expires = (await runtime.start("desk", "Refund it.")).run
        ends = (await runtime.start("desk", "Refund it.", deadline_ms=clock.now_ms() + 60_000)).run
        for run in (expires, ends):
            assert (await runtime.wait(run, timeout_s=10)).waiting
    clock.advance(7200)
    async with running(tmp_path, model, mine, clock=clock) as runtime:
        assert "Nobody approved" in (await over(runtime, expires)).text
        view = await over(runtime, ends)
        assert (view.outcome, view.reason) == ("halted", "deadline")
        assert world.done == []
        await unchanged(runtime)


async def test_deadline_while_the_process_waits(tmp_path: Path) -> None:
    """A deadline ends a run that waits for a person, with nobody touching it."""
    clock = FakeClock()
    async with running(tmp_path, once("refund", order="A", cents=1), clock=clock) as runtime:
        run = (await runtime.start("desk", "Refund it.", deadline_ms=clock.now_ms() + 60_000)).run
        assert (await runtime.wait(run, timeout_s=10)).waiting
        clock.advance(61)
        assert (await over(runtime, run)).reason == "deadline"


@pytest.mark.parametrize(
    ("decision", "more", "text", "calls"),
    [
        ("retry", {}, "noted at 2", 2),
        ("record", {"result": "it is in the book"}, "it is in the book", 1),
        ("fail", {"reason": "it is not in the book"}, "it is not in the book", 1),
    ],
)
async def test_doubt_is_settled_by_a_person(
    tmp_path: Path, decision: str, more: dict[str, Any], text: str, calls: int
) -> None:
    """A keyless effect without a definite answer waits for a person, who has it retried, recorded or failed."""
    made = 0

    @tool(effect="write")
    async def book(text: str) -> str:
        """Write into the book."""
        nonlocal made
        made += 1
        if made == 1:
            raise ConnectionResetError("gone in the middle")
        return f"noted at {made}"

    async with running(tmp_path, once("book", text="x"), agent(tools=[book], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Note it.")).run
        (waiting,) = (await runtime.wait(run, timeout_s=10)).waiting
        assert (waiting.kind, waiting.decisions) == ("in_doubt", ["retry", "record", "fail"])
        assert "it is not known whether book was done" in waiting.reason
        with pytest.raises(Conflict, match="retry, record, fail"):
            await runtime.decide(run, waiting.call, "approve")
        if decision == "record":
            with pytest.raises(InputError, match="result"):
                await runtime.decide(run, waiting.call, "record")
        await runtime.decide(run, waiting.call, decision, **more)
        view = await over(runtime, run)
        assert text in view.text
        assert made == calls
        await unchanged(runtime)


async def test_a_decision_that_comes_again_does_not_answer_the_next_doubt(tmp_path: Path) -> None:
    """Retried, and in doubt once more: the same request sent again names the attempt it was about, and is refused."""
    made: list[int] = []

    @tool(effect="write")
    async def book(text: str) -> str:
        """Book something."""
        made.append(len(made))
        raise ConnectionResetError("gone in the middle")

    async with running(tmp_path, once("book", text="x"), agent(tools=[book], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Note it.")).run
        (first,) = (await runtime.wait(run, timeout_s=10)).waiting
        await runtime.decide(run, first.call, "retry", attempt=first.attempt)
        while (again := (await runtime.wait(run, timeout_s=10)).waiting) in ([], [first]):
            pass
        assert (again[0].call, again[0].revision, again[0].attempt) == (first.call, first.revision, first.attempt + 1)
        with pytest.raises(Conflict, match="attempt 2, not 1") as late:
            await runtime.decide(run, first.call, "retry", revision=first.revision, attempt=first.attempt)
        assert late.value.field == "attempt"
        assert made == [0, 1]


@pytest.mark.parametrize(
    ("answer", "outcome", "calls"),
    [(Done("it was there"), "it was there", 1), (Undone(), "noted at 2", 2), (Unknown("no idea"), "in_doubt", 1)],
)
async def test_doubt_is_settled_by_the_tool(tmp_path: Path, answer: Any, outcome: str, calls: int) -> None:
    """A tool that reconciles is asked, once the attempt's deadline is over; only if it cannot tell is a person."""
    made = 0

    @tool(effect="write", timeout_s=0.3)
    async def book(text: str) -> str:
        """Write into the book."""
        nonlocal made
        made += 1
        if made == 1:
            raise ConnectionResetError("gone in the middle")
        return f"noted at {made}"

    @book.reconciler
    async def was_it(text: str) -> Any:
        return answer

    async with running(tmp_path, once("book", text="x"), agent(tools=[book], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Note it.")).run
        view = await runtime.wait(run, timeout_s=10)
        if outcome == "in_doubt":
            assert [waiting.kind for waiting in view.waiting] == ["in_doubt"]
        else:
            assert outcome in view.text
        assert made == calls


async def test_messages_meet_a_run_at_any_time(tmp_path: Path) -> None:
    """What is said while a run waits goes behind the results of its step, in order; to a run that is over, nothing is said."""
    model = ScriptedModel([REFUND, "Done."])
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Refund it.")).run
        waiting = (await runtime.wait(run, timeout_s=10)).waiting[0]
        await runtime.send(run, "And hurry.", by="ann")
        await runtime.send(run, "Please.")
        await runtime.decide(run, waiting.call, "approve")
        await over(runtime, run)
        said = [getattr(part, "text", "") for part in model.requests[1].messages[-1].parts]
        assert said == ["refunded 1250", "And hurry.", "Please."]
        assert [event.by for event in await events(runtime, run, ev.MessageAdded)] == ["ann", ""]
        with pytest.raises(Conflict, match="over"):
            await runtime.send(run, "Too late.")
        with pytest.raises(NotFound):
            await runtime.send("run_none", "Hello")
        for empty in ("", "  ", []):
            with pytest.raises(InputError, match="empty"):
                await runtime.send(run, empty)


def in_memory() -> list[State | Drive]:
    return [found for found in gc.get_objects() if isinstance(found, State | Drive)]


async def test_waiting_runs_are_nothing_but_rows(tmp_path: Path) -> None:
    """A hundred runs that wait hold no task, no drive and no state in memory."""
    before = in_memory()  # (of other tests of this process)
    async with running(tmp_path, once("refund", order="A", cents=1)) as runtime:
        runs = [(await runtime.start("desk", "Refund it.")).run for _ in range(100)]
        for run in runs:
            assert (await runtime.wait(run, timeout_s=10)).status == "waiting"
        await until(lambda: runtime.active == 0)
        gc.collect()
        assert [found for found in in_memory() if not any(found is one for one in before)] == []
        names = sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())
        assert len(names) == len(set(names)), "each is one of the process, and none of a run"
        assert all(name.startswith("stanchion-") for name in names)
        view = await runtime.view(runs[50])
        await runtime.decide(runs[50], view.waiting[0].call, "approve")
        assert (await over(runtime, runs[50])).outcome == "done"
        assert results  # (the rest stays)


async def test_a_message_at_the_moment_of_the_answer_is_answered(tmp_path: Path) -> None:
    """What is accepted while the last append is on its way is taken in: the run goes on instead of ending over it."""

    class Late:
        """A store that lets a message in just before the append that would end the run."""

        def __init__(self, store: SqliteStore) -> None:
            self.store, self.said = store, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def append(self, append: Append) -> Any:
            if append.status == "ended" and not self.said:
                self.said = True
                message = ev.MessageAdded(by="ann", parts=(Text("And?", USER),))
                await self.store.post(append.tenant, append.run, "message", msgspec.json.encode(message))
            return await self.store.append(append)

    store = Late(await SqliteStore.open(tmp_path / "t.db"))
    model = ScriptedModel(["First.", "Second."])
    async with await Runtime.open(agent(), store=store, clients={"*": model}) as runtime:  # type: ignore[arg-type]
        run = (await runtime.start("desk", "Go.")).run
        assert (await over(runtime, run)).text == "Second."
        assert [m.role for m in model.requests[1].messages] == ["user", "assistant", "user"]
        await unchanged(runtime)
