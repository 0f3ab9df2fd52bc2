"""What runs cost, by what one likes, and what they would have cost otherwise: read from their journals, page by page.

A run's journal is read without its contents, so that erased runs count as well. Runs are listed newest first, and those that had
ended before the period are not read. What a run has reserved and not yet paid is no cost.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args
from weakref import WeakValueDictionary

import msgspec

from stanchion.core.chain import Outline
from stanchion.core.charge import bundles_of, charges
from stanchion.core.embedding import EmbeddingModel
from stanchion.core.errors import BrokenChain, InputError, UnknownEvent
from stanchion.core.money import Price
from stanchion.core.prices import find_price, load_prices
from stanchion.core.reckon import Dimension, Owner, Reckoner, Routed, WhatIf
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.money.bill import CostQuestion, CostReport, Looked, Period, report_of

DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
ROUTABLE = ("plan", "act", "answer", "extract")
"""Steps that another model can be supposed to have done."""
MOST_DIMENSIONS = 2
MOST_TOP = 10_000
MOST_NAMED = 20
"""Unreadable runs that are named."""
_ROWS = 500
_EVENTS = 5_000
"""Events that are read at once: some megabytes, and some milliseconds of a reader."""
_SKEW_MS = 3_600_000
"""A run's row is dated by the store's clock, its events by a worker's: this much apart they may be."""
_AGO = re.compile(r"([0-9]{1,5})([dh])")
Progress = Callable[[int], None]
"""Told how many runs were looked at."""


def no_progress(_runs: int) -> None:
    """Tell nobody."""


class Costs:
    """Reckons what the runs of a store cost."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def report(
        self, question: CostQuestion, *, tenant: str = "default", most_runs: int = 0, progress: Progress = no_progress
    ) -> CostReport:
        """Reckon the runs of a tenant, or of all ("", for operators); at most so many of the newest (0: all).

        One after the other for a tenant: a report reads much, and others read as well. Raises `InputError` that names the field.
        """
        now_ms = await self._store.now_ms()
        by = _dimensions(question.by)
        since_ms = moment_ms(question.since, now_ms, field="since")
        until_ms = moment_ms(question.until, now_ms, field="until")
        if since_ms and until_ms and since_ms >= until_ms:
            raise InputError(f"{question.until!r} is not after since, {question.since!r}", field="until")
        if not 1 <= question.top <= MOST_TOP:
            raise InputError(f"must be 1 to {MOST_TOP}, not {question.top}", field="top")
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
        what_if = _what_if(question, today)
        reckoner = Reckoner(by, since_ms=since_ms, until_ms=until_ms, what_if=what_if)
        period = Period(since_ms, until_ms)
        reading = _Reading(self._store, reckoner, period, most_runs, progress)
        async with self._turns.setdefault(tenant, asyncio.Lock()):
            for owner in [tenant] if tenant else await self._store.tenants():
                await reading.read(owner, question)
        return report_of(question, period, reckoner, reading.so_far, what_if, today)


class _Reading:
    """Reads the journals of runs, some at once, and has their charges added up."""

    def __init__(self, store: Store, reckoner: Reckoner, period: Period, most_runs: int, progress: Progress) -> None:
        self.so_far = Looked()
        self._store = store
        self._reckoner = reckoner
        self._period = period
        self._most = most_runs
        self._progress = progress
        self._prices: dict[str, tuple[tuple[str, Price], ...]] = {}

    async def read(self, tenant: str, question: CostQuestion) -> None:
        """Read a tenant's runs."""
        async for rows in self._pages(tenant, question):
            for some in _parcels([row for row in rows if self._may_matter(row)]):
                await self._read(tenant, some)
            self._progress(self.so_far.looked_at)

    async def _pages(self, tenant: str, question: CostQuestion) -> AsyncIterator[Sequence[RunRow]]:
        before = ""
        while True:
            limit = min(_ROWS, self._most - self.so_far.looked_at + 1) if self._most else _ROWS
            wanted = {"agent": question.agent, "session": question.session, "user": question.user}
            rows = await self._store.runs(tenant, **wanted, before=before, limit=limit)
            if self._most and self.so_far.looked_at + len(rows) > self._most:
                self.so_far.complete, rows = False, rows[: self._most - self.so_far.looked_at]
            self.so_far.looked_at += len(rows)
            if rows:
                before, self.so_far.reached_ms = rows[-1].run, rows[-1].created_ms
                yield rows
            if len(rows) < limit:
                return

    def _may_matter(self, row: RunRow) -> bool:
        """Whether a run may have events in the period."""
        ended_before = row.updated_ms + _SKEW_MS < self._period.since_ms
        began_after = self._period.until_ms and row.created_ms - _SKEW_MS >= self._period.until_ms
        return row.seq > 0 and not ended_before and not began_after

    async def _read(self, tenant: str, rows: Sequence[RunRow]) -> None:
        try:
            read = await self._store.outlines(tenant, [row.run for row in rows])
        except (UnknownEvent, BrokenChain):  # of one of them: find out of which
            if len(rows) == 1:
                self.so_far.unreadable += [rows[0].run] if len(self.so_far.unreadable) < MOST_NAMED else []
                return
            for row in rows:
                await self._read(tenant, [row])
            return
        for bundle in {bundle for outlines in read.values() for bundle in bundles_of(outlines)} - self._prices.keys():
            if prices := _price_list(await self._store.bundle(tenant, bundle)):
                self._prices[bundle] = prices
        await asyncio.to_thread(self._add, rows, read)

    def _add(self, rows: Sequence[RunRow], read: Mapping[str, Sequence[Outline]]) -> None:
        for row in rows:
            owner = Owner(row.tenant, row.run, row.session, row.agent, row.user)
            self._reckoner.add(owner, charges(read[row.run], self._prices))


