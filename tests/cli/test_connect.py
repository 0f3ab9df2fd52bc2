"""`stanchion connect` as a person uses it: the real command, a real authorization server, and a browser that follows the link."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp

from tests.broker.auth_server import auth_server
from tests.runtime.desks.test_credentials import ENVIRONMENT, nowhere

AGENT = """
from typing import Annotated
from stanchion import Agent, Model, price_usd, tool
from stanchion.credentials import Credential, Environment, Needs, UserDelegation

@tool(effect="read")
async def find(name: str, token: Annotated[Credential, Needs("crm", scopes=("contacts.read",))]) -> str:
    "Find a contact."
    return name

crm = UserDelegation(
    issuer="{issuer}", client_id="bot & co", client_secret=Environment("CRM_SECRET"), scopes=("contacts.read",),
    redirect_uri="{redirect}",
)
support = Agent(name="support", tools=[find], credentials={{"crm": crm}}, model="anthropic:claude-sonnet-4-5")
"""
SOON_S = 30


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def _stanchion(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stanchion.cli", *arguments, cwd=folder, env=os.environ | ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _said(folder: Path, *arguments: str) -> tuple[int | None, str, str]:
    process = await _stanchion(folder, *arguments)
    out, err = await asyncio.wait_for(process.communicate(), SOON_S)
    return process.returncode, out.decode(), err.decode()


async def _link(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), SOON_S)
    if not line:
        assert process.stderr is not None
        raise AssertionError((await process.stderr.read()).decode())
    return line.decode().strip()


async def _open(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


async def test_connecting_from_a_terminal(tmp_path: Path) -> None:
    """The link is printed, the browser comes back to the command, a forged answer does not end the wait; `ls` and `rm` know it."""
    async with auth_server() as server:
        redirect = f"http://127.0.0.1:{_free_port()}/back"
        (tmp_path / "agent.py").write_text(AGENT.format(issuer=server.url, redirect=redirect))
        process = await _stanchion(tmp_path, "connect", "crm", "agent.py", "--user", "ann")
        link = await _link(process)
        status, page = await _open(f"{redirect}?state=forged&code=x")
        assert (status, "not one that was given out" in page) == (400, True)
        status, page = await _open(link)
        assert (status, page) == (200, "crm is connected. You can close this window.\n")
        _, err = await asyncio.wait_for(process.communicate(), SOON_S)
        assert (process.returncode, "crm is connected for ann: contacts.read" in err.decode()) == (0, True)
        _, out, _ = await _said(tmp_path, "connections", "ls", "-o", "json")
        rows: list[dict[str, Any]] = json.loads(out)
        assert [(row["name"], row["user"]) for row in rows] == [("crm", "ann")]
        nowhere(tmp_path, *server.secrets)
        assert (await _said(tmp_path, "connections", "rm", "crm", "--user", "ann"))[0] == 0
        code, _, err = await _said(tmp_path, "connections", "rm", "crm", "--user", "ann")
        assert (code, "'ann' has not connected 'crm'" in err) == (2, True)


async def test_a_person_who_says_no(tmp_path: Path) -> None:
    """The page and the command say so, and the command fails."""
    async with auth_server() as server:
        server.denies = True
        redirect = f"http://127.0.0.1:{_free_port()}/back"
        (tmp_path / "agent.py").write_text(AGENT.format(issuer=server.url, redirect=redirect))
        process = await _stanchion(tmp_path, "connect", "crm", "agent.py", "--user", "ann")
        status, page = await _open(await _link(process))
        assert (status, "access_denied" in page) == (400, True)
        _, err = await asyncio.wait_for(process.communicate(), SOON_S)
        assert process.returncode not in (0, None)
        assert err.decode().splitlines()[-1] == "error: crm was not connected: access_denied"


async def test_an_answer_that_comes_elsewhere(tmp_path: Path) -> None:
    """Where the browser comes back to an application, the command prints the link and is done."""
    async with auth_server() as server:
        (tmp_path / "agent.py").write_text(AGENT.format(issuer=server.url, redirect="https://app.example/back"))
        code, out, err = await _said(tmp_path, "connect", "crm", "agent.py", "--user", "ann")
        assert (code, out.startswith(f"{server.url}/authorize?")) == (0, True)
        assert "/v1/connections/callback" in err
        code, _, err = await _said(tmp_path, "connect", "mail", "agent.py", "--user", "ann")
        assert (code, "there is: crm" in err) == (2, True)
