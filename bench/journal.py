"""Benchmark the embedded store: events a second, CPU per append, bytes per turn. Prints one JSON line.

    python -m bench.journal [--short] [--path FOLDER]

A turn is what an agent with one tool call leaves: a model call started and finished (300 characters of text and a call
of 80), a verdict, the tool call started and finished (600 characters). `one_by_one` awaits each append; `group_N` has N
runs that append at once, each awaiting its own. CPU is the whole process's: recording, hashing, packing, the event loop
and the writer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from stanchion.core import chain
from stanchion.core.event import (
    Event,
    ModelCallFinished,
    ModelCallStarted,
    RunStarted,
    ToolCallFinished,
    ToolCallJudged,
    ToolCallStarted,
)
from stanchion.core.message import MODEL, USER, Label, Text, ToolCall, ToolResult, Usage
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Append, Key, Record, Start

TENANT = "acme"
TOOL = "get_reservation_details"
EVENTS_PER_TURN = 5


class Speech:
    """Text, digests and ids that do not repeat, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlucmfwyp"
        self._words = ["".join(self._random.choices(letters, k=self._random.randint(2, 9))) for _ in range(800)]

    def text(self, size: int) -> str:
        return " ".join(self._random.choices(self._words, k=size // 2))[:size]

    def digest(self) -> str:
        return self._random.randbytes(32).hex()

    def id(self, prefix: str) -> str:
        return prefix + self._random.randbytes(11).hex()


def model_call(turn: int, speech: Speech) -> tuple[list[Event], list[Event]]:
    """Make the appends of a model call: its intent, and its outcome with the verdict and the tool call's intent."""
    started = ModelCallStarted(
        turn=turn,
        attempt=1,
        route=0,
        provider="anthropic",
        model="claude-sonnet-4-6",
        messages=2 * turn + 1,
        prefix=speech.digest(),
        reserved=12_000_000 + turn,
        ledgers=("tenant/day:2026-11-20",),
        bound_tokens=2_345 + turn * 300,
        deadline_ms=1_795_213_776_000 + turn * 4_000,
    )
    call = f"{EVENTS_PER_TURN * turn + 2}.0"
    arguments = json.dumps({"reservation_id": speech.text(58)})
    finished = ModelCallFinished(
        turn=turn,
        attempt=1,
        finish="tool_calls",
        cost=1_234_567 + turn,
        usage=Usage(input_tokens=321, cache_read_tokens=2_000 + turn * 300, output_tokens=120),
        model="claude-sonnet-4-6-20260217",
        response=speech.id("msg_01"),
        first_ms=420,
        took_ms=3_210,
        parts=(Text(speech.text(300), MODEL), ToolCall(speech.id("toolu_01"), TOOL, arguments, MODEL)),
    )
    judged = ToolCallJudged(call=call, revision=1, action="allow", rule="tier:read", tool=TOOL, digest=speech.digest())
    intent = ToolCallStarted(call=call, attempt=1, revision=1, key=speech.digest(), deadline_ms=1_795_213_786_000)
    return [started], [finished, judged, intent]


def tool_outcome(turn: int, speech: Speech) -> list[Event]:
    """Make the append of the tool call's outcome."""
    result = ToolResult(speech.id("toolu_01"), TOOL, speech.text(600), Label("tool", TOOL))
    return [ToolCallFinished(call=f"{EVENTS_PER_TURN * turn + 2}.0", outcome="ok", took_ms=45, parts=(result,))]


def turn_of(turn: int, speech: Speech) -> Sequence[list[Event]]:
    """Make a turn's appends: intent; outcome, verdict and intent; outcome."""
    return (*model_call(turn, speech), tool_outcome(turn, speech))


class Run:
    """A run that appends."""

    def __init__(self, store: SqliteStore, key: Key, name: str) -> None:
        self.store = store
        self.name = name
        self.recorder = Recorder(key, Identity(), seq=0, hash=chain.genesis(TENANT, name), at_ms=0)
        self.content_bytes = 0

    async def start(self) -> None:
        event = RunStarted(
            run=self.name, tenant=TENANT, session=self.name, agent="a", bundle="0" * 64, parts=(Text("hello", USER),)
        )
        first = self._append([event], epoch=0)
        await self.store.start(
            Start(tenant=TENANT, run=self.name, session=self.name, agent="a", bundle="0" * 64, first=first)
        )
        await self.store.claim(TENANT, self.name, worker="w", lease_ms=600_000)

    async def append(self, events: Sequence[Event]) -> None:
        await self.store.append(self._append(events, epoch=1))

    def _append(self, events: Sequence[Event], epoch: int) -> Append:
        expected = self.recorder.seq
        _, records = self.recorder.record(events, now_ms=time.time_ns() // 1_000_000, epoch=epoch)
        self.content_bytes += _content_bytes(records)
        return Append(tenant=TENANT, run=self.name, expected_seq=expected, epoch=epoch, records=tuple(records))


def _content_bytes(records: Sequence[Record]) -> int:
    return sum(len(content.blob) for record in records for content in record.contents)


async def throughput(folder: Path, group: int, seconds: float) -> dict[str, Any]:
    """Measure `group` runs that append single turns at once."""
    store = await SqliteStore.open(folder / f"group{group}.db")
    key = await store.key_for(TENANT, "ann")
    runs = [Run(store, key, f"run-{number:06}") for number in range(group)]
    await asyncio.gather(*(run.start() for run in runs))
    latencies: list[float] = []
    counts = {"appends": 0, "events": 0}
    turns = [turn_of(turn, Speech(turn)) for turn in range(200)]
    end = time.perf_counter() + seconds

    async def drive(run: Run, number: int) -> None:
        turn = number
        while time.perf_counter() < end:
            for events in turns[turn % len(turns)]:
                began = time.perf_counter()
                await run.append(events)
                latencies.append(time.perf_counter() - began)
                counts["appends"] += 1
                counts["events"] += len(events)
            turn += 1

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(drive(run, number) for number, run in enumerate(runs)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await store.aclose()
    return {
        "appends_per_s": round(counts["appends"] / wall),
        "events_per_s": round(counts["events"] / wall),
        "cpu_ms_per_append": round(cpu / counts["appends"] * 1e3, 4),
        "cpu_ms_per_event": round(cpu / counts["events"] * 1e3, 4),
        "latency_ms_p50": round(statistics.median(latencies) * 1e3, 3),
        "latency_ms_p95": round(statistics.quantiles(latencies, n=20)[-1] * 1e3, 3),
    }


async def size(folder: Path, steps: int, runs: int) -> dict[str, Any]:
    """Measure the file after `runs` interleaved runs of `steps` turns, without what an empty store weighs."""
    path = folder / f"size{steps}.db"
    store = await SqliteStore.open(path)
    await store.aclose()
    empty = path.stat().st_size
    store = await SqliteStore.open(path)
    key = await store.key_for(TENANT, "ann")
    driven = [Run(store, key, f"run-{number:06}") for number in range(runs)]
    await asyncio.gather(*(run.start() for run in driven))
    speech = Speech(steps)
    for turn in range(steps):
        for events in zip(*(turn_of(turn, speech) for _ in driven), strict=True):
            await asyncio.gather(*(run.append(own) for run, own in zip(driven, events, strict=True)))
    await store.aclose()
    turns = steps * runs
    file, content = path.stat().st_size - empty, sum(run.content_bytes for run in driven)
    return {
        "turns": turns,
        "bytes_per_turn": round(file / turns, 1),
        "content_bytes_per_turn": round(content / turns, 1),
        "bytes_per_content_byte": round(file / content, 3),
        "over_1_5_content_per_turn": round((file - 1.5 * content) / turns, 1),
    }


async def sync_ms(folder: Path) -> float:
    """Measure the floor: what the disk takes for one write and sync."""
    took: list[float] = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(b"x" * 8_192)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return round(statistics.median(took) * 1e3, 3)


async def measure(folder: Path, *, short: bool) -> dict[str, Any]:
    seconds = 0.5 if short else 4.0
    result: dict[str, Any] = {
        "bench": "journal",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }
    result["write_and_sync_ms_p50"] = await sync_ms(folder)
    result["one_by_one"] = await throughput(folder, 1, seconds)
    for group in (10, 100):
        result[f"group_{group}"] = await throughput(folder, group, seconds)
    total = 500 if short else 10_000
    for steps in (10, 100) if short else (10, 100, 1_000):
        result[f"steps_{steps}"] = await size(folder, steps, total // steps)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quick run, whose figures are rough")
    parser.add_argument("--path", help="a folder on the disk to be measured (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.path) as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), short=arguments.short))))


if __name__ == "__main__":
    main()
