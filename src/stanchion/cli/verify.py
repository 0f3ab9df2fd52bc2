"""`stanchion verify`: check that the journals are what was written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from stanchion.cli.desk import Json, Where, open_desk
from stanchion.cli.errors import ExitCode
from stanchion.cli.options import Data, Output, Tenant
from stanchion.cli.output import print_json, print_text
from stanchion.cli.runs import with_hint
from stanchion.core.errors import NotFound


def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Only this run; without it all of them.")] = "",
    tenant: Tenant = "",
    data: Data = "",
    output: Output = "text",
) -> None:
    """Check the chain of every event: hashes, order, times and contents. Names the first bad event; then exit code 1.

    \b
    Erased contents are no fault: the chain holds without them.

    \b
    Examples:
        stanchion verify
        stanchion verify run_01 --data /srv/agents/stanchion.db
        stanchion verify -o json | jq .broken
    """
    found = asyncio.run(_verify(Where(data=data, tenant=tenant).in_a_file(), run))
    broken = [verified for verified in found if verified["error"]]
    events, erased = (sum(verified[name] for verified in found) for name in ("events", "erased"))
    if output == "json":
        print_json({"ok": not broken, "runs": len(found), "events": events, "erased": erased, "broken": broken})
    else:
        for verified in broken:
            print_text(f"BROKEN {verified['run']} at event {verified['bad_seq']}: {verified['error']}")
        state = f"{len(broken)} of {_runs(len(found))} broken" if broken else f"{_runs(len(found))} in order"
        print_text(f"{state}: {events:,} events checked" + (f", {erased:,} parts erased" if erased else ""))
    if broken:
        raise typer.Exit(ExitCode.FAILED)


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"


async def _verify(where: Where, run: str) -> list[Json]:
    found: list[Json] = []
    async with open_desk(where) as desk:
        with _progress() as advance:
            try:
                async for verified in desk.verify(run):
                    found.append(verified)
                    advance(len(found), verified["events"])
            except NotFound as error:
                raise NotFound(with_hint(str(error))) from None
    return found


class _Counter:
    """Counts on stderr while it goes on, where that is a terminal."""

    def __init__(self) -> None:
        self._events = 0

    def __call__(self, runs: int, events: int) -> None:
        self._events += events
        if runs % 20 == 0:
            sys.stderr.write(f"\r{_runs(runs)}, {self._events:,} events checked")
            sys.stderr.flush()


@contextmanager
def _progress() -> Generator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda _runs, _events: None
        return
    yield _Counter()
    sys.stderr.write("\r\x1b[K")
