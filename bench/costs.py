"""What it costs to reckon the costs of many runs: `python -m bench.costs [RUNS]`, on SQLite and on PostgreSQL.

One run of four model calls and three tool calls with 4,000 characters each is driven; the others are journals copied from it. Prints the
CPU and the time of a report by user and day with a what-if, and the memory that it took.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.cost import Meter, rss_bytes
from stanchion import Agent, Runtime, tool
from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.message import ToolResult
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.store import Append, Start
from stanchion.runtime import CostQuestion
from stanchion.testing import ScriptedModel, call
from stanchion.testing.postgres import PostgresServer

RUNS = 10_000
_AT_ONCE = 200
_USERS = 97


@tool(effect="read", repeatable=True)
async def look(n: int) -> str:
    """Look something up."""
    return f"{n}" + "found so much " * 280


AGENT = Agent(name="desk", identity="You help.", model="anthropic:claude-sonnet-4-6", tools=[look])


def play(request: Any) -> Any:
    """Look three times, then answer."""
    looked = sum(isinstance(part, ToolResult) for message in request.messages for part in message.parts)
    return "done" if looked == 3 else call("look", n=looked)


async def fill(data: str, runs: int) -> None:
    """Drive one run, and copy its journal under other names."""
    async with await Runtime.open(AGENT, data=data, clients={"*": ScriptedModel(play)}) as runtime:
        first = (await runtime.start("desk", "Look it all up.", user="u0")).run
        await runtime.wait(first)
        entries = await runtime.store.read("default", first)
        for begin in range(1, runs, _AT_ONCE):
            numbers = range(begin, min(begin + _AT_ONCE, runs))
            await asyncio.gather(*(_copy(runtime, entries, number) for number in numbers))


async def _copy(runtime: Runtime, entries: Sequence[ev.Entry], number: int) -> None:
    begun = entries[0].event
    if not isinstance(begun, ev.RunStarted):
        raise SystemExit("a journal begins with its run's start")
    run, session, user = f"run_copied{number:07}", f"ses_copied{number:07}", f"u{number % _USERS}"
    recorder = Recorder(
        await runtime.store.key_for("default", user), Identity(), seq=0, hash=chain.genesis("default", run), at_ms=0
    )
    events = [
        msgspec.structs.replace(begun, run=run, session=session, user=user),
        *(entry.event for entry in entries[1:]),
    ]
    _, records = recorder.record(events, now_ms=entries[-1].at_ms, epoch=0)
    append = Append(
        tenant="default", run=run, expected_seq=0, epoch=0, records=tuple(records), status="ended", outcome="done"
    )
    await runtime.store.start(
        Start(
            tenant="default", run=run, session=session, agent="desk", bundle=begun.bundle, user=user, first=append
        )
    )  # fmt: skip


async def measure(data: str) -> dict[str, Any]:
    """Reckon, and give what it took."""
    async with await Runtime.open(data=data, drive=False) as runtime:
        meter, most = Meter(), 0

        def sample(_: int) -> None:
            nonlocal most
            most = max(most, rss_bytes())

        asked = CostQuestion(by=("user", "day"), without_cache=True)
        report = await runtime.costs.report(asked, progress=sample)
        took = meter.read(report.looked_at)
        return {
            "runs": report.looked_at, "usd": report.total.usd, "cpu_s": took["cpu_s"], "wall_s": took["wall_s"],
            "grown_mb": round((most - meter.rss) / 1e6, 1),
        }  # fmt: skip


def main() -> None:
    """Measure both stores."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with PostgresServer(durable=False) as server, tempfile.TemporaryDirectory() as folder:
        for name, data in (("sqlite", str(Path(folder) / "bench.db")), ("postgres", server.dsn())):
            asyncio.run(fill(data, runs))
            print(name, asyncio.run(measure(data)), flush=True)


if __name__ == "__main__":
    main()
