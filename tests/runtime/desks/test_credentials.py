"""Runs whose tools get credentials: from the agent's word to the service, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import secrets
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from stanchion import Agent, Model, NotDone, Runtime, ToolContext, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.errors import ConfigError, Conflict, InputError, NotFound
from stanchion.core.message import ModelRequest, ToolResult
from stanchion.credentials import ClientCredentials, Credential, Environment, Needs, UserDelegation
from stanchion.policy import GuardRules
from stanchion.runtime import Redirect
from stanchion.testing import ScriptedModel, call
from tests.broker.auth_server import CLIENT, SECRET, AuthServer, auth_server, browse

MODEL = Model("openai:test", price=price_usd(input="1", output="1"))
Crm = Annotated[Credential, Needs("crm", scopes=("contacts.read",))]
ENVIRONMENT = {
    "CRM_SECRET": SECRET,
    "CRM_TOKEN": "plain-token-0123456789",
    "STANCHION_VAULT_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
}
SOON_S = 20


def asks(*calls: Any) -> ScriptedModel:
    """A model that makes these calls at once, and then says what came of them."""

    def play(request: ModelRequest) -> Any:
        results = [part.text for part in request.messages[-1].parts if isinstance(part, ToolResult)]
        return " | ".join(results) if results else list(calls)

    return ScriptedModel(play)


def agent(*tools: Any, crm: Any = None, **more: Any) -> Agent:
    """Make an agent whose tools may read contacts."""
    source = crm or Environment("CRM_TOKEN", ("contacts.read",))
    guard = GuardRules(mark=False)  # what a tool said stands alone in what the model repeats
    return Agent(name="desk", model=MODEL, tools=tools, credentials={"crm": source}, guard=guard, **more)


def by_server(server: AuthServer, **how: Any) -> ClientCredentials:
    """Make a source of client credentials."""
    secret, scopes = Environment("CRM_SECRET"), ("contacts.read",)
    return ClientCredentials(issuer=server.url, client_id=CLIENT, client_secret=secret, scopes=scopes, **how)


def by_user(server: AuthServer) -> UserDelegation:
    """Make a source of a user's own."""
    return UserDelegation(
        issuer=server.url, client_id=CLIENT, client_secret=Environment("CRM_SECRET"), scopes=("contacts.read",),
        redirect_uri="https://app.example/connected",
    )  # fmt: skip


@asynccontextmanager
async def running(path: Path, *agents: Agent, model: Any = None, **more: Any) -> AsyncGenerator[Runtime]:
    """Run a runtime on a file."""
    clients = {"*": model or asks(call("find", name="Bob"))}
    how = {"environment": ENVIRONMENT, "clients": clients} | more
    async with await Runtime.open(*agents, data=path / "t.db", **how) as runtime:
        yield runtime


async def events(runtime: Runtime, run: str, *kinds: type) -> list[Any]:
    """List events of these kinds."""
    return [entry.event for entry in await runtime.store.read("default", run) if isinstance(entry.event, kinds)]


async def ended(runtime: Runtime, user: str = "ann") -> tuple[str, str]:
    """Start a run and wait for its end: its id and what it said."""
    started = await runtime.start("desk", "find Bob", user=user)
    view = await runtime.wait(started.run, timeout_s=SOON_S)
    assert view.status == "ended", view
    return started.run, view.text


def nowhere(path: Path, *found: str) -> None:
    """Assert that none of these is in any file of a store, in any of its usual forms."""
    files = [file.read_bytes() for file in path.iterdir() if file.is_file()]
    assert files
    for secret in found:
        raw = secret.encode()
        for form in (raw, base64.b64encode(raw)[:-4], raw.hex().encode()):
            assert not any(form in file for file in files), secret


async def test_a_tool_is_handed_a_credential(tmp_path: Path) -> None:
    """The tool gets it; the model is shown no such parameter, and the journal tells of it without its value."""
    given: list[Credential] = []

    @tool(effect="read")
    async def find(name: str, token: Crm) -> str:
        """Find a contact."""
        given.append(token)
        return f"{name} with {token}"

    model = asks(call("find", name="Bob"))
    async with running(tmp_path, agent(find), model=model) as runtime:
        run, text = await ended(runtime)
        (used,) = await events(runtime, run, ev.CredentialUsed)
        order = [type(entry.event) for entry in await runtime.store.read("default", run)]
    assert given[0].value == "plain-token-0123456789"
    assert (used.name, used.adapter, used.scopes, used.attempt, used.outcome) == (
        "crm", "environment", ("contacts.read",), 1, "minted",
    )  # fmt: skip
    assert order.index(ev.CredentialUsed) == order.index(ev.ToolCallFinished) - 1
    assert "Credential(scopes=('contacts.read',)" in text
    shown = next(spec for spec in model.requests[0].tools if spec.name == "find")
    assert list(shown.parameters["properties"]) == ["name"]
    nowhere(tmp_path, "plain-token-0123456789")


