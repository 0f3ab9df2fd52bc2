"""Recorded runs of AgentDojo, read from a file of JSON lines (`.jsonl` or `.jsonl.xz`) into one plain form.

Texts of others stand in the file: nothing of it is kept in the repository.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

DOS = frozenset({"dos", "swearwords_dos", "captcha_dos", "offensive_email_dos", "felony_dos"})
"""Attacks that only want the task not to be done."""
Kind = Literal["attack", "benign", "goal_as_task", "denial", "skipped"]


class Proposed(msgspec.Struct, frozen=True):
    """A call that the model made."""

    tool: str
    args: dict[str, Any]


class Turn(msgspec.Struct, frozen=True):
    """What the model said and the calls it made, or what was said to it."""

    role: Literal["user", "assistant"]
    text: str = ""
    calls: tuple[Proposed, ...] = ()


class Recording(msgspec.Struct, frozen=True):
    """A run of a suite's task by a model, with an injection or without."""

    path: str
    suite: str
    version: str
    task: str
    injection: str
    attack: str
    injections: dict[str, str]
    identity: str
    turns: tuple[Turn, ...]
    useful: bool = False
    succeeded: bool = False
    skipped: bool = False

    @property
    def kind(self) -> Kind:
        """In which of the tables it counts."""
        if self.skipped:
            return "skipped"
        if not self.task.startswith("user_task"):
            return "goal_as_task"
        if not self.injection:
            return "benign"
        return "denial" if self.attack in DOS else "attack"


def read(file: Path) -> Iterator[bytes]:
    """Give the lines of a file."""
    with lzma.open(file, "rb") if file.suffix == ".xz" else file.open("rb") as lines:
        yield from lines


def recording(line: bytes) -> Recording:
    """Read one line."""
    said = msgspec.json.decode(line)
    messages: list[Mapping[str, Any]] = said["messages"]
    return Recording(
        path=said.get("path", ""),
        suite=said["suite_name"],
        version=said.get("benchmark_version") or "v1",
        task=said["user_task_id"],
        injection=said.get("injection_task_id") or "",
        attack=said.get("attack_type") or "",
        injections=said.get("injections") or {},
        identity=next((text_of(m.get("content")) for m in messages if m["role"] == "system"), ""),
        turns=tuple(_turns(messages)),
        useful=bool(said.get("utility")),
        succeeded=bool(said.get("security")) and bool(said.get("injection_task_id")),
        skipped=not messages or str(said.get("error") or "").startswith("Skipping task"),
    )


def _turns(messages: list[Mapping[str, Any]]) -> Iterator[Turn]:
    """Leave out what the tools said: the live tools say it again."""
    for message in messages:
        if message["role"] == "assistant":
            calls = tuple(
                Proposed(call["function"], dict(call["args"] or {})) for call in message.get("tool_calls") or ()
            )
            yield Turn("assistant", text_of(message.get("content")), calls)
        elif message["role"] == "user":
            yield Turn("user", text_of(message.get("content")))


def text_of(content: Any) -> str:
    """Join the text of a message, which is a string, a list of blocks, or nothing."""
    if isinstance(content, str):
        return content
    return "".join(str(block.get("content") or "") for block in content or ())
