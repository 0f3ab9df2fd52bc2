"""Replay recorded conversations directly against the tools, without a server, and say how far the tools agree.

    python examples/airline/check.py --db DATABASE.json --trajectories CONVERSATIONS.jsonl [--verbose]

It prints one JSON line: conversations, tool_calls, tool_results_equal, rewards_agree. Each conversation starts with a
fresh database. This is the oracle for `replay.py`, which drives the same conversations through a running server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `examples.airline` is found however this was started

from examples.airline.recordings import (
    BadFile,
    Call,
    Conversation,
    equal_results,
    expected_reward,
    read_conversations,
    read_database,
)
from examples.airline.store import AirlineDb, BadDatabase
from examples.airline.tools import TOOLS
from stanchion.toolbox.answer import Failure, Problem, ToolContext
from stanchion.toolbox.registry import Registry


@dataclass(slots=True)
class Report:
    """What was compared, and what did not agree."""

    conversations: int = 0
    tool_calls: int = 0
    tool_results_equal: int = 0
    rewards_agree: int = 0
    mismatches: list[str] = field(default_factory=list[str])

    def line(self, seconds: float) -> str:
        figures = {
            "conversations": self.conversations,
            "tool_calls": self.tool_calls,
            "tool_results_equal": self.tool_results_equal,
            "rewards_agree": self.rewards_agree,
            "seconds": round(seconds, 1),
        }
        return json.dumps(figures)


class Bench:
    """The agent's tools on a database: calls by name with JSON arguments, answers as the model reads them."""

    def __init__(self, db: AirlineDb) -> None:
        self._registry = Registry(TOOLS, {AirlineDb: db})
        self._calls = 0

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self._calls += 1
        checked = self._registry.check(name, json.dumps(arguments))
        if isinstance(checked, Problem):
            return _error(checked.text)
        answer = await self._registry.run(name, checked.arguments, ToolContext(key=f"call-{self._calls}"))
        return _error(answer.text) if isinstance(answer, Failure) else answer.text


def _error(text: str) -> str:
    return text if text.startswith("Error") else f"Error: {text}"


class FreshDatabases:
    """Copies of one database file, made once from a document, and what reference actions make of it."""

    def __init__(self, folder: Path, document: object) -> None:
        self._folder = folder
        self._original = AirlineDb.create(folder / "original.db", document).path
        self._copies = 0
        self._references: dict[str, str] = {}

    async def after(self, reference: Sequence[Call]) -> str:
        """Say the fingerprint that reference actions leave; the trials of a task share them."""
        name = repr(reference)
        if name not in self._references:
            db = self.take()
            bench = Bench(db)
            for call in reference:
                await bench.call(call.name, call.arguments)
            self._references[name] = db.fingerprint()
            db.path.unlink()
        return self._references[name]

    def take(self, path: Path | None = None) -> AirlineDb:
        """Make a copy, at `path` or in the folder."""
        self._copies += 1
        return AirlineDb(shutil.copyfile(self._original, path or self._folder / f"{self._copies}.db"))


async def check(document: object, conversations: Iterable[Conversation]) -> Report:
    """Replay every conversation on a fresh database and compare results and rewards with the recorded ones."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="airline-check-") as folder:
        databases = FreshDatabases(Path(folder), document)
        for conversation in conversations:
            await _check_one(report, databases, conversation)
    return report


async def _check_one(report: Report, databases: FreshDatabases, conversation: Conversation) -> None:
    report.conversations += 1
    db = databases.take()
    bench = Bench(db)
    for number, call in enumerate(conversation.calls, 1):
        answered = await bench.call(call.name, call.arguments)
        if call.result is None:
            continue  # cut off before the answer came: there is nothing to compare
        report.tool_calls += 1
        if equal_results(call.result, answered):
            report.tool_results_equal += 1
        else:
            where = f"{conversation.label}, call {number}, {call.name}({json.dumps(call.arguments)})"
            report.mismatches.append(f"{where}: recorded {call.result[:300]!r}, answered {answered[:300]!r}")
    same_database = db.fingerprint() == await databases.after(conversation.reference)
    db.path.unlink()
    reward = expected_reward(conversation, same_database=same_database)
    if reward == conversation.reward:
        report.rewards_agree += 1
    else:
        same = "the same" if same_database else "another"
        why = f"ended: {conversation.ended}, database: {same} as after the reference actions"
        report.mismatches.append(f"{conversation.label}: recorded reward {conversation.reward}, ours {reward} ({why})")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 when everything agrees, 1 when something differs, 2 on bad input."""
    parser = argparse.ArgumentParser(description="Replay recorded airline conversations against the tools.")
    parser.add_argument("--db", required=True, help="the database at the start of every conversation (.json[.xz])")
    parser.add_argument("--trajectories", required=True, help="recorded conversations (.json[l][.xz])")
    parser.add_argument("--verbose", action="store_true", help="print every mismatch with its reason to stderr")
    options = parser.parse_args(argv)
    started = time.monotonic()
    try:
        report = asyncio.run(check(read_database(options.db), read_conversations(options.trajectories)))
    except (BadFile, BadDatabase) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    if options.verbose:
        for mismatch in report.mismatches:
            print(mismatch, file=sys.stderr)
    print(report.line(time.monotonic() - started))
    return 1 if report.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
