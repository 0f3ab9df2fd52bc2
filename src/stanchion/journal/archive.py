"""The file that sessions move in: JSON lines, plain or gzip. Version 1; 2 where it holds memory. Nothing here awaits.

    {"line":"export","version":1,"at_ms":..,"tenant":"default","by":"stanchion .."}
    {"line":"forgotten","ids":[..]}          versions of facts that were forgotten
    {"line":"session","row":{..}}            a session's row, or null for a run without a session
    {"line":"bundle","digest":..,"body":..}  what its runs are pinned to, once in a file
    {"line":"key","subject":..,"id":..,"salt":..}
    {"line":"run","row":{..}}                oldest first; then its events, its inbox
    {"line":"event","seq":1,"hash":..,"envelope":"..","contents":[..]}
    {"line":"inbox","kind":..,"body":..,"at_ms":..}
    {"line":"used_key","key":..,"digest":..,"run":..}
    {"line":"due","agent":..,"user":..,"run":..,"tries":0}
    {"line":"session_end","runs":1,"events":9}
    {"line":"ledger","row":{..}}
    {"line":"memory","user":..,"key":..,"salt":..}
    {"line":"fact","row":{..}}               all versions, as they were written
    {"line":"memory_end","facts":9}
    {"line":"end","sessions":1,"runs":1,"events":9,"sha256":".."}

Bytes are base64; an envelope is its text, byte for byte; a content that was erased is null. `sha256` is over all bytes
before the last line. Whoever reads takes nothing from a file whose last line is missing or does not fit.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Generator, Sequence
from typing import BinaryIO, TypeAlias, cast

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import BrokenChain, InputError, StanchionError
from stanchion.core.fact import Fact
from stanchion.journal.memory import Due, MovedMemory
from stanchion.journal.moving import MovedKey, MovedRun, MovedSession, UsedKey
from stanchion.journal.record import read_entry, verify
from stanchion.journal.store import InboxItem, Ledger, RawRecord, RunRow, SessionRow

VERSION = 2
"""The highest that is read, and the one with memory. Without it version 1 is written, which older programs read."""
_GZIP = b"\x1f\x8b"


class _Line(msgspec.Struct, frozen=True, tag_field="line", forbid_unknown_fields=True):
    pass


class Header(_Line, frozen=True, tag="export"):
    """The first line."""

    version: int
    at_ms: int
    tenant: str
    by: str


class _Session(_Line, frozen=True, tag="session"):
    row: SessionRow | None


class _Bundle(_Line, frozen=True, tag="bundle"):
    digest: str
    body: bytes


class _Key(_Line, frozen=True, tag="key"):
    subject: str
    id: str
    salt: bytes


class _Run(_Line, frozen=True, tag="run"):
    row: RunRow


class _Event(_Line, frozen=True, tag="event"):
    seq: int
    hash: bytes
    envelope: str
    contents: tuple[bytes | None, ...] = ()


class _Inbox(_Line, frozen=True, tag="inbox"):
    kind: str
    body: bytes
    at_ms: int


class _UsedKey(_Line, frozen=True, tag="used_key"):
    key: str
    digest: str
    run: str


class _Due(_Line, frozen=True, tag="due"):
    run: str
    agent: str
    user: str
    tries: int


class _SessionEnd(_Line, frozen=True, tag="session_end"):
    runs: int
    events: int


class _Ledger(_Line, frozen=True, tag="ledger"):
    row: Ledger


class Gone(_Line, frozen=True, tag="forgotten"):
    """Versions of facts that were forgotten."""

    ids: tuple[str, ...]


class _Memory(_Line, frozen=True, tag="memory"):
    user: str
    key: str
    salt: bytes


class _Fact(_Line, frozen=True, tag="fact"):
    row: Fact


class _MemoryEnd(_Line, frozen=True, tag="memory_end"):
    facts: int


class End(_Line, frozen=True, tag="end"):
    """The last line: what the file holds."""

    sessions: int
    runs: int
    events: int
    sha256: str


Line: TypeAlias = (
    Header
    | _Session
    | _Bundle
    | _Key
    | _Run
    | _Event
    | _Inbox
    | _UsedKey
    | _Due
    | _SessionEnd
    | _Ledger
    | Gone
    | _Memory
    | _Fact
    | _MemoryEnd
    | End
)
Part: TypeAlias = MovedSession | Ledger | Gone | MovedMemory
"""What a file holds."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class ArchiveWriter:
    """Writes such a file. It is whole only after `end`."""

    def __init__(self, out: BinaryIO, *, compress: bool) -> None:
        self._raw = out
        self._zip = gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) if compress else None
        self._out: BinaryIO = cast(BinaryIO, self._zip) if self._zip else out
        self._digest = hashlib.sha256()
        self._bundles: set[str] = set()
        self.sessions = self.runs = self.events = 0

    def begin(self, tenant: str, at_ms: int, by: str, *, memory: bool = False) -> None:
        """Write the first line. `memory`: there will be some."""
        self._put(Header(VERSION if memory else 1, at_ms, tenant, by))

    def lacks(self, digest: str) -> bool:
        """Whether a bundle is not in the file yet."""
        return digest not in self._bundles

    def session(self, moved: MovedSession, bundles: dict[str, bytes]) -> None:
        """Write a session."""
        self._put(_Session(moved.row))
        for digest, body in bundles.items():
            if self.lacks(digest):
                self._bundles.add(digest)
                self._put(_Bundle(digest, body))
        for key in moved.keys:
            self._put(_Key(key.subject, key.id, key.salt))
        for run in moved.runs:
            self._put(_Run(run.row))
            for record in run.records:
                self._put(_Event(record.seq, record.hash, record.envelope.decode(), record.contents))
            for item in run.inbox:
                self._put(_Inbox(item.kind, item.body, item.at_ms))
        for used in moved.used:
            self._put(_UsedKey(used.key, used.digest, used.run))
        for due in moved.due:
            self._put(_Due(due.run, due.agent, due.user, due.tries))
        events = sum(len(run.records) for run in moved.runs)
        self._put(_SessionEnd(len(moved.runs), events))
        self.sessions, self.runs, self.events = self.sessions + 1, self.runs + len(moved.runs), self.events + events

    def ledger(self, ledger: Ledger) -> None:
        """Write a ledger."""
        self._put(_Ledger(ledger))

    def gone(self, ids: Sequence[str]) -> None:
        """Write what was forgotten."""
        self._put(Gone(tuple(ids)))

    def memory(self, moved: MovedMemory) -> None:
        """Write what is remembered of a user."""
        self._put(_Memory(moved.user, moved.key, moved.salt))
        for fact in moved.facts:
            self._put(_Fact(fact))
        self._put(_MemoryEnd(len(moved.facts)))

    def end(self) -> None:
        """Write the last line."""
        self._put(End(self.sessions, self.runs, self.events, self._digest.hexdigest()))
        if self._zip:
            self._zip.close()
        self._raw.flush()

    def _put(self, line: Line) -> None:
        data = _encode(line) + b"\n"
        self._digest.update(data)
        self._out.write(data)


