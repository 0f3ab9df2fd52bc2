"""The floor of a turn and its parts, each alone: bare aiohttp, our wire, the journal, the pure loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from bench.cost import Meter, Spec, spread
from bench.workload import agent
from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle
from stanchion.core.fold import evolve
from stanchion.core.message import USER, Message, ModelRequest, Text
from stanchion.core.state import State
from stanchion.engine.bound import bind
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Append, Start
from stanchion.loop.decide import decide
from stanchion.loop.effect import Moment
from stanchion.model.client import Endpoint, Timeouts
from stanchion.model.providers import open_client

_INTENTS = (ev.ModelCallStarted, ev.ToolCallStarted, ev.RunFinished)
_PROMPT = "x" * 2_000


async def bare(spec: Spec) -> dict[str, Any]:
    """Read the provider's streams with aiohttp, chunk by chunk, nothing decoded: the floor."""
    body = json.dumps({
        "model": "bench", "max_tokens": 1000, "stream": True, "messages": [{"role": "user", "content": _PROMPT}],
        "tools": [{"name": "lookup", "input_schema": {"type": "object"}}],
    }).encode()  # fmt: skip
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    chunks = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def turn(_: int) -> None:
            nonlocal chunks
            async with session.post(f"{spec['sim']}/v1/messages", data=body) as response:
                response.raise_for_status()
                async for _chunk in response.content.iter_any():
                    chunks += 1

        meter = Meter()
        await spread(spec["runs"], spec["spread_s"], turn)
        return {**meter.read(spec["runs"]), "chunks_per_turn": round(chunks / spec["runs"], 1)}


async def wire(spec: Spec) -> dict[str, Any]:
    """Make the model calls alone, with our client and someone who listens to its deltas."""
    client = open_client("anthropic", Endpoint(spec["sim"], "sim-key"))
    request = ModelRequest("bench", (Message("user", (Text(_PROMPT, USER),)),), 1000)

    async def turn(_: int) -> None:
        response = await client.call(request, timeouts=Timeouts(), on_deltas=lambda _: None)
        if response.usage is None:
            raise SystemExit(f"a turn went wrong: {response}")

    meter = Meter()
    await spread(spec["runs"], spec["spread_s"], turn)
    result = meter.read(spec["runs"])
    await client.aclose()
    return result


async def journal(spec: Spec) -> dict[str, Any]:
    """Write the journals of a store again into a new one, append for append and at the same pace."""
    runs = [steps_of(run) for run in await _journals(spec)]
    turns = sum(_turns(step) for run in runs for step in run)
    store = await SqliteStore.open(spec["data"] + ".again")
    keys = [await store.key_for("default", f"run-{number}") for number in range(len(runs))]

    async def rerun(number: int) -> None:
        name = f"run-{number}"
        recorder = Recorder(keys[number], Identity(), seq=0, hash=chain.genesis("default", name), at_ms=0)
        first, *steps = runs[number]
        began = Start(
            tenant="default", run=name, session=name, agent="a", bundle="b", worker="w", lease_ms=600_000,
            first=_append(recorder, name, first),
        )  # fmt: skip
        await store.start(began)
        for step in steps:
            if isinstance(step[0].event, ev.ModelCallFinished):
                await asyncio.sleep(spec["turn_s"])
            await store.append(_append(recorder, name, step))

    meter = Meter()
    await spread(len(runs), spec["spread_s"], rerun)
    result = meter.read(turns)
    await store.aclose()
    return {**result, "appends_per_turn": round(sum(map(len, runs)) / turns, 2)}


async def loop(spec: Spec) -> dict[str, Any]:
    """Decide and fold the journals of a store again, in memory: what the pure rooms cost."""
    source = await SqliteStore.open(spec["data"])
    row = (await source.runs("default", limit=1))[0]
    body = await source.bundle("default", row.bundle)
    await source.aclose()
    if body is None:
        raise SystemExit("the store has lost its bundle")
    view = bind(msgspec.json.decode(body, type=Bundle), agent().registry(), ()).view
    runs = await _journals(spec)
    turns = 0
    meter = Meter()
    for _ in range(5):
        for entries in runs:
            state = State()
            for entry in entries:
                state = evolve(state, entry)
                turns += _turns((entry,))
                decide(state, view, Moment(entry.at_ms, 1))
    return meter.read(turns)


def steps_of(entries: Sequence[ev.Entry]) -> list[list[ev.Entry]]:
    """Cut a journal into its appends: each ends in an intent or in the run's end."""
    steps: list[list[ev.Entry]] = [[]]
    for entry in entries:
        steps[-1].append(entry)
        if isinstance(entry.event, _INTENTS):
            steps.append([])
    return [step for step in steps if step]


async def _journals(spec: Spec) -> list[Sequence[ev.Entry]]:
    """Read the journals that the measured runs of a store left."""
    store = await SqliteStore.open(spec["data"])
    rows = await store.runs("default", status="ended", limit=spec["runs"])
    journals = [await store.read("default", row.run) for row in rows]
    await store.aclose()
    return journals


def _turns(entries: Sequence[ev.Entry]) -> int:
    return sum(isinstance(entry.event, ev.ModelCallFinished) for entry in entries)


def _append(recorder: Recorder, run: str, entries: Sequence[ev.Entry]) -> Append:
    expected = recorder.seq
    _, records = recorder.record([entry.event for entry in entries], now_ms=time.time_ns() // 1_000_000, epoch=1)
    over = isinstance(entries[-1].event, ev.RunFinished)
    return Append(
        tenant="default", run=run, expected_seq=expected, epoch=1, records=tuple(records), release=over,
        status="ended" if over else "runnable", outcome="done" if over else "", progress=True,
    )  # fmt: skip
