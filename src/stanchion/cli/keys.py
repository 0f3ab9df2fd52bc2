"""`stanchion keys`: the API keys of a server. Only their hashes are kept."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Where, open_desk
from stanchion.cli.options import Data, Output, Tenant, text_of
from stanchion.cli.output import Column, print_json, print_text, say, table, when
from stanchion.core.errors import InputError, NotFound

app = typer.Typer(
    name="keys", no_args_is_help=True, rich_markup_mode=None, help="Make, list and revoke the API keys of a server."
)

COLUMNS: tuple[Column, ...] = (
    ("id", lambda key: key["id"]),
    ("tenant", lambda key: key["tenant"]),
    ("name", lambda key: key["name"]),
    ("created", lambda key: when(key["created_ms"])),
    ("may approve", lambda key: key["may_approve"] or "anything"),
    ("revoked", lambda key: "revoked" if key["revoked"] else ""),
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, or what for.")],
    may_approve: Annotated[
        str,
        typer.Option(
            metavar="JSON|@FILE",
            help="Grants beyond which its holder approves nothing; [] for nothing at all. Left out: anything.",
        ),
    ] = "",
    tenant: Tenant = "",
    data: Data = "",
    output: Output = "text",
) -> None:
    """Make an API key. It is shown once; requests send it as `Authorization: Bearer KEY`.

    \b
    Examples:
        stanchion keys add website
        stanchion keys add ann --tenant acme
        stanchion keys add bob --may-approve '[{"tools": ["refund"], "params": [{"path": "cents", "most": "5000"}]}]'
        KEY=$(stanchion keys add ci)
    """
    if not name.strip():
        raise InputError("a key needs a name, so that it can be found again when it must be revoked", field="NAME")

    async def work() -> tuple[Any, str]:
        async with open_desk(Where(data=data, tenant=tenant).in_a_file(), create=True) as desk:
            return await desk.add_key(name.strip(), text_of(may_approve, "--may-approve") if may_approve else None)

    key, secret = asyncio.run(work())
    if output == "json":
        print_json({**key, "key": secret})
    else:
        print_text(secret)
        say(f"key {key['id']} of tenant {key['tenant']}: keep it, it is not shown again")


@app.command()
def ls(data: Data = "", output: Output = "text") -> None:
    """List the API keys: their ids, tenants and names, never the keys.

    \b
    Examples:
        stanchion keys ls
        stanchion keys ls -o json
    """

    async def work() -> Any:
        async with open_desk(Where(data=data).in_a_file()) as desk:
            return await desk.keys()

    keys = asyncio.run(work())
    if output == "json":
        print_json(keys)
    else:
        table(keys, COLUMNS, empty="no API keys; without one a server listens on this machine only")


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key; `stanchion keys ls` lists them.")],
    data: Data = "",
    output: Output = "text",
) -> None:
    """Revoke an API key for ever.

    \b
    Example:
        stanchion keys revoke key_3f9a
    """

    async def work() -> bool:
        async with open_desk(Where(data=data).in_a_file()) as desk:
            return await desk.revoke_key(id)

    if not asyncio.run(work()):
        raise NotFound(f"there is no API key {id!r}; `stanchion keys ls` lists them")
    if output == "json":
        print_json({"id": id, "revoked": True})
    else:
        say(f"key {id} is revoked")
