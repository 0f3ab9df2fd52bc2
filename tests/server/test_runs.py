"""Starting runs, reading them, and saying something to them, over a real socket."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stanchion.runtime import RunView, Started
from stanchion.server.answers.people import WaitingModel
from stanchion.server.answers.runs import RunModel, StartedModel, UsageModel
from tests.server.serving import HeldModel, agent, refunder, served


async def test_submit_answers_at_once_and_says_where(tmp_path: Path) -> None:
    """202, the run's id, and its address; the run goes on by itself."""
    async with served(tmp_path) as server:
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Where is A-17?"})
        assert said.status == 202
        run = said.json["run"]
        assert said.headers["location"] == f"/v1/runs/{run}"
        assert said.json == {"run": run, "session": said.json["session"], "existing": False, "queued": False}
        await server.until(run, "ended")
        view = (await server.call("GET", said.headers["location"])).json
        assert (view["outcome"], view["text"], view["usage"]["tool_calls"]) == ("done", "It was shipped.", 1)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"mode": "wait"}, {}),
        ({"wait_s": 20}, {}),
        ({}, {"prefer": "wait=20"}),
        ({}, {"prefer": "respond-async, wait=20"}),
    ],
)
async def test_wait_answers_with_the_run_that_ended(tmp_path: Path, body: Any, headers: Any) -> None:
    """A client that wants the answer in the response gets it, by the body or by the Prefer header."""
    async with served(tmp_path) as server:
        asked = {"agent": "support", "input": "Where is A-17?"} | body
        said = await server.call("POST", "/v1/runs", asked, headers=headers)
        assert (said.status, said.json["status"], said.json["text"]) == (200, "ended", "It was shipped.")


async def test_wait_gives_up_in_time_and_the_run_goes_on(tmp_path: Path) -> None:
    """202 with the run as it stands; nothing is cancelled by a client that waits no longer."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Hi", "wait_s": 0.05})
        assert (said.status, said.json["status"], said.json["outcome"]) == (202, "runnable", "")
        model.go_on.set()
        assert (await server.until(said.json["run"], "ended"))["text"] == "One two."


@pytest.mark.parametrize(("body", "headers"), [({"mode": "stream"}, {}), ({}, {"accept": "text/event-stream"})])
async def test_stream_answers_with_the_events(tmp_path: Path, body: Any, headers: Any) -> None:
    """The response is the run's journal from its first event to its end."""
    async with served(tmp_path) as server:
        asked = {"agent": "support", "input": "Where is A-17?"} | body
        events = [e async for e in server.events("/v1/runs", method="POST", body=asked, headers=headers)]
        assert [e.id for e in events if e.id] == [str(seq) for seq in range(1, 10)]
        assert events[0].kind == "run_started"
        assert events[-2].kind == "run_finished"
        assert (events[-1].kind, events[-1].data) == ("end", {"reason": "finished", "seq": 9})


async def test_the_body_says_more_than_a_header(tmp_path: Path) -> None:
    """A mode in the body is what counts."""
    async with served(tmp_path) as server:
        asked = {"agent": "support", "input": "Hi", "mode": "submit"}
        said = await server.call("POST", "/v1/runs", asked, headers={"accept": "text/event-stream", "prefer": "wait=5"})
        assert said.status == 202


