"""`stanchion memory`: what is remembered of users: list it, correct it, take it along, and have it forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol
from urllib.parse import quote

import typer

from stanchion.cli.desk import FileDesk, Json, Where, open_desk, plain
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.output import Column, print_json, print_line, print_text, say, table, when
from stanchion.core.errors import InputError

if TYPE_CHECKING:
    from stanchion.cli.remote import Remote
    from stanchion.runtime import Runtime

app = typer.Typer(
    name="memory",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, correct, export and forget what is remembered of users.",
)

User = Annotated[str, typer.Option("--user", help="Whose memory: the user that runs are started for.")]
FactId = Annotated[str, typer.Argument(metavar="ID", help="A fact; `stanchion memory ls --user ..` lists them.")]
Kind = Literal["", "fact", "note", "episode", "procedure"]
_LAST_MS = 24 * 3_600_000 - 1
"""A day is meant with its evening."""


def _about(row: Mapping[str, Any]) -> str:
    return f"{row['subject']}: {row['attribute']}" if row["kind"] == "fact" else row["attribute"]


USERS: tuple[Column, ...] = (
    ("user", lambda row: row["user"]),
    ("space", lambda row: row["space"]),
    ("facts", lambda row: str(row["facts"])),
    ("updated", lambda row: when(row["updated_ms"])),
)
FACTS: tuple[Column, ...] = (
    ("id", lambda row: row["id"]),
    ("kind", lambda row: row["kind"]),
    ("about", _about),
    ("value", lambda row: row["value"]),
    ("holds", lambda row: _span(row["valid_from_ms"], row["valid_to_ms"])),
    ("trust", lambda row: row["trust"]),
)
VERSIONS: tuple[Column, ...] = (
    *FACTS[:1],
    *FACTS[2:],
    ("believed", lambda row: _span(row["recorded_ms"], row["ended_ms"])),
    ("", lambda row: row["why"]),
)


class Memory(Protocol):
    """What the commands do, on a data file or at a server. Every method raises `StanchionError`."""

    async def users(self) -> Sequence[Json]: ...
    async def facts(self, user: str, asked: Mapping[str, Any]) -> Sequence[Json]: ...
    async def versions(self, user: str, id: str) -> Sequence[Json]: ...
    async def add(self, user: str, asked: Mapping[str, Any]) -> Json: ...
    async def edit(self, user: str, id: str, value: str) -> Json: ...
    async def retract(self, user: str, id: str) -> None: ...
    async def forget(self, user: str, id: str) -> Json: ...


@app.command()
def ls(
    user: Annotated[str, typer.Option("--user", help="Whose memory; without it: who is remembered.")] = "",
    query: Annotated[str, typer.Option("--query", help="What answers this, best first.")] = "",
    kind: Annotated[Kind, typer.Option("--kind", help="Of one kind only.")] = "",
    as_of: Annotated[
        str, typer.Option("--as-of", metavar="DATE", help="What held on a day (2026-03-31), in UTC.")
    ] = "",
    known_at: Annotated[str, typer.Option("--known-at", metavar="DATE", help="What was known on a day.")] = "",
    space: Annotated[str, typer.Option("--space", help="Of one space (an agent's name) only.")] = "",
    history: Annotated[
        bool, typer.Option("--history", help="All versions, also what is not believed any more.")
    ] = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """List who is remembered, or what is remembered of a user.

    \b
    Facts have two times: when they hold, and when they were known. --as-of asks for the one, --known-at for the other.

    \b
    Examples:
        stanchion memory ls
        stanchion memory ls --user ann --query "where does she live"
        stanchion memory ls --user ann --as-of 2026-03-01 --known-at 2026-04-01
    """
    where = Where(data, url, api_key, tenant)
    if not user:
        rows = _work(where, lambda side: side.users())
        _print(rows, output, USERS, "nothing is remembered of anybody")
        return
    asked: dict[str, Any] = {"query": query, "kind": kind, "space": space, "history": history}
    asked |= {"as_of_ms": _day(as_of, "--as-of"), "known_at_ms": _day(known_at, "--known-at")}
    rows = _work(where, lambda side: side.facts(user, asked))
    _print(rows, output, VERSIONS if history else FACTS, f"nothing of this is remembered of {user}")


@app.command()
def show(
    id: FactId,
    user: User,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Show a fact with all its versions, and where each is from.

    \b
    Example:
        stanchion memory show fact_3f9c1a4e5b6d7c8e9f00 --user ann
    """
    rows = _work(Where(data, url, api_key, tenant), lambda side: side.versions(user, id))
    if output == "json":
        print_json(rows)
        return
    for row in rows:
        print_text(f"{row['id']}  {_about(row)} = {row['value']}")
        print_text(f"  holds     {_span(row['valid_from_ms'], row['valid_to_ms'])}")
        print_text(
            f"  believed  {_span(row['recorded_ms'], row['ended_ms'])} {row['why']} {row['replaced_by']}".rstrip()
        )
        where = f" in {row['run']}, part {row['place']}" if row["run"] else ""
        print_text(f"  said by   {row['source']} {row['name']}{where}; trust: {row['trust']}".replace("  ;", ";"))


