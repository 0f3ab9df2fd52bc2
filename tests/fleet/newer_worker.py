"""A worker of a version to come: `python -m tests.fleet.newer_worker DSN AGENT_FILE`.

It brings the schema one migration further (one that only adds), and writes an event of a type that the program of today
does not know into every run that it drives. Nothing of the program is changed for it: what is new is put in its place
here, before the rest is loaded, as a newer version would have it.
"""

# ruff: noqa: E402  (what is new must be there before the others are loaded)
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from stanchion.core import event as ev


class Remarked(ev._Event, frozen=True, tag="remarked"):
    """Something was remarked."""

    what: str


ev.Event = ev.Event | Remarked  # type: ignore[misc]

from stanchion.core import fold

_evolve = fold.evolve


def _evolve_newer(state: Any, entry: ev.Entry) -> Any:
    if isinstance(entry.event, Remarked):
        return msgspec.structs.replace(state, seq=entry.seq, at_ms=entry.at_ms, hash=entry.hash)
    return _evolve(state, entry)


fold.evolve = _evolve_newer

from stanchion.engine.prepare import Preparer
from stanchion.journal.postgres import schema
from stanchion.runtime import Runtime, load_agents

_drive = Preparer._drive


def _drive_newer(self: Preparer, *given: Any) -> Any:
    drive = _drive(self, *given)
    if drive.state.seq:
        drive.tell(Remarked(what="by a newer program"))  # type: ignore[arg-type]
    return drive


Preparer._drive = _drive_newer  # type: ignore[method-assign]
NEXT = schema.VERSION + 1
schema.MIGRATIONS = {**schema.MIGRATIONS, NEXT: "-- additive\nCREATE TABLE remarks (run bigint, what text);"}
schema.VERSION = NEXT


async def main(dsn: str, file: str) -> None:
    """Drive until stdin is closed."""
    async with await Runtime.open(*load_agents(file), data=dsn):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