async def test_everything_of_a_start_reaches_the_journal(tmp_path: Path) -> None:
    """Parts, user, session, limits, deadline and dry run stand in the run's first event."""
    async with served(tmp_path) as server:
        deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        parts = [
            {"type": "text", "text": "See"},
            {"type": "media", "mime": "image/png", "data": "aGk=", "max_input_tokens": 9},
        ]
        limits = {"usd": 0.5, "turns": 90, "wall_s": 60, "stop_early": True}
        run = (
            await server.start(
                input=parts, user="ann", session="s1", limits=limits, dry_run=True, deadline=deadline, if_busy="queue"
            )
        )["run"]
        page = (await server.call("GET", f"/v1/runs/{run}/events?format=json&limit=1")).json
        first = page["events"][0]
        assert (first["user"], first["session"], first["dry_run"]) == ("ann", "s1", True)
        assert (first["caps"]["nano_usd"], first["caps"]["wall_s"]) == (500_000_000, 60.0)
        assert first["caps"]["stop_early"] is True
        assert first["deadline_ms"] == int(datetime.fromisoformat(deadline).timestamp() * 1000)
        assert [part["type"] for part in first["parts"]] == ["text", "media"]
        assert {part["label"]["source"] for part in first["parts"]} == {"user"}


async def test_limits_that_were_not_named_are_left_to_the_agent(tmp_path: Path) -> None:
    """Asking for less money does not bring the defaults of `Limits` in."""
    from stanchion.agent import Limits

    wide = agent(limits=Limits(turns=200, tool_calls_per_turn=100, budget_wait_s=90))
    async with served(tmp_path, agents=[wide]) as server:
        run = (await server.start(limits={"usd": "0.50"}))["run"]
        caps = (await server.call("GET", f"/v1/runs/{run}/events?format=json")).json["events"][0]["caps"]
        assert caps["turns"] == 200
        assert caps["tool_calls_per_turn"] == 100
        assert caps["budget_wait_s"] == 90


# --- idempotency --------------------------------------------------------------------------------------------------------


