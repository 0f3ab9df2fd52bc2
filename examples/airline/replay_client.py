"""The recorded customer as a client of the running server: says what was recorded, follows the runs, approves what waits.

What is in doubt after a kill is no customer's to settle: it is put to `person`, an operator who looks at the airline's own books.

Each thing the customer said is a run in one session, started under an idempotency key and followed by its event stream. A
connection that breaks is nothing: the same request is made again under the same key, and the stream goes on after the
last event that came. Events must come gapless and once, whatever happens to the server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import aiohttp

from examples.airline.recordings import Json
from examples.airline.replay_server import Address

PATIENCE_S = 180.0
BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Unanswered(Exception):
    """The server did not do as it was asked; the message says what."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A tool's answer as the journal has it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A call of which it is not known whether it was done, as its run's journal shows it to an operator."""

    call: str
    tool: str
    key: str
    """The idempotency key that all of its attempts had."""
    refused: str
    """What the tool said when it was called again, or ""."""


Person: TypeAlias = Callable[[Doubt], Awaitable[Json]]
"""Settles a doubt: the fields of a decision."""


@dataclass(slots=True)
class Replayed:
    """What a replay of one conversation was, read from the events of its runs."""

    answers: list[Answered] = field(default_factory=list[Answered])
    heard: list[str] = field(default_factory=list[str])
    outcome: str = ""
    reason: str = ""
    said: int = 0
    """How many of the customer's messages were sent."""
    events: int = 0
    models_cut: int = 0
    """Attempts at a model call that a kill cut off."""
    tools_cut: int = 0
    """Attempts at a tool call that were made again, because a kill came before their outcome was known."""
    doubts: int = 0
    """How often a person was asked what became of a call."""
    started_ms: int = 0
    ended_ms: int = 0
    trouble: str = ""

    @property
    def told(self) -> str:
        """What the assistant said to the customer, in the form of `Conversation.said`."""
        return "\n".join(self.heard).lower().replace(",", "")


