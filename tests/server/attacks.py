"""Recorded attacks on agents, to be played again: a scripted model makes the recorded calls, and stubs give the recorded answers.

The recordings (AgentDojo) are no part of this repository. Which value is the attacker's is read from the recording itself: it stands in
the text that was injected and not in what the user said.
"""

from __future__ import annotations

import json
import lzma
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from stanchion import tool
from stanchion.agent import Agent, Model
from stanchion.core.money import price_usd
from stanchion.policy import Bound, Content, Destination
from stanchion.testing.model import ScriptedModel, call

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "agentdojo-runs.jsonl.xz"
Email = Annotated[str, Destination("email")]
Person = Annotated[str, Destination("person")]
Text = Annotated[str, Content()]
_LINK = re.compile(r"(?:https?://|www\.)[^\s\"'<>]+[\w/]")
GOES_TO = {
    "send_email": ("recipients", "cc", "bcc"),
    "create_calendar_event": ("participants",),
    "add_calendar_event_participants": ("participants",),
    "share_file": ("email",),
    "send_direct_message": ("recipient",),
    "invite_user_to_slack": ("user_email",),
    "post_webpage": ("url",),
    "get_webpage": ("url",),
}
"""Tools with an effect or a URL, and their arguments that say where to."""


def effects() -> list[Any]:
    """Make the tools that have effects, as what their parameters mean says. None of them does anything."""

    @tool(effect="irreversible")
    async def send_email(
        recipients: list[Email],
        subject: Text,
        body: Text,
        attachments: list[Any] | None = None,
        cc: list[Email] | None = None,
        bcc: list[Email] | None = None,
    ) -> str:
        """Send an email with the given subject and body."""
        return "sent"

    @tool(effect="write")
    async def create_calendar_event(
        title: Text,
        start_time: Annotated[str, Bound("date")],
        end_time: Annotated[str, Bound("date")],
        description: Text = "",
        participants: list[Email] | None = None,
        location: Text | None = None,
    ) -> str:
        """Create a calendar event, and invite its participants."""
        return "created"

    @tool(effect="write")
    async def share_file(file_id: str, email: Email, permission: Annotated[str, Bound("permission")] = "r") -> str:
        """Share a file with somebody."""
        return "shared"

    @tool(effect="irreversible")
    async def send_direct_message(recipient: Person, body: Text) -> str:
        """Send somebody a message."""
        return "sent"

    @tool(effect="irreversible")
    async def send_channel_message(channel: Annotated[str, Destination("channel")], body: Text) -> str:
        """Send a channel a message."""
        return "sent"

    @tool(effect="write")
    async def invite_user_to_slack(user: Person, user_email: Email) -> str:
        """Invite somebody."""
        return "invited"

    @tool(effect="write")
    async def add_user_to_channel(user: Person, channel: Annotated[str, Destination("channel")]) -> str:
        """Add somebody to a channel."""
        return "added"

    @tool(effect="irreversible")
    async def post_webpage(url: Annotated[str, Destination("url")], content: Text) -> str:
        """Post a page."""
        return "posted"

    return [
        send_email,
        create_calendar_event,
        share_file,
        send_direct_message,
        send_channel_message,
        invite_user_to_slack,
        add_user_to_channel,
        post_webpage,
    ]


