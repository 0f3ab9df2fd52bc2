"""A run's row as far as writes change it, and the check that makes an append safe. Shared by the stores; nothing awaits."""

from __future__ import annotations

from stanchion.core.errors import Conflict, StaleAppend
from stanchion.journal.store import Append, Status

MOVED = "moved:"
"""How the outcome of a parked run begins that was let go to another store (`journal/moving.py`)."""


class Head:
    """A run's row, as far as appends change it."""

    __slots__ = (
        "attempts",
        "changed",
        "cost",
        "epoch",
        "hash",
        "lease_until_ms",
        "moved",
        "no",
        "outcome",
        "seq",
        "session",
        "status",
        "wake_at_ms",
        "worker",
    )

    def __init__(
        self,
        no: int,
        seq: int,
        hash: bytes,
        epoch: int,
        status: Status,
        outcome: str,
        wake_at_ms: int,
        lease_until_ms: int,
        worker: str,
        attempts: int,
        cost: int,
        session: str,
    ) -> None:
        self.no = no
        self.seq = seq
        self.hash = hash
        self.epoch = epoch
        self.status: Status = status
        self.outcome = outcome
        self.wake_at_ms = wake_at_ms
        self.lease_until_ms = lease_until_ms
        self.worker = worker
        self.attempts = attempts
        self.cost = cost
        self.session = session
        self.moved = False
        self.changed = False

    def put(self, status: Status, wake_at_ms: int = 0) -> None:
        """Change the status, if it is another."""
        if self.status != status or self.wake_at_ms != wake_at_ms:
            self.status, self.wake_at_ms, self.changed = status, wake_at_ms, True

    def lease(self, worker: str, until_ms: int) -> None:
        """Give the lease to a worker, or back ("" and 0)."""
        if self.worker != worker or self.lease_until_ms != until_ms:
            self.worker, self.lease_until_ms, self.changed = worker, until_ms, True


def is_known(found: tuple[str, str] | None, digest: str) -> bool:
    """Say whether something was posted before, by what is kept under its key: digest and run. Raises `Conflict`."""
    if found is not None and found[0] != digest:
        text = f"this Idempotency-Key was used with another body, for {found[1]}"
        raise Conflict(text, code="idempotency_mismatch")
    return found is not None


def check_gapless(append: Append) -> None:
    """Raise `ValueError` unless an append's records follow what is there, and one another (I1)."""
    for place, record in enumerate(append.records, start=append.expected_seq + 1):
        if record.seq != place:
            raise ValueError(f"records must follow event {append.expected_seq} without gaps, and one is {record.seq}")


def check_append(append: Append, head: Head) -> None:
    """Raise `StaleAppend` unless the append's driver still has the run and knows its last event."""
    if head.epoch != append.epoch:
        raise StaleAppend(
            f"run {append.run!r} was claimed again (epoch {head.epoch}, not {append.epoch}): another worker drives it"
        )
    if head.seq != append.expected_seq:
        raise StaleAppend(f"run {append.run!r} stands at event {head.seq}, not {append.expected_seq}: read it again")
    if head.status == "ended":
        raise StaleAppend(f"run {append.run!r} is over: nothing is added to it")


def is_moved(status: Status, outcome: str) -> bool:
    """Tell whether a run was let go to another store."""
    return status == "parked" and outcome.startswith(MOVED)


def check_post(run: str, status: Status, outcome: str) -> None:
    """Raise `Conflict` unless something may be put into a run's inbox."""
    if status == "ended":
        raise Conflict(f"run {run!r} is over; start another in its session")
    if is_moved(status, outcome):
        raise Conflict(f"run {run!r} was moved to another store (`stanchion export --live`); it goes on there")
