"""Policies in Cedar on a real server: what they say, when a change takes hold, and that calls are explained by them later."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stanchion import tool
from stanchion.cedar.source import PolicyFile, PolicyText
from stanchion.core import event as ev
from stanchion.core.errors import ConfigError
from stanchion.core.message import ModelRequest
from stanchion.core.state import State
from stanchion.engine.policing import Policing
from stanchion.guard.both import Unreadable
from stanchion.runtime import Runtime
from stanchion.runtime.opening import policies as watched
from stanchion.runtime.opening.policies import places_of, read_policies
from stanchion.runtime.operating.moving import Selection
from stanchion.testing.memory import MemoryStore
from stanchion.testing.model import ScriptedModel, call
from tests.server.serving import Served, agent, refund, refunder, served
from tests.waiting import until

LOOSE = '@id("base") permit(principal, action, resource);'
ASK = LOOSE + '\n@id("look") @ask("a person looks") permit(principal, action == Action::"refund", resource);'
TIGHT = LOOSE + '\n@id("stop") @reason("no refunds today") forbid(principal, action == Action::"refund", resource);'
FAILS = (
    LOOSE
    + """
@id("sum") forbid(principal, action == Action::"refund", resource)
    when { context.arguments.cents * 9223372036854775807 < 0 };"""
)


class Files:
    """A folder with one file of policies."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder / "policies"
        self.folder.mkdir()
        self.write(text)

    def write(self, text: str) -> None:
        (self.folder / "main.cedar").write_text(text)


def opened(tmp_path: Path, files: Files | None, **more: Any) -> Any:
    """Serve an agent whose own rules ask about nothing."""
    agents = [agent(approvals=[])]
    options: dict[str, Any] = more | ({"policies": files.folder} if files is not None else {})
    return served(tmp_path, refunder(), agents=agents, **options)


async def started(server: Served, **more: Any) -> tuple[str, dict[str, Any]]:
    """Start a run; give it once it is over or waits."""
    run = (await server.start(**more))["run"]
    return run, msgspec.to_builtins(await server.runtime.wait(run, timeout_s=20))


async def judged(server: Served, run: str) -> list[ev.ToolCallJudged]:
    entries = await server.runtime.store.read("default", run)
    return [entry.event for entry in entries if isinstance(entry.event, ev.ToolCallJudged)]


async def applied(server: Served, run: str) -> list[str]:
    entries = await server.runtime.store.read("default", run)
    return [entry.event.policy for entry in entries if isinstance(entry.event, ev.PolicyApplied)]


async def explained(runtime: Runtime, run: str) -> Any:
    [call] = await runtime.explaining.calls("default", run)
    return await runtime.explain(run, call)


@pytest.mark.parametrize(
    ("text", "action", "rule", "reason"),
    [
        (LOOSE, "allow", "tier:irreversible", ""),
        (ASK, "ask", "policy:look", "a person looks"),
        (TIGHT, "deny", "policy:stop", "no refunds today"),
        ('permit(principal, action in Action::"tier:read", resource);', "deny", "policy:no_permit", "no policy permits it"),
        (FAILS, "deny", "policy:error", "a policy failed, and what cannot be decided is denied: policy 'sum': "),
    ],
)  # fmt: skip
async def test_policies_decide_and_the_journal_says_which(
    tmp_path: Path, text: str, action: str, rule: str, reason: str
) -> None:
    """The run says under which set it is, each verdict too; and judging again gives the same."""
    async with opened(tmp_path, Files(tmp_path, text)) as server:
        run, view = await started(server)
        [verdict] = await judged(server, run)
        assert (verdict.action, verdict.rule) == (action, rule)
        assert [verdict.policy] == await applied(server, run)
        said = await explained(server.runtime, run)
        assert said.replay == "same", said.note
        assert said.reason.startswith(reason)
        assert (said.policy, [reason.rule for reason in said.reasons]) == (verdict.policy, [rule])
        assert view["status"] == ("waiting" if action == "ask" else "ended")