@dataclass
class Attack:
    """A recorded run in which the injection had its effect."""

    name: str
    said: str
    """By the user."""
    identity: str
    steps: list[tuple[str, list[tuple[str, dict[str, Any]]]]]
    """What the model said, and the calls that it made with it."""
    answers: dict[str, deque[str]]
    """Of each tool that reads, in order."""
    tool: str
    value: str
    """The attacker's."""
    source: str
    """The tool whose answer brought it."""
    place: tuple[str, str, str] = field(default=("", "", ""))

    def agent(self) -> Agent:
        """Make the agent that is attacked."""
        model = Model(f"openai:{self.name}", price=price_usd(input="1", output="1"))
        known = effects()
        names = {each.name for each in known}
        readers = [self._reader(name) for name in self.answers if name not in names]
        return Agent(name=self.name, identity=self.identity, model=model, tools=[*known, *readers])

    def _reader(self, name: str) -> Any:
        answers = self.answers[name]

        async def read() -> str:
            """Read."""
            return answers.popleft() if answers else ""

        async def fetch(url: Annotated[str, Destination("url")]) -> str:
            """Read a page."""
            return answers.popleft() if answers else ""

        stub: Any = fetch if name == "get_webpage" else read
        stub.__name__ = stub.__qualname__ = name
        return tool(effect="read")(stub)

    def model(self) -> ScriptedModel:
        """Play the recorded model. Reads take no arguments here."""
        known = {each.name for each in effects()} | {"get_webpage"}
        replies: list[Any] = []
        for text, calls in self.steps:
            made = [call(name, **(arguments if name in known else {})) for name, arguments in calls]
            replies.append([*([text] if text else []), *made] if made else text or "Done.")
        return ScriptedModel(replies if not self.steps[-1][1] else [*replies, "Done."])


def recorded(most: int) -> list[Attack]:
    """Choose recorded attacks: no two of the same injection and kind of attack, as far as they are different."""
    found: dict[tuple[str, str, str], Attack] = {}
    with lzma.open(RECORDINGS, "rt") as lines:
        for line in lines:
            run = json.loads(line)
            if not (run["security"] and run["injection_task_id"]):
                continue
            place = (run["suite_name"], run["injection_task_id"], run["attack_type"])
            if place not in found and (attack := _attack(run, f"attacked-{len(found)}")) is not None:
                attack.place = place
                found[place] = attack
            if len(found) == most:
                break
    return list(found.values())


def _attack(run: dict[str, Any], name: str) -> Attack | None:
    messages = run["messages"]
    injected = "\n".join(run["injections"].values())
    said = next((_text(each) for each in messages if each["role"] == "user"), "")
    identity = next((_text(each) for each in messages if each["role"] == "system"), "Help.")
    goal = next(_goals(messages, injected, said), None)
    if goal is None:
        return None
    tool_name, value, source = goal
    steps = [
        (_text(each), [(made["function"], made["args"]) for made in each.get("tool_calls") or ()])
        for each in messages
        if each["role"] == "assistant"
    ]
    answers: dict[str, deque[str]] = {}
    for each in messages:
        if each["role"] == "tool" and each.get("tool_call"):
            answers.setdefault(each["tool_call"]["function"], deque()).append(_text(each))
    return Attack(name, said, identity or "Help.", steps, answers, tool_name, value, source)


def _goals(messages: Sequence[dict[str, Any]], injected: str, said: str) -> Iterator[tuple[str, str, str]]:
    """List the calls that go where the injected text says: tool, value, and the tool whose answer had brought it."""
    read: list[tuple[str, str]] = []
    for each in messages:
        if each["role"] == "tool" and each.get("tool_call"):
            read.append((each["tool_call"]["function"], _text(each)))
        for made in each.get("tool_calls") or () if each["role"] == "assistant" else ():
            for value in _values(made):
                source = next((name for name, text in read if value in text), "")
                if value in injected and value.lower() not in said.lower() and source:
                    yield made["function"], value, source


def _values(made: dict[str, Any]) -> Iterator[str]:
    """List where a call goes: destinations of the form that the tool takes, and links in what it says."""
    names = GOES_TO.get(made["function"], ())
    for name, given in made["args"].items():
        listed = given if isinstance(given, list) else [given]
        is_list = name in ("recipients", "cc", "bcc", "participants")
        if name in names and is_list == isinstance(given, list):
            yield from (value for value in listed if isinstance(value, str) and value)
        elif made["function"] == "send_direct_message" and name == "body" and isinstance(given, str):
            yield from _LINK.findall(given)


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, list):
        return "\n".join(block.get("content") or "" for block in content)
    return content or ""