def _parcels(rows: Sequence[RunRow]) -> Iterator[list[RunRow]]:
    """Divide runs into those that are read at once, by how many events they have."""
    parcel: list[RunRow] = []
    events = 0
    for row in rows:
        if parcel and events + row.seq > _EVENTS:
            yield parcel
            parcel, events = [], 0
        parcel.append(row)
        events += row.seq
    if parcel:
        yield parcel


class _Route(msgspec.Struct):
    provider: str
    model: str
    price: Price


class _Memory(msgspec.Struct):
    embeddings: EmbeddingModel | None = None


class _Routes(msgspec.Struct):
    routes: tuple[_Route, ...]
    others: tuple[_Route, ...] = ()
    memory: _Memory | None = None


def _price_list(body: bytes | None) -> tuple[tuple[str, Price], ...]:
    """Read from a bundle what its routes cost; nothing where it is gone, or of a form that is not known here."""
    try:
        said = msgspec.json.decode(body or b"", type=_Routes)
    except (msgspec.MsgspecError, InputError):
        return ()
    embedding = said.memory.embeddings if said.memory is not None else None
    vectors = () if embedding is None else ((embedding.name, embedding.price),)
    return (*((f"{route.provider}:{route.model}", route.price) for route in (*said.routes, *said.others)), *vectors)


# --- what is asked ------------------------------------------------------------------------------------------------------


def moment_ms(text: str, now_ms: int, *, field: str) -> int:
    """Read a day (its beginning, UTC), a time with its zone, or how long ago; "" is 0. Raises `InputError`."""
    if not text:
        return 0
    if ago := _AGO.fullmatch(text):
        length = timedelta(days=int(ago[1])) if ago[2] == "d" else timedelta(hours=int(ago[1]))
        return max(now_ms - int(length.total_seconds() * 1000), 1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None and "T" not in text and " " not in text:
        moment = moment.replace(tzinfo=UTC)
    if moment is None or moment.tzinfo is None or moment.year < 1970:
        raise InputError(
            f'{text!r} is not a day like "2026-11-01", a time with its zone like "2026-11-20T12:00:00Z", or "7d" or "24h" ago',
            field=field,
        )
    return int(moment.timestamp() * 1000)


def _dimensions(by: Sequence[str]) -> tuple[Dimension, ...]:
    """Check by what is grouped."""
    unknown = [name for name in by if name not in DIMENSIONS]
    if unknown or not 1 <= len(by) <= MOST_DIMENSIONS or len(set(by)) < len(by):
        text = f"{','.join(by)!r} is not one or two of: {', '.join(DIMENSIONS)}; write them as in agent,day"
        raise InputError(text, field="by")
    return tuple(name for name in by if name in DIMENSIONS)


def _what_if(question: CostQuestion, today: str) -> WhatIf | None:
    if not (question.on_model or question.without_cache or question.batch or question.route):
        return None
    price = _price_of(question.on_model, today) if question.on_model else None
    routes = tuple(_routed(each, today) for each in question.route)
    return WhatIf(price, question.without_cache, question.batch, routes)


def _routed(text: str, today: str) -> tuple[str, Routed]:
    """Read "STEP=PROVIDER:MODEL" or "STEP=PROVIDER:MODEL@TOKENS"."""
    step, equals, target = text.partition("=")
    model, at, most = target.partition("@")
    if not equals or step not in ROUTABLE or (at and not (most.isascii() and most.isdigit() and 0 < int(most) < 10**9)):
        raise InputError(
            f"{text!r} is not of the form STEP=PROVIDER:MODEL@TOKENS, as in answer=anthropic:claude-haiku-4-5@2000 (or without "
            f"@TOKENS, for the same input); steps are: {', '.join(ROUTABLE)}",
            field="route",
        )
    return step, Routed(_price_of(model, today, field="route"), int(most or 0))


def _price_of(model: str, today: str, *, field: str = "on_model") -> Price:
    provider, colon, name = model.partition(":")
    if not (provider and colon and name.strip()):
        raise InputError(f"{model!r} is not of the form provider:model, as in openai:gpt-5", field=field)
    price = find_price(load_prices(), "openai" if provider == "openai-chat" else provider, name, today)
    if price is None:
        raise InputError(f"no price is known for {model!r}; `stanchion prices` shows one that is", field=field)
    return price
