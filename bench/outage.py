"""`python -m bench.outage`: a provider answers 500 to everything, and the agents have another: what each run waits and pays, with breakers and without.

Runs begin one after the other at a steady pace, as users do. The providers are simulated, over HTTP; the model's retries and its breaker are the
defaults. A failed attempt that may have been billed settles at its reservation (I7), so that an outage has a price.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from stanchion import Agent, Breaker, Model, Runtime
from stanchion.core import event as ev
from stanchion.core.money import format_usd
from stanchion.sim import Fault, FaultPlan, Reply, Script, running_sim

FIRST, SECOND = "anthropic:claude-sonnet-4-6", "openai:gpt-5.2"
RUNS = 60
EVERY_S = 0.25


async def outage(breaker: Breaker | None, folder: Path) -> dict[str, float | str]:
    """Run agents through an outage. Seconds are from a run's start to its end."""
    desk = Agent(name="desk", identity="Help.", model=Model(FIRST, breaker=breaker), fallbacks=[SECOND])
    plan = FaultPlan(kind=Fault.SERVER_ERROR)
    async with running_sim(faults=[plan]) as down, running_sim(Script(default=Reply(text="Here you are."))) as up:
        environment = {
            "ANTHROPIC_BASE_URL": down.base_url, "ANTHROPIC_API_KEY": "sim", "OPENAI_BASE_URL": f"{up.base_url}/v1", "OPENAI_API_KEY": "sim",
        }  # fmt: skip
        async with await Runtime.open(desk, data=folder / "runs.db", environment=environment) as runtime:
            ended = await asyncio.gather(*(_one(runtime, number * EVERY_S) for number in range(RUNS)))
            tried, paid = 0, 0
            for run, _ in ended:
                events = [entry.event for entry in await runtime.store.read("default", run)]
                failed = [event for event in events if isinstance(event, ev.ModelCallFailed)]
                tried += len(failed)
                paid += sum(event.cost for event in failed)
    waits = sorted(wait for _, wait in ended)
    return {
        "p50_s": round(statistics.median(waits), 2),
        "p95_s": round(waits[int(len(waits) * 0.95)], 2),
        "tried": tried,
        "paid_usd": format_usd(paid),
    }


async def _one(runtime: Runtime, after_s: float) -> tuple[str, float]:
    await asyncio.sleep(after_s)
    began = time.monotonic()
    run = (await runtime.start("desk", "Where is my order?")).run
    view = await runtime.wait(run, timeout_s=120)
    if view.text != "Here you are.":
        raise AssertionError(view)
    return run, time.monotonic() - began


async def _both() -> None:
    print("| | p50, s | p95, s | attempts at the provider that is down | settled for them, $ |\n|---|---|---|---|---|")
    for name, breaker in (("`breaker=None`", None), ("default", Breaker())):
        with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as folder:
            found = await outage(breaker, Path(folder))
        print(f"| {name} | {found['p50_s']} | {found['p95_s']} | {found['tried']} | {found['paid_usd']} |")


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        prog="python -m bench.outage", description=(__doc__ or "").split("\n\n", maxsplit=1)[0]
    ).parse_args()
    asyncio.run(_both())


if __name__ == "__main__":
    main()
