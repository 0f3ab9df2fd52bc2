"""The audit: sees every write of a journal as it happens, and holds it to the invariants of ARCHITECTURE.md.

It keeps its own account (epochs, chains, attempts, verdicts, money) and takes nothing from the store's word but the write
itself. The first violation is kept and stops the simulation.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle
from stanchion.core.fold import carry, evolve, fold
from stanchion.core.message import Message, Text
from stanchion.core.state import State
from stanchion.journal.record import read_entry
from stanchion.journal.sqlite.ledgers import name_of
from stanchion.journal.store import Append, Claim, RawRecord, Start


@dataclass(slots=True)
class Attempt:
    """An attempt at a tool call, as the journal tells it."""

    event: ev.ToolCallStarted
    open: bool = True
    """It may have been done, and nobody has said that it was not."""


@dataclass(slots=True)
class RunAudit:
    """What the audit knows of a run."""

    tenant: str
    run: str
    session: str
    state: State = field(default_factory=State)
    hash: bytes = b""
    epoch: int = 0
    seq: int = 0
    at_ms: int = 0
    queued: bool = False
    prompt: tuple[Message, ...] = ()
    """Messages of the last model call."""
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    allowed: dict[tuple[str, int], str] = field(default_factory=dict)
    approved: set[tuple[str, int]] = field(default_factory=set)
    attempts: dict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    outcomes: dict[str, ev.ToolCallFinished] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    arguments: dict[tuple[str, int], str] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kinds: list[str] = field(default_factory=list)
    reserved: dict[str, int] = field(default_factory=dict)
    """By ledger, of the model call in flight."""


class Audit:
    """The account of a whole simulation."""

    def __init__(self, bundles: dict[str, Bundle], fail: Any, trace: Any) -> None:
        self.model_calls: list[float] = []
        """When each arrived at the provider."""
        self.runs: dict[tuple[str, str], RunAudit] = {}
        self.bundles = bundles
        self.settled: dict[tuple[str, str], int] = defaultdict(int)
        self.reserved: dict[tuple[str, str], int] = defaultdict(int)
        self.overrun: dict[tuple[str, str], int] = defaultdict(int)
        self.asking: dict[tuple[str, str], None] = {}
        """Runs that wait for a person."""
        self.standing: dict[tuple[str, str], None] = {}
        """Runs that are not over."""
        self.events = 0
        self.by_plan: dict[str, RunAudit] = {}
        self._fail = fail
        self._trace = trace

    # --- what the database tells -------------------------------------------------------------------------------------

    def started(self, start: Start, tables: Any) -> None:
        """A run was accepted."""
        place = (start.tenant, start.run)
        if place in self.runs:
            self._fail("I1", f"run {start.run} was started twice")
        run = RunAudit(start.tenant, start.run, start.session, epoch=start.first.epoch, queued=not start.first.records)
        run.hash = chain.genesis(start.tenant, start.run)
        self.runs[place] = run
        self.standing[place] = None
        self._take(run, start.first, tables)

    def break_rule(self, text: str) -> None:
        """A rule about who runs was broken."""
        self._fail("caps", text)

    def claimed(self, claim: Claim) -> None:
        """A worker has taken a run."""
        run = self.runs[claim.tenant, claim.run]
        if claim.epoch <= run.epoch:
            self._fail("I1", f"{run.run} was claimed under epoch {claim.epoch}, and stood at {run.epoch}")
        run.epoch = claim.epoch
        self._trace("claim", run.run, claim.epoch)

    def appended(self, append: Append, tables: Any) -> None:
        """Something was written."""
        run = self.runs[append.tenant, append.run]
        if append.epoch != run.epoch:
            self._fail("I1", f"{run.run}: an append of epoch {append.epoch} was taken under epoch {run.epoch}")
        if run.state.ended:
            self._fail("I1", f"{run.run}: something was added after its end")
        if append.expected_seq != run.seq:
            self._fail("I1", f"{run.run}: an append behind event {append.expected_seq} was taken at {run.seq}")
        self._take(run, append, tables)
        if append.release and append.status == "waiting" and run.state.in_flight:
            self._fail("I2", f"{run.run} was let go with an attempt in flight")

    # --- the checks -----------------------------------------------------------------------------------------------------

    def _take(self, run: RunAudit, append: Append, tables: Any) -> None:
        kinds: list[str] = []
        for record in append.records:
            entry = self._entry(run, record, append.epoch)
            self._check(run, entry)
            run.state = evolve(run.state, entry)
            kinds.append(str(entry.event.__struct_config__.tag))
            self.events += 1
        run.kinds += kinds
        place = (run.tenant, run.run)
        if run.state.ended:
            self.standing.pop(place, None)
        if run.state.asking or run.state.parked:
            self.asking[place] = None
        else:
            self.asking.pop(place, None)
        if (append.status == "ended") != run.state.ended:
            self._fail("I3", f"{run.run}: its row says {append.status}, its events say {run.state.outcome!r}")
        self._money(append, tables)
        self._trace("append", run.run, append.epoch, run.seq, append.status, *kinds, run.hash.hex()[:8])

    def _entry(self, run: RunAudit, record: Any, epoch: int) -> ev.Entry:
        blobs = tuple(content.blob for content in record.contents)
        entry = read_entry(RawRecord(record.seq, record.envelope, record.hash, blobs))
        run.seq += 1
        if entry.seq != run.seq or record.seq != run.seq:
            self._fail("I1", f"{run.run}: event {run.seq} says that it is {entry.seq}")
        if chain.link(run.hash, record.envelope) != record.hash:
            self._fail("I1", f"{run.run}: the hash of event {run.seq} is not of its chain")
        if entry.at_ms < run.at_ms:
            self._fail("I1", f"{run.run}: event {run.seq} is before the one before it")
        if entry.epoch != epoch:
            self._fail("I1", f"{run.run}: event {run.seq} is of epoch {entry.epoch}, its append of {epoch}")
        run.hash, run.at_ms = record.hash, entry.at_ms
        return entry

    def _check(self, run: RunAudit, entry: ev.Entry) -> None:  # noqa: C901 - one case an event
        event, state = entry.event, run.state
        match event:
            case ev.RunStarted():
                self._run_started(run, event)
            case ev.MessageAdded():
                run.messages[_text(event.parts)] += 1
            case ev.PrefixReset():
                run.prompt = ()
            case ev.ModelCallStarted():
                self._model_started(run, event)
            case ev.ModelCallFinished() | ev.ModelCallFailed():
                if state.model is None or not state.model.in_flight or state.model.attempt != event.attempt:
                    self._fail("I2", f"{run.run}: an outcome of attempt {event.attempt}, which was not in flight")
                self._model_settled(run, event.cost)
            case ev.CompactionStarted():
                if state.in_flight:
                    self._fail("I2", f"{run.run}: a summary was started while another attempt is in flight")
                self._reserve(run, event.ledgers, event.reserved)
            case ev.SummaryWritten() | ev.CompactionFailed():
                if state.compacting is None or not state.compacting.in_flight:
                    self._fail("I2", f"{run.run}: an outcome of a summary that was not in flight")
                self._model_settled(run, event.cost)
            case ev.EmbeddingStarted():
                if state.in_flight:
                    self._fail("I2", f"{run.run}: an embedding was started while another attempt is in flight")
                self._reserve(run, event.ledgers, event.reserved)
            case ev.EmbeddingMade() | ev.EmbeddingFailed():
                if state.embedding is None or not state.embedding.in_flight:
                    self._fail("I2", f"{run.run}: an outcome of an embedding that was not in flight")
                self._model_settled(run, event.cost)
            case ev.Compacted():
                self._trace("compacted", run.run, event.covers, event.degraded)
            case ev.ToolCallJudged():
                run.allowed[event.call, event.revision] = event.action
                if event.tool:
                    run.tools[event.call] = event.tool
            case ev.CallDecided():
                self._decided(run, event)
            case ev.ToolCallStarted():
                self._tool_started(run, event)
            case ev.ToolCallFailed():
                attempt = self._attempt(run, event.call, event.attempt)
                if attempt is not None and not event.in_doubt:
                    attempt.open = False
            case ev.ToolCallReconciled():
                if event.answer == "not_done":
                    for attempt in run.attempts[event.call]:
                        attempt.open = False
            case ev.ToolCallFinished():
                if event.call in run.outcomes:
                    self._fail("I2", f"{run.run}: call {event.call} was settled twice")
                run.outcomes[event.call] = event
            case _:
                pass

    def _attempt(self, run: RunAudit, call: str, number: int) -> Attempt | None:
        found = next((a for a in run.attempts[call] if a.event.attempt == number), None)
        if found is None:
            self._fail("I2", f"{run.run}: an outcome of attempt {number} of {call}, which was never started")
        return found

    def _run_started(self, run: RunAudit, event: ev.RunStarted) -> None:
        plan = _text(event.parts).removeprefix("plan:")
        if plan in self.by_plan:
            self._fail("I1", f"the request of plan {plan} became two runs: {self.by_plan[plan].run} and {run.run}")
        self.by_plan[plan] = run
        if event.base is not None:
            base = self.runs[run.tenant, event.base.run]
            if (base.seq, base.hash.hex()) != (event.base.seq, event.base.hash) or not base.state.ended:
                self._fail("I3", f"{run.run} goes on from {event.base}, which is not the end of a run")
            run.state, run.prompt = carry(base.state), base.prompt

    def _model_started(self, run: RunAudit, event: ev.ModelCallStarted) -> None:
        state = run.state
        if state.in_flight:
            self._fail("I2", f"{run.run}: a model call was started while another attempt is in flight")
        if not _is_prefix(run.prompt, state.messages):
            self._fail("I8", f"{run.run}: the request at event {run.seq} does not go on from the one before it")
        run.prompt = state.messages
        run.prompts.append(state.messages)
        self._reserve(run, event.ledgers, event.reserved)

    def _reserve(self, run: RunAudit, ledgers: tuple[str, ...], reserved: int) -> None:
        run.reserved = dict.fromkeys(ledgers, reserved)
        for ledger in ledgers:
            self.reserved[self._owner(run, ledger)] += reserved

    def _model_settled(self, run: RunAudit, cost: int) -> None:
        for ledger, reserved in run.reserved.items():
            owner = self._owner(run, ledger)
            self.reserved[owner] -= reserved
            self.settled[owner] += cost
            self.overrun[owner] += max(cost - reserved, 0)
        run.reserved = {}

    def _decided(self, run: RunAudit, event: ev.CallDecided) -> None:
        match event.decision:
            case "approve":
                run.approved.add((event.call, event.revision))
            case "edit":
                run.approved.add((event.call, event.revision + 1))
            case "retry":
                for attempt in run.attempts[event.call]:
                    attempt.open = False
            case _:
                pass

    def _tool_started(self, run: RunAudit, event: ev.ToolCallStarted) -> None:
        spec = self._bundle(run).tool(run.tools.get(event.call, ""))
        if spec is None or run.allowed.get((event.call, event.revision)) is None:
            self._fail("I5", f"{run.run}: {event.call} (revision {event.revision}) was started without a verdict")
            return
        said, approved = run.allowed[event.call, event.revision], (event.call, event.revision) in run.approved
        if said == "deny" or (spec.effect == "destructive" and not approved and event.mode == "run"):
            self._fail("I5", f"{run.run}: {event.call} of {spec.name} was started though it may not be")
        attempts = run.attempts[event.call]
        if event.attempt != len(attempts) + 1:
            self._fail("I2", f"{run.run}: attempt {event.attempt} of {event.call} follows {len(attempts)}")
        keyless = event.mode == "run" and spec.effect != "read" and not spec.keyed
        if keyless and any(attempt.open and attempt.event.mode == "run" for attempt in attempts):
            self._fail("I2", f"{run.run}: {event.call} of {spec.name} was started again while in doubt")
        if spec.keyed and event.mode == "run":
            keys = {attempt.event.key for attempt in attempts if attempt.event.revision == event.revision}
            if not event.key or keys - {event.key, ""}:
                self._fail("I2", f"{run.run}: {event.call} of {spec.name} was started under another key")
        attempts.append(Attempt(event))

    def _bundle(self, run: RunAudit) -> Bundle:
        return self.bundles[run.state.agent]

    # --- money -----------------------------------------------------------------------------------------------------------

    def _owner(self, run: RunAudit, ledger: str) -> tuple[str, str]:
        return ("" if ledger == "all" or ledger.startswith("all/") else run.tenant, ledger)

    def _money(self, append: Append, tables: Any) -> None:
        moved = {move.ledger for move in (*append.reserve, *append.settle)}
        for ledger in moved:
            owner = ("" if ledger == "all" or ledger.startswith("all/") else append.tenant, ledger)
            book = tables.books.books[owner]
            if (book.settled, book.reserved) != (self.settled[owner], self.reserved[owner]):
                self._fail(
                    "I7",
                    f"ledger {owner} stands at {book.settled} + {book.reserved} reserved, "
                    f"the journals say {self.settled[owner]} + {self.reserved[owner]}",
                )
            limit = tables.books.limits.get((owner[0], name_of(ledger)), -1)
            if 0 <= limit < book.settled + book.reserved - self.overrun[owner]:
                self._fail("I7", f"ledger {owner} passed its limit: {book.settled} + {book.reserved} > {limit}")

    # --- at the end -------------------------------------------------------------------------------------------------------

    def verify(self, tables: Any) -> None:
        """Read every journal again as it lies in the database, and compare it with what was seen."""
        for place, run in self.runs.items():
            entries = tables.read(*place, 0, 0)
            stored = tables.runs[place]
            if len(entries) != run.seq or stored.hash != run.hash:
                self._fail("I1", f"{run.run}: the journal is not what was written")
            base = entries[0].event.base if entries and isinstance(entries[0].event, ev.RunStarted) else None
            before = carry(self.runs[place[0], base.run].state) if base is not None else State()
            if fold(entries, before) != run.state:
                self._fail("I3", f"{run.run}: folded again its state is another")
        for owner, book in tables.books.books.items():
            if book.reserved or self.reserved[owner]:
                self._fail("I7", f"ledger {owner} still has {book.reserved} reserved when all is over")
            if book.settled != self.settled[owner]:
                self._fail("I7", f"ledger {owner} settled {book.settled}, the journals say {self.settled[owner]}")


def _is_prefix(before: tuple[Message, ...], after: tuple[Message, ...]) -> bool:
    """Whether all parts of `before` stand at the beginning of `after`."""
    if not before:
        return True
    if len(after) < len(before) or before[:-1] != after[: len(before) - 1]:
        return False
    last, other = before[-1], after[len(before) - 1]
    return last.role == other.role and last.parts == other.parts[: len(last.parts)]


def _text(parts: Any) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


def digest(lines: list[str]) -> str:
    """Hash a trace."""
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=12).hexdigest()