async def test_the_model_cannot_give_one(tmp_path: Path) -> None:
    """A credential among the arguments that a model wrote is no argument of the tool."""

    @tool(effect="read")
    async def find(name: str, token: Crm) -> str:
        """Find a contact."""
        return f"found with {token.value[:5]}"

    model = asks(call("find", name="Bob", token={"value": "mine"}))
    async with running(tmp_path, agent(find), model=model) as runtime:
        _, text = await ended(runtime)
    assert "token" in text
    assert "found with" not in text


async def test_what_a_tool_says_of_it_is_taken_out(tmp_path: Path) -> None:
    """Returned, raised, encoded, in a URL, cut in the middle: nothing of it is in the answer or the store."""
    plain = ENVIRONMENT["CRM_TOKEN"]

    @tool(effect="read", retries=0)
    async def find(name: str, token: Crm) -> dict[str, Any]:
        """Find a contact."""
        encoded = base64.b64encode(f"user:{token.value}".encode()).decode()
        return {"token": token, "plain": [token.value, f"https://crm/?t={token.value}"], "basic": encoded}

    @tool(effect="read", retries=0)
    async def crash(name: str, token: Crm) -> str:
        """Fail."""
        raise RuntimeError(f"401 for {token.value}: {token.value.encode().hex()}")

    @tool(effect="read", retries=0)
    async def ramble(name: str, token: Crm) -> str:
        """Fail at length."""
        raise RuntimeError("x" * 3_988 + token.value)

    @tool(effect="read", retries=0)
    async def escape(name: str, token: Crm) -> str:
        """Fail as no tool should."""
        raise GeneratorExit(f"with {token.value}")

    names = ("find", "crash", "ramble", "escape")
    model = asks(*(call(name, name="Bob") for name in names))
    async with running(tmp_path, agent(find, crash, ramble, escape), model=model) as runtime:
        run, text = await ended(runtime)
        finished = await events(runtime, run, ev.ToolCallFinished)
        assert len(finished) == 4
        said = msgspec.json.encode([entry.event for entry in await runtime.store.read("default", run)]).decode()
    assert text.count("[secret:crm]") >= 7
    for piece in (plain, plain[:8], plain.encode().hex(), base64.b64encode(plain.encode()).decode()[4:12]):
        assert piece not in text + said
    nowhere(tmp_path, plain)


async def test_a_token_for_each_attempt(tmp_path: Path) -> None:
    """A call that is made again gets a token that is good then; each is told."""
    seen: list[str] = []

    @tool(effect="irreversible", retries=2)
    async def find(name: str, token: Crm, *, key: str) -> str:
        """Find a contact."""
        seen.append(token.value)
        if len(seen) < 3:
            raise NotDone("busy", retry_after_s=0.01)
        return "done"

    async with auth_server() as server, running(tmp_path, agent(find, crm=by_server(server, fresh=True))) as runtime:
        run, text = await ended(runtime)
        used = await events(runtime, run, ev.CredentialUsed)
    assert text == "done"
    assert len(set(seen)) == 3
    assert [(one.attempt, one.adapter) for one in used] == [(n, "oauth_client") for n in (1, 2, 3)]
    assert all(one.expires_ms for one in used)
    nowhere(tmp_path, *server.secrets)


async def test_a_credential_that_cannot_be_had(tmp_path: Path) -> None:
    """The tool is not called, the effect is not in doubt, and the journal tells of the refusal."""
    called: list[str] = []

    @tool(effect="irreversible", retries=1)
    async def find(name: str, token: Crm) -> str:
        """Find a contact."""
        called.append(name)
        return "found"

    async with auth_server() as server, running(tmp_path, agent(find, crm=by_server(server))) as runtime:
        server.allowed = ()
        run, text = await ended(runtime)
        (used,) = await events(runtime, run, ev.CredentialUsed)
        (finished,) = await events(runtime, run, ev.ToolCallFinished)
        assert "does not grant contacts.read" in text
        assert (used.outcome, finished.outcome, called) == ("refused", "error", [])
        server.allowed, server.fail_next = None, [web.Response(status=503)]
        run, text = await ended(runtime)
        outcomes = [one.outcome for one in await events(runtime, run, ev.CredentialUsed)]
        (failed,) = await events(runtime, run, ev.ToolCallFailed)
        assert (text, outcomes, called) == ("found", ["refused", "minted"], ["Bob"])
        assert (failed.code, failed.in_doubt, failed.retryable) == ("credential_unavailable", False, True)


