"""What a drive is about to write: folded already, not durable yet. And what of it moves money, wakes, or counts as progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle
from stanchion.core.calls import answers
from stanchion.core.checked import progress
from stanchion.core.fold import evolve
from stanchion.core.state import State
from stanchion.engine.clock import Clock
from stanchion.journal.ledger import owner_of
from stanchion.journal.record import Recorder
from stanchion.journal.store import Record, Refused, Reserve, Settle
from stanchion.journal.tray import TrayItem
from stanchion.loop.effect import Attempt, Decision, HandIn

_SETTLED = (
    ev.ModelCallFinished,
    ev.ModelCallFailed,
    ev.ToolCallFinished,
    ev.ToolCallFailed,
    ev.ContentChecked,
    ev.CheckFailed,
    ev.SummaryWritten,
    ev.CompactionFailed,
    ev.EmbeddingMade,
    ev.EmbeddingFailed,
)
_RESERVING = ev.ModelCallStarted | ev.ToolCallStarted | ev.CheckStarted | ev.CompactionStarted | ev.EmbeddingStarted


class Mark(msgspec.Struct, frozen=True):
    """Where the stage stood, to go back to."""

    state: State
    seq: int
    hash: bytes
    at_ms: int
    entries: int
    effects: int


class Stage:
    """What is to be written next: folded already, not durable yet."""

    def __init__(self, before: State, recorder: Recorder, clock: Clock, epoch: int) -> None:
        self.before = before
        self.state = before
        """As it is with what is staged."""
        self._recorder = recorder
        self._hash = recorder.hash  # of the chain before it: of a queued run's first event it is not the state's
        self._clock = clock
        self._epoch = epoch
        self.entries: list[ev.Entry] = []
        self.records: list[Record] = []
        self.effects: list[Attempt | HandIn] = []
        self.inbox: list[int] = []
        self.given = 0
        """How many of the entries were there before anything was decided."""
        self._reserving: Mark | None = None
        """Before the first decision that acts: so far back a refused reservation is taken."""

    def add(self, events: Sequence[ev.Event]) -> None:
        """Give events their places in the chain, and fold them."""
        if not events:
            return
        entries, records = self._recorder.record(events, now_ms=self._clock.now_ms(), epoch=self._epoch)
        for entry in entries:
            self.state = evolve(self.state, entry)
        self.entries += entries
        self.records += records

    def act(self, decision: Decision, acts: Sequence[Attempt | HandIn]) -> None:
        """Add what was decided: its events, and what is to be performed when they are durable."""
        if acts and self._reserving is None:  # what is taken back, all intents are taken back with
            at = self._recorder
            self._reserving = Mark(self.state, at.seq, at.hash, at.at_ms, len(self.entries), len(self.effects))
        self.add(decision.events)
        self.effects += acts

    def undo(self, keep: int) -> list[ev.Event]:
        """Go back to what is durable; this stage is to be thrown away. Returns the first `keep` of its events, to be staged again."""
        self._recorder.seq, self._recorder.hash = self.before.seq, self._hash
        return [entry.event for entry in self.entries[:keep]]

    def take_back(self, refused: Refused) -> list[ev.Event]:
        """Undo a reservation that was refused. Returns what else was staged, and the refusal if it is not known yet."""
        mark = self._reserved()
        known = mark.state.refused
        told: list[ev.Event] = []
        if known is None or known.hard != refused.hard or known.ledger != refused.ledger:
            is_of_all = not owner_of(mark.state.tenant, refused.ledger)
            left = 0 if is_of_all else refused.left  # (it would tell the tenant what others spend)
            told.append(ev.BudgetRefused(ledger=refused.ledger, needed=refused.needed, left=left, hard=refused.hard))
        return [*self.undo(mark.entries), *told]

    def unreserve(self) -> None:
        """Take the reservation out, and what was decided with it; what else is staged stays."""
        mark, at = self._reserved(), self._recorder
        self.state = mark.state
        at.seq, at.hash, at.at_ms = mark.seq, mark.hash, mark.at_ms
        del self.entries[mark.entries :], self.records[mark.entries :], self.effects[mark.effects :]
        self._reserving = None

    def _reserved(self) -> Mark:
        if self._reserving is None:
            raise AssertionError("a reservation was refused that was not staged")
        return self._reserving

    def hand_in(self, bundle: Bundle) -> tuple[TrayItem, ...]:
        """List the run's model calls that go into a batch: whoever makes it up finds them where their intent is."""
        state = self.state
        lanes = {(e.turn, e.attempt): bundle.route(e.route).provider for e in self.effects if isinstance(e, HandIn)}
        return tuple(
            TrayItem(state.tenant, state.run, entry.seq, lanes[entry.event.turn, entry.event.attempt])
            for entry in (self.entries if lanes else ())
            if isinstance(entry.event, ev.ModelCallStarted) and entry.event.batch
        )


