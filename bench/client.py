"""A client of the server under test, in the process of the benchmark: streams runs over HTTP and times first tokens."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

import aiohttp

FIRST_OF_OURS = b"event: delta"
FIRST_OF_PROVIDER = b"event: content_block_delta"


class Streamed:
    """What a client saw of a run."""

    def __init__(self) -> None:
        self.deltas = 0
        self.chars = 0
        self.bytes = 0
        self.seqs: list[int] = []
        self.end = ""

    def take(self, event: bytes) -> None:
        """Take one event of the stream in."""
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
        kind, data = fields.get(b"event", b"").decode(), fields.get(b"data", b"")
        if kind == "delta":
            self.deltas += 1
            self.chars += len(json.loads(data)["text"])
        elif kind == "end":
            self.end = json.loads(data)["reason"]
        elif b"id" in fields:
            self.seqs.append(int(fields[b"id"]))

    @property
    def whole(self) -> bool:
        """Whether it came to its end with every event once."""
        return self.end == "finished" and self.seqs == list(range(1, len(self.seqs) + 1))


async def stream_run(session: aiohttp.ClientSession, url: str, text: str) -> Streamed:
    """Start a run and read its stream to the end."""
    seen, rest = Streamed(), b""
    body = {"agent": "support", "input": text, "mode": "stream"}
    async with session.post(f"{url}/v1/runs", json=body) as response:
        response.raise_for_status()
        async for chunk in response.content.iter_any():
            seen.bytes += len(chunk)
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                seen.take(event)
    return seen


async def stream_runs(url: str, runs: int, over_s: float, text: str = "Where is order {}?") -> dict[str, Any]:
    """Stream so many runs, begun evenly over a time; say what was seen."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> Streamed:
            await asyncio.sleep(number * over_s / runs)
            return await stream_run(session, url, text.format(number))

        seen = await asyncio.gather(*(one(number) for number in range(runs)))
    return {
        "whole": sum(each.whole for each in seen),
        "deltas_per_run": round(statistics.mean(each.deltas for each in seen), 1),
        "chars_per_run": round(statistics.mean(each.chars for each in seen)),
        "bytes_per_run": round(statistics.mean(each.bytes for each in seen)),
    }


async def first_token_s(session: aiohttp.ClientSession, url: str, mark: bytes, **request: Any) -> float:
    """Seconds from sending a request to the first token of its answer. The rest is read, so that nothing overlaps."""
    seen, at = b"", 0.0
    began = time.perf_counter()
    async with session.post(url, **request) as response:
        response.raise_for_status()
        async for chunk in response.content.iter_any():
            if not at:
                seen += chunk
                at = time.perf_counter() if mark in seen else 0.0
    return at - began


async def first_tokens(url: str, provider: str, samples: int) -> dict[str, Any]:
    """Time first tokens in turn: of the provider itself, of a run in a new session, and of one more in the same session.

    `hop` is a request to us that does nothing: what any server between a client and its provider adds.
    """
    body = {
        "model": "bench", "max_tokens": 1000, "stream": True, "messages": [{"role": "user", "content": "hello"}],
        "tools": [{"name": "lookup", "input_schema": {"type": "object"}}],
    }  # fmt: skip
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    times: dict[str, list[float]] = {
        "bare": [],
        "hop": [],
        "new_session": [],
        "new_session_of_user": [],
        "same_session": [],
    }
    run = {"agent": "support", "input": "hello", "mode": "stream"}
    async with aiohttp.ClientSession() as session:
        for number in range(samples):
            times["hop"].append(await _hop_s(session, url))
            bare = await first_token_s(
                session, f"{provider}/v1/messages", FIRST_OF_PROVIDER, json=body, headers=headers
            )
            times["bare"].append(bare)
            for name, more in (
                ("new_session", {}),
                ("new_session_of_user", {"user": "ann"}),
                ("same_session", {"session": f"s{number // 5}"}),
            ):
                took = await first_token_s(session, f"{url}/v1/runs", FIRST_OF_OURS, json={**run, **more})
                times[name].append(took)
    warm = {name: sorted(took[samples // 10 :]) for name, took in times.items()}
    result: dict[str, Any] = {"samples": samples}
    for name, at in (("median", 0.5), ("p10", 0.1)):
        ms = {what: took[int(len(took) * at)] * 1e3 for what, took in warm.items()}
        result[name] = {what: round(took, 2) for what, took in ms.items()}
        result[f"added_{name}"] = {
            what: round(took - ms["bare"], 2) for what, took in ms.items() if what not in ("bare", "hop")
        }
    return result


async def _hop_s(session: aiohttp.ClientSession, url: str) -> float:
    began = time.perf_counter()
    async with session.get(f"{url}/health") as response:
        await response.read()
    return time.perf_counter() - began