async def test_a_person_says_yes_to_what_a_policy_asks(tmp_path: Path) -> None:
    """And it is done."""
    async with opened(tmp_path, Files(tmp_path, ASK)) as server:
        run, view = await started(server)
        body = {"call": view["waiting"][0]["call"], "decision": "approve", "by": "ann"}
        assert (await server.call("POST", f"/v1/runs/{run}/decisions", body)).status == 202
        assert (await server.until(run, "ended"))["done"]


async def test_what_is_tightened_holds_for_a_run_that_waits(tmp_path: Path) -> None:
    """The yes was for other policies: the call is judged again, by both sets, and denied."""
    files = Files(tmp_path, ASK)
    async with opened(tmp_path, files) as server:
        run, view = await started(server)
        files.write(TIGHT)
        tight = await server.runtime.reload_policies()
        body = {"call": view["waiting"][0]["call"], "decision": "approve", "by": "ann"}
        await server.call("POST", f"/v1/runs/{run}/decisions", body)
        ended = await server.until(run, "ended")
        asked, denied = await judged(server, run)
        assert (asked.rule, denied.action, denied.rule) == ("policy:look", "deny", "policy:stop")
        assert await applied(server, run) == [asked.policy, f"{asked.policy}+{tight}"]
        assert denied.policy == f"{asked.policy}+{tight}"
        assert ended["done"] == []
        said = await explained(server.runtime, run)
        assert (said.replay, said.rule) == ("same", "policy:stop")
        assert [each.action for each in said.history] == ["ask", "approve", "deny"]


async def test_what_is_tightened_holds_for_a_call_that_has_not_begun(tmp_path: Path) -> None:
    """It was allowed and waits for another of its step: it is judged again before it leaves."""
    began, go_on = asyncio.Event(), asyncio.Event()

    @tool(effect="read")
    async def hold(order: str) -> str:
        """Wait for the test."""
        began.set()
        await go_on.wait()
        return order

    def answer(request: ModelRequest) -> Any:
        calls = [call("hold", order="A-17"), call("refund", order="A-17", cents=5)]
        return "Done." if len(request.messages) > 1 else calls

    files = Files(tmp_path, LOOSE)
    one_by_one = agent(approvals=[], tools=[hold, refund], parallel_tool_calls=False)
    async with served(tmp_path, ScriptedModel(answer), agents=[one_by_one], policies=files.folder) as server:
        run = (await server.start())["run"]
        await began.wait()
        files.write(TIGHT)
        await server.runtime.reload_policies()
        go_on.set()
        ended = await server.until(run, "ended")
        assert [(verdict.tool, verdict.action) for verdict in await judged(server, run)] == [
            ("hold", "allow"),
            ("refund", "allow"),
            ("refund", "deny"),
        ]
        assert ended["done"] == []
        again = (await server.runtime.explaining.calls("default", run))[1]
        said = await server.runtime.explain(run, again)
        assert (said.action, said.rule, said.replay) == ("deny", "policy:stop", "same")


async def test_policies_go_with_a_session_that_is_moved(tmp_path: Path) -> None:
    """In the store that takes it, it is judged and explained by them."""
    async with opened(tmp_path, Files(tmp_path, TIGHT)) as server:
        first, _ = await started(server, session="s")
        await server.runtime.export(tmp_path / "moved.stx", Selection(session="s"))
    async with opened(tmp_path, None, data="other.db") as server:
        await server.runtime.restore(tmp_path / "moved.stx")
        second, _ = await started(server, session="s")
        assert [(await judged(server, run))[0].rule for run in (first, second)] == ["policy:stop"] * 2
        assert [(await explained(server.runtime, run)).replay for run in (first, second)] == ["same"] * 2


async def test_what_is_loosened_holds_for_new_sessions(tmp_path: Path) -> None:
    """A session keeps to the set that it began with; what is tightened later holds for it as well."""
    files = Files(tmp_path, TIGHT)
    async with opened(tmp_path, files) as server:
        first, _ = await started(server, session="old")
        files.write(LOOSE)
        loose = await server.runtime.reload_policies()
        second, _ = await started(server, session="old")
        third, view = await started(server, session="new")
        [began] = await applied(server, first)
        assert await applied(server, second) == [f"{began}+{loose}"]
        assert await applied(server, third) == [loose]
        assert [(await judged(server, run))[0].action for run in (first, second, third)] == ["deny", "deny", "allow"]
        assert view["done"]
        files.write(ASK)
        await server.runtime.reload_policies()
        fourth, _ = await started(server, session="new")
        assert [verdict.action for verdict in await judged(server, fourth)] == ["ask"]


