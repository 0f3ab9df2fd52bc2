"""Whole runs on the simulated provider: driven unwatched, served over HTTP, and many at once on one budget."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.cost import Meter, Spec, cpu_s, quantile, spread
from bench.workload import WARM, agent, environment
from stanchion.agent import Limits
from stanchion.core import event as ev
from stanchion.runtime import Runtime
from stanchion.server.serve import serve as serve_http
from stanchion.server.settings import Settings


async def turns(spec: Spec) -> dict[str, Any]:
    """Drive runs that nobody watches."""
    runtime = await _open(spec)
    await _warm(runtime)
    meter = Meter()
    await spread(spec["runs"], spec["spread_s"], lambda number: runtime.start("support", f"Where is order {number}?"))
    await _over(runtime, meter.sample)
    result = meter.read(spec["runs"] * spec["turns"])
    ended = [row for row in await runtime.runs(limit=spec["runs"]) if row.outcome == "escalated"]
    took = [seconds for row in ended for seconds in await _turn_times(runtime, row.run)]
    await runtime.aclose()
    if len(ended) != spec["runs"]:
        raise SystemExit(f"{len(ended)} of {spec['runs']} runs ended as they should")
    return {
        **result, "rss_before": meter.rss, "rss_most": meter.most, "turn_s_p50": quantile(took, 0.5),
        "turn_s_p95": quantile(took, 0.95), "turn_s_max": quantile(took, 1.0),
    }  # fmt: skip


async def serve(spec: Spec) -> dict[str, Any]:
    """Serve over HTTP until told to stop; on every line of the input say what it has cost so far."""
    runtime = await _open(spec)
    await _warm(runtime)
    stop = asyncio.Event()

    def ready(address: str) -> None:
        print(json.dumps({"url": address}), flush=True)

    serving = asyncio.create_task(
        serve_http(runtime, settings=Settings(port=0, log="off"), ready_callback=ready, stop=stop)
    )
    while (await asyncio.to_thread(sys.stdin.readline)).strip() == "read":
        print(json.dumps({"cpu_s": cpu_s()}), flush=True)
    stop.set()
    await serving
    return {"cpu_s": round(cpu_s(), 3)}


async def budget(spec: Spec) -> dict[str, Any]:
    """Run many at once on one budget that is smaller than what they would spend."""
    runtime = await _open(spec, Limits(turns=1_000, budget_wait_s=20.0))
    await runtime.set_budget("tenant", "1.00", tenant="default")
    meter = Meter()
    await asyncio.gather(*(runtime.start("support", f"Where is order {number}?") for number in range(spec["runs"])))
    await _over(runtime)
    outcomes: Counter[str] = Counter()
    refused = 0
    for row in await runtime.runs(limit=spec["runs"]):
        outcomes[row.outcome] += 1
        refused += any(
            isinstance(entry.event, ev.BudgetRefused) for entry in await runtime.store.read("default", row.run)
        )
    (ledger,) = await runtime.budgets(tenant="default")
    result = {
        "runs": spec["runs"], "limit_usd": ledger.limit / 1e9, "spent_usd": ledger.settled / 1e9,
        "reserved_usd": ledger.reserved / 1e9, "outcomes": dict(outcomes), "runs_refused": refused,
        "wall_s": meter.read(1)["wall_s"],
    }  # fmt: skip
    await runtime.aclose()
    return result


async def _open(spec: Spec, limits: Limits | None = None) -> Runtime:
    """Open the runtime of the benchmark's agent on the simulated provider."""
    bound = agent(tool_s=spec.get("tool_s", 0.0), limits=limits)
    return await Runtime.open(bound, data=spec["data"], environment=environment(spec["sim"]))


async def _warm(runtime: Runtime) -> None:
    """Run a few runs without pauses: what the first ones cost (connections, caches) is not a turn's."""
    await asyncio.gather(*(runtime.start("support", WARM) for _ in range(5)))
    await _over(runtime)


async def _over(runtime: Runtime, sample: Callable[[], None] = lambda: None) -> None:
    """Wait until no run is driven any more."""
    while runtime.active:
        sample()
        await asyncio.sleep(0.25)


async def _turn_times(runtime: Runtime, run: str) -> list[float]:
    """Seconds of each turn, from the model call's intent to the tool's result, by the journal."""
    began, took = 0, list[float]()
    for entry in await runtime.store.read("default", run):
        if isinstance(entry.event, ev.ModelCallStarted):
            began = entry.at_ms
        elif isinstance(entry.event, ev.ToolCallFinished):
            took.append((entry.at_ms - began) / 1e3)
    return took