async def test_the_same_key_and_body_is_the_same_run(tmp_path: Path) -> None:
    """Live or ended, in any order of the members and however it is to be answered."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        headers = {"idempotency-key": "k1"}
        asked = b'{"agent": "support", "input": "Hi"}'
        first = await server.call("POST", "/v1/runs", asked, headers=headers)
        live = await server.call("POST", "/v1/runs", b'{"input":"Hi","agent":"support"}', headers=headers)
        assert (first.status, live.status) == (202, 200)
        assert live.json == first.json | {"existing": True}
        model.go_on.set()
        await server.until(first.json["run"], "ended")
        ended = await server.call("POST", "/v1/runs", asked, headers=headers)
        assert (ended.status, ended.json["run"]) == (200, first.json["run"])
        waited = await server.call("POST", "/v1/runs", asked, headers=headers | {"prefer": "wait=5"})
        assert (waited.status, waited.json["text"]) == (200, "One two.")
        assert len((await server.call("GET", "/v1/runs")).json["runs"]) == 1


async def test_the_same_key_with_another_body_is_refused(tmp_path: Path) -> None:
    """422, and no run."""
    async with served(tmp_path) as server:
        headers = {"idempotency-key": "k1"}
        await server.call("POST", "/v1/runs", {"agent": "support", "input": "Hi"}, headers=headers)
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Ho"}, headers=headers)
        assert (said.status, said.error["code"]) == (422, "idempotency_mismatch")


async def test_a_refused_start_does_not_consume_its_key(tmp_path: Path) -> None:
    """After 404 for the agent the corrected body starts under the same key."""
    async with served(tmp_path) as server:
        headers = {"idempotency-key": "k1"}
        refused = await server.call("POST", "/v1/runs", {"agent": "suport", "input": "Hi"}, headers=headers)
        assert (refused.status, refused.error["field"]) == (404, "agent")
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Hi"}, headers=headers)
        assert said.status == 202


async def test_twenty_at_once_under_one_key_are_one_run(tmp_path: Path) -> None:
    """A client that retries wildly does not start twice."""
    async with served(tmp_path) as server:
        body = {"agent": "support", "input": "Hi"}
        calls = [server.call("POST", "/v1/runs", body, headers={"idempotency-key": "k"}) for _ in range(20)]
        replies = await asyncio.gather(*calls)
        assert len({reply.json["run"] for reply in replies}) == 1
        assert sorted(reply.status for reply in replies) == [200] * 19 + [202]


# --- people -------------------------------------------------------------------------------------------------------------


async def test_a_call_waits_and_is_approved(tmp_path: Path) -> None:
    """What waits stands in the run; the decision binds to its revision; a second decision is a conflict."""
    async with served(tmp_path, refunder()) as server:
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Refund", "mode": "wait"})
        assert (said.status, said.json["status"]) == (202, "waiting")
        run, waiting = said.json["run"], said.json["waiting"][0]
        assert (waiting["tool"], waiting["arguments"]) == ("refund", {"order": "A-17", "cents": 1250})
        path = f"/v1/runs/{run}/decisions"
        stale = await server.call("POST", path, {"call": waiting["call"], "decision": "approve", "revision": 7})
        assert (stale.status, stale.error["field"]) == (409, "revision")
        unknown = await server.call("POST", path, {"call": "99.0", "decision": "approve"})
        assert unknown.status == 404
        body = {"call": waiting["call"], "decision": "approve", "revision": waiting["revision"], "by": "ann"}
        assert (await server.call("POST", path, body)).status == 202
        assert (await server.until(run, "ended"))["done"] == [f"{waiting['call']} refund"]
        assert (await server.call("POST", path, body)).status == 409


async def test_an_edit_is_checked_against_the_tool(tmp_path: Path) -> None:
    """Arguments that the tool would refuse are refused here, by name; good ones are what runs."""
    async with served(tmp_path, refunder()) as server:
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Refund", "mode": "wait"})
        run, call = said.json["run"], said.json["waiting"][0]["call"]
        path = f"/v1/runs/{run}/decisions"
        wrong = await server.call("POST", path, {"call": call, "decision": "edit", "arguments": {"order": "A-17"}})
        assert (wrong.status, wrong.error["field"]) == (422, "arguments")
        assert "cents" in wrong.error["message"]
        right = {"call": call, "decision": "edit", "arguments": {"order": "A-17", "cents": 5}}
        assert (await server.call("POST", path, right)).status == 202
        await server.until(run, "ended")
        events = (await server.call("GET", f"/v1/runs/{run}/events?format=json")).json["events"]
        results = [event["parts"][0]["text"] for event in events if event["type"] == "tool_call_finished"]
        assert results == ["refunded 5 of A-17"]


async def test_cancel_needs_no_body_and_is_a_conflict_once_over(tmp_path: Path) -> None:
    """A live run stops; the second time there is nothing to stop."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        await model.began.wait()
        said = await server.call("POST", f"/v1/runs/{run}/cancel")
        assert (said.status, said.json) == (202, {"run": run})
        assert (await server.until(run, "ended"))["outcome"] == "cancelled"
        again = await server.call("POST", f"/v1/runs/{run}/cancel", {"reason": "really"})
        assert again.status == 409