@app.command()
def add(
    attribute: Annotated[str, typer.Argument(metavar="ATTRIBUTE", help='Of few plain words, like "home city".')],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="What it is.")],
    user: User,
    space: Annotated[str, typer.Option("--space", help="The agent's name, or the space that its Memory names.")],
    subject: Annotated[str, typer.Option("--subject", help="Whom or what it is about.")] = "user",
    since: Annotated[str, typer.Option("--since", metavar="DATE", help="From when on it holds; else now.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="DATE", help="Until when; else for ever.")] = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Write a fact down. It is trusted, and replaces what was known of the attribute from then on.

    \b
    Example:
        stanchion memory add "home city" Porto --user ann --space support --since 2026-03-01
    """
    asked: dict[str, Any] = {"attribute": attribute, "value": value, "space": space, "subject": subject}
    asked |= {"from_ms": _day(since, "--since", evening=False), "to_ms": _day(until, "--until", evening=False)}
    if since and until and asked["to_ms"] <= asked["from_ms"]:
        raise InputError("must be a day after --since", field="--until")
    row = _work(Where(data, url, api_key, tenant), lambda side: side.add(user, asked))
    if output == "json":
        print_json(row)
    else:
        print_text(row["id"])


@app.command()
def edit(
    id: FactId,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="What is right.")],
    user: User,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Give a fact that was wrong its right value; the wrong one stays on record as what was believed.

    \b
    Example:
        stanchion memory edit fact_3f9c1a4e5b6d7c8e9f00 Porto --user ann
    """
    row = _work(Where(data, url, api_key, tenant), lambda side: side.edit(user, id, value))
    if output == "json":
        print_json(row)
    else:
        say(f"{_about(row)} is {row['value']} now")
        print_text(row["id"])


@app.command()
def retract(
    id: FactId,
    user: User,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Believe a fact no more; it stays on record as what was believed. To erase it: `stanchion memory forget`.

    \b
    Example:
        stanchion memory retract fact_3f9c1a4e5b6d7c8e9f00 --user ann
    """
    _work(Where(data, url, api_key, tenant), lambda side: side.retract(user, id))
    if output == "json":
        print_json({"retracted": id})
    else:
        say(f"{id} is not believed any more")


@app.command()
def export(
    user: User, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Print all that is stored of a user's memory, with all versions, as lines of JSON; with `-o json` as one list.

    \b
    Example:
        stanchion memory export --user ann > ann.jsonl
    """
    asked = {"history": True, "limit": 1_000_000}
    rows = _work(Where(data, url, api_key, tenant), lambda side: side.facts(user, asked))
    if output == "json":
        print_json(list(rows))
        return
    for row in rows:
        print_line(row)


@app.command()
def forget(
    user: User,
    id: Annotated[str, typer.Option("--id", help="One fact with all its versions; else all of the user.")] = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Erase what is remembered of a user, for ever: facts, versions, vectors, and what journals hold of recalled memory.

    \b
    What the user said in conversations stays; it is the content of runs, and goes when that is erased.

    \b
    Examples:
        stanchion memory forget --user ann
        stanchion memory forget --user ann --id fact_3f9c1a4e5b6d7c8e9f00
    """
    done = _work(Where(data, url, api_key, tenant), lambda side: side.forget(user, id))
    if output == "json":
        print_json(done)
        return
    journals = ", and what journals held of recalled memory" if done["journals"] else ""
    say(f"erased: {done['versions']} version{'' if done['versions'] == 1 else 's'}{journals}")


def _print(rows: Any, output: str, columns: Sequence[Column], empty: str) -> None:
    if output == "json":
        print_json(rows)
    else:
        table(rows, columns, empty=empty)


def _span(from_ms: int, to_ms: int) -> str:
    return f"{_date(from_ms)} - {_date(to_ms) if to_ms else ''}".rstrip()


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


def _day(text: str, option: str, *, evening: bool = True) -> int:
    """Read a date as milliseconds: its end, where a day is asked about. 0: none was given. Raises `InputError`."""
    if not text:
        return 0
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{text!r} is no date; write it like 2026-03-31", field=option) from None
    return int(found.timestamp() * 1000) + (_LAST_MS if evening else 0)


def _work(where: Where, what: Callable[[Memory], Awaitable[Any]]) -> Any:
    async def work() -> Any:
        async with _open(where) as side:
            return await what(side)

    return asyncio.run(work())


@contextlib.asynccontextmanager
async def _open(where: Where) -> AsyncGenerator[Memory]:
    async with open_desk(where) as desk:
        if isinstance(desk, FileDesk):
            yield FileMemory(desk.runtime, desk.tenant)
        else:
            yield RemoteMemory(desk)  # pyright: ignore[reportArgumentType]  (the other kind of desk)


class FileMemory:
    """Over a data file."""

    def __init__(self, runtime: Runtime, tenant: str) -> None:
        self._memory = runtime.memory
        self._tenant = tenant

    async def users(self) -> Sequence[Json]:
        return [plain(row) for row in await self._memory.users(tenant=self._tenant, limit=10_000)]

    async def facts(self, user: str, asked: Mapping[str, Any]) -> Sequence[Json]:
        wanted: dict[str, Any] = {"limit": 10_000, **asked}
        return [plain(row) for row in await self._memory.ls(user, tenant=self._tenant, **wanted)]

    async def versions(self, user: str, id: str) -> Sequence[Json]:
        return [plain(row) for row in await self._memory.show(id, user=user, tenant=self._tenant)]

    async def add(self, user: str, asked: Mapping[str, Any]) -> Json:
        return plain(await self._memory.add(user=user, tenant=self._tenant, **asked))

    async def edit(self, user: str, id: str, value: str) -> Json:
        return plain(await self._memory.edit(id, value, user=user, tenant=self._tenant))

    async def retract(self, user: str, id: str) -> None:
        await self._memory.retract(id, user=user, tenant=self._tenant)

    async def forget(self, user: str, id: str) -> Json:
        return plain(await self._memory.forget(user, id=id, tenant=self._tenant))


class RemoteMemory:
    """At a server."""

    def __init__(self, remote: Remote) -> None:
        self._call = remote.call

    async def users(self) -> Sequence[Json]:
        found: list[Json] = []
        after = ""
        while True:
            page = (await self._call("GET", "/v1/memory", query={"after": after, "limit": "200"}))["users"]
            found += page
            if len(page) < 200:
                return found
            after = page[-1]["user"]

    async def facts(self, user: str, asked: Mapping[str, Any]) -> Sequence[Json]:
        query = {name: str(value).lower() if value is True else str(value) for name, value in asked.items() if value}
        return (await self._call("GET", _path(user), query={"limit": "10000", **query}))["facts"]

    async def versions(self, user: str, id: str) -> Sequence[Json]:
        return (await self._call("GET", _path(user, id)))["facts"]

    async def add(self, user: str, asked: Mapping[str, Any]) -> Json:
        return await self._call("POST", _path(user), asked)

    async def edit(self, user: str, id: str, value: str) -> Json:
        return await self._call("PATCH", _path(user, id), {"value": value})

    async def retract(self, user: str, id: str) -> None:
        await self._call("POST", f"{_path(user, id)}/retract", {})

    async def forget(self, user: str, id: str) -> Json:
        return await self._call("DELETE", _path(user, id))


def _path(*names: str) -> str:
    return "/".join(("/v1/memory", *(quote(name, safe="") for name in names if name)))
