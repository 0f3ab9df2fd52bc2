"""A run's driver for the checks of a store: it starts, claims and appends as the engine does, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from stanchion.core import chain
from stanchion.core.errors import StanchionError
from stanchion.core.event import Base, Entry, Event, MessageAdded, RunFinished, RunStarted
from stanchion.core.message import MODEL, USER, Text
from stanchion.journal.record import Cipher, Identity, Recorder
from stanchion.journal.store import Append, Claim, Record, Refused, RunRow, Start, Started, Store

MakeStore = Callable[[], Awaitable[Store]]
"""Opens a new, empty store."""
Check = Callable[[Store], Awaitable[None]]
E = TypeVar("E", bound=BaseException)
TENANT = "acme"


def same(found: Any, expected: Any, what: str) -> None:
    """Fail unless the two are equal."""
    if found != expected:
        raise AssertionError(f"{what}: found {found!r}, expected {expected!r}")


def true(condition: object, what: str) -> None:
    """Fail unless the condition holds."""
    if not condition:
        raise AssertionError(what)


async def raises(kind: type[E], call: Awaitable[Any], what: str) -> E:
    """Fail unless the call raises that error; return it."""
    try:
        result = await call
    except kind as error:
        return error
    except StanchionError as error:
        raise AssertionError(f"{what}: raised {error!r}, expected {kind.__name__}") from error
    raise AssertionError(f"{what}: returned {result!r}, expected {kind.__name__}")


async def pass_ms(store: Store, ms: int) -> None:
    """Wait until the store's clock has gone on by more than `ms`."""
    end = await store.now_ms() + ms
    while await store.now_ms() <= end:  # noqa: ASYNC110  (a clock has no event)
        await asyncio.sleep(0.002)


def said(text: str) -> MessageAdded:
    """Make an event with a content part."""
    return MessageAdded(by="ann", parts=(Text(text, USER),))


def words(entries: Iterable[Entry]) -> list[str]:
    """List the texts of events, in order."""
    return [part.text for entry in entries for part in entry.event.parts if isinstance(part, Text)]


def finished(text: str = "bye") -> RunFinished:
    """Make the last event of a run."""
    return RunFinished(outcome="done", parts=(Text(text, MODEL),))


class Driver:
    """Drives one run. A driver that was refused or is stale keeps the state it had before."""

    def __init__(self, store: Store, recorder: Recorder, tenant: str, run: str, session: str) -> None:
        self.store = store
        self.recorder = recorder
        self.tenant = tenant
        self.run = run
        self.session = session
        self.epoch = 0

    @classmethod
    async def make(
        cls, store: Store, run: str, *, tenant: str = TENANT, session: str = "", subject: str = "ann"
    ) -> Driver:
        """Make the driver of a run that is not started."""
        key = await store.key_for(tenant, subject)
        return cls(store, _recorder(key, tenant, run), tenant, run, session or f"session of {run}")

    @classmethod
    async def started(cls, store: Store, run: str, *, subject: str = "ann", **fields: Any) -> Driver:
        """Make a run's driver and start the run."""
        known = {name: fields.pop(name) for name in ("tenant", "session") if name in fields}
        driver = await cls.make(store, run, subject=subject, **known)
        same(await driver.start(**fields), Started(run), f"start of {run}")
        return driver

    @classmethod
    async def driving(cls, store: Store, run: str, **fields: Any) -> Driver:
        """Start a run and claim it."""
        driver = await cls.started(store, run, **fields)
        await driver.claim()
        return driver

    async def start(self, *, text: str = "hello", first: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Start the run; queued ones bring no events."""
        agent, bundle = fields.pop("agent", "support"), "b" * 64
        queued = fields.get("queued", False)
        self.epoch = 1 if fields.get("worker") and not queued else 0
        event = RunStarted(
            run=self.run, tenant=self.tenant, session=self.session, agent=agent, bundle=bundle,
            user=fields.get("user", ""), base=fields.get("base"), parts=(Text(text, USER),),
        )  # fmt: skip
        append, undo = await self.prepare(*([] if queued else [event]), **(first or {}))
        start = Start(
            tenant=self.tenant, run=self.run, session=self.session, agent=agent, bundle=bundle, first=append, **fields
        )
        try:
            result = await self.store.start(start)
        except BaseException:
            self.recorder = undo
            raise
        if not isinstance(result, Started) or result.existing:
            self.recorder = undo
        return result

    async def claim(self, worker: str = "w1", lease_ms: int = 60_000) -> Claim:
        """Claim the run; it must be had."""
        claim = await self.store.claim(self.tenant, self.run, worker=worker, lease_ms=lease_ms)
        if claim is None:
            raise AssertionError(f"{self.run} cannot be claimed by {worker}")
        self.epoch = claim.epoch
        return claim

    async def prepare(self, *events: Event, epoch: int | None = None, **fields: Any) -> tuple[Append, Recorder]:
        """Make an append, and what to go back to if it fails."""
        old = self.recorder
        undo = Recorder(old.key, old.cipher, seq=old.seq, hash=old.hash, at_ms=old.at_ms)
        epoch = self.epoch if epoch is None else epoch
        _, records = old.record(events, now_ms=await self.store.now_ms(), epoch=epoch)
        return self.of(records, undo.seq, epoch, **fields), undo

    def of(self, records: list[Record], expected_seq: int, epoch: int, **fields: Any) -> Append:
        """Make an append of given records."""
        return Append(
            tenant=self.tenant, run=self.run, expected_seq=expected_seq, epoch=epoch, records=tuple(records), **fields
        )

    async def append(self, *events: Event, **fields: Any) -> Refused | None:
        """Append events."""
        append, undo = await self.prepare(*events, **fields)
        try:
            refused = await self.store.append(append)
        except BaseException:
            self.recorder = undo
            raise
        if refused is not None:
            self.recorder = undo
        return refused

    async def end(self, outcome: str = "done", **fields: Any) -> Base:
        """End the run; return the base that the next run of the session has."""
        await self.append(finished(), status="ended", outcome=outcome, **fields)
        return Base(self.run, self.recorder.seq, self.recorder.hash.hex())

    async def row(self) -> RunRow:
        """Read the run's row; it must be there."""
        row = await self.store.run(self.tenant, self.run)
        if row is None:
            raise AssertionError(f"{self.run} is not there")
        return row

    async def is_runnable(self) -> bool:
        """Tell whether the store lists the run."""
        return any((ref.tenant, ref.run) == (self.tenant, self.run) for ref in await self.store.runnable(limit=1_000))


def _recorder(key: Any, tenant: str, run: str, cipher: Cipher | None = None) -> Recorder:
    return Recorder(key, cipher or Identity(), seq=0, hash=chain.genesis(tenant, run), at_ms=0)
