"""Recorded conversations and databases: reading the files, and judging a replay by them.

A conversation is what a τ-bench run writes for the airline: `traj` (messages in OpenAI's chat form), `reward`, and in
`info.task` the reference actions and the outputs that must be said. The recordings say what is right: every tool
result in them is what the recorded booking system answered.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

Json = dict[str, Any]
STOP = "###STOP###"  # the simulated customer's last word
TRANSFER = "transfer_to_human_agents"  # ends a conversation: a person takes over
MAX_UNPACKED_BYTES = 500_000_000


class BadFile(Exception):
    """A file is not what it should be; the message says which, where and why."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `result` is the recorded answer, None for a reference action and for a call that was never answered."""

    name: str
    arguments: Json
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One recorded conversation. `messages` are the raw ones."""

    label: str
    messages: tuple[Json, ...]
    calls: tuple[Call, ...]
    reference: tuple[Call, ...]
    outputs: tuple[str, ...]
    reward: float

    @property
    def ended(self) -> bool:
        """Whether it came to its end: the customer stopped or was handed over. One cut off earns no reward."""
        last = self.messages[-1]
        if last.get("role") == "tool":
            return last.get("name") == TRANSFER
        return last.get("role") == "user" and STOP in (last.get("content") or "")

    @property
    def said(self) -> str:
        """What the assistant said to the customer, in lower case and without commas (1,786 is 1786)."""
        spoken = [m for m in self.messages if m.get("role") == "assistant" and not m.get("tool_calls")]
        return "\n".join(str(m.get("content") or "") for m in spoken).lower().replace(",", "")


def expected_reward(conversation: Conversation, *, same_database: bool, said: str | None = None) -> float:
    """Work out the reward: 1 when the conversation ended, the database is as it should be and all outputs were said.

    `said` is what was said this time, in the form of `Conversation.said`; None: what was recorded.
    """
    said = conversation.said if said is None else said
    told = all(output.lower() in said for output in conversation.outputs)
    return 1.0 if conversation.ended and same_database and told else 0.0


def customer_messages(conversation: Conversation) -> list[str]:
    """List what the customer says, as far as the assistant answers it; messages with nothing between them are one.

    Empty where the recording does not begin with the customer.
    """
    said: list[str] = []
    pending: list[str] = []
    for message in conversation.messages:
        if message.get("role") == "user":
            pending.append(str(message.get("content") or ""))
        elif message.get("role") == "assistant":
            said += ["\n".join(pending)] if pending else []
            pending = []
            if not said:
                break
    return said


def is_error(result: str) -> bool:
    return result.startswith(("Error", "Unknown action"))


def equal_results(recorded: str, answered: str) -> bool:
    """Compare two tool results as JSON, or as text where they are not; two errors count as equal."""
    if is_error(recorded) or is_error(answered):
        return is_error(recorded) and is_error(answered)
    return _parsed(recorded) == _parsed(answered)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_text(path: Path | str) -> str:
    """Read a UTF-8 file, unpacking it if its name ends with .xz; raise BadFile."""
    path = Path(path)
    try:
        data = path.read_bytes()
        return (_unpacked(path, data) if path.suffix == ".xz" else data).decode()
    except OSError as error:
        raise BadFile(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadFile(f"{str(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _unpacked(path: Path, data: bytes) -> bytes:
    """Unpack an .xz file within a size: a hundred kilobytes can be packed from gigabytes of nothing."""
    try:
        with lzma.open(io.BytesIO(data)) as file:
            text = file.read(MAX_UNPACKED_BYTES + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise BadFile(f"{str(path)!r} is not a whole .xz file: {error}") from None
    if len(text) > MAX_UNPACKED_BYTES:
        raise BadFile(f"{str(path)!r} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; give a smaller part of it")
    return text


def read_database(path: Path | str) -> Json:
    """Read a database document from .json or .json.xz; raise BadFile."""
    try:
        document = json.loads(read_text(path))
    except ValueError as error:
        raise BadFile(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadFile(f"{str(path)!r} holds {type(document).__name__}, not an object with flights, reservations, users")
    return cast(Json, document)


def read_conversations(path: Path | str) -> list[Conversation]:
    """Read conversations from .jsonl (one a line) or .json (a list, or one), packed with .xz or not; raise BadFile."""
    conversations = [_conversation(row, f"{path}: {where}") for where, row in _rows(path)]
    if not conversations:
        raise BadFile(f"{str(path)!r} holds no conversation")
    return conversations


def _rows(path: Path | str) -> Iterator[tuple[str, Any]]:
    text = read_text(path)
    try:
        whole = json.loads(text)
    except ValueError:
        pass  # more than one line: .jsonl
    else:
        rows: list[Any] = cast(list[Any], whole) if isinstance(whole, list) else [whole]
        yield from ((f"item {number}", row) for number, row in enumerate(rows))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise BadFile(f"{str(path)!r} line {number} is not JSON: {error}") from None


def _conversation(row: Any, where: str) -> Conversation:
    try:
        task = row["info"]["task"]
        messages = tuple(cast("list[Json]", row["traj"]))
        if not messages:
            raise BadFile(f"{where}: `traj` is empty")
        return Conversation(
            label=f"task {row.get('task_id')} trial {row.get('trial')}",
            messages=messages,
            calls=tuple(_calls(messages, where)),
            reference=tuple(Call(str(action["name"]), dict(action["kwargs"])) for action in task.get("actions") or ()),
            outputs=tuple(str(output) for output in task.get("outputs") or ()),
            reward=float(row["reward"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise BadFile(f"{where} is not a recorded conversation: {what}") from None


def _calls(messages: tuple[Json, ...], where: str) -> Iterator[Call]:
    """Pair each call with the answer that follows it: ids repeat, so the nearest answer of that id is taken."""
    for position, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            function = call["function"]
            try:
                arguments = json.loads(function["arguments"] or "{}")
            except ValueError:
                raise BadFile(
                    f"{where}: message {position}: the arguments of {function['name']} are not JSON"
                ) from None
            answers = (m for m in messages[position + 1 :] if m["role"] == "tool" and m["tool_call_id"] == call["id"])
            answer = next(answers, None)
            yield Call(str(function["name"]), dict(arguments), None if answer is None else str(answer["content"]))
