"""Where a command finds the runs: in a data file, or at a server.

`open_desk` gives one or the other, with the same methods. A data file is opened to look and to post only, so it works
beside the server that drives it. Runs, events and listings are plain dicts of their JSON: what a server sends is shown
as it came, whatever its version.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec

from stanchion.core.errors import InputError, NotFound
from stanchion.core.money import format_usd

if TYPE_CHECKING:
    from stanchion.agent import Limits
    from stanchion.runtime import Runtime

Json = Mapping[str, Any]
TailItem = tuple[Literal["event", "delta"], Json]
DEFAULT_DATA = "stanchion.db"


class Where(msgspec.Struct, frozen=True):
    """What the options say about where the data is; "" is what was not said."""

    data: str = ""
    url: str = ""
    api_key: str = ""
    tenant: str = ""
    operator: bool = False
    """For what is of no tenant, which is the operator's of the store."""

    def in_a_file(self) -> Where:
        """The same in a data file, whatever server the environment names."""
        return Where(data=self.data or _default_data(), tenant=self.tenant)

    def resolve(self) -> Where:
        """Fill in the environment. An option beats it; a URL and a file together are a mistake."""
        if self.data and self.url:
            raise InputError("--data and --url are two places; give one of them")
        url = self.url or ("" if self.data else os.environ.get("STANCHION_URL", ""))
        if url and self.tenant:
            raise InputError("--tenant does not go with a server: its API key says whose data is meant")
        if self.operator and (url or self.tenant):
            place = (
                "is of no tenant; leave --tenant out" if self.tenant else "is no API key's: name the data with --data"
            )
            raise InputError(f"what is the operator's {place}", field="operator")
        data = self.data or _default_data()
        key = self.api_key or os.environ.get("STANCHION_API_KEY", "")
        return Where(
            data=data, url=url.rstrip("/"), api_key=key, tenant="" if self.operator else self.tenant or "default"
        )


def _default_data() -> str:
    return os.environ.get("STANCHION_DATA", "") or DEFAULT_DATA


class Decided(msgspec.Struct, frozen=True):
    """A person's decision on a call that waits."""

    call: str
    decision: Literal["approve", "edit", "reject", "retry", "record", "fail"]
    revision: int | None = None
    arguments: dict[str, Any] | None = None
    result: str | None = None
    reason: str = ""
    by: str = ""
    attempt: int | None = None
    policy: str | None = None
    allow: Literal["", "session", "destination"] = ""


SHARE_FIELDS = ("weight", "max_running", "max_queued")


class Ask(msgspec.Struct, frozen=True):
    """A run to start."""

    agent: str
    input: str
    session: str = ""
    user: str = ""
    usd: str = ""
    dry_run: bool = False
    priority: str = ""
    grants: Any = None
    task: str = ""
    step: str = ""


