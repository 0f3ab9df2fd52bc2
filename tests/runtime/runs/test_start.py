"""Starting runs: idempotency, sessions, queues, and what a request may not ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stanchion import InputError, Limits, Runtime
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, NotFound
from stanchion.core.message import USER, Media, Message, Text, ToolResult
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import (
    HeldModel,
    World,
    agent,
    echo,
    events,
    heard,
    once,
    over,
    results,
    running,
    unchanged,
    until_event,
)


def in_files(folder: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in folder.iterdir())


async def test_one_key_is_one_run(tmp_path: Path) -> None:
    """The same key and request is the same run, live or ended, here or after a restart; another request is refused."""
    model = HeldModel()
    async with running(tmp_path, model) as runtime:
        first = await runtime.start("desk", "Hello", idempotency_key="k")
        again = await runtime.start("desk", "Hello", idempotency_key="k")
        assert (again.run, again.session, again.existing) == (first.run, first.session, True)
        model.gate.set()
        await over(runtime, first.run)
        assert (await runtime.start("desk", "Hello", idempotency_key="k")).run == first.run
        others: list[dict[str, Any]] = [
            {"input": "Bye"},
            {"user": "ann"},
            {"session": "s"},
            {"dry_run": True},
            {"limits": Limits(turns=1)},
        ]
        for other in others:
            asked: dict[str, Any] = {"agent": "desk", "input": "Hello"} | other
            with pytest.raises(Conflict) as refused:
                await runtime.start(**asked, idempotency_key="k")
            assert refused.value.code == "idempotency_mismatch"
        stranger = await runtime.start("desk", "Hello", idempotency_key="k", tenant="other")
        assert stranger.run != first.run
    async with running(tmp_path, echo()) as runtime:
        assert (await runtime.start("desk", "Hello", idempotency_key="k")).existing
        assert len(await runtime.runs()) == 1


async def test_twenty_starts_at_once_under_one_key(tmp_path: Path) -> None:
    """A client that sends its request twenty times at once gets one run, which asks the model once."""
    model = echo()
    async with running(tmp_path, model) as runtime:
        said = await asyncio.gather(
            *(runtime.start("desk", "Hello", idempotency_key="k", idempotency_digest="d") for _ in range(20))
        )
        assert len({started.run for started in said}) == 1
        assert len({started.session for started in said}) == 1
        assert sum(not started.existing for started in said) == 1
        await over(runtime, said[0].run)
        assert len(model.requests) == 1
        assert runtime.active <= 1


async def test_a_refused_start_leaves_its_key(tmp_path: Path) -> None:
    """A start that was refused may come again under its key, with another body."""
    model = HeldModel()
    async with running(tmp_path, model) as runtime:
        first = await runtime.start("desk", "One", session="s")
        with pytest.raises(Conflict) as busy:
            await runtime.start("desk", "Two", session="s", idempotency_key="k")
        assert busy.value.code == "session_busy"
        assert first.run in str(busy.value)
        model.gate.set()
        await over(runtime, first.run)
        assert not (await runtime.start("desk", "Three", session="s", idempotency_key="k")).existing


async def test_a_queue_is_kept_in_order(tmp_path: Path) -> None:
    """Requests for a busy session run one after the other, in the order they came, each on the conversation so far."""
    model = HeldModel()
    runtime = await Runtime.open(agent(), data=tmp_path / "t.db", clients={"*": model})
    runs = [(await runtime.start("desk", "0", session="s")).run]
    runs += [(await runtime.start("desk", str(n), session="s", if_busy="queue")).run for n in range(1, 6)]
    assert [row.status for row in await runtime.runs(session="s")] == ["queued"] * 5 + ["runnable"]
    assert (await runtime.view(runs[3])).status == "queued"
    model.gate.set()
    for run in runs:
        assert (await over(runtime, run)).outcome == "done"
    assert [heard(request) for request in model.requests] == list("012345")
    assert [len(request.messages) for request in model.requests] == [1, 3, 5, 7, 9, 11]
    await unchanged(runtime)
    await runtime.aclose()


async def test_queue_over_a_restart(tmp_path: Path) -> None:
    """A queue goes on in the next process."""
    model = HeldModel()
    runtime = await Runtime.open(agent(), data=tmp_path / "t.db", clients={"*": model})
    runs = [(await runtime.start("desk", "0", session="s")).run]
    runs += [(await runtime.start("desk", str(n), session="s", if_busy="queue")).run for n in range(1, 4)]
    await model.began.wait()
    await runtime.aclose(grace_s=0)
    async with running(tmp_path, echo()) as runtime:
        for number, run in enumerate(runs):
            assert (await over(runtime, run)).text == f"You said: {number}"
        row = await runtime.session("s")
        assert (row.live, row.runs) == ("", 4)


async def test_queueing_in_a_free_session_starts(tmp_path: Path) -> None:
    """`if_busy="queue"` in a free session is a plain start."""
    async with running(tmp_path, echo()) as runtime:
        run = (await runtime.start("desk", "Hello", session="s", if_busy="queue")).run
        assert (await over(runtime, run)).outcome == "done"


async def test_many_at_once_in_one_session(tmp_path: Path) -> None:
    """Of many queued at once, all run, one at a time, and the conversation holds each once."""
    async with running(tmp_path, echo()) as runtime:
        said = await asyncio.gather(*(runtime.start("desk", f"m{n}", session="s", if_busy="queue") for n in range(20)))
        for started in said:
            assert (await over(runtime, started.run)).outcome == "done"
        texts = [
            m.parts[0].text for m in await runtime.messages("s") if m.role == "user" and isinstance(m.parts[0], Text)
        ]
        assert sorted(texts) == sorted(f"m{n}" for n in range(20))
        await unchanged(runtime)


async def test_a_session_of_twenty_runs(tmp_path: Path) -> None:
    """The conversation goes on over runs and restarts; `messages` shows it just as the model was shown it."""
    model = ScriptedModel(
        lambda request: (
            f"Answer to {heard(request)}"
            if isinstance(request.messages[-1].parts[0], ToolResult)
            else call("look", order=heard(request))
        )
    )
    for part in range(4):
        async with running(tmp_path, model) as runtime:
            for number in range(part * 5, part * 5 + 5):
                run = (await runtime.start("desk", f"q{number}", session="s")).run
                assert (await over(runtime, run)).text == f"Answer to q{number}"
    async with running(tmp_path, model) as runtime:
        shown = tuple(await runtime.messages("s"))
        assert len(shown) == 80
        assert shown[: len(model.requests[-1].messages)] == model.requests[-1].messages
        for before, after in zip(model.requests, model.requests[1:], strict=False):
            assert after.messages[: len(before.messages)] == before.messages
        row = await runtime.session("s")
        assert (row.runs, row.live, row.agent) == (20, "", "desk")
        assert len(await runtime.runs(session="s")) == 20
        await unchanged(runtime)


async def test_messages_of_a_live_run(tmp_path: Path) -> None:
    """The conversation of a live run is shown as it stands."""
    model = HeldModel()
    async with running(tmp_path, model) as runtime:
        await runtime.start("desk", "Hello", session="s")
        await model.began.wait()
        assert list(await runtime.messages("s")) == [Message("user", (Text("Hello", USER),))]
        model.gate.set()
        with pytest.raises(NotFound, match="no session"):
            await runtime.messages("none")


async def test_a_message_in_mid_call_is_answered(tmp_path: Path) -> None:
    """What is said while the model speaks is answered in another turn of the same run."""
    model = HeldModel()
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        await model.began.wait()
        await runtime.send(run, "And?", by="ann")
        await until_event(runtime, run, ev.MessageAdded)
        model.gate.set()
        view = await over(runtime, run)
        assert view.usage.turns == 2
        assert heard(model.requests[1]) == "And?"


BAD: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"agent": "nobody"}, NotFound, "agent: there is no agent 'nobody'; there are: desk"),
    ({"input": ""}, InputError, "input: is empty"),
    ({"input": " \n"}, InputError, "input: is empty"),
    ({"input": ()}, InputError, "input: is empty"),
    ({"input": (ToolResult("1", "x", "y", USER),)}, InputError, "input: may hold text and media only"),
    ({"input": "x" * 4_000_001}, InputError, "input: is longer than 4,000,000"),
    ({"session": "a b"}, InputError, "session: use 1 to 128 letters"),
    ({"session": "x" * 129}, InputError, "session: use 1 to 128 letters"),
    ({"user": "ann/bob"}, InputError, "user: use 1 to 128 letters"),
    ({"deadline_ms": 1}, InputError, "deadline_ms: must lie in the future"),
    ({"if_busy": "wait"}, InputError, "if_busy: must be"),
    ({"limits": Limits(usd="-1")}, InputError, "limits.usd: .* must not be negative"),
    ({"limits": Limits(turns=0)}, InputError, "limits.turns: must be above 0"),
]


@pytest.mark.parametrize(
    ("asked", "error", "text"), BAD, ids=[next(iter(case[0])) + str(n) for n, case in enumerate(BAD)]
)
async def test_bad_requests(tmp_path: Path, asked: dict[str, Any], error: type[InputError], text: str) -> None:
    """A request that cannot be is refused, names its field, and leaves nothing."""
    async with running(tmp_path, echo()) as runtime:
        given: dict[str, Any] = {"agent": "desk", "input": "Hello"} | asked
        with pytest.raises(error, match=text) as refused:
            await runtime.start(**given)
        assert refused.value.field
        assert list(await runtime.runs()) == []
        assert list(await runtime.sessions()) == []


async def test_a_session_keeps_its_agent(tmp_path: Path) -> None:
    """A session belongs to the agent that began it."""
    async with running(tmp_path, echo(), agent(), agent(name="other")) as runtime:
        await over(runtime, (await runtime.start("desk", "Hello", session="s")).run)
        with pytest.raises(Conflict, match="belongs to agent 'desk'"):
            await runtime.start("other", "Hello", session="s")


async def test_media_without_text(tmp_path: Path) -> None:
    """An image alone is something said."""
    async with running(tmp_path, ScriptedModel(["A cat."])) as runtime:
        run = (await runtime.start("desk", (Media("image/png", USER, data="aGk=", max_input_tokens=100),))).run
        assert (await over(runtime, run)).text == "A cat."


async def test_tenants_are_apart(tmp_path: Path) -> None:
    """A run, session or budget of one tenant is nothing to another."""
    world = World()
    async with running(tmp_path, once("refund", order="A", cents=1), agent(world)) as runtime:
        started = await runtime.start("desk", "Hello", session="s", tenant="one")
        waiting = (await runtime.wait(started.run, tenant="one", timeout_s=10)).waiting[0]
        for reach in (
            runtime.view(started.run),
            runtime.send(started.run, "x"),
            runtime.cancel(started.run),
            runtime.decide(started.run, waiting.call, "approve"),
            runtime.session("s"),
            runtime.revive(started.run),
        ):
            with pytest.raises(NotFound):
                await reach
        with pytest.raises(NotFound):
            await anext(runtime.tail(started.run))
        assert list(await runtime.runs()) == []
        assert world.done == []


async def test_erasure(tmp_path: Path) -> None:
    """A user's content is gone from journal, conversation and cache; the chains verify, and a new run starts clean."""
    model = ScriptedModel(lambda request: f"{len(request.messages)} {results(request)}")
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "my secret", user="ann", session="s")).run
        await over(runtime, run)
        other = (await runtime.start("desk", "bob's own", user="bob", session="t")).run
        await over(runtime, other)
        assert await runtime.erase("ann")
        assert not await runtime.erase("ann")
        text = repr([await events(runtime, run), await runtime.messages("s"), await runtime.view(run)])
        assert "secret" not in text
        assert "bob's own" in repr(await events(runtime, other))
        (found,) = [verified async for verified in runtime.verify(run)]
        assert (found.error, found.erased > 0) == ("", True)
        next_run = (await runtime.start("desk", "hello again", user="ann", session="s")).run
        assert (await over(runtime, next_run)).outcome in ("done", "failed")
        assert "secret" not in repr(model.requests[-1])
        await unchanged(runtime)
    assert not in_files(tmp_path, "my secret")


async def test_keys(tmp_path: Path) -> None:
    """A key is shown once, names its tenant until it is revoked, and is not in the file."""
    async with running(tmp_path, echo()) as runtime:
        key, secret = await runtime.keys.add("acme", "ci")
        assert secret.startswith("sk-st-")
        assert await runtime.keys.tenant_of(secret) == "acme"
        assert await runtime.keys.tenant_of("sk-st-wrong") is None
        assert [found.name for found in await runtime.keys.list()] == ["ci"]
        assert await runtime.keys.revoke(key.id)
        assert await runtime.keys.tenant_of(secret) is None
        assert not await runtime.keys.revoke("key_none")
        with pytest.raises(InputError, match="tenant"):
            await runtime.keys.add("a b", "x")
    assert not in_files(tmp_path, secret)


def test_names_of_events_are_all_shown() -> None:
    """Every event can be given to a client as JSON."""
    from stanchion.runtime import entry_json

    entry = ev.Entry(1, 2, 3, ev.CancelRequested(by="ann", parts=(Text("why", USER),)))
    assert b'"type":"cancel_requested"' in entry_json(entry)
    assert b'"text":"why"' in entry_json(entry)