def applies(state: State, event: ev.Event) -> bool:
    """Say whether something from outside still means anything to a run."""
    match event:
        case ev.CallDecided():
            call = state.call(event.call)
            return call is not None and answers(call, event)
        case ev.CancelRequested():
            return not state.ended and not state.cancelled_by
        case ev.RunRevived():
            return bool(state.parked)
        case ev.ModelCallFinished() | ev.ModelCallFailed():  # of a batch
            model = state.model if state.in_batch else None
            return model is not None and (model.turn, model.attempt) == (event.turn, event.attempt)
        case _:
            return not state.ended


_inbox_decoder = msgspec.json.Decoder(ev.Event | tuple[ev.Event, ...])


def read_inbox(body: bytes) -> tuple[ev.Event, ...]:
    """Read what somebody put into an inbox: an event, or several that go together.

    Raises `msgspec.ValidationError` if it is a newer program's.
    """
    said = _inbox_decoder.decode(body)
    return cast("tuple[ev.Event, ...]", said) if isinstance(said, tuple) else (said,)


def reservations(entries: Sequence[ev.Entry]) -> tuple[Reserve, ...]:
    """List what entries set aside on shared budgets."""
    return tuple(
        Reserve(ledger, entry.event.reserved)
        for entry in entries
        if isinstance(entry.event, _RESERVING)
        for ledger in entry.event.ledgers
    )


def settlements(before: State, entries: Sequence[ev.Entry]) -> tuple[Settle, ...]:
    """List what entries settle: each attempt that was in flight before them, by the first that ends it."""
    found: dict[str, tuple[Settle, ...]] = {}
    for entry in entries:
        event = entry.event
        match event:
            case ev.ModelCallFinished() | ev.ModelCallFailed():
                model = before.model if before.model is not None and before.model.in_flight else None
                if model is not None:
                    settled = tuple(Settle(ledger, model.reserved, event.cost) for ledger in model.ledgers)
                    found.setdefault("", settled)
            case ev.ToolCallFinished() | ev.ToolCallFailed():
                call = before.call(event.call)
                if call is not None and call.phase == "running" and call.ledgers:
                    settled = tuple(Settle(ledger, call.reserved, event.cost) for ledger in call.ledgers)
                    found.setdefault(call.id, settled)
            case ev.SummaryWritten() | ev.CompactionFailed():
                summing = before.compacting
                if summing is not None and summing.in_flight and summing.attempt == event.attempt:
                    settled = tuple(Settle(ledger, summing.reserved, event.cost) for ledger in summing.ledgers)
                    found.setdefault("compaction", settled)
            case ev.EmbeddingMade() | ev.EmbeddingFailed():
                embedding = before.embedding
                if embedding is not None and embedding.in_flight and embedding.attempt == event.attempt:
                    settled = tuple(Settle(ledger, embedding.reserved, event.cost) for ledger in embedding.ledgers)
                    found.setdefault("embedding", settled)
            case ev.ContentChecked() | ev.CheckFailed():
                known = progress(before, event.check, event.where, event.of)
                if known is not None and known.in_flight and known.attempt == event.attempt:
                    settled = tuple(Settle(ledger, known.reserved, event.cost) for ledger in known.ledgers)
                    found.setdefault(f"{event.check} {event.where} {event.of}", settled)
            case _:
                pass
    return tuple(settle for settled in found.values() for settle in settled)


def settles(event: ev.Event) -> bool:
    """Say whether an event settles something, so that a claim was not in vain."""
    return isinstance(event, _SETTLED) and getattr(event, "code", "") != "lost"