async def test_a_reconciler_and_a_dry_run_get_one(tmp_path: Path) -> None:
    """They take the tool's credential by its name."""
    seen: list[str] = []

    @tool(effect="irreversible")
    async def find(name: str, token: Crm) -> str:
        """Find a contact."""
        return "really"

    @find.dry_run
    async def pretend(name: str, token: Crm) -> str:
        seen.append(token.value)
        return f"would find {name}"

    async with running(tmp_path, agent(find)) as runtime:
        started = await runtime.start("desk", "find Bob", dry_run=True)
        view = await runtime.wait(started.run, timeout_s=SOON_S)
        (used,) = await events(runtime, started.run, ev.CredentialUsed)
    assert (view.text, seen, used.outcome) == ("would find Bob", ["plain-token-0123456789"], "minted")


async def test_a_user_connects_and_a_tool_acts_for_them(tmp_path: Path) -> None:
    """Not connected: the model is told what to do. Connected: it is the user's own token, and no other user's."""

    @tool(effect="read")
    async def find(name: str, token: Crm) -> str:
        """Find a contact."""
        headers = {"Authorization": token.bearer}
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/api", headers=headers) as response:
            return f"{response.status} {await response.text()}"

    async with auth_server() as server, running(tmp_path, agent(find, crm=by_user(server))) as runtime:
        _, text = await ended(runtime)
        assert "crm is not connected for this user" in text
        assert "/v1/connections/crm/authorize" in text
        back = await browse(await runtime.connections.authorize("crm", user="ann"))
        for wrong in ({"user": "eve"}, {"tenant": "globex"}):
            with pytest.raises(InputError, match="not one that was given out to you"):
                await runtime.connections.complete(Redirect(**back), **wrong)
        connected = await runtime.connections.complete(Redirect(**back), user="ann")
        assert (connected.name, connected.user, connected.scopes) == ("crm", "ann", ["contacts.read"])
        with pytest.raises(Conflict):
            await runtime.connections.complete(Redirect(**back), user="ann")
        _, text = await ended(runtime)
        assert text == '200 {"scopes": ["contacts.read"], "echo": "[secret:crm]"}'
        assert "is not connected" in (await ended(runtime, "bob"))[1]
        assert [row.user for row in await runtime.connections.ls()] == ["ann"]
        nowhere(tmp_path, *server.secrets)
        await runtime.connections.remove("crm", user="ann")
        assert "is not connected" in (await ended(runtime))[1]
        with pytest.raises(NotFound):
            await runtime.connections.remove("crm", user="ann")
        for name in ("mail", ""):
            with pytest.raises(NotFound, match="there is: crm"):
                await runtime.connections.authorize(name, user="ann")
        with pytest.raises(InputError, match="user: say whose"):
            await runtime.connections.authorize("crm", user="")
    nowhere(tmp_path, *server.secrets)


async def test_a_stopped_run_tells_what_it_was_given(tmp_path: Path) -> None:
    """A read that is stopped while it runs had its credential all the same."""
    began = asyncio.Event()

    @tool(effect="read")
    async def find(name: str, token: Crm) -> str:
        """Find a contact."""
        began.set()
        await asyncio.Event().wait()
        return token.value

    async with running(tmp_path, agent(find)) as runtime:
        started = await runtime.start("desk", "find Bob")
        async with asyncio.timeout(SOON_S):
            await began.wait()
        await runtime.cancel(started.run)
        assert (await runtime.wait(started.run, timeout_s=SOON_S)).outcome == "cancelled"
        assert [one.outcome for one in await events(runtime, started.run, ev.CredentialUsed)] == ["minted"]


# --- a kill between the credential and the effect -------------------------------------------------------------------------