async def test_a_message_reaches_a_live_run(tmp_path: Path) -> None:
    """What is said to a run stands in its journal; to one that is over it is a conflict."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        await model.began.wait()
        assert (await server.call("POST", f"/v1/runs/{run}/messages", {"input": "Quick!", "by": "ann"})).status == 202
        model.go_on.set()
        await server.until(run, "ended")
        events = (await server.call("GET", f"/v1/runs/{run}/events?format=json")).json["events"]
        assert [e["parts"][0]["text"] for e in events if e["type"] == "message_added"] == ["Quick!"]
        assert (await server.call("POST", f"/v1/runs/{run}/messages", {"input": "Hello?"})).status == 409


async def test_only_a_parked_run_is_revived(tmp_path: Path) -> None:
    """Reviving what goes on by itself is a conflict."""
    async with served(tmp_path) as server:
        run = (await server.start())["run"]
        assert (await server.call("POST", f"/v1/runs/{run}/revive")).status == 409


# --- lists --------------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_in_pages_and_by_what_they_are(tmp_path: Path) -> None:
    """Newest first; `before` goes on; every filter filters."""
    async with served(tmp_path) as server:
        runs = [(await server.start(user=f"u{n % 2}"))["run"] for n in range(5)]
        for run in runs:
            await server.until(run, "ended")
        first = (await server.call("GET", "/v1/runs?limit=3")).json
        rest = (await server.call("GET", f"/v1/runs?limit=3&before={first['before']}")).json
        assert [row["run"] for row in first["runs"] + rest["runs"]] == runs[::-1]
        assert rest["before"] == ""
        assert len((await server.call("GET", "/v1/runs?user=u1&status=ended&agent=support")).json["runs"]) == 2
        assert (await server.call("GET", "/v1/runs?status=parked")).json["runs"] == []


async def test_a_session_and_its_conversation(tmp_path: Path) -> None:
    """A second run goes on in the session; the conversation is there to read; a busy session says so."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start(session="s1"))["run"]
        busy = await server.call("POST", "/v1/runs", {"agent": "support", "input": "And?", "session": "s1"})
        assert (busy.status, busy.error["code"]) == (409, "session_busy")
        model.go_on.set()
        await server.until(run, "ended")
        await server.until((await server.start(session="s1", input="And?"))["run"], "ended")
        session = (await server.call("GET", "/v1/sessions/s1")).json
        assert (session["runs"], session["live"], session["agent"]) == (2, "", "support")
        messages = (await server.call("GET", "/v1/sessions/s1/messages")).json["messages"]
        assert [m["parts"][0]["text"] for m in messages] == ["Where is A-17?", "One two.", "And?", "One two."]
        assert [s["session"] for s in (await server.call("GET", "/v1/sessions")).json["sessions"]] == ["s1"]
        assert (await server.call("GET", "/v1/sessions/nobody")).status == 404
        assert (await server.call("GET", "/v1/sessions/nobody/messages")).status == 404


async def test_agents_say_what_they_can_do(tmp_path: Path) -> None:
    """Names, models, and each tool with its tier."""
    async with served(tmp_path) as server:
        (item,) = (await server.call("GET", "/v1/agents")).json["agents"]
        assert (item["name"], item["models"]) == ("support", ["openai:test-model"])
        assert {"look_up": "read", "refund": "irreversible"}.items() <= {
            t["name"]: t["effect"] for t in item["tools"]
        }.items()


async def test_a_budget_is_set_read_and_kept(tmp_path: Path) -> None:
    """Exact dollars in and out; a run that would pass it is refused; null takes it away."""
    async with served(tmp_path) as server:
        said = await server.call("PUT", "/v1/budgets/user:ann/day", {"usd": "0.000001"})
        assert (said.status, said.json["limit_usd"], said.json["closed"]) == (200, "0.000001", False)
        spent = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Hi", "user": "ann"})
        assert (spent.status, spent.error["code"]) == (429, "budget_exhausted")
        found = (await server.call("GET", "/v1/budgets/user:ann/day")).json["budgets"]
        assert {row["ledger"].partition(":2")[0] for row in found} == {"user:ann/day"}
        assert found == (await server.call("GET", "/v1/budgets")).json["budgets"]
        assert (await server.call("PUT", "/v1/budgets/user:ann/day", {"usd": None})).json["limit_usd"] is None
        assert (await server.call("GET", "/v1/budgets/user:bob")).status == 404
        assert (await server.call("PUT", "/v1/budgets/nonsense", {"usd": "1"})).status == 422


def test_the_documented_responses_are_the_runtimes_own() -> None:
    """The models of the OpenAPI document name every field that a response has, and no other."""
    from stanchion.runtime.shape import RunUsage, Waiting

    pairs = ((RunModel, RunView), (UsageModel, RunUsage), (WaitingModel, Waiting), (StartedModel, Started))
    for model, struct in pairs:
        assert set(model.model_fields) == {field.name for field in msgspec.structs.fields(struct)}, model
