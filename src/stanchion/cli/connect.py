"""`stanchion connect`: a user lets tools act for them, in a browser; `stanchion connections`: what was connected.

Where the redirect URI is this machine's, the command waits there for the browser itself; else the user's application does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from stanchion.cli.desk import Where, check_data
from stanchion.cli.options import Data, Output, Tenant
from stanchion.cli.output import Column, print_json, print_text, say, table, when
from stanchion.cli.serve import Files
from stanchion.core.errors import CredentialError, InputError, StanchionError

if TYPE_CHECKING:
    from aiohttp import web

    from stanchion.runtime import ConnectedView, Runtime

app = typer.Typer(
    name="connections", no_args_is_help=True, rich_markup_mode=None, help="List and remove what users have connected."
)
WAIT_S = 600.0
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the credential in the agent's `credentials`.")]
User = Annotated[str, typer.Option("--user", help="Whose connection: the user that runs are started for.")]

COLUMNS: tuple[Column, ...] = (
    ("user", lambda row: row["user"]),
    ("name", lambda row: row["name"]),
    ("connected", lambda row: when(row["created_ms"])),
    ("renewed", lambda row: when(row["updated_ms"])),
)


def connect(
    name: Name, files: Files, user: User, tenant: Tenant = "", data: Data = "", output: Output = "text"
) -> None:
    """Connect something for a user: prints the link to open, and waits for the browser where it comes back to this machine.

    \b
    Examples:
        stanchion connect crm agent.py --user ann
        stanchion connect crm agent.py --user ann --tenant acme --data postgresql://stanchion@db.internal/agents
    """
    where = Where(data=data, tenant=tenant).in_a_file().resolve()
    check_data(where.data, create=True)
    done = asyncio.run(_connect(name, files, user, where))
    if output == "json":
        print_json({"name": name, "user": user, "scopes": done.scopes if done else None})
    elif done:
        say(f"{name} is connected for {user}: {', '.join(done.scopes) or 'no scopes'}")


async def _connect(name: str, files: list[str], user: str, where: Where) -> ConnectedView | None:
    """Print the link; give what was connected, or None where the answer goes elsewhere."""
    from stanchion.cli.agents import load
    from stanchion.runtime import Runtime

    async with await Runtime.open(*load(files), data=where.data, drive=False) as runtime:
        address = runtime.connections.local_redirect(name)
        url = await runtime.connections.authorize(name, user=user, tenant=where.tenant)
        if not address:
            print_text(url)
            say("open it; your application, where the browser comes back, hands on the query: /v1/connections/callback")
            return None
        async with _waiting(runtime, address, user, where.tenant) as done:
            print_text(url)
            say("open it in a browser on this machine; waiting for the answer")
            try:
                return await asyncio.wait_for(done, WAIT_S)
            except TimeoutError:
                text = f"nobody came back within {WAIT_S / 60:.0f} minutes; call it again"
                raise CredentialError(text, code="credential_unconnected") from None


@contextlib.asynccontextmanager
async def _waiting(
    runtime: Runtime, address: str, user: str, tenant: str
) -> AsyncGenerator[asyncio.Future[ConnectedView]]:
    """Listen at a redirect URI. What is not the answer that was asked for is turned away, and does not end the wait."""
    from aiohttp import web

    parts = urlsplit(address)
    done: asyncio.Future[ConnectedView] = asyncio.get_running_loop().create_future()

    async def answer(request: web.Request) -> web.Response:
        said, status = await _take(runtime, request, user, tenant, done)
        return web.Response(text=said, status=status)

    web_app = web.Application()
    web_app.router.add_get(parts.path or "/", answer)
    runner = web.AppRunner(web_app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, parts.hostname or "127.0.0.1", parts.port or 80).start()
        except OSError as error:
            text = f"cannot listen at {address}, where the browser comes back: {error.strerror or error}"
            raise InputError(text, field="redirect_uri") from error
        yield done
    finally:
        await runner.cleanup()


async def _take(
    runtime: Runtime, request: web.Request, user: str, tenant: str, done: asyncio.Future[ConnectedView]
) -> tuple[str, int]:
    from stanchion.runtime import Redirect

    query = request.query
    redirect = Redirect(*(query.get(name, "") for name in ("state", "code", "error", "iss")))
    try:
        view = await runtime.connections.complete(redirect, user=user, tenant=tenant)
    except InputError as error:
        if error.code != "credential_refused":  # of somebody else
            return f"Not connected. {error}\n", 400
        failed: StanchionError = error
    except CredentialError as error:
        failed = error
    else:
        if not done.done():
            done.set_result(view)
        return f"{view.name} is connected. You can close this window.\n", 200
    if not done.done():
        done.set_exception(failed)
    return f"Not connected. {failed}\n", 400


@app.command()
def ls(
    user: Annotated[str, typer.Option("--user", help="Only of this user.")] = "",
    tenant: Tenant = "",
    data: Data = "",
    output: Output = "text",
) -> None:
    """List what users have connected: names, never tokens.

    \b
    Example:
        stanchion connections ls --user ann
    """

    async def work(runtime: Runtime, of: str) -> Any:
        return [
            {"name": row.name, "user": row.user, "created_ms": row.created_ms, "updated_ms": row.updated_ms}
            for row in await runtime.connections.ls(user=user, tenant=of)
        ]

    rows = asyncio.run(_with_store(data, tenant, work))
    if output == "json":
        print_json(rows)
    else:
        table(rows, COLUMNS, empty="nothing is connected; `stanchion connect NAME agent.py --user USER` does it")


@app.command()
def rm(name: Name, user: User, tenant: Tenant = "", data: Data = "", output: Output = "text") -> None:
    """Forget a user's connection and its tokens.

    \b
    Example:
        stanchion connections rm crm --user ann
    """

    async def work(runtime: Runtime, of: str) -> None:
        await runtime.connections.remove(name, user=user, tenant=of)

    asyncio.run(_with_store(data, tenant, work))
    if output == "json":
        print_json({"name": name, "user": user, "removed": True})
    else:
        say(f"{name} of {user} is forgotten here; take it back at its server as well")


async def _with_store(data: str, tenant: str, work: Any) -> Any:
    from stanchion.runtime import Runtime

    where = Where(data=data, tenant=tenant).in_a_file().resolve()
    check_data(where.data, create=False)
    async with await Runtime.open(data=where.data, drive=False) as runtime:
        return await work(runtime, where.tenant)