class Desk(Protocol):
    """What commands do with runs. Every method raises `StanchionError`."""

    async def start(self, ask: Ask) -> str: ...
    async def view(self, run: str) -> Json: ...
    async def wait(self, run: str, *, timeout_s: float | None = None) -> Json: ...
    def tail(self, run: str, *, after: int = 0, deltas: bool = True) -> AsyncIterator[TailItem]: ...
    async def send(self, run: str, text: str, *, by: str) -> None: ...
    async def cancel(self, run: str, *, by: str, reason: str) -> None: ...
    async def decide(self, run: str, decided: Decided) -> None: ...
    async def decide_all(self, run: str, decided: Sequence[Decided]) -> None: ...
    async def grants(self, session: str) -> Sequence[Json]: ...
    async def revoke_grant(self, session: str, grant: str, *, by: str) -> None: ...
    async def judged(self, run: str) -> Sequence[str]: ...
    async def explain(self, run: str, call: str) -> Json: ...
    async def revive(self, run: str, *, by: str) -> None: ...
    async def runs(
        self,
        *,
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[Json]: ...
    async def letters(
        self, *, agent: str, reason: str, before: tuple[str, str], limit: int, all_tenants: bool = False
    ) -> Sequence[Json]: ...
    async def letter(self, run: str) -> Json: ...
    def at(self, tenant: str) -> Desk: ...
    def verify(self, run: str = "") -> AsyncIterator[Json]: ...
    async def budgets(self) -> Sequence[Json]: ...
    async def set_budget(self, ledger: str, usd: str | None) -> Json: ...
    async def costs(
        self, question: Mapping[str, Any], *, all_tenants: bool = False, progress: Callable[[int], None]
    ) -> Json: ...
    async def forecast(self, question: Mapping[str, Any]) -> Json: ...
    async def shares(self) -> Sequence[Json]: ...
    async def set_share(self, scope: str, changes: Mapping[str, int | None], *, every: bool) -> Json: ...
    async def workers(self) -> Sequence[Json]: ...
    async def quotas(self) -> Json: ...
    async def set_quota(self, name: str, counts: Mapping[str, float]) -> Json: ...
    async def drop_quota(self, name: str) -> None: ...
    async def add_key(self, name: str, may_approve: str | None = None) -> tuple[Json, str]: ...
    async def keys(self) -> Sequence[Json]: ...
    async def revoke_key(self, id: str) -> bool: ...


@contextlib.asynccontextmanager
async def open_desk(where: Where, *, create: bool = False) -> AsyncGenerator[Desk]:
    """Open the data file, or a client of the server. `create`: the file need not exist yet."""
    where = where.resolve()
    if where.url:
        from stanchion.cli.remote import Remote

        async with Remote(where.url, where.api_key) as remote:
            yield remote
        return
    from stanchion.runtime import Runtime

    check_data(where.data, create=create)
    runtime = await Runtime.open(data=where.data, drive=False)
    try:
        yield FileDesk(runtime, where.tenant)
    finally:
        await runtime.aclose()


def check_data(data: str, *, create: bool) -> None:
    """Say clearly what a data file lacks, before it is opened."""
    if data.startswith(("postgresql://", "postgres://")):
        return
    if "://" in data and not data.startswith("sqlite:///"):
        scheme = data.partition("://")[0]
        raise InputError(f"--data {scheme}://..: write a path, sqlite:///path or postgresql://user@host/database")
    path = Path(data.removeprefix("sqlite:///"))
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a directory; name a file in it, like {str(path / DEFAULT_DATA)!r}")
    if not create and not path.exists():
        raise NotFound(
            f"there is no data file {str(path)!r}; name it with --data FILE or STANCHION_DATA, "
            "or ask a server with --url (`stanchion run` and `stanchion serve` make one)"
        )


def user_name(by: str) -> str:
    """Who does it: what was said, or the user of this terminal."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "cli"


class FileDesk:
    """The desk over a data file."""

    def __init__(self, runtime: Runtime, tenant: str) -> None:
        self.runtime = self._runtime = runtime
        self.tenant = self._tenant = tenant

    async def start(self, ask: Ask) -> str:
        started = await self._runtime.start(
            ask.agent,
            ask.input,
            tenant=self._tenant,
            session=ask.session,
            user=ask.user,
            limits=limits_of(ask),
            dry_run=ask.dry_run,
            priority=ask.priority,
            grants=ask.grants,
            task=ask.task,
            step=ask.step,
        )
        return started.run

    async def view(self, run: str) -> Json:
        return plain(await self._runtime.view(run, tenant=self._tenant))

    async def wait(self, run: str, *, timeout_s: float | None = None) -> Json:
        return plain(await self._runtime.wait(run, tenant=self._tenant, timeout_s=timeout_s))

    async def tail(self, run: str, *, after: int = 0, deltas: bool = True) -> AsyncIterator[TailItem]:
        from stanchion.core.event import Entry
        from stanchion.runtime import delta_json, entry_json

        async for item in self._runtime.tail(run, tenant=self._tenant, after=after, deltas=deltas):
            if isinstance(item, Entry):
                yield "event", msgspec.json.decode(entry_json(item))
            else:
                yield "delta", msgspec.json.decode(delta_json(item))

    async def send(self, run: str, text: str, *, by: str) -> None:
        await self._runtime.send(run, text, by=by, tenant=self._tenant)

    async def cancel(self, run: str, *, by: str, reason: str) -> None:
        await self._runtime.cancel(run, by=by, reason=reason, tenant=self._tenant)

    async def decide(self, run: str, decided: Decided) -> None:
        await self.decide_all(run, [decided])

    async def decide_all(self, run: str, decided: Sequence[Decided]) -> None:
        from stanchion.runtime import Decision

        decisions = [Decision(**msgspec.structs.asdict(one)) for one in decided]
        await self._runtime.decide_all(run, decisions, tenant=self._tenant)

    async def grants(self, session: str) -> Sequence[Json]:
        return [plain(grant) for grant in await self._runtime.grants(session, tenant=self._tenant)]

    async def revoke_grant(self, session: str, grant: str, *, by: str) -> None:
        await self._runtime.revoke_grant(session, grant, by=by, tenant=self._tenant)

    async def judged(self, run: str) -> Sequence[str]:
        return await self._runtime.explaining.calls(self._tenant, run)

    async def explain(self, run: str, call: str) -> Json:
        return plain(await self._runtime.explain(run, call, tenant=self._tenant))

    async def revive(self, run: str, *, by: str) -> None:
        await self._runtime.revive(run, by=by, tenant=self._tenant)

    async def runs(
        self,
        *,
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[Json]:
        rows = await self._runtime.runs(
            tenant=self._tenant,
            session=session,
            agent=agent,
            user=user,
            status=status,
            outcome=outcome,
            before=before,
            limit=limit,
        )
        return [_listed(plain(row)) for row in rows]

    async def letters(
        self, *, agent: str, reason: str, before: tuple[str, str], limit: int, all_tenants: bool = False
    ) -> Sequence[Json]:
        tenant = "" if all_tenants else self._tenant
        found = await self._runtime.parked(tenant=tenant, agent=agent, reason=reason, before=before, limit=limit)
        return [plain(letter) for letter in found]

    async def letter(self, run: str) -> Json:
        view = dict(plain(await self._runtime.letter(run, tenant=self._tenant)))
        return {**view.pop("letter"), **view}

    def at(self, tenant: str) -> FileDesk:
        """The same data, of another tenant."""
        return FileDesk(self._runtime, tenant)

    async def verify(self, run: str = "") -> AsyncIterator[Json]:
        async for verified in self._runtime.verify(run, tenant=self._tenant):
            yield plain(verified)

    async def budgets(self) -> Sequence[Json]:
        told = await self._runtime.told(tenant=self._tenant)
        rows = await self._runtime.budgets(tenant=self._tenant)
        return [{**_priced(plain(ledger)), "told": told(ledger)} for ledger in rows]

    async def set_budget(self, ledger: str, usd: str | None) -> Json:
        return _priced(plain(await self._runtime.set_budget(ledger, usd, tenant=self._tenant)))

    async def costs(
        self, question: Mapping[str, Any], *, all_tenants: bool = False, progress: Callable[[int], None]
    ) -> Json:
        from stanchion.runtime import CostQuestion

        tenant = "" if all_tenants else self._tenant
        return plain(await self._runtime.costs.report(CostQuestion(**question), tenant=tenant, progress=progress))

    async def forecast(self, question: Mapping[str, Any]) -> Json:
        from stanchion.runtime import ForecastQuestion

        return plain(await self._runtime.forecasting.before(ForecastQuestion(**question), tenant=self._tenant))

    async def shares(self) -> Sequence[Json]:
        return [share_json(row) for row in await self._runtime.shares.list()]

    async def set_share(self, scope: str, changes: Mapping[str, int | None], *, every: bool) -> Json:
        tenant = "" if every else self._tenant
        values = merged(await self.shares(), tenant, scope, changes)
        return share_json(await self._runtime.shares.set(scope, tenant=tenant, **values))

    async def workers(self) -> Sequence[Json]:
        now_ms = await self._runtime.store.now_ms()
        rows = [dict(plain(row)) for row in await self._runtime.shares.workers()]
        ago = [round(max(now_ms - row["seen_ms"], 0) / 1000, 1) for row in rows]
        return [row | {"begun_per_s": row.pop("rate"), "seen_s_ago": s} for row, s in zip(rows, ago, strict=True)]

    async def quotas(self) -> Json:
        from stanchion.runtime.desks.quotas import quotas_json

        return quotas_json(await self._runtime.quotas.view())

    async def set_quota(self, name: str, counts: Mapping[str, float]) -> Json:
        from stanchion.runtime.desks.quotas import quota_json

        if not name or " " in name:
            raise InputError(f"must be a provider, or provider:model, not {name!r}", field="NAME")
        words = [f"{count}={value!r}" for count, value in counts.items()]
        return quota_json(await self._runtime.quotas.set(" ".join([name, *words])))

    async def drop_quota(self, name: str) -> None:
        if not await self._runtime.quotas.drop(name):
            raise NotFound(f"there is no limit for {name!r}; `stanchion quotas ls` lists what there is")

    async def add_key(self, name: str, may_approve: str | None = None) -> tuple[Json, str]:
        key, secret = await self._runtime.keys.add(self._tenant, name, may_approve=may_approve)
        return _key(plain(key)), secret

    async def keys(self) -> Sequence[Json]:
        return [_key(plain(key)) for key in await self._runtime.keys.list()]

    async def revoke_key(self, id: str) -> bool:
        return await self._runtime.keys.revoke(id)


def plain(struct: Any) -> Json:
    """Give a struct as the dict of its JSON."""
    return cast("Json", msgspec.to_builtins(struct))


def _listed(row: Json) -> Json:
    """Choose what a listing shows of a run's row: not its lease, its hash or its worker."""
    shown = ("run", "session", "user", "agent", "status", "outcome", "seq", "parent")
    kept = {name: row[name] for name in shown}
    kept |= {"outcome": row["outcome"] if row["status"] == "ended" else ""}
    kept |= {"parked": row["outcome"] if row["status"] == "parked" else ""}
    return kept | {"usd": format_usd(row["cost"]), "created_ms": row["created_ms"], "updated_ms": row["updated_ms"]}


def share_json(share: Any) -> Json:
    """Give a share; None is what is not set."""
    row = dict(plain(share))
    return row | {
        "weight": row["weight"] or None,
        "max_running": None if row["max_running"] < 0 else row["max_running"],
        "max_queued": None if row["max_queued"] < 0 else row["max_queued"],
    }


def merged(rows: Sequence[Json], tenant: str, scope: str, changes: Mapping[str, int | None]) -> dict[str, int | None]:
    """Give the values of a share as it is, with what is to change."""
    found = next((row for row in rows if (row["tenant"], row["scope"]) == (tenant, scope)), None)
    values: dict[str, int | None] = {name: found[name] if found else None for name in SHARE_FIELDS}
    return values | dict(changes)


def _priced(ledger: Json) -> Json:
    return {
        "ledger": ledger["ledger"],
        "limit_usd": None if ledger["limit"] < 0 else format_usd(ledger["limit"]),
        "settled_usd": format_usd(ledger["settled"]),
        "reserved_usd": format_usd(ledger["reserved"]),
        "closed": ledger["closed"],
    }


def _key(key: Json) -> Json:
    return {name: key[name] for name in ("id", "tenant", "name", "created_ms", "revoked", "may_approve")}


def limits_of(ask: Ask) -> Limits | None:
    """What the run is held to beside its agent's own limits."""
    if not ask.usd:
        return None
    from stanchion.agent import Limits

    return Limits(usd=ask.usd)
