"""Tell a run something while it goes on: a message, that it must stop, that it may go on. Each is a row of its inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import Conflict
from stanchion.core.message import RUNTIME, Part, Text
from stanchion.engine.bound import BoundAgent
from stanchion.guard.redact import Redactor
from stanchion.journal.store import Store
from stanchion.runtime.opening.secrecy import check_names
from stanchion.runtime.runs.accepting import check_input, digest_of_request, input_parts
from stanchion.runtime.runs.finding import row_of

Hint = Callable[[str, str], None]
"""Told that a tenant's run has something to take in."""


class Telling:
    """Posts to the runs of a store, and hints at it."""

    def __init__(self, store: Store, agents: Mapping[str, BoundAgent], redactor: Redactor, hint: Hint) -> None:
        self._store = store
        self._agents = agents
        self._redactor = redactor
        self._hint = hint

    async def send(self, tenant: str, run: str, text: str | Sequence[Part], *, by: str, key: str) -> None:
        """Say something more to a run; under a key once. Raises `NotFound`, `InputError`, `Conflict`."""
        parts = input_parts(text)
        row = await self._store.run(tenant, run)
        bound = self._agents.get(row.agent) if row is not None else None
        if bound is not None:
            check_input(bound.view, parts)
        message = ev.MessageAdded(by=by, parts=parts)
        digest = digest_of_request("message", run, message) if key else ""
        if bound is not None:
            message = bound.redactor.event(message)
        await self._post(tenant, run, "message", message, key, digest)

    async def cancel(self, tenant: str, run: str, *, by: str, reason: str) -> None:
        """Stop a run. Raises `NotFound`, `Conflict` if it is over."""
        parts = (Text(reason, RUNTIME),) if reason else ()
        await self._post(tenant, run, "cancel", ev.CancelRequested(by=by, parts=parts))

    async def revive(self, tenant: str, run: str, *, by: str) -> None:
        """Set a parked run going again. Raises `NotFound`, `Conflict`."""
        row = await row_of(self._store, tenant, run)
        if row.status != "parked":
            raise Conflict(f"run {run} is not parked but {row.status}")
        await self._post(tenant, run, "revive", ev.RunRevived(by=by))

    async def _post(self, tenant: str, run: str, kind: str, event: ev.Event, key: str = "", digest: str = "") -> None:
        check_names(self._redactor.secrets, idempotency_key=key)
        body = msgspec.json.encode(self._redactor.event(event))
        await self._store.post(tenant, run, kind, body, key=key, digest=digest)
        self._hint(tenant, run)