class ArchiveReader:
    """Reads such a file, once through. Raises `InputError` for what is none, is cut off or was changed."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.read(2)
        file.seek(-len(start), io.SEEK_CUR)
        self._file: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if start == _GZIP else file
        self._digest = hashlib.sha256()
        self._number = 0
        self.header: Header | None = None
        self.end: End | None = None
        self.bundles: dict[str, bytes] = {}
        """Those that were read until now, by digest."""

    def read(self) -> Generator[Part]:
        """Read session after session, ledgers, and what is remembered. What was given is to be trusted only when the end was reached."""
        sessions = runs = events = 0
        lines = self._lines()
        for line in lines:
            match line:
                case _Session():
                    moved = self._session(line, lines)
                    sessions, runs = sessions + 1, runs + len(moved.runs)
                    events += sum(len(run.records) for run in moved.runs)
                    yield moved
                case _Ledger():
                    yield line.row
                case Gone():
                    yield line
                case _Memory():
                    yield self._memory(line, lines)
                case End():
                    if (line.sessions, line.runs, line.events) != (sessions, runs, events):
                        raise self._bad("its counts do not fit what stands before it")
                case _:
                    raise self._bad("it stands in the wrong place")

    def _lines(self) -> Generator[Line]:
        """Read lines, the header apart. The last is checked against the digest of those before it."""
        while data := self._readline():
            self._number += 1
            if self.end is not None:
                raise self._bad("there is more behind the end of the file")
            line = self._line(data)
            if isinstance(line, Header) != (self._number == 1):
                raise self._bad("it is no export of Stanchion" if self._number == 1 else "it stands in the wrong place")
            if isinstance(line, Header):
                self.header = line
            elif isinstance(line, End):
                if line.sha256 != self._digest.hexdigest():
                    raise self._bad("the file was changed since it was written (its SHA-256 is another)")
                self.end = line
            self._digest.update(data)
            if not isinstance(line, Header):
                yield line
        if self.end is None:
            raise InputError(
                f"the file ends after line {self._number} without its end record: it was cut off, or is still being "
                "written; export again",
                field="file",
            )

    def _readline(self) -> bytes:
        try:
            data = self._file.readline()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"the file is cut off or damaged ({error}); export again", field="file") from error
        if data and not data.endswith(b"\n"):
            raise InputError(
                f"the file ends in the middle of line {self._number + 1}: it was cut off, or is still being written; "
                "export again",
                field="file",
            )
        return data

    def _line(self, data: bytes) -> Line:
        if self._number == 1:
            self._check_version(data)
        try:
            return _decode(data)
        except (msgspec.MsgspecError, ValueError) as error:  # (a ValueError: not UTF-8)
            what = "no export of Stanchion" if self._number == 1 else "damaged"
            raise self._bad(f"it is {what} ({error})") from error

    def _check_version(self, data: bytes) -> None:
        class Version(msgspec.Struct, tag_field="line", tag="export"):
            version: int

        try:
            found = msgspec.json.decode(data, type=Version).version
        except (msgspec.MsgspecError, ValueError):
            return
        if found > VERSION:
            raise InputError(
                f"the file is of version {found} and was written by a newer Stanchion (this one reads up to {VERSION}); "
                "upgrade Stanchion",
                field="file",
            )

    def _session(self, opened: _Session, lines: Generator[Line]) -> MovedSession:
        keys: list[MovedKey] = []
        runs: list[tuple[RunRow, list[RawRecord], list[InboxItem]]] = []
        used: list[UsedKey] = []
        due: list[Due] = []
        for line in lines:
            match line:
                case _Bundle():
                    self.bundles[line.digest] = line.body
                case _Key():
                    keys.append(MovedKey(line.subject, line.id, line.salt))
                case _Run():
                    runs.append((line.row, [], []))
                case _Event() if runs:
                    runs[-1][1].append(RawRecord(line.seq, line.envelope.encode(), line.hash, line.contents))
                case _Inbox() if runs:
                    runs[-1][2].append(InboxItem(0, line.kind, line.body, line.at_ms))
                case _UsedKey():
                    used.append(UsedKey(line.key, line.digest, line.run))
                case _Due():
                    due.append(Due(self._tenant(), line.run, line.agent, line.user, line.tries))
                case _SessionEnd():
                    if (line.runs, line.events) != (len(runs), sum(len(records) for _, records, _ in runs)) or not runs:
                        raise self._bad("its counts do not fit what stands before it")
                    moved = tuple(MovedRun(row, tuple(records), tuple(inbox)) for row, records, inbox in runs)
                    return MovedSession(self._tenant(), opened.row, moved, tuple(keys), tuple(used), tuple(due))
                case _:
                    raise self._bad("it stands in the wrong place")
        raise self._bad("the session that is open has no end")

    def _memory(self, opened: _Memory, lines: Generator[Line]) -> MovedMemory:
        facts: list[Fact] = []
        for line in lines:
            match line:
                case _Fact():
                    facts.append(line.row)
                case _MemoryEnd():
                    if line.facts != len(facts):
                        raise self._bad("its count does not fit what stands before it")
                    return MovedMemory(self._tenant(), opened.user, opened.key, opened.salt, tuple(facts))
                case _:
                    raise self._bad("it stands in the wrong place")
        raise self._bad("what is remembered of a user has no end")

    def _tenant(self) -> str:
        return self.header.tenant if self.header else ""

    def _bad(self, why: str) -> InputError:
        return InputError(f"line {self._number} cannot be taken: {why}; export again", field="file")


def check_session(moved: MovedSession) -> int:
    """Check a session: every chain, every row against its chain, what each run goes on from. Returns erased parts.

    Raises `BrokenChain` with the run, `InputError` for rows that do not fit their runs.
    """
    salts = {key.id: key.salt for key in moved.keys}
    seen: dict[str, RunRow] = {}
    erased = 0
    for run in moved.runs:
        row = run.row
        erased += _check_run(moved, run, salts)
        if row.seq:
            _check_base(run, seen)
        seen[row.run] = row
    if len(seen) != len(moved.runs):
        raise _misfit(f"{moved.name} holds a run twice")
    if any(used.run not in seen for used in moved.used):
        raise _misfit(f"{moved.name} holds an idempotency key of another")
    if any(due.run not in seen for due in moved.due):
        raise _misfit(f"{moved.name} says that something is to be learned of a run of another")
    if moved.row is None:
        if len(moved.runs) != 1:
            raise _misfit("runs without a session come one by one")
    else:
        _check_session_row(moved, moved.row, seen)
    return erased


def check_memory(moved: MovedMemory) -> None:
    """Check what is remembered of a user: each version once, and none ended before it was written. Raises `InputError`."""
    if len({fact.id for fact in moved.facts}) != len(moved.facts):
        raise _misfit(f"a version of what is remembered of user {moved.user!r} stands there twice")
    for fact in moved.facts:
        if bool(fact.ended_ms) != bool(fact.why) or 0 < fact.ended_ms < fact.recorded_ms:
            raise _misfit(f"the fact {fact.id} of user {moved.user!r} ends before it was written, or for no reason")


def _check_run(moved: MovedSession, run: MovedRun, salts: dict[str, bytes]) -> int:
    row = run.row
    session = moved.row.session if moved.row else ""
    if (row.tenant, row.session) != (moved.tenant, session):
        raise _misfit(f"run {row.run!r} is of another tenant or session than it stands under")
    if row.worker or row.lease_until_ms:
        raise _misfit(f"run {row.run!r} is being driven")
    found = verify(row.tenant, row.run, run.records, salts)
    if found.events != row.seq or (row.seq and found.head != row.hash):
        raise BrokenChain(
            f"run {row.run!r} has {found.events} events, and its row says {row.seq} or another last one",
            run=row.run,
            seq=found.events,
        )
    return found.erased


def _check_base(run: MovedRun, seen: dict[str, RunRow]) -> None:
    first = read_entry(run.records[0]).event
    if not isinstance(first, ev.RunStarted):
        raise BrokenChain(f"run {run.row.run!r} does not begin with its start", run=run.row.run, seq=1)
    base = first.base
    if base is None:
        return
    row = seen.get(base.run)
    if row is None or (row.seq, row.hash.hex()) != (base.seq, base.hash):
        raise BrokenChain(
            f"run {run.row.run!r} goes on from event {base.seq} of run {base.run!r}, which is not in its session as it was",
            run=run.row.run,
            seq=1,
        )


def _check_session_row(moved: MovedSession, row: SessionRow, seen: dict[str, RunRow]) -> None:
    live = seen.get(row.live)
    head = seen.get(row.head.run) if row.head else None
    ended = [run for run in seen.values() if run.status == "ended" and run.seq]
    if row.tenant != moved.tenant or row.runs != len(seen):
        raise _misfit(f"{moved.name} is said to have {row.runs} runs, and has {len(seen)}")
    if row.live and (live is None or live.status == "ended"):
        raise _misfit(f"{moved.name} is said to have the live run {row.live!r}, and has none such")
    if not row.live and len([run for run in seen.values() if run.status == "ended"]) != len(seen):
        raise _misfit(f"{moved.name} is said to have no live run, and has one")
    if row.head and (head is None or (head.seq, head.hash.hex()) != (row.head.seq, row.head.hash)):
        raise _misfit(f"{moved.name} is said to stand at a run that it does not have so")
    if ended and not row.head:
        raise _misfit(f"{moved.name} has runs that are over, and no head")


def _misfit(why: str) -> StanchionError:
    return InputError(why, field="file")
