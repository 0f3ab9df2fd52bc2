"""Checks as a client of the HTTP API meets them: a refusal that names the check, a stream that holds back, a journal that tells."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stanchion.core import event as ev
from stanchion.core.message import MODEL, RUNTIME, Text
from stanchion.plugin import CheckRule
from stanchion.policy import GuardRules
from stanchion.server.sse import encode
from stanchion.testing.model import ScriptedModel
from tests.server.serving import agent, served


def guarded(*rules: CheckRule) -> GuardRules:
    return GuardRules(mark=False, checks=rules)


async def test_a_start_that_is_blocked_is_422_and_names_field_and_check(tmp_path: Path) -> None:
    """Nothing was written, so the same key serves for what is right."""
    rules = guarded(CheckRule("size", "input", "block", settings={"max_chars": 20}))
    async with served(tmp_path, ScriptedModel(["fine"]), agents=[agent(guard=rules)]) as server:
        headers = {"idempotency-key": "k1"}
        body = {"agent": "support", "input": "x" * 21}
        said = await server.call("POST", "/v1/runs", body, headers=headers)
        assert said.status == 422
        assert said.error["field"] == "input"
        assert "refused by the check 'size'" in said.error["message"]
        again = await server.call("POST", "/v1/runs", body | {"input": "short"}, headers=headers)
        assert again.status < 300


async def test_a_stream_shows_nothing_of_an_answer_that_is_blocked(tmp_path: Path) -> None:
    """No delta, no event, no end holds it; the events of the run, for people who look, do."""
    rules = guarded(CheckRule("pattern", "output", "block", settings={"patterns": ["hush-[0-9]+"]}))
    async with served(tmp_path, ScriptedModel(["the word is hush-77"]), agents=[agent(guard=rules)]) as server:
        run = (await server.start())["run"]
        seen = [event async for event in server.events(f"/v1/runs/{run}/events")]
        assert "hush-77" not in msgspec.json.encode([event.data for event in seen]).decode()
        finished = next(event.data for event in seen if event.kind == "run_finished")
        assert (finished["outcome"], finished["reason"]) == ("failed", "check:pattern")
        view = await server.call("GET", f"/v1/runs/{run}")
        assert b"hush-77" not in view.raw


async def test_what_was_found_stands_among_the_events(tmp_path: Path) -> None:
    """By check, place and what became of the text."""
    rules = guarded(CheckRule("pattern", "input", "redact", settings={"patterns": ["[0-9]{4}"]}))
    async with served(tmp_path, ScriptedModel(["fine"]), agents=[agent(guard=rules)]) as server:
        run = (await server.start(input="my pin is 4242"))["run"]
        await server.until(run, "ended")
        seen = [event async for event in server.events(f"/v1/runs/{run}/events")]
        found = next(event.data for event in seen if event.kind == "content_checked")
        assert (found["check"], found["where"], found["action"], found["spans"]) == (
            "pattern", "input", "redact", [[10, 14]],
        )  # fmt: skip


def test_what_came_of_an_answer_before_its_call_failed_is_held_back_as_well() -> None:
    """The error's words are the runtime's, and stay."""
    parts = (Text("hush", MODEL), Text("the connection broke", RUNTIME))
    failed = ev.ModelCallFailed(turn=1, attempt=1, code="cut", held=True, parts=parts)
    sent = encode(ev.Entry(3, 0, 1, failed))
    assert b"hush" not in sent
    assert b"the connection broke" in sent
