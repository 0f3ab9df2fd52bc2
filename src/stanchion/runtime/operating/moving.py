"""Export and restore: sessions into a file, and out of it into any store, with their chains intact; and what is remembered of users.

A session goes whole. What is over is copied; what is not over is exported only when asked (`live`), and is then let go by the
store that it leaves, before it is written: no two stores drive it. Restoring reads the file twice: nothing is written
before all of it was found whole and every chain verified.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import BrokenChain, ConfigError, Conflict, InputError, NotFound, StanchionError
from stanchion.engine.load import Loader
from stanchion.guard.both import digests_of
from stanchion.journal.archive import ArchiveReader, ArchiveWriter, Gone, check_memory, check_session
from stanchion.journal.head import is_moved
from stanchion.journal.ledger import name_of
from stanchion.journal.memory import Due, MovedMemory, recalled_subject
from stanchion.journal.moving import MovedKey, MovedSession, UsedKey, lift
from stanchion.journal.record import content_ids, read_entry, read_envelope
from stanchion.journal.store import Ledger, RunRow, Store
from stanchion.runtime.runs.finding import row_of

_PAGE = 200
_TRIES = 5
Progress = Callable[[int, int], None]
"""Told how many sessions and events are done."""


def no_progress(_sessions: int, _events: int) -> None:
    """Tell nobody."""


class Selection(msgspec.Struct, frozen=True):
    """What to export: runs (each with its session), one session, all sessions of an agent, or everything."""

    runs: tuple[str, ...] = ()
    session: str = ""
    agent: str = ""
    everything: bool = False


class Exporting(msgspec.Struct, frozen=True):
    """How to export."""

    live: bool = False
    """Also runs that are not over: they are let go here, and parked for ever."""
    budgets: bool = False
    """Limits, and what was spent on them."""
    memory: bool = False
    """What is remembered: of the users of the sessions; of every user where everything is exported."""
    force: bool = False
    """Replace the file."""


class Left(msgspec.Struct, frozen=True):
    """A session that was not exported, for a run that is not over."""

    session: str
    run: str
    status: str


class Exported(msgspec.Struct, frozen=True):
    """What an export wrote."""

    sessions: int
    runs: int
    events: int
    ledgers: int
    let_go: tuple[str, ...] = ()
    """Runs that were not over: they are parked here for ever."""
    left: tuple[Left, ...] = ()
    users: int = 0
    """Of whom something is remembered."""
    facts: int = 0
    """Versions of what is remembered of them."""
    unmoved: bool = False
    """Everything was asked for, and what is remembered was left out."""


class Restored(msgspec.Struct, frozen=True):
    """What a restore came to. `known`: sessions that were here already, as they are."""

    tenant: str
    sessions: int
    runs: int
    events: int
    added: int
    grown: int
    known: int
    back: int
    ledgers: int
    users: int = 0
    """Users of whom the file remembers something .."""
    remembered: int = 0
    """.. of whom more is remembered here now .."""
    forgotten: int = 0
    """.. and who were forgotten here, and stay so."""


class _Place(msgspec.Struct, frozen=True):
    """A session, or a run without one."""

    session: str
    run: str = ""


class Exporter:
    """Writes sessions of a tenant into a file."""

    def __init__(self, store: Store, tenant: str, out: ArchiveWriter, how: Exporting, progress: Progress) -> None:
        self._store = store
        self._tenant = tenant
        self._out = out
        self._how = how
        self._progress = progress
        self._loader = Loader(store)
        self._keys: dict[str, MovedKey] = {}
        self._used: dict[str, list[UsedKey]] = {}
        self._let_go: list[str] = []
        self._left: list[Left] = []
        self._due: dict[str, Due] = {}
        self._users: set[str] = set()
        """Of the sessions that were written."""

    async def export(self, wanted: Selection) -> Exported:
        """Write all that is wanted. Raises `NotFound`, `Conflict`, `BrokenChain`."""
        places = await self._places(wanted)
        by, memory = f"stanchion {version('stanchion')}", self._how.memory
        self._out.begin(self._tenant, await self._store.now_ms(), by, memory=memory)
        await self._read_keys()
        if memory:
            self._due = {due.run: due for due in await self._store.memories.dues(self._tenant)}
        if memory and wanted.everything:
            await self._forgotten()
        for place in places:
            await self._session(place, asked=bool(wanted.runs or wanted.session))
        ledgers = list(await self._store.ledgers(self._tenant)) if self._how.budgets else []
        for ledger in ledgers:
            self._out.ledger(ledger)
        users, facts = await self._memory(every=wanted.everything) if memory else (0, 0)
        self._out.end()
        written = (self._out.sessions, self._out.runs, self._out.events, len(ledgers))
        unmoved = wanted.everything and not memory and bool(await self._store.memories.everyone(self._tenant, limit=1))
        return Exported(*written, tuple(self._let_go), tuple(self._left), users, facts, unmoved)

    async def _forgotten(self) -> None:
        """Write which versions were forgotten, before all else: what journals held of them is erased, too."""
        after = ""
        while ids := await self._store.memories.forgotten(self._tenant, after=after):
            self._out.gone(ids)
            after = ids[-1]

    async def _memory(self, *, every: bool) -> tuple[int, int]:
        """Write what is remembered; tell of how many users, and how many versions."""
        users = facts = 0
        for user in await self._everyone() if every else sorted(self._users):
            moved = await self._store.memories.lift(self._tenant, user)
            if moved is not None:
                self._out.memory(moved)
                users, facts = users + 1, facts + len(moved.facts)
        return users, facts

    async def _everyone(self) -> list[str]:
        users: list[str] = []
        while page := await self._store.memories.everyone(self._tenant, after=users[-1] if users else ""):
            users += page
        return users

    async def _places(self, wanted: Selection) -> list[_Place]:
        """List the sessions that are wanted, oldest first, each once."""
        if wanted.session and await self._store.session(self._tenant, wanted.session) is None:
            raise NotFound(
                f"there is no session {wanted.session!r}; `stanchion runs ls` shows sessions", field="session"
            )
        rows: Iterable[RunRow]
        if wanted.runs:
            rows = [await row_of(self._store, self._tenant, run) for run in wanted.runs]
        else:
            rows = reversed(await self._rows(session=wanted.session, agent=wanted.agent))
        places = (_Place(row.session) if row.session else _Place("", row.run) for row in rows)
        return list(dict.fromkeys(places))

    async def _rows(self, *, session: str = "", agent: str = "") -> list[RunRow]:
        rows: list[RunRow] = []
        before = ""
        while page := await self._store.runs(self._tenant, session=session, agent=agent, before=before, limit=_PAGE):
            rows += page
            before = page[-1].run
        return rows

    async def _session(self, place: _Place, *, asked: bool) -> None:
        """Write a session as it stands; again, if it moved while it was read, or keys came or went."""
        problem: StanchionError | None = None
        for attempt in range(_TRIES):
            rows = await self._of(place)
            live = [row for row in rows if row.status != "ended"]
            if live and not self._how.live:
                self._leave(place, live[0], asked=asked)
                return
            if live:
                rows = await self._freeze(place, live)
            if attempt:
                await self._read_keys()
            session = await self._store.session(self._tenant, place.session) if place.session else None
            used = [one for row in rows for one in self._used.get(row.run, ())]
            due = [self._due[row.run] for row in rows if row.run in self._due]
            moved = await lift(self._store, rows, session, self._keys, used, due)
            problem = await self._problem(place, moved)
            if problem is None:
                self._out.session(moved, await self._bundles(moved))
                self._users |= {run.row.user for run in moved.runs if run.row.user}
                self._progress(self._out.sessions, self._out.events)
                return
        if problem is not None:
            raise problem

    async def _problem(self, place: _Place, moved: MovedSession) -> StanchionError | None:
        if not await self._stands(place, moved):
            return Conflict(f"{moved.name} goes on faster than it can be read; export it when it rests")
        try:
            check_session(moved)
        except BrokenChain as error:
            return error
        return None

    async def _read_keys(self) -> None:
        self._keys = {key.id: key for key in await self._store.moving.keys(self._tenant)}
        self._used = {}
        for one in await self._store.moving.used_keys(self._tenant):
            self._used.setdefault(one.run, []).append(one)

    async def _of(self, place: _Place) -> list[RunRow]:
        if not place.session:
            return [await row_of(self._store, self._tenant, place.run)]
        return list(reversed(await self._rows(session=place.session)))

    def _leave(self, place: _Place, row: RunRow, *, asked: bool) -> None:
        if asked:
            raise Conflict(
                f"run {row.run!r} is {row.status}, and a run that is not over can be in one store only; wait for it or cancel "
                "it, or move it with --live (it is then parked here for good)",
                code="run_not_over",
            )
        self._left.append(Left(place.session, row.run, row.status))

    async def _freeze(self, place: _Place, live: Sequence[RunRow]) -> list[RunRow]:
        """Let the runs go that are not over, if nothing of them is under way."""
        for row in live:
            state = await self._loader.load(self._tenant, row.run)
            if state.in_flight or state.in_batch:
                raise Conflict(
                    f"run {row.run!r} has a call under way; let a worker that serves {row.agent!r} settle it, then stop that "
                    "worker (SIGTERM) and export again",
                    code="run_not_over",
                )
        fresh = [row for row in live if not is_moved(row.status, row.outcome)]
        await self._store.moving.let_go(self._tenant, [(row.run, row.seq) for row in live])
        self._let_go += [row.run for row in fresh]
        return await self._of(place)

    async def _stands(self, place: _Place, moved: MovedSession) -> bool:
        """Tell whether a session is still what was read of it."""
        now = await self._of(place)
        if [(row.run, row.seq) for row in now] != [(run.row.run, run.row.seq) for run in moved.runs]:
            return False
        session = await self._store.session(self._tenant, place.session) if place.session else None
        if session is None or moved.row is None:
            return session is moved.row
        return (session.head, session.live, session.runs) == (moved.row.head, moved.row.live, moved.row.runs)

    async def _bundles(self, moved: MovedSession) -> dict[str, bytes]:
        digests = [run.row.bundle for run in moved.runs]
        for run in moved.runs:
            for record in run.records:
                if b'"bundle_changed"' in record.envelope or b'"policy_applied"' in record.envelope:
                    event = read_entry(record).event
                    digests += [event.bundle] if isinstance(event, ev.BundleChanged) else []
                    digests += digests_of(event.policy) if isinstance(event, ev.PolicyApplied) else []
        found: dict[str, bytes] = {}
        for digest in dict.fromkeys(digests):
            if self._out.lacks(digest) and (body := await self._store.bundle(self._tenant, digest)) is not None:
                found[digest] = body
        return found


async def export(
    store: Store,
    tenant: str,
    out: str | Path | BinaryIO,
    wanted: Selection,
    how: Exporting = Exporting(),  # noqa: B008  (frozen)
    progress: Progress = no_progress,
) -> Exported:
    """Write sessions into a file or a stream. A file gets its name only when it is whole; ".gz" is compressed.

    Raises `InputError` (file), `ConfigError`, `NotFound`, `Conflict`, `BrokenChain`.
    """
    if not isinstance(out, str | Path):
        writer = ArchiveWriter(out, compress=False)
        return await Exporter(store, tenant, writer, how, progress).export(wanted)
    path = Path(out)
    part = path.with_name(path.name + ".part")
    try:
        with _new_file(path, part, force=how.force) as file:
            writer = ArchiveWriter(file, compress=path.suffix == ".gz")
            said = await Exporter(store, tenant, writer, how, progress).export(wanted)
            _finish(file, part, path)
    except OSError as error:
        again = "; runs that were let go meanwhile can be exported again" if how.live else ""
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror or error}{again}") from error
    finally:
        _drop(part)
    return said


def _new_file(path: Path, part: Path, *, force: bool) -> BinaryIO:
    if path.exists() and not force:
        raise InputError(f"{str(path)!r} is there already; name another file, or replace it with --force", field="file")
    return open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _finish(file: BinaryIO, part: Path, path: Path) -> None:
    os.fsync(file.fileno())
    part.replace(path)


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)


async def restore(
    store: Store,
    file: str | Path | BinaryIO,
    *,
    tenant: str = "",
    back: bool = False,
    progress: Progress = no_progress,
) -> Restored:
    """Take all that a file holds into a store: each session whole or not at all, and nothing twice.

    `tenant`: that it must be of. `back`: runs that were let go here are driven here again, if they stand as they did; only for
    a file that was restored nowhere else. Raises `InputError` (file, tenant), `BrokenChain`, `Conflict`.
    """
    if isinstance(file, str | Path):
        with _opened(file) as opened:
            return await restore(store, opened, tenant=tenant, back=back, progress=progress)
    owner = await asyncio.to_thread(_check, file)
    if tenant and tenant != owner:
        raise InputError(
            f"the file is of tenant {owner!r}: the chain of each run begins with its tenant, so it cannot become one of "
            f"{tenant!r}; leave --tenant out",
            field="tenant",
        )
    return await _Restorer(store, owner, back=back, progress=progress).restore(ArchiveReader(file))


def _opened(file: str | Path) -> BinaryIO:
    try:
        return open(file, "rb")
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror or error}", field="file") from error


def _check(file: BinaryIO) -> str:
    """Read a file to its end and verify all of it, go back to its beginning, and return its tenant."""
    reader = ArchiveReader(file)
    for part in reader.read():
        if isinstance(part, MovedSession):
            check_session(part)
        elif isinstance(part, MovedMemory):
            check_memory(part)
    file.seek(0)
    return reader.header.tenant if reader.header else ""


class _Restorer:
    """Writes what a file holds."""

    def __init__(self, store: Store, tenant: str, *, back: bool, progress: Progress) -> None:
        self._store = store
        self._tenant = tenant
        self._back = back
        self._progress = progress
        self._keys: dict[str, str] = {}
        """Subjects of the content keys that are here."""
        self._counts = dict.fromkeys(("added", "grown", "known", "back"), 0)
        self._memories = dict.fromkeys(("added", "grown", "known", "forgotten"), 0)
        self._sessions = self._runs = self._events = self._ledgers = 0
        self._bundles: set[str] = set()

    async def restore(self, reader: ArchiveReader) -> Restored:
        self._keys = {key.id: key.subject for key in await self._store.moving.keys(self._tenant)}
        parts = reader.read()
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            match part:
                case Ledger():
                    await self._ledger(part)
                case Gone():
                    await self._store.memories.take_forgotten(self._tenant, part.ids)
                case MovedMemory():
                    self._memories[await self._store.memories.take_in(part)] += 1
                case MovedSession():
                    await self._put_bundles(reader.bundles)
                    await self._session(part)
        written, kept = (self._sessions, self._runs, self._events), self._memories
        told = {
            "users": sum(kept.values()),
            "remembered": kept["added"] + kept["grown"],
            "forgotten": kept["forgotten"],
        }
        return Restored(self._tenant, *written, **self._counts, ledgers=self._ledgers, **told)

    async def _session(self, moved: MovedSession) -> None:
        self._check_erased(moved)
        self._counts[await self._store.moving.take_in(moved, back=self._back)] += 1
        self._sessions, self._runs = self._sessions + 1, self._runs + len(moved.runs)
        self._events += sum(len(run.records) for run in moved.runs)
        self._progress(self._sessions, self._events)

    async def _put_bundles(self, bundles: dict[str, bytes]) -> None:
        for digest in bundles.keys() - self._bundles:
            await self._store.put_bundle(self._tenant, digest, bundles[digest])
            self._bundles.add(digest)

    def _check_erased(self, moved: MovedSession) -> None:
        """Refuse content that was erased where it comes from, while its key is still here."""
        mine = self._keys.keys() - {key.id for key in moved.keys}
        for run in moved.runs:
            for record in run.records:
                if None not in record.contents:
                    continue
                ids = content_ids(read_envelope(record.envelope))
                for (key, _), content in zip(ids, record.contents, strict=True):
                    if content is None and key in mine:
                        raise _erased_there(run.row, self._keys[key])

    async def _ledger(self, ledger: Ledger) -> None:
        """Set a limit that is not set here, and carry over what was spent on a ledger that is not here."""
        name = name_of(ledger.ledger)
        if ledger.limit >= 0:
            here = {name_of(row.ledger): row.limit for row in await self._store.ledgers(self._tenant)}
            if here.get(name, -1) < 0:
                await self._store.set_limit(self._tenant, name, ledger.limit)
        if ledger.settled and await self._store.moving.carry_over(ledger):
            self._ledgers += 1


def _erased_there(row: RunRow, subject: str) -> Conflict:
    """Say what is to be erased here before a file is taken that does not hold it any more."""
    user = row.user
    if user and subject == recalled_subject(user):
        return Conflict(
            f"something that is remembered of user {user!r} was forgotten where the file comes from, and run {row.run!r} was "
            f"told it here; forget it here first (`stanchion memory forget --user {user}`, one fact with --id), then import again"
        )
    return Conflict(
        f"content of {subject!r} in run {row.run!r} was erased where the file comes from, and its key is still here; erase it "
        "here first, then import again"
    )
