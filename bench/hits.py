"""`python -m bench.hits --db .. --trajectories ..`: how much recorded conversations read from the provider's cache of what they had sent.

The airline's conversations are replayed through a real server (`examples/airline/replay.py`), whose model is the simulated provider with
the rules of Claude Sonnet 4.6. Then its journals are read: of the tokens that each session had sent before, within the cache's life and
above the model's minimum, how many were read, by the provider's own counts; and each call that read less, with the event that says why.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from examples.airline.recordings import Conversation, read_conversations, read_database
from examples.airline.replay import Options, replay, server_environment
from examples.airline.replay_server import ServerProcess
from stanchion.core import event as ev
from stanchion.core.fold import fold
from stanchion.core.message import Usage
from stanchion.journal.sqlite import SqliteStore
from stanchion.sim import start_sim_process

TENANT = "default"


class Hits(msgspec.Struct):
    """What the journals say. Tokens, and calls."""

    sessions: int = 0
    calls: int = 0
    sent_before: int = 0
    """Input of a session's request before each call, that was to be kept and was not over or too short."""
    read: int = 0
    """Of it, what was read."""
    first_read: int = 0
    """Beside that: what first calls of sessions read of what other sessions had sent."""
    wrong: int = 0
    """Calls that read another number of tokens than was predicted, by more than 5 %."""
    missed: Counter[str] = msgspec.field(default_factory=Counter[str])
    """Calls that read less than had been sent, by reason."""
    nano_usd: int = 0
    mismatches: int = 0
    """Of the replay: tool results that differ from the recording."""

    @property
    def rate(self) -> float:
        """The hit rate."""
        return self.read / self.sent_before if self.sent_before else 0.0


async def measure(document: object, conversations: Sequence[Conversation]) -> Hits:
    """Replay, and read the journals."""
    with tempfile.TemporaryDirectory(prefix="stanchion-hits-") as name:
        folder = Path(name)
        (folder / "sessions").mkdir()
        sim = await start_sim_process()
        environment = server_environment("anthropic", folder / "sessions", sim.base_url)
        server = ServerProcess(folder, environment, data=str(folder / "hits.db"))
        try:
            await server.start()
            options = Options(
                wire="anthropic", url=await server.url(), sim_url=sim.base_url, databases=str(folder / "sessions")
            )
            report, _ = await replay(document, conversations, options, lambda text: print(text, file=sys.stderr))
        finally:
            await server.stop()
            await sim.stop()
        hits = await read(folder / "hits.db")
        hits.mismatches = len(report.mismatches)
        return hits


async def read(path: Path) -> Hits:
    """Read the journals of a data file."""
    store = await SqliteStore.open(path)
    hits, sessions, before = Hits(), set[str](), ""
    try:
        while rows := await store.runs(TENANT, before=before, limit=200):
            before = rows[-1].run
            for row in rows:
                sessions.add(row.session)
                take(hits, await store.read(TENANT, row.run))
    finally:
        await store.aclose()
    hits.sessions = len(sessions)
    return hits


def take(hits: Hits, entries: Sequence[ev.Entry]) -> None:
    """Count the calls of a run."""
    started: ev.ModelCallStarted | None = None
    for entry in entries:
        event = entry.event
        if isinstance(event, ev.ModelCallStarted):
            started = event
        elif isinstance(event, ev.ModelCallFinished) and started is not None and event.usage is not None:
            _count(hits, started, event.usage)
            hits.nano_usd += event.cost
    hits.missed.update(each.reason for each in fold(entries).missed)


def _count(hits: Hits, started: ev.ModelCallStarted, usage: Usage) -> None:
    hits.calls += 1
    if started.cache_unkept in ("life", "small"):
        return
    if not started.cache_sent:
        hits.first_read += usage.cache_read_tokens
        return
    hits.sent_before += started.cache_sent
    hits.read += min(usage.cache_read_tokens, started.cache_sent)
    hits.wrong += abs(usage.cache_read_tokens - started.cache_expected) > started.cache_expected * 0.05


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.hits", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--db", required=True, help="the airline's database, as JSON, may be packed")
    parser.add_argument("--trajectories", required=True, help="the recorded conversations, as JSON lines")
    parser.add_argument("--limit", type=int, default=None, help="replay so many of them")
    given = parser.parse_args()
    document, conversations = read_database(given.db), read_conversations(given.trajectories)[: given.limit]
    hits = asyncio.run(measure(document, conversations))
    print(json.dumps({"rate": round(hits.rate, 5), **msgspec.to_builtins(hits)}))


if __name__ == "__main__":
    main()
