"""`stanchion export` and `stanchion import`: sessions from one store into another, by way of a file."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from stanchion.cli.desk import Where, check_data, plain
from stanchion.cli.options import Data, Output, Tenant
from stanchion.cli.output import print_json, print_text, say
from stanchion.core.errors import InputError

if TYPE_CHECKING:
    from stanchion.runtime.operating.moving import Exported, Progress, Restored

_SHOWN = 10
_EVERY = 25


def export(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN..]", help="Runs to export, each with all of its session.")
    ] = None,
    session: Annotated[str, typer.Option("--session", help="Export this session.", show_default=False)] = "",
    agent: Annotated[
        str, typer.Option("--agent", help="Export the sessions that have runs of this agent.", show_default=False)
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Export all sessions of the tenant.")] = False,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-f",
            metavar="FILE",
            help='The file to write; ".gz" at its end compresses it. Without it: stdout.',
            show_default=False,
        ),
    ] = "",
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Also runs that are not over: they leave this store, and stay here parked for good."
        ),
    ] = False,
    budgets: Annotated[bool, typer.Option("--budgets", help="Also limits, and what was spent on them.")] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory", help="Also what is remembered of the users of these sessions; with --all of every user."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    data: Data = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Write sessions into a file that `stanchion import` takes into any store: events, contents and chains as they are.

    \b
    Contents are in the file in plain text: keep it as you keep the store, and delete it when it is imported.
    A session with a run that is not over is left out, and named; --live moves it: then the run goes on where the file is
    imported, and never here again. Stop its worker first.

    \b
    Examples:
        stanchion export --all --data stanchion.db -f runs.stx.gz
        stanchion export run_01 -f one.stx
        stanchion export --all --live --budgets --memory --data stanchion.db | ssh host stanchion import - --data postgresql://db/agents
    """
    chosen = [bool(run), bool(session), bool(agent), everything]
    if sum(chosen) != 1:
        raise InputError("say what to export: runs, --session S, --agent A or --all (one of them)")
    if not out and output == "json":
        raise InputError("-o json needs --out FILE: the export itself goes to stdout")
    if not out and sys.stdout.isatty():
        raise InputError(
            "the export goes to stdout, and that is a terminal; name a file with --out FILE, or pipe it on"
        )
    where = Where(data=data, tenant=tenant).in_a_file().resolve()
    said = asyncio.run(_export(where, tuple(run or ()), session, agent, everything, out, live, budgets, memory, force))
    if output == "json":
        print_json(plain(said))
        return
    _report_export(said, out)


async def _export(
    where: Where,
    runs: tuple[str, ...],
    session: str,
    agent: str,
    everything: bool,
    out: str,
    live: bool,
    budgets: bool,
    memory: bool,
    force: bool,
) -> Exported:
    from stanchion.runtime import Runtime
    from stanchion.runtime.operating.moving import Selection

    check_data(where.data, create=False)
    runtime = await Runtime.open(data=where.data, drive=False)
    try:
        with _progress("exported") as progress:
            return await runtime.export(
                out or sys.stdout.buffer,
                Selection(runs=runs, session=session, agent=agent, everything=everything),
                tenant=where.tenant,
                live=live,
                budgets=budgets,
                memory=memory,
                force=force,
                progress=progress,
            )
    finally:
        await runtime.aclose()


def _report_export(said: Exported, out: str) -> None:
    """Tell on stderr what was written, what was let go, and what was left out."""
    ledgers = f", {_count(said.ledgers, 'ledger')}" if said.ledgers else ""
    what = f"{_count(said.sessions, 'session')}, {_count(said.runs, 'run')}, {_count(said.events, 'event')}{ledgers}"
    what += f", {_count(said.facts, 'fact')} of {_count(said.users, 'user')}" if said.users else ""
    say(f"exported {what} to {out or 'stdout'}; it holds contents in plain text")
    if said.let_go:
        runs = _count(len(said.let_go), "run")
        say(
            f"{runs} that had not ended left this store: import the file, or take it back with `stanchion import --take-back`"
        )
    if said.unmoved:
        say("left out: what is remembered of users (--memory moves it)")
    if said.left:
        say(f"left out, for they are not over (--live moves them): {_count(len(said.left), 'session')}")
        for left in said.left[:_SHOWN]:
            say(f"  {left.session or '-'}  {left.run}  {left.status}")
        if len(said.left) > _SHOWN:
            say(f"  and {len(said.left) - _SHOWN:,} more")


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help='What `stanchion export` wrote; "-" is stdin.')],
    take_back: Annotated[
        bool,
        typer.Option(
            "--take-back",
            help="Drive runs here again that this store let go; only if the file was imported nowhere else.",
        ),
    ] = False,
    data: Data = "",
    tenant: Annotated[
        str,
        typer.Option("--tenant", help="Of whom the file must be; a run cannot change its tenant.", show_default=False),
    ] = "",
    output: Output = "text",
) -> None:
    """Take the sessions of an export into a store, and go on with them there.

    \b
    First all of the file is read and every chain verified; a file that was cut off or changed is refused, and nothing is
    written. Then each session, and what is remembered of each user, is taken in whole or not at all. What is here already stays as it is, so importing twice
    changes nothing; what has another history here is refused. Content that was erased stays erased.

    \b
    Examples:
        stanchion import runs.stx.gz --data postgresql://user@host/agents
        ssh old stanchion export --all | stanchion import - --data stanchion.db
    """
    where = Where(data=data, tenant=tenant).in_a_file()
    said = asyncio.run(_import(where, file, take_back))
    if output == "json":
        print_json(plain(said))
        return
    kinds = (("new", said.added), ("grown", said.grown), ("taken back", said.back), ("here already", said.known))
    parts = ", ".join(f"{count:,} {kind}" for kind, count in kinds if count) or "none"
    ledgers = f"; {_count(said.ledgers, 'ledger')} carried over" if said.ledgers else ""
    what = f"{_count(said.sessions, 'session')} ({parts}), {_count(said.runs, 'run')}, {_count(said.events, 'event')}"
    told = (("more", said.remembered), ("forgotten here, and left so", said.forgotten))
    more = ", ".join(f"{count:,} {kind}" for kind, count in told if count) or "nothing new"
    memory = f"; memory of {_count(said.users, 'user')} ({more})" if said.users else ""
    print_text(f"imported {what} of tenant {said.tenant}{ledgers}{memory}")


async def _import(where: Where, file: str, take_back: bool) -> Restored:
    from stanchion.runtime import Runtime

    if file != "-" and not Path(file).exists():  # noqa: ASYNC240  (before the store is opened)
        raise InputError(f"there is no file {file!r}", field="file")
    check_data(where.data, create=True)
    runtime = await Runtime.open(data=where.data, drive=False)
    try:
        with _progress("imported") as progress, _input(file) as source:
            return await runtime.restore(source, tenant=where.tenant, back=take_back, progress=progress)
    finally:
        await runtime.aclose()


@contextmanager
def _input(file: str) -> Generator[str | BinaryIO]:
    """Give the file; what comes by stdin is kept in a temporary file first, for it is read twice."""
    if file != "-":
        yield file
        return
    with tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.seek(0)
        yield kept  # type: ignore[misc]


@contextmanager
def _progress(verb: str) -> Generator[Progress]:
    """Count on stderr while it goes on, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _sessions, _events: None
        return

    def tell(sessions: int, events: int) -> None:
        if sessions % _EVERY == 0:
            sys.stderr.write(f"\r{verb} {_count(sessions, 'session')}, {_count(events, 'event')}")
            sys.stderr.flush()

    yield tell
    sys.stderr.write("\r\x1b[K")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
