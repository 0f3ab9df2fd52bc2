"""Where the commands for schedules and webhooks work: on a data file or at a server, by the same methods, as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from stanchion.cli.desk import FileDesk, Json, Where, open_desk, plain

if TYPE_CHECKING:
    from stanchion.cli.remote import Remote
    from stanchion.runtime import Runtime


class Outgoing(Protocol):
    """What the commands do. Every method raises `StanchionError`."""

    async def set_schedule(self, name: str, asked: Mapping[str, Any], *, replace: bool) -> Json: ...
    async def schedules(self) -> Sequence[Json]: ...
    async def schedule(self, name: str) -> Json: ...
    async def change_schedule(self, name: str, change: str) -> Json: ...
    async def remove_schedule(self, name: str) -> None: ...
    async def add_webhook(self, asked: Mapping[str, Any]) -> Json: ...
    async def webhooks(self) -> Sequence[Json]: ...
    async def enable_webhook(self, id: str) -> Json: ...
    async def remove_webhook(self, id: str) -> None: ...
    async def test_webhook(self, id: str) -> Json: ...
    async def delivery(self, id: str) -> Json: ...
    async def deliveries(self, asked: Mapping[str, str], limit: int) -> Sequence[Json]: ...
    async def redeliver(self, id: str) -> int: ...
    async def secret(self) -> Json: ...
    async def rotate(self, id: str, *, secret: str, overlap_s: float) -> Json: ...


@contextlib.asynccontextmanager
async def open_outgoing(where: Where, *, create: bool = False) -> AsyncGenerator[Outgoing]:
    """Open the data file, or a client of the server. `create`: the file need not exist yet."""
    async with open_desk(where, create=create) as desk:
        if isinstance(desk, FileDesk):
            yield FileOutgoing(desk.runtime, desk.tenant)
        else:
            yield RemoteOutgoing(desk)  # pyright: ignore[reportArgumentType]  (the other kind of desk)


class FileOutgoing:
    """Over a data file."""

    def __init__(self, runtime: Runtime, tenant: str) -> None:
        self._schedules = runtime.schedules
        self._webhooks = runtime.webhooks
        self._tenant = tenant

    async def set_schedule(self, name: str, asked: Mapping[str, Any], *, replace: bool) -> Json:
        from stanchion.agent import Limits

        said = dict(asked)
        limits = said.pop("limits", None)
        places = [said.pop(field) for field in ("cron", "agent", "input")]
        more = {"limits": Limits(**limits) if limits else None, "replace": replace, "tenant": self._tenant}
        return plain(await self._schedules.add(name, *places, **said, **more))

    async def schedules(self) -> Sequence[Json]:
        return [plain(view) for view in await self._schedules.ls(tenant=self._tenant)]

    async def schedule(self, name: str) -> Json:
        return plain(await self._schedules.show(name, tenant=self._tenant))

    async def change_schedule(self, name: str, change: str) -> Json:
        changes = {"pause": self._schedules.pause, "resume": self._schedules.resume, "run": self._schedules.run}
        return plain(await changes[change](name, tenant=self._tenant))

    async def remove_schedule(self, name: str) -> None:
        await self._schedules.remove(name, tenant=self._tenant)

    async def add_webhook(self, asked: Mapping[str, Any]) -> Json:
        said = dict(asked)
        view, secret = await self._webhooks.add(said.pop("url"), **said, tenant=self._tenant)
        return {**plain(view), "secret": secret.secret}

    async def webhooks(self) -> Sequence[Json]:
        return [plain(view) for view in await self._webhooks.ls(tenant=self._tenant)]

    async def enable_webhook(self, id: str) -> Json:
        return plain(await self._webhooks.enable(id, tenant=self._tenant))

    async def remove_webhook(self, id: str) -> None:
        await self._webhooks.remove(id, tenant=self._tenant)

    async def test_webhook(self, id: str) -> Json:
        return plain(await self._webhooks.test(id, tenant=self._tenant))

    async def delivery(self, id: str) -> Json:
        return plain(await self._webhooks.delivery(id, tenant=self._tenant))

    async def deliveries(self, asked: Mapping[str, str], limit: int) -> Sequence[Json]:
        return [plain(row) for row in await self._webhooks.deliveries(**asked, limit=limit, tenant=self._tenant)]

    async def redeliver(self, id: str) -> int:
        return await self._webhooks.redeliver(id, tenant=self._tenant)

    async def secret(self) -> Json:
        return plain(await self._webhooks.secret(tenant=self._tenant))

    async def rotate(self, id: str, *, secret: str, overlap_s: float) -> Json:
        return plain(await self._webhooks.rotate(id, secret=secret, overlap_s=overlap_s, tenant=self._tenant))


class RemoteOutgoing:
    """At a server."""

    def __init__(self, remote: Remote) -> None:
        self._call = remote.call

    async def set_schedule(self, name: str, asked: Mapping[str, Any], *, replace: bool) -> Json:
        if not replace:
            from stanchion.core.errors import Conflict, NotFound

            with contextlib.suppress(NotFound):
                await self.schedule(name)
                raise Conflict(f"there is a schedule {name!r} already; remove it first, or replace it", field="name")
        return await self._call("PUT", f"/v1/schedules/{_segment(name)}", asked)

    async def schedules(self) -> Sequence[Json]:
        return (await self._call("GET", "/v1/schedules"))["schedules"]

    async def schedule(self, name: str) -> Json:
        return await self._call("GET", f"/v1/schedules/{_segment(name)}")

    async def change_schedule(self, name: str, change: str) -> Json:
        path = f"/v1/schedules/{_segment(name)}"
        if change == "run":
            return await self._call("POST", f"{path}/run", {})
        return await self._call("PATCH", path, {"enabled": change == "resume"})

    async def remove_schedule(self, name: str) -> None:
        await self._call("DELETE", f"/v1/schedules/{_segment(name)}")

    async def add_webhook(self, asked: Mapping[str, Any]) -> Json:
        return await self._call("POST", "/v1/webhooks", asked)

    async def webhooks(self) -> Sequence[Json]:
        return (await self._call("GET", "/v1/webhooks"))["webhooks"]

    async def enable_webhook(self, id: str) -> Json:
        return await self._call("PATCH", f"/v1/webhooks/{_segment(id)}", {"enabled": True})

    async def remove_webhook(self, id: str) -> None:
        await self._call("DELETE", f"/v1/webhooks/{_segment(id)}")

    async def test_webhook(self, id: str) -> Json:
        return await self._call("POST", f"/v1/webhooks/{_segment(id)}/test", {})

    async def delivery(self, id: str) -> Json:
        return await self._call("GET", f"/v1/webhooks/deliveries/{_segment(id)}")

    async def deliveries(self, asked: Mapping[str, str], limit: int) -> Sequence[Json]:
        query = {name: value for name, value in asked.items() if value} | {"limit": str(min(limit, 200))}
        return (await self._call("GET", "/v1/webhooks/deliveries", query=query))["deliveries"]

    async def redeliver(self, id: str) -> int:
        return (await self._call("POST", "/v1/webhooks/redeliver", {"id": id}))["redelivered"]

    async def secret(self) -> Json:
        return await self._call("GET", "/v1/webhooks/secret")

    async def rotate(self, id: str, *, secret: str, overlap_s: float) -> Json:
        path = f"/v1/webhooks/{_segment(id)}/secret" if id else "/v1/webhooks/secret"
        return await self._call("POST", path, {"secret": secret, "overlap_s": overlap_s})


def _segment(name: str) -> str:
    return quote(name, safe="")
