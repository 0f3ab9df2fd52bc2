"""Runs that wait for a person: what they weigh in the process that drove them, and in one that starts beside 100,000."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from bench.cost import Meter, Spec, cpu_s, rss_bytes
from bench.workload import ProposesRefund, asking_agent
from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.message import USER, Text
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Append, Key, RunRow, Start
from stanchion.runtime import Runtime

_AT_ONCE = 500
_IDLE_S = 5.0


async def _open(data: str) -> Runtime:
    return await Runtime.open(asking_agent(), data=data, clients={"*": ProposesRefund()}, environment={})


async def wait_here(spec: Spec) -> dict[str, Any]:
    """Drive runs to where they wait, and weigh them in this process."""
    runtime = await _open(spec["data"])
    await _ask(runtime, 200)
    meter = Meter()
    began = time.monotonic()
    await _ask(runtime, spec["runs"])
    wall = time.monotonic() - began
    gc.collect()
    grown = rss_bytes() - meter.rss
    waiting = len(await runtime.runs(status="waiting", limit=spec["runs"] + 200))
    result = {
        **meter.read(spec["runs"]), "waiting": waiting, "bytes_per_run": round(grown / spec["runs"]),
        "runs_per_s": round(spec["runs"] / wall),
    }  # fmt: skip
    await runtime.aclose()
    return result


async def _ask(runtime: Runtime, count: int) -> None:
    for begin in range(0, count, _AT_ONCE):
        some = range(min(_AT_ONCE, count - begin))
        await asyncio.gather(*(runtime.start("support", "Pay order A-1 back, please.", user="ann") for _ in some))
        while runtime.active:  # noqa: ASYNC110 - nothing tells of the last run's end
            await asyncio.sleep(0.01)


async def multiply(spec: Spec) -> dict[str, Any]:
    """Add runs to the store of `wait_here`, journaled like one of its own, until there are so many."""
    store = await SqliteStore.open(spec["data"])
    row = (await store.runs("default", status="waiting", limit=1))[0]
    entries = await store.read("default", row.run)
    key = await store.key_for("default", "ann")
    meter = Meter()
    for begin in range(0, spec["runs"], _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, spec["runs"]))
        await asyncio.gather(*(store.start(_copied(row, entries, key, number)) for number in numbers))
    result = meter.read(spec["runs"])
    await store.aclose()
    return result


def _copied(row: RunRow, entries: Any, key: Key, number: int) -> Start:
    run, session = f"run_copied{number:07}", f"ses_copied{number:07}"
    recorder = Recorder(key, Identity(), seq=0, hash=chain.genesis("default", run), at_ms=0)
    first = ev.RunStarted(
        run=run, tenant="default", session=session, agent="support", bundle=row.bundle, user="ann",
        parts=(Text(f"Pay order {number} back, please.", USER),),
    )  # fmt: skip
    events = [first, *(entry.event for entry in entries[1:])]
    _, records = recorder.record(events, now_ms=time.time_ns() // 1_000_000, epoch=0)
    append = Append(
        tenant="default", run=run, expected_seq=0, epoch=0, records=tuple(records), status="waiting", release=True
    )
    return Start(
        tenant="default", run=run, session=session, agent="support", bundle=row.bundle, user="ann", first=append
    )


async def idle(spec: Spec) -> dict[str, Any]:
    """Open the store beside what waits in it, and do nothing for a while."""
    gc.collect()
    before, at, cpu = rss_bytes(), time.monotonic(), cpu_s()
    runtime = await _open(spec["data"])
    opened_s, opened_cpu = time.monotonic() - at, cpu_s() - cpu
    await asyncio.sleep(1.0)
    at, cpu = time.monotonic(), cpu_s()
    await asyncio.sleep(spec.get("idle_s", _IDLE_S))
    idle_cpu = (cpu_s() - cpu) / (time.monotonic() - at)
    gc.collect()
    grown = rss_bytes() - before
    view = await runtime.runs(status="waiting", limit=1)
    result = {
        "open_ms": round(opened_s * 1e3, 1), "open_cpu_ms": round(opened_cpu * 1e3, 1),
        "idle_cpu_percent": round(idle_cpu * 100, 3), "rss_grown": grown, "waits": bool(view),
    }  # fmt: skip
    await runtime.aclose()
    return result
