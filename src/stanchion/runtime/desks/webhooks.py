"""`Runtime.webhooks`: who is told over HTTP when a run ends, stands still or waits for a person, and of money. `engine.deliver` posts it.

The tenant "" is the operator of the store: its endpoints hear of the budget of all tenants together, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast, get_args

import msgspec

from stanchion.core.errors import ConfigError, Conflict, InputError, NotFound
from stanchion.engine.announce import timestamp
from stanchion.engine.deliver import WebhookSettings
from stanchion.engine.egress import check_url, origin_of
from stanchion.engine.signature import new_secret, sign
from stanchion.guard.secret import Secrets as Registered
from stanchion.journal.outbox import Announcement, Delivery, Endpoint, EventKind, Secrets
from stanchion.journal.store import Store
from stanchion.runtime.name import checked, new_id
from stanchion.runtime.opening.secrecy import check_names
from stanchion.runtime.runs.accepting import Callback

EVENTS: tuple[str, ...] = tuple(kind for kind in get_args(EventKind) if kind != "webhook.test")
INCLUDE = ("answer",)
ROTATION_S = 86_400.0
"""For how long the secret before signs as well."""
MOST_ENDPOINTS = 100
"""Of a tenant: each is looked at whenever a run ends."""
_TRIES = 5


class EndpointView(msgspec.Struct, frozen=True):
    """An endpoint, without its secret."""

    id: str
    url: str
    events: list[str]
    """What it hears of; empty: everything."""
    agents: list[str]
    include: list[str]
    enabled: bool
    note: str
    created_ms: int


class SecretView(msgspec.Struct, frozen=True):
    """A secret, for who sets up the receiver. `id` "" is the tenant's own, for callbacks of single runs."""

    id: str
    secret: str
    previous_until_ms: int = 0
    """Until when the one before signs as well."""


class DeliveryView(msgspec.Struct, frozen=True):
    """A delivery as it stands."""

    id: str
    endpoint: str
    type: str
    run: str
    seq: int
    standing: str
    """"pending", "done" or "dead" (given up)."""
    attempts: int
    next_ms: int
    """When it is posted (again); 0: not any more."""
    http_status: int
    note: str
    created_ms: int
    settled_ms: int


