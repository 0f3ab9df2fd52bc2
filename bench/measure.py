"""The parts of the benchmark: each starts the processes it needs and gives its figures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import first_tokens, stream_runs
from bench.workload import EVENTS, TURN_S, WARM, provider, script
from stanchion.sim import Pacing, Reply, Script

ROOT = Path(__file__).parent.parent
RECORDINGS = ROOT.parent / "shared" / "data" / "provider-recordings.jsonl.xz"
LIVE_MODEL_S = 8.0
LIVE_TOOL_S = 4.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    runs: int
    turns: int
    spread_s: float
    """Runs begin evenly over this time: in step with each other they would share wake-ups as no real load does."""
    live_runs: int
    live_turns: int
    live_spread_s: float
    waiting_runs: int
    stored_runs: int
    idle_s: float
    samples: int
    starts: int
    """How often a command is started, of which the fastest counts."""
    short: bool = False


async def subject(activity: str, **spec: Any) -> dict[str, Any]:
    """Do something in a process of its own; give what it printed."""
    return await _printed("-m", "bench.subject", activity, json.dumps(spec))


async def _printed(*arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=1 << 20
    )
    out, _ = await process.communicate()
    if process.returncode or not out.strip():
        raise SystemExit(f"bench: {' '.join(arguments)[:200]} ended with exit code {process.returncode}")
    return json.loads(out.splitlines()[-1])


@asynccontextmanager
async def served(base_url: str, data: Path) -> AsyncGenerator[tuple[str, Callable[[], Awaitable[dict[str, float]]]]]:
    """Serve the agent in a process of its own; gives its address and a way to read its cost."""
    spec = json.dumps({"sim": base_url, "data": str(data)})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.subject", "serve", spec, cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    async def read() -> dict[str, float]:
        stdin.write(b"read\n")
        return json.loads(await stdout.readline())

    try:
        line = await stdout.readline()
        if not line:
            raise SystemExit(f"bench: the server did not start (exit code {await process.wait()})")
        yield json.loads(line)["url"], read
    finally:
        stdin.write(b"stop\n")
        await process.wait()


async def turn(size: Size, folder: Path) -> dict[str, Any]:
    """Measure the CPU of a durable streamed turn, its parts, and its floor."""
    same: dict[str, Any] = {"runs": size.runs, "turns": size.turns, "spread_s": size.spread_s, "turn_s": TURN_S}
    async with provider(script(size.turns)) as sim:
        same["sim"] = sim.base_url
        floors = (subject("bare", **same), subject("wire", **same))
        bare, wire = await asyncio.gather(*floors) if size.short else [await floor for floor in floors]
        alone = await subject("turns", **same, data=str(folder / "alone.db"))
        journal = await subject("journal", **same, data=str(folder / "alone.db"))
        loop = await subject("loop", **same, data=str(folder / "alone.db"))
        crowd = {**same, "runs": size.runs * 3, "data": str(folder / "crowd.db")}
        crowded = None if size.short else await subject("turns", **crowd)
        async with served(sim.base_url, folder / "served.db") as (url, read):
            await stream_runs(url, 5, 0, WARM)
            before = await read()
            seen = await stream_runs(url, size.runs, size.spread_s)
            after = await read()
    if seen["whole"] != size.runs:
        raise SystemExit(f"bench: {size.runs - seen['whole']} of {size.runs} streams were not whole")
    streamed = round((after["cpu_s"] - before["cpu_s"]) / (size.runs * size.turns) * 1e3, 3)
    known = wire["cpu_ms"] + journal["cpu_ms"] + loop["cpu_ms"]
    return {
        "runs": size.runs, "turns": size.runs * size.turns, "events_per_turn": EVENTS, "gap_ms": 20,
        "bare_aiohttp_ms": bare["cpu_ms"], "wire_ms": wire["cpu_ms"], "journal_ms": journal["cpu_ms"],
        "loop_ms": loop["cpu_ms"], "engine_ms": round(alone["cpu_ms"] - known, 3), "turn_ms": alone["cpu_ms"],
        "sse_ms": round(streamed - alone["cpu_ms"], 3), "turn_with_client_ms": streamed,
        "over_floor": round(alone["cpu_ms"] / bare["cpu_ms"], 2), "turns_per_s_core": round(1e3 / alone["cpu_ms"]),
        "turn_s_p95": alone["turn_s_p95"], "appends_per_turn": journal["appends_per_turn"], **seen, **({"crowded": {**crowded, "runs": size.runs * 3}} if crowded else {}),
    }  # fmt: skip


async def append(size: Size, folder: Path) -> dict[str, Any]:
    """Measure the journal by its own benchmark."""
    return await _printed("-m", "bench.journal", "--path", str(folder), *(["--short"] if size.short else []))


async def loop(size: Size, _: Path) -> dict[str, Any]:
    """Measure the pure rooms by their own benchmark, early and late in a run."""
    return await _printed("-m", "bench.loop", *(["--short"] if size.short else []))


async def first_token(size: Size, folder: Path) -> dict[str, Any]:
    """Measure the time to the first token, through us and straight from the provider, in turn."""
    pacing = Pacing(first_s=0.02, interval_s=0.002, events=8)
    played = Script(default=Reply(text="It left our house on Monday. " * 3, pacing=pacing))
    async with provider(played) as sim, served(sim.base_url, folder / "served.db") as (url, _):
        return await first_tokens(url, sim.base_url, size.samples)


async def live(size: Size, folder: Path) -> dict[str, Any]:
    """Measure many runs that are live at once: turn times by the journal, and memory."""
    nominal_s = LIVE_MODEL_S + LIVE_TOOL_S
    empty = await subject("empty")
    async with provider(script(size.live_turns, gap_s=LIVE_MODEL_S / EVENTS)) as sim:
        result = await subject(
            "turns", sim=sim.base_url, data=str(folder / "live.db"), runs=size.live_runs, turns=size.live_turns,
            spread_s=size.live_spread_s, tool_s=LIVE_TOOL_S,
        )  # fmt: skip
    return {
        **result, "runs": size.live_runs, "nominal_s": nominal_s,
        "p95_over_nominal": round(result["turn_s_p95"] / nominal_s, 3),
        "empty_mb": _mb(empty["rss"]), "rss_mb": _mb(result["rss_most"]),
        "over_empty_mb": _mb(result["rss_most"] - empty["rss"]),
        "kb_per_live_run": round((result["rss_most"] - result["rss_before"]) / size.live_runs / 1e3, 1),
    }  # fmt: skip


async def waiting(size: Size, folder: Path) -> dict[str, Any]:
    """Measure runs that wait for a person: memory, start beside them, CPU while nothing happens."""
    data = str(folder / "waiting.db")
    here = await subject("wait_here", runs=size.waiting_runs, data=data)
    if here["waiting"] < size.waiting_runs:
        raise SystemExit(f"bench: {here['waiting']} of {size.waiting_runs} runs wait")
    await subject("multiply", runs=size.stored_runs - size.waiting_runs, data=data)
    beside = await subject("idle", data=data, idle_s=size.idle_s)
    alone = await subject("idle", data=str(folder / "empty.db"), idle_s=size.idle_s)
    return {
        "driven": size.waiting_runs, "drive_cpu_ms": here["cpu_ms"], "bytes_per_waiting_run": here["bytes_per_run"],
        "stored": size.stored_runs, "beside": beside, "empty_store": alone,
        "bytes_per_stored_run": round((beside["rss_grown"] - alone["rss_grown"]) / size.stored_runs),
        "idle_cpu_percent": beside["idle_cpu_percent"],
        "idle_cpu_percent_of_runs": round(beside["idle_cpu_percent"] - alone["idle_cpu_percent"], 3),
    }  # fmt: skip


async def budget(_: Size, folder: Path) -> dict[str, Any]:
    """Run 200 runs at once on one dollar."""
    async with provider(script(3, gap_s=0.002)) as sim:
        return await subject("budget", runs=200, data=str(folder / "budget.db"), sim=sim.base_url)


async def recordings(_: Size, _folder: Path) -> dict[str, Any]:
    """Hold the wires against the recorded exchanges, where they are."""
    if not RECORDINGS.is_file():
        return {"skipped": f"no recordings at ../{RECORDINGS.relative_to(ROOT.parent)}"}
    return await _printed("bench/wire/recordings.py", "--recordings", str(RECORDINGS))


def _mb(size: int) -> float:
    return round(size / 1e6, 1)
