"""The batcher: makes up batches of the model calls that wait for one, hands them in, and tells their runs what came of it.

A run that waits for a batch has no task and no memory. Its request is assembled from its journal when the batch is handed
in; the answer is posted to its inbox as the event that it is, and the run's own driver takes it in. Whatever is posted
twice is dropped there: a worker that dies at any point loses nothing, and the next one goes on from the tray's rows.

A hand-in of which no answer came may have arrived. Where the provider can be asked for our name it is found again; else its
calls are billed at their reservations and made anew, at once and one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, Route, decode_bundle
from stanchion.core.caching import LONG_TTL, cache_rules, metered
from stanchion.core.errors import BrokenChain, Conflict, JournalError, ModelError, NotFound, UnknownEvent
from stanchion.core.fold import fold
from stanchion.core.message import RUNTIME, Text
from stanchion.core.money import cost, in_batch
from stanchion.core.state import ModelCall, State
from stanchion.engine.load import Loader, base_of
from stanchion.engine.perform import named, storable
from stanchion.guard.redact import Redactor
from stanchion.journal.store import Store
from stanchion.journal.tray import Batch, TrayItem
from stanchion.loop.decide import batched_request
from stanchion.model.batch import BatchClient, BatchItem, BatchOutcome

log = logging.getLogger("stanchion.engine")

CLOSE_S = 5.0
"""How long the end of a process waits for what its batcher is doing."""


@dataclass(frozen=True, slots=True)
class BatcherSettings:
    """How batches are made up. Seconds and counts."""

    name: str
    """The worker's; unique among processes and starts."""
    gather_s: float = 30.0
    """How long a call waits for company before its batch is handed in."""
    most: int = 5_000
    """Calls in a batch, at most: its requests are made up in memory."""
    tick_s: float = 2.0
    """How often the tray is looked at."""
    look_s: float = 20.0
    """When a batch is looked at first; then at a tenth of its age, up to `look_most_s`."""
    look_most_s: float = 300.0
    lease_s: float = 300.0
    """How long a batch stays with a worker that is not heard of."""