class Caller:
    """A customer in one conversation. `on_event` is told how many events have come; without a `person` a doubt ends it."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        address: Address,
        session: str,
        on_event: Callable[[int], None],
        person: Person | None = None,
    ) -> None:
        self._http = http
        self._address = address
        self._session = session
        self._on_event = on_event
        self._person = person
        self._doubts: dict[str, tuple[Doubt, int]] = {}
        """The calls of the run that were asked for, as far as they are known, each with its last attempt."""
        self.replayed = Replayed()

    async def converse(self, messages: list[str]) -> Replayed:
        """Say everything, until the assistant hands over or fails. What the server did not do is in `trouble`."""
        try:
            for number, said in enumerate(messages, 1):
                async with asyncio.timeout(PATIENCE_S):
                    await self._say(said, f"{self._session}/{number}")
                self.replayed.said = number
                if self.replayed.outcome != "done":
                    break
        except Unanswered as error:
            self.replayed.trouble = str(error)
        except TimeoutError:
            self.replayed.trouble = f"a run did not end within {PATIENCE_S:.0f} s"
        return self.replayed

    async def _say(self, said: str, key: str) -> None:
        self._doubts.clear()
        body = {"agent": "airline", "input": said, "session": self._session}
        run = str((await self._post("/v1/runs", body, {"Idempotency-Key": key}))["run"])
        after, attached = 0, False
        while True:
            url = await self._address.url()
            try:
                if attached:
                    await self._approve_waiting(url, run)
                attached = True
                async with aclosing(self._events(url, run, after)) as events:
                    async for event in events:
                        if event["seq"] != after + 1:
                            raise Unanswered(f"run {run}: event {event['seq']} came after {after}")
                        after += 1
                        self._take(event)
                        if event["type"] == "run_finished":
                            return
                        if event["type"] == "tool_call_judged" and event["action"] == "ask":
                            await self._approve(run, event)
            except BROKEN:
                pass
            await self._address.lost(url)

    def _take(self, event: Json) -> None:
        """Note what an event says."""
        replayed, parts = self.replayed, event["parts"]
        replayed.events += 1
        match event["type"]:
            case "run_started":
                replayed.started_ms = replayed.started_ms or event["at_ms"]
            case "model_call_finished" if not any(part["type"] == "tool_call" for part in parts):
                replayed.heard.append("".join(part["text"] for part in parts if part["type"] == "text"))
            case "tool_call_finished":
                result = parts[0]
                error = event["outcome"] != "ok" and not result["text"].startswith("Error")
                replayed.answers.append(Answered(result["name"], ("Error: " if error else "") + result["text"]))
            case "model_call_failed" if event["code"] == "lost":
                replayed.models_cut += 1
            case "tool_call_judged" | "tool_call_started" | "tool_call_failed":
                self._note(event)
            case "run_parked":
                raise Unanswered(f"a run is parked ({event['reason']}): {parts[0]['text']}")
            case "run_finished":
                replayed.outcome, replayed.reason, replayed.ended_ms = (
                    event["outcome"], event["reason"], event["at_ms"],
                )  # fmt: skip
            case _:
                pass
        self._on_event(replayed.events)

    def _note(self, event: Json) -> None:
        """Keep what the journal shows of a call, for whoever must settle it."""
        doubt, attempt = self._doubts.get(event["call"], (Doubt(event["call"], "", "", ""), 0))
        match event["type"]:
            case "tool_call_judged":
                doubt = replace(doubt, tool=event.get("tool", ""))
            case "tool_call_started":
                doubt, attempt = replace(doubt, key=event["key"], refused=""), event["attempt"]
            case "tool_call_failed" if event["code"] == "lost":
                self.replayed.tools_cut += 1
            case _ if not event["in_doubt"]:
                doubt = replace(doubt, refused=event["parts"][0]["text"])
            case _:
                pass
        self._doubts[event["call"]] = (doubt, attempt)

    async def _approve_waiting(self, url: str, run: str) -> None:
        """Approve what waits: the approval that was sent before may have been lost with the server."""
        async with self._http.get(f"{url}/v1/runs/{run}") as response:
            view = await _body(response)
        if response.status != 200:
            raise Unanswered(f"GET /v1/runs/{run}: {response.status} {_message(view)}")
        for call in view["waiting"]:
            await self._approve(run, call)

    async def _approve(self, run: str, call: Json) -> None:
        """Approve a call. One that is decided already is well."""
        in_doubt = "in_doubt" in (call.get("kind"), call.get("rule"))
        if in_doubt and self._person is None:
            raise Unanswered(f"run {run}: call {call['call']} is in doubt, which only a person may resolve")
        body = {"call": call["call"], "revision": call["revision"]}
        if not in_doubt or self._person is None:
            body |= {"decision": "approve", "by": "recorded customer"}
        else:
            doubt, attempt = self._doubts.get(call["call"], (None, 0))
            if doubt is None or call.get("attempt", attempt) != attempt:
                return  # its events have not come yet; the question comes with them
            self.replayed.doubts += "rule" in call and "kind" not in call  # (once: when its event comes)
            body |= {"attempt": attempt, "by": "operator", **await self._person(doubt)}
        await self._post(f"/v1/runs/{run}/decisions", body, {}, also=409)

    async def _post(self, path: str, body: Json, headers: dict[str, str], *, also: int = 0) -> Json:
        """Post, again and again while the connection breaks; `also` is one more status that is fine."""
        while True:
            url = await self._address.url()
            try:
                async with self._http.post(url + path, json=body, headers=headers) as response:
                    answer = await _body(response)
            except BROKEN:
                await self._address.lost(url)
                continue
            if response.status < 300 or response.status == also:
                return answer
            if response.status != 503:
                raise Unanswered(f"POST {path}: {response.status} {_message(answer)}")
            await self._address.lost(url)

    async def _events(self, url: str, run: str, after: int) -> AsyncGenerator[Json]:
        """Attach to a run's stream after an event."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        async with self._http.get(f"{url}/v1/runs/{run}/events", headers=headers) as response:
            if response.status != 200:
                raise Unanswered(f"GET /v1/runs/{run}/events: {response.status} {_message(await _body(response))}")
            async with aclosing(read_stream(response.content.iter_any())) as stream:
                async for name, data in stream:
                    if name == "end":
                        return
                    if name != "delta":
                        yield json.loads(data)


async def read_stream(chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[str, str]]:
    """Read server-sent events as (event, data); a stream that is cut in an event ends before it."""
    left = b""
    async for chunk in chunks:
        *blocks, left = (left + chunk).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
            if "data" in fields:
                yield fields.get("event", ""), fields["data"]


async def _body(response: aiohttp.ClientResponse) -> Any:
    raw = await response.read()
    try:
        return json.loads(raw)
    except ValueError:
        return {"error": {"message": raw[:200].decode(errors="replace")}}


def _message(body: Any) -> str:
    try:
        return str(body["error"]["message"])
    except (KeyError, TypeError):
        return str(body)[:200]