_KILLED = """
import asyncio, os, sys
from tests.runtime.desks.test_credentials import ENVIRONMENT, agent, asks, by_server, call, tool, Crm, Runtime
from tests.broker.auth_server import AuthServer
from pathlib import Path

@tool(effect="irreversible")
async def find(name: str, token: Crm, *, key: str) -> str:
    "Find a contact."
    Path(sys.argv[3]).write_text(token.value)
    os._exit(9)

async def main():
    server = AuthServer(url=sys.argv[1])
    desk = agent(find, crm=by_server(server))
    runtime = await Runtime.open(desk, data=sys.argv[2], clients={"*": asks(call("find", name="Bob"))}, environment=ENVIRONMENT)
    await runtime.start("desk", "find Bob", session="s")
    await asyncio.Event().wait()  # until it is killed

asyncio.run(main())
"""


async def test_killed_between_the_credential_and_the_effect(tmp_path: Path) -> None:
    """The attempt is in doubt as any is; the next has a new token and the same key, and neither token is in the store."""
    given: list[tuple[str, int, str]] = []

    @tool(effect="irreversible")
    async def find(name: str, token: Crm, context: ToolContext, *, key: str) -> str:
        """Find a contact."""
        given.append((token.value, context.attempt, key))
        return "done once"

    (data := tmp_path / "data").mkdir()
    async with auth_server() as server:
        noted = tmp_path / "noted"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED, server.url, str(data / "t.db"), str(noted), cwd=Path(__file__).parents[3],
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await asyncio.wait_for(process.communicate(), SOON_S)
        assert process.returncode == 9, said.decode()
        nowhere(data, *server.secrets)
        async with running(data, agent(find, crm=by_server(server))) as runtime:
            (row,) = await runtime.runs()
            view = await runtime.wait(row.run, timeout_s=SOON_S)
            starts = await events(runtime, row.run, ev.ToolCallStarted)
            used = await events(runtime, row.run, ev.CredentialUsed)
        ((token, attempt, key),) = given
    assert (view.text, attempt, len(starts)) == ("done once", 2, 2)
    assert token != noted.read_text()
    assert {start.key for start in starts} == {key}
    assert [(one.attempt, one.outcome) for one in used] == [(2, "minted")]
    nowhere(data, *server.secrets)


# --- what cannot be right -------------------------------------------------------------------------------------------------


@tool(effect="read")
async def needy(token: Crm) -> str:
    """Read."""
    return "x"


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        ({}, "needs the credential 'crm'; say where it comes from"),
        ({"crm": Environment("X")}, "with contacts.read, which is not among the source's scopes="),
        ({"crm": "plain-secret"}, "must be a source, such as Environment"),
        ({"a/b": Environment("X")}, "a name is 1 to 48 letters"),
        (["plain-secret"], "credentials must be a dict"),
    ],
)
async def test_agents_that_cannot_be_right(tmp_path: Path, credentials: Any, says: str) -> None:
    """What a tool needs and the agent may not have is found when the agent is opened; a value is never shown."""

    async def opened() -> None:
        made = Agent(name="desk", model=MODEL, tools=[needy], credentials=credentials)
        await Runtime.open(made, data=tmp_path / "t.db", clients={"*": asks()})

    with pytest.raises(ConfigError, match=says) as caught:
        await opened()
    assert "plain-secret" not in str(caught.value)


async def test_one_name_is_one_source(tmp_path: Path) -> None:
    """Two agents of a process that say "crm" mean the same: a user's connection is kept under the name."""
    pair = [Agent(name=name, model=MODEL, credentials={"crm": Environment(name)}) for name in ("A", "B")]
    with pytest.raises(ConfigError, match="give one of them another name"):
        await Runtime.open(*pair, data=tmp_path / "t.db", clients={"*": asks()})
    both: Sequence[Agent] = [
        Agent(name=name, model=MODEL, credentials={"crm": Environment("X")}) for name in ("A", "B")
    ]
    async with running(tmp_path, *both) as runtime:
        assert runtime.ready


def test_a_parameter_that_does_not_say_what_it_needs() -> None:
    """A credential without its name is refused where the tool is defined."""
    with pytest.raises(ConfigError, match=r'Annotated\[Credential, Needs\("crm"\)\]'):

        @tool(effect="read")
        async def bare(token: Credential) -> str:
            """Read."""
            return "x"

    with pytest.raises(ConfigError, match=r"scopes='contacts\.read' must be a tuple"):

        @tool(effect="read")
        async def loose(token: Annotated[Credential, Needs("crm", scopes="contacts.read")]) -> str:  # type: ignore[arg-type]
            """Read."""
            return "x"