class Batcher:
    """Serves the tray of one store, with the batch APIs that this process has keys for."""

    def __init__(
        self,
        store: Store,
        clients: Mapping[str, BatchClient],
        settings: BatcherSettings,
        redactor: Redactor | None = None,
    ) -> None:
        self._redactor = redactor or Redactor()
        self._store = store
        self._tray = store.tray
        self._clients = clients
        self._settings = settings
        self._loader = Loader(store, cached_bytes=0)
        self._made = 0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin."""
        if self._clients:
            self._task = asyncio.create_task(self._run(), name="stanchion-batcher")

    async def aclose(self) -> None:
        """Stop, behind a hand-in that is under way: one that is cut off may have arrived, and is then paid twice."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=CLOSE_S)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for client in self._clients.values():
            await client.aclose()

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self.serve()
            except JournalError as error:
                log.error("the batcher could not read or write the store: %s", error)
            except Exception:  # without it calls would wait for their deadlines
                log.exception("the batcher failed; it goes on")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._settings.tick_s)

    async def serve(self) -> None:
        """Hand in what has waited long enough, and look at what is due."""
        for lane, (count, oldest_ms) in (await self._tray.waiting()).items():
            if lane not in self._clients:
                continue
            if count >= self._settings.most or oldest_ms >= self._settings.gather_s * 1000:
                await self._hand_in(lane, self._clients[lane])
        if not await self._tray.batches():
            return
        for batch in await self._tray.due(worker=self._settings.name, lease_ms=self._lease_ms):
            try:
                await self._serve(batch)
            except JournalError as error:  # (it comes back when its lease ends; the others are not to wait for it)
                log.error("batch %s could not be served: %s", batch.name, error)

    async def _serve(self, batch: Batch) -> None:
        client = self._clients.get(batch.lane)
        if client is None:
            await self._tray.look_again(batch.name, in_ms=self._look_ms)
        elif batch.stage == "handing_in":
            await self._recover(batch, client)
        else:
            await self._look(batch, client)

    @property
    def _lease_ms(self) -> int:
        return int(self._settings.lease_s * 1000)

    @property
    def _look_ms(self) -> int:
        return int(self._settings.look_s * 1000)

    # --- handing in ------------------------------------------------------------------------------------------------------

    async def _hand_in(self, lane: str, client: BatchClient) -> None:
        self._made += 1
        name = f"{self._settings.name}-{self._made}"
        most = min(self._settings.most, client.most_items)
        taken = await self._tray.take(lane, name, most=most, worker=self._settings.name, lease_ms=self._lease_ms)
        try:
            items = await self._requests(taken, client)
        except JournalError:  # certainly not handed in, so nobody is to be billed for it
            await self._tray.put_back(name)
            raise
        if not items:
            await self._tray.drop(name)
            return
        try:
            provider_id = await client.submit(items, name=name)
        except ModelError as error:
            await self._not_handed_in(name, taken, error)
            return
        log.info("batch %s of %d calls was handed in to %s as %s", name, len(items), lane, provider_id)
        await self._tray.handed_in(name, provider_id, look_in_ms=self._look_ms)

    async def _requests(self, taken: Sequence[TrayItem], client: BatchClient) -> list[BatchItem]:
        """Assemble the requests. A call that nobody waits for any more is left out; one that cannot be said fails."""
        items: list[BatchItem] = []
        size = 0
        for item in taken:
            waiting = await self._waiting(item)
            if waiting is None:
                continue
            state, bundle, started = waiting
            try:
                body = client.encode(batched_request(state, bundle, started))
            except ModelError as error:
                await self._post(item, _refused(_call_of(state), error))
                continue
            size += len(body)
            if size > client.most_bytes:
                await self._post(item, _failed(_call_of(state), "overloaded", "the batch was full"))
            else:
                items.append(BatchItem(item.id, body))
        return items

    async def _not_handed_in(self, name: str, taken: Sequence[TrayItem], error: ModelError) -> None:
        """A hand-in failed: its calls wait again if it never left, fail if it was refused, and else nobody knows yet."""
        if not error.sent or error.status == 429:
            log.warning("batch %s waits: %s", name, _unquoted(error))
            await self._tray.put_back(name)
        elif 400 <= error.status < 500:
            log.error("batch %s was refused; its calls are made one by one: %s", name, _unquoted(error))
            why = f"the batch that this call was in was refused: {_unquoted(error)}"
            await self._fail(taken, error.code, why, billed=False)
            await self._tray.drop(name)
        else:
            log.warning("batch %s may have been handed in: %s", name, _unquoted(error))
            await self._tray.look_again(name, in_ms=self._look_ms)

    async def _recover(self, batch: Batch, client: BatchClient) -> None:
        """Find out whether a batch was handed in whose hand-in was not told."""
        try:
            found = await client.find(batch.name)
        except ModelError as error:
            log.warning("batch %s cannot be looked for: %s", batch.name, _unquoted(error))
            await self._look_later(batch)
            return
        if found is not None:
            await self._tray.handed_in(batch.name, found, look_in_ms=0)
        elif client.finds:
            await self._tray.put_back(batch.name)
        else:
            why = "nobody knows whether the batch was handed in"
            await self._fail(await self._tray.items(batch.name), "lost", why, billed=True)
            await self._tray.drop(batch.name)

    # --- what came of it -------------------------------------------------------------------------------------------------

    async def _look(self, batch: Batch, client: BatchClient) -> None:
        try:
            state = await client.state(batch.provider_id)
            if state == "running":
                await self._look_later(batch)
                return
            missing = {item.id: item for item in await self._tray.items(batch.name)}
            if state == "ended":
                async for outcome in client.outcomes(batch.provider_id):
                    item = missing.pop(outcome.id, None)
                    if item is not None:
                        await self._tell(item, outcome)
        except ModelError as error:
            log.warning("batch %s cannot be read: %s", batch.name, _unquoted(error))
            await self._look_later(batch)
            return
        why = "the provider says nothing of what became of this call"
        await self._fail(list(missing.values()), "lost", why, billed=True)
        await self._tray.drop(batch.name)

    async def _look_later(self, batch: Batch) -> None:
        pause_ms = min(max(batch.age_ms // 10, self._look_ms), int(self._settings.look_most_s * 1000))
        await self._tray.look_again(batch.name, in_ms=pause_ms)

    async def _tell(self, item: TrayItem, outcome: BatchOutcome) -> None:
        waiting = await self._waiting(item)
        if waiting is None:
            return
        state, bundle, started = waiting
        call = _call_of(state)
        if outcome.response is None:
            await self._post(
                item, _failed(call, "garbled", "no answer") if outcome.error is None else _refused(call, outcome.error)
            )
            return
        finished = _finished(call, outcome, bundle.route(started.route), held="output" in state.checked)
        await self._post(item, finished)
        if finished.cost > call.reserved:
            await self._post(item, ev.BudgetOverrun(turn=call.turn, reserved=call.reserved, cost=finished.cost))

    async def _fail(self, items: Sequence[TrayItem], code: str, why: str, *, billed: bool) -> None:
        for item in items:
            waiting = await self._waiting(item)
            if waiting is not None:
                call = _call_of(waiting[0])
                await self._post(item, _failed(call, code, why, billed=call.reserved if billed else 0))

    async def _post(self, item: TrayItem, event: ev.Event) -> None:
        with contextlib.suppress(NotFound, Conflict):  # it is over: its call was settled when it was cancelled
            body = msgspec.json.encode(self._redactor.event(event))
            await self._store.post(item.tenant, item.run, "model", body)

    async def _waiting(self, item: TrayItem) -> tuple[State, Bundle, ev.ModelCallStarted] | None:
        """Fold a run as it was when its call was handed in. None: nobody waits for the answer any more."""
        row = await self._store.run(item.tenant, item.run)
        if row is None or row.status == "ended":
            return None
        try:
            entries = await self._store.read(item.tenant, item.run, limit=item.seq)
            started = entries[-1].event if len(entries) == item.seq else None
            state = fold(entries, await self._loader.base(item.tenant, base_of(entries[0]))) if entries else State()
        except (UnknownEvent, BrokenChain) as error:
            return _unreadable(item, str(error))
        body = await self._store.bundle(item.tenant, state.bundle)
        if not isinstance(started, ev.ModelCallStarted) or body is None:
            return _unreadable(item, "its journal has no such call, or its bundle is gone: run stanchion verify")
        return state, decode_bundle(body), started


def _unquoted(error: ModelError) -> str:
    """Say what went wrong with a batch, not in the provider's words: they may quote a call, and a batch is of many tenants."""
    return f"the provider answered HTTP {error.status} ({error.code})" if error.status else str(error)


def _unreadable(item: TrayItem, why: str) -> None:
    """Leave a call out: it ends at its deadline, and those that go with it are not held up."""
    log.error("a call of run %s is left out of its batch: %s", item.run, why, extra={"tenant": item.tenant})


def _call_of(state: State) -> ModelCall:
    if state.model is None:
        raise AssertionError("a state as of its model call has one")
    return state.model


def _finished(call: ModelCall, outcome: BatchOutcome, route: Route, *, held: bool) -> ev.ModelCallFinished:
    response = outcome.response
    if response is None:
        raise AssertionError("only an answer finishes a call")
    usage = response.usage and metered(response.usage, _asked(route, call))
    return ev.ModelCallFinished(
        turn=call.turn,
        attempt=call.attempt,
        finish=response.finish,
        cost=call.reserved if usage is None else in_batch(cost(route.price, usage)),
        usage=usage,
        model=response.model if response.model != route.model else "",
        response=response.id,
        held=held,
        parts=named(response.parts, route),
    )


def _asked(route: Route, call: ModelCall) -> dict[str, Any]:
    """Give the option by which a call asked for the long life, where it did so by one."""
    rules = cache_rules(route.provider, route.model)
    long = call.cache == "long" and rules is not None and rules.kind == "breakpoints"
    return {"prompt_cache_options": {"ttl": LONG_TTL}} if long else {}


def _refused(call: ModelCall, error: ModelError) -> ev.ModelCallFailed:
    """Say that a request of a batch was answered with an error. No provider bills that."""
    failed = _failed(call, error.code, str(error))
    return msgspec.structs.replace(failed, retryable=error.retryable, status=error.status)


def _failed(call: ModelCall, code: str, why: str, *, billed: int = 0) -> ev.ModelCallFailed:
    """Say that a call got nothing of its batch. It is made again at once, and directly."""
    return ev.ModelCallFailed(
        turn=call.turn,
        attempt=call.attempt,
        code=code,
        retryable=True,
        cost=billed,
        parts=(Text(storable(why), RUNTIME),),
    )