async def test_a_session_keeps_its_policies_in_a_process_that_has_none(tmp_path: Path) -> None:
    """Their text lies in the store: they are judged by, and explained, wherever the session goes on."""
    async with opened(tmp_path, Files(tmp_path, TIGHT)) as server:
        first, _ = await started(server, session="s")
    async with opened(tmp_path, None) as server:
        second, _ = await started(server, session="s")
        other, _ = await started(server)
        assert [(await judged(server, run))[0].action for run in (first, second, other)] == ["deny", "deny", "allow"]
        assert await applied(server, other) == []
    runtime = await Runtime.open(data=tmp_path / "test.db", drive=False)
    assert [(await explained(runtime, run)).replay for run in (first, second, other)] == ["same"] * 3
    await runtime.aclose()


async def test_a_set_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """At the start with file and line; later the set before it stays in force."""
    files = Files(tmp_path, LOOSE + '\nforbid(principal, action == Action::"refnd", resource);')
    with pytest.raises(ConfigError, match=r"main\.cedar:2: unrecognized action"):
        async with opened(tmp_path, files):
            pass
    files.write(TIGHT)
    async with opened(tmp_path, files) as server:
        digest = await server.runtime.reload_policies()
        files.write("permit(")
        with pytest.raises(ConfigError, match=r"main\.cedar:1"):
            await server.runtime.reload_policies()
        run, _ = await started(server)
        assert [verdict.policy for verdict in await judged(server, run)] == [digest]


async def test_files_that_change_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to tell the server; a set with a fault changes nothing."""
    monkeypatch.setattr(watched, "LOOK_S", 0.01)
    files = Files(tmp_path, LOOSE)
    async with opened(tmp_path, files) as server:
        policing = server.runtime._policing
        before = policing.active
        assert before is not None
        files.write("permit(")
        files.write(TIGHT)
        await until(lambda: policing.active is not before)
        run, _ = await started(server)
        assert [verdict.action for verdict in await judged(server, run)] == ["deny"]


async def test_policies_that_cannot_be_found_allow_nothing() -> None:
    """Nor do those that are not what their digest says, and those that cannot be parsed."""
    store = MemoryStore()
    policing = Policing(store, read_policies)
    begun = State(tenant="t", policy="gone+other")
    now = (await policing.of("t", begun)).now()
    assert isinstance(now, Unreadable)
    assert now.digest == "gone"
    await store.put_bundle("t", "false", b'{"files":[{"name":"a.cedar","text":""}]}')
    await store.put_bundle("t", "broken", b'{"files":[{"name":"a.cedar","text":"permit("}]}')
    await store.put_bundle("t", "none", b"no json")
    found = [await policing.find("t", digest) for digest in ("false", "broken", "none")]
    assert all(isinstance(policies, Unreadable) for policies in found)
    assert (await policing.of("t", State(tenant="t"))).now() is None


def test_where_policies_lie() -> None:
    """An option beats the environment; both may name several."""
    environment = {"STANCHION_POLICIES": "a.cedar:b"}
    assert places_of((), environment) == (Path("a.cedar"), Path("b"))
    assert places_of("x", environment) == (Path("x"),)
    assert places_of(["x", Path("y")], {}) == (Path("x"), Path("y"))
    assert places_of((), {}) == ()


async def test_without_cedar_nothing_is_allowed_that_had_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error says what to install."""
    monkeypatch.delitem(sys.modules, "stanchion.cedar.policies")
    monkeypatch.setitem(sys.modules, "cedarpy", None)
    text = PolicyText((PolicyFile("a.cedar", LOOSE),))
    with pytest.raises(ConfigError, match=r"stanchion\[cedar\]"):
        read_policies(text.encode())
    store = MemoryStore()
    await store.put_bundle("t", text.digest, text.encode())
    assert isinstance(await Policing(store, read_policies).find("t", text.digest), Unreadable)