class Webhooks:
    """The endpoints and deliveries of one store."""

    def __init__(self, store: Store, settings: WebhookSettings, registered: Registered | None = None) -> None:
        self._registered = Registered() if registered is None else registered
        self._store = store
        self._outbox = store.outbox
        self._settings = settings

    async def add(
        self,
        url: str,
        *,
        events: Sequence[str] = (),
        agents: Sequence[str] = (),
        include: Sequence[Literal["answer"]] = (),
        secret: str = "",
        tenant: str = "default",
    ) -> tuple[EndpointView, SecretView]:
        """Tell a receiver what happens from now on: of these events and agents, or of all. Gives the secret that it checks.

        The payload holds no content, unless `include` asks for it. Tenant "": the operator, who is told of the budget of all.
        Raises `InputError` with the field, `Conflict`.
        """
        if not tenant:
            events = _of_the_operator(events, agents, include)
        check_url(url, allow_private=self._settings.allow_private)
        check_names(self._registered, url=url)
        if len(await self._outbox.endpoints(tenant)) >= MOST_ENDPOINTS:
            raise Conflict(f"there are {MOST_ENDPOINTS} endpoints, which is the most; remove one first")
        if secret:
            check_secret(secret)
        name = new_id("hook_")
        endpoint = Endpoint(
            tenant=checked(tenant, "tenant"),
            id=name,
            url=url,
            lane=f"{tenant}/{name}",
            events=checked_events(events),
            agents=tuple(agents),
            include=_known(include, INCLUDE, "include"),
            secrets=Secrets(secret or new_secret()),
        )
        await self._outbox.add(endpoint)
        return await self.show(name, tenant=tenant), SecretView(name, endpoint.secrets.current)

    async def ls(self, *, tenant: str = "default") -> Sequence[EndpointView]:
        """List endpoints, oldest first."""
        return [_view(endpoint) for endpoint in await self._outbox.endpoints(tenant)]

    async def show(self, id: str, *, tenant: str = "default") -> EndpointView:
        """Show an endpoint. Raises `NotFound`."""
        return _view(await self._endpoint(id, tenant))

    async def remove(self, id: str, *, tenant: str = "default") -> None:
        """Remove an endpoint and what it still had to get. Raises `NotFound`."""
        await self._endpoint(id, tenant)
        await self._outbox.remove(tenant, id)

    async def enable(self, id: str, *, tenant: str = "default") -> EndpointView:
        """Enable an endpoint that was disabled because its receiver was gone (410). Raises `NotFound`."""
        await self._endpoint(id, tenant)
        await self._outbox.enable(tenant, id, enabled=True)
        return await self.show(id, tenant=tenant)

    async def test(self, id: str, *, tenant: str = "default") -> DeliveryView:
        """Post a trial message to an endpoint. Raises `NotFound`, `Conflict` (disabled)."""
        endpoint = await self._endpoint(id, tenant)
        if not endpoint.enabled:
            raise _disabled(endpoint)
        now_ms = await self._store.now_ms()
        data = {"message": "a trial; nothing happened"}
        body = {"type": "webhook.test", "timestamp": timestamp(now_ms), "data": data}
        said = Announcement("webhook.test", now_ms, "", msgspec.json.encode(body))
        told = await self._outbox.tell(tenant, id, said)
        return await self.delivery(told or "", tenant=tenant)

    async def deliveries(
        self,
        *,
        endpoint: str = "",
        run: str = "",
        standing: str = "",
        before: str = "",
        limit: int = 50,
        tenant: str = "default",
    ) -> Sequence[DeliveryView]:
        """List deliveries, newest first; those of an endpoint or a run, pending, done or dead."""
        if standing:
            _known((standing,), ("pending", "done", "dead"), "standing")
        found = await self._outbox.deliveries(
            tenant, endpoint=endpoint, run=run, standing=standing, before=before, limit=limit
        )
        return [_delivery(row) for row in found]

    async def delivery(self, id: str, *, tenant: str = "default") -> DeliveryView:
        """Show a delivery. Raises `NotFound`."""
        row = await self._outbox.delivery(tenant, id)
        if row is None:
            raise NotFound(f"there is no delivery {id!r}; `stanchion webhooks deliveries` lists them", field="id")
        return _delivery(row)

    async def redeliver(self, id: str, *, tenant: str = "default") -> int:
        """Post again what was posted or given up: one delivery, or all that were given up for an endpoint; say how many.

        A message keeps its id. Raises `NotFound`, `Conflict` (the endpoint is disabled; the delivery is pending).
        """
        if id.startswith("msg_"):
            row = await self.delivery(id, tenant=tenant)
            endpoint = await self._outbox.endpoint(tenant, row.endpoint)
            if endpoint is not None and not endpoint.enabled:
                raise _disabled(endpoint)
            done = await self._outbox.redeliver(tenant, id=id)
            if not done:
                raise Conflict(f"the delivery {id} is pending: it is posted without this", field="id")
            return done
        endpoint = await self._endpoint(id, tenant)
        if not endpoint.enabled:
            raise _disabled(endpoint)
        return await self._outbox.redeliver(tenant, endpoint=id)

    async def secret(self, *, tenant: str = "default") -> SecretView:
        """Tell what callbacks of single runs are signed with; it is made at the first time of asking. Raises `InputError`."""
        if not tenant:
            raise InputError(
                "the operator has no runs, and so no secret for their callbacks: name a webhook", field="id"
            )
        for _ in range(_TRIES):
            found = await self._outbox.secrets(tenant)
            if found is not None:
                return SecretView("", found.current, found.previous_until_ms)
            await self._outbox.set_secrets(tenant, "", Secrets(new_secret()), was="")
        raise _moving()

    async def rotate(
        self, id: str = "", *, secret: str = "", overlap_s: float = ROTATION_S, tenant: str = "default"
    ) -> SecretView:
        """Give an endpoint, or the tenant (""), another secret; the one before signs as well for `overlap_s` seconds.

        Raises `NotFound`, `InputError` (`secret`, `overlap_s`).
        """
        if secret:
            check_secret(secret)
        if not 0 <= overlap_s <= 30 * 86_400:
            raise InputError("must be between 0 and 2592000 (30 days)", field="overlap_s")
        for _ in range(_TRIES):
            was = (
                (await self._endpoint(id, tenant)).secrets.current if id else (await self.secret(tenant=tenant)).secret
            )
            until_ms = await self._store.now_ms() + int(overlap_s * 1000)
            made = Secrets(secret or new_secret(), was if overlap_s else "", until_ms if overlap_s else 0)
            if await self._outbox.set_secrets(tenant, id, made, was=was):
                return SecretView(id, made.current, made.previous_until_ms)
        raise _moving()

    async def callback(self, callback: Callback, run: str, tenant: str) -> Endpoint:
        """Make the endpoint of a run that is about to start. Raises `InputError` (`webhook.url`, `webhook.events`)."""
        check_url(callback.url, allow_private=self._settings.allow_private, field="webhook.url")
        check_names(self._registered, webhook__url=callback.url)
        known = tuple(kind for kind in EVENTS if kind.startswith("run."))
        _known(callback.events, known, "webhook.events")
        events = checked_events(callback.events, "webhook.events") or ("run.finished",)
        await self.secret(tenant=tenant)
        lane = f"{tenant}/callback {origin_of(callback.url)}"
        return Endpoint(tenant=tenant, id=run, url=callback.url, lane=lane, events=events, run=run)

    async def _endpoint(self, id: str, tenant: str) -> Endpoint:
        found = await self._outbox.endpoint(tenant, id)
        if found is None:
            raise NotFound(f"there is no webhook {id!r}; `stanchion webhooks ls` lists them", field="id")
        return found


def webhook_settings(environment: Mapping[str, str]) -> WebhookSettings:
    """Read what the operator says of webhooks: STANCHION_WEBHOOK_ALLOW_PRIVATE=1, STANCHION_PUBLIC_URL."""
    allowed = environment.get("STANCHION_WEBHOOK_ALLOW_PRIVATE", "").lower() in ("1", "true", "yes")
    return WebhookSettings(allow_private=allowed, public_url=environment.get("STANCHION_PUBLIC_URL", ""))


def check_secret(secret: str) -> None:
    """Accept a secret that was made elsewhere. Raises `InputError`."""
    try:
        sign(secret, "", 0, b"")
    except ConfigError as error:
        raise InputError(str(error), field="secret") from None


def checked_events(events: Sequence[str], field: str = "events") -> tuple[EventKind, ...]:
    """Accept names of events. Raises `InputError`."""
    return cast("tuple[EventKind, ...]", _known(events, EVENTS, field))


def _of_the_operator(events: Sequence[str], agents: Sequence[str], include: Sequence[str]) -> tuple[str, ...]:
    """Name what the operator hears of. Raises `InputError`."""
    for field, given in (("events", set(events) - {"budget.alert"}), ("agents", agents), ("include", include)):
        if given:
            what = "the operator is told of the budget of all (budget.alert) and of no tenant's runs: leave it out"
            raise InputError(what, field=field)
    return ("budget.alert",)


def _known(given: Sequence[str], known: Sequence[str], field: str) -> tuple[str, ...]:
    for one in given:
        if one not in known:
            raise InputError(f"{one!r} is none of {', '.join(known)}", field=field)
    return tuple(dict.fromkeys(given))


def _view(endpoint: Endpoint) -> EndpointView:
    e = endpoint
    return EndpointView(e.id, e.url, list(e.events), list(e.agents), list(e.include), e.enabled, e.note, e.created_ms)


def _delivery(row: Delivery) -> DeliveryView:
    return DeliveryView(
        id=row.id,
        endpoint=row.endpoint,
        type=row.kind,
        run=row.run,
        seq=row.seq,
        standing=row.standing,
        attempts=row.attempts,
        next_ms=row.next_ms if row.standing == "pending" else 0,
        http_status=row.status,
        note=row.note,
        created_ms=row.created_ms,
        settled_ms=row.settled_ms,
    )


def _disabled(endpoint: Endpoint) -> Conflict:
    return Conflict(f"the webhook {endpoint.id} is disabled ({endpoint.note}); enable it first", field="id")


def _moving() -> Conflict:
    return Conflict("the secret is being changed by others at this moment; try again", field="secret")
