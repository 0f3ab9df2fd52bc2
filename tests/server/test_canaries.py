"""Secrets planted in everything that comes in, in every form and split over chunks: none is found in anything that we keep or say.

The server, its data file, its log and the model's provider are real. Beside each secret stands a word that is none, at the
same place: it must be found, or the search looks in the wrong place.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from aiohttp import web

from stanchion import Agent, Model, Runtime, tool
from stanchion.agent import Approve
from stanchion.core.bundle import RetryPolicy
from stanchion.core.errors import ConfigError, InputError, ToolError
from stanchion.core.money import price_usd
from stanchion.guard.secret import Secrets
from stanchion.runtime.opening.secrecy import known_secrets
from stanchion.server.log import Line
from stanchion.server.settings import Settings
from tests.server.serving import Served, served

PLACES = (
    *(
        "input",
        "message",
        "text",
        "thinking",
        "arguments",
        "result",
        "tool_error",
        "crash",
        "edit",
        "reason",
        "partial",
    ),
    *(
        "provider_error",
        "cancel",
        "schedule",
        "webhook",
        "session",
        "user",
        "idempotency",
        "field",
        "query",
        "path",
        "media",
    ),
    *("key", "after"),
)
MARK = "plainword"
MINTED = "minted-" + secrets.token_urlsafe(24)


class Canaries:
    """A secret for each place, and what stands there."""

    def __init__(self) -> None:
        self.values = {place: f"{place}+{secrets.token_urlsafe(18)}/{secrets.token_hex(4)}" for place in PLACES}
        self.values |= {place: f"{place}:{secrets.token_hex(12)}" for place in ("session", "user")}

    def at(self, place: str) -> str:
        """Write a place's secret in all forms, with the word that is none."""
        value = self.values[place]
        data = value.encode()
        coded = [base64.b64encode(before + data + b" and more").decode() for before in (b"", b"1", b"12")]
        safe = [base64.urlsafe_b64encode(before + data + b" and more").decode() for before in (b"", b"1", b"12")]
        wrapped = base64.encodebytes(b"a long text in front of it, so that lines are broken " + data).decode()
        split = f"{value[:11]}\n   {value[11:]}"
        forms = [
            value,
            *coded,
            *safe,
            wrapped,
            data.hex(),
            data.hex().upper(),
            quote(value, safe=""),
            quote_plus(value),
            split,
        ]
        return f"{MARK}-{place} " + " ; ".join(forms)

    def found_in(self, said: bytes) -> list[str]:
        """List the forms that bytes hold, looked for as they are and without the white space between."""
        low, bare = said.lower(), b"".join(said.split()).replace(b"\\n", b"")
        return [
            f"{place}: {form!r}"
            for place, form, fold in self._forms()
            if form in (low if fold else said) or form in bare
        ]

    def _forms(self) -> Iterator[tuple[str, bytes, bool]]:
        for place, value in [*self.values.items(), ("minted", MINTED)]:
            data = value.encode()
            yield place, data, False
            yield place, data.hex().encode(), True
            yield place, quote(value, safe="").encode(), False
            for before in range(3):
                coded = base64.b64encode(b"\0" * before + data)[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
                yield place, coded, False
                yield place, coded.translate(bytes.maketrans(b"+/", b"-_")), False


CANARIES = Canaries()
GOT: list[str] = []


@tool(effect="read")
async def look_up(order: str) -> dict[str, str]:
    """Look an order up."""
    return {"order": order, "note": CANARIES.at("result")}


@tool(effect="read")
async def refuse(order: str) -> str:
    """Say what is wrong."""
    raise ToolError(f"no: {CANARIES.at('tool_error')} {MINTED}")


@tool(effect="read")
async def crash(order: str) -> str:
    """Break."""
    raise RuntimeError(CANARIES.at("crash"))


@tool(effect="write")
async def note(text: str) -> str:
    """Write a note down."""
    GOT.append(text)
    return "noted"


def _events(blocks: list[tuple[str, str, Any]], stop: str, *, cut: bool = False) -> Iterator[bytes]:
    """Write an answer of the provider, a few characters at a time."""

    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    usage = {"input_tokens": 5, "output_tokens": 5}
    yield event(
        "message_start", message={"id": "msg_1", "role": "assistant", "content": [], "model": "m", "usage": usage}
    )
    for index, (kind, name, said) in enumerate(blocks):
        field, delta = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}.get(
            kind, ("partial_json", "input_json_delta")
        )
        start: dict[str, Any] = {"type": kind, field: ""}
        if kind == "tool_use":
            start = {"type": kind, "id": f"toolu_{name}", "name": name, "input": {}}
        yield event("content_block_start", index=index, content_block=start)
        for at in range(0, len(said), 7):
            yield event("content_block_delta", index=index, delta={"type": delta, field: said[at : at + 7]})
        yield event("content_block_stop", index=index)
    if not cut:
        yield event("message_delta", delta={"stop_reason": stop}, usage=usage)
        yield event("message_stop")


class Provider:
    """The model's provider: it fails, is cut off, calls tools, and answers. `asked`: the bodies that it was sent."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.go_on = asyncio.Event()
        self.answers: list[Callable[[], Iterator[bytes]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer."""
        self.asked.append(await request.read())
        turn = len(self.asked)
        if turn == 1:
            said = {"type": "error", "error": {"type": "api_error", "message": CANARIES.at("provider_error")}}
            return web.json_response(said, status=500)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in self._answer(turn):
            await response.write(piece)
        if turn == 4:
            await self.go_on.wait()
        await response.write_eof()
        return response

    def _answer(self, turn: int) -> Iterator[bytes]:
        if turn == 2:
            return _events([("text", "", CANARIES.at("partial"))], "end_turn", cut=True)
        if turn == 3:
            order = json.dumps({"order": CANARIES.at("arguments")})
            return _events(
                [
                    ("thinking", "", CANARIES.at("thinking")),
                    ("text", "", CANARIES.at("text")),
                    *(("tool_use", name, order) for name in ("look_up", "refuse", "crash")),
                    ("tool_use", "note", json.dumps({"text": "hello"})),
                ],
                "tool_use",
            )
        return _events([("text", "", "Done. " + CANARIES.at("after"))], "end_turn")


@asynccontextmanager
async def providing() -> AsyncGenerator[tuple[Provider, str]]:
    """Run the provider."""
    provider = Provider()
    app = web.Application()
    app.router.add_post("/{rest:.*}", provider.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield provider, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def desk() -> Agent:
    """The agent."""
    model = Model(
        "anthropic:claude-test", price=price_usd(input="1", output="1"), retries=RetryPolicy(attempts=4, base_s=0.001)
    )
    return Agent(
        name="desk",
        identity="Help.",
        model=model,
        tools=[look_up, refuse, crash, note],
        approvals=[Approve(tool="note")],
    )


class Lines(logging.Handler):
    """Keeps what would be written to the log, as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(Line("json"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Lines]:
    """The log of the server, everything that it says."""
    handler = Lines()
    loggers = [logging.getLogger(name) for name in ("stanchion", "uvicorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield handler
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


async def _plant(server: Served, provider: Provider, said: list[bytes]) -> str:
    """Send everything that can be sent; keep what is answered."""

    async def call(method: str, path: str, body: Any = None, **more: Any) -> Any:
        reply = await server.call(method, path, body, **more)
        said.append(repr(reply.headers).encode() + reply.raw)
        return reply

    at, values = CANARIES.at, CANARIES.values
    document = base64.b64encode(at("media").encode()).decode()
    start = {
        "agent": "desk",
        "input": [
            {"type": "text", "text": at("input")},
            {"type": "media", "mime": "text/plain", "data": document, "name": "notes.txt"},
        ],
    }
    run = (await call("POST", "/v1/runs", start)).json["run"]
    watching = asyncio.create_task(_stream(server, run, said))
    view = await server.until(run, "waiting")
    waiting = view["waiting"][0]
    await call("POST", f"/v1/runs/{run}/messages", {"input": at("message")})
    edit = {
        "call": waiting["call"], "decision": "edit", "revision": waiting["revision"],
        "arguments": {"text": at("edit")}, "reason": at("reason"),
    }  # fmt: skip
    assert (await call("POST", f"/v1/runs/{run}/decisions", edit)).status == 202
    provider.go_on.set()
    await server.until(run, "ended")
    await watching
    other = (await call("POST", "/v1/runs", {"agent": "desk", "input": "hello again", "session": "s2"})).json["run"]
    await call("POST", f"/v1/runs/{other}/cancel", {"reason": at("cancel")})
    for field in ("session", "user"):
        refused = await call("POST", "/v1/runs", {"agent": "desk", "input": "x", field: values[field]})
        assert (refused.status, refused.error["field"]) == (422, field)
    key = {"headers": {"idempotency-key": values["idempotency"]}}
    assert (await call("POST", "/v1/runs", {"agent": "desk", "input": "x"}, **key)).status == 422
    hook = {"agent": "desk", "input": "x", "webhook": {"url": f"https://example.com/{values['webhook']}"}}
    assert (await call("POST", "/v1/runs", hook)).status == 422
    assert (await call("POST", "/v1/webhooks", {"url": f"https://example.com/{values['webhook']}"})).status == 422
    plan = {"cron": "0 9 * * *", "agent": "desk", "input": at("schedule")}
    assert (await call("PUT", "/v1/schedules/daily", plan)).status < 300
    assert (await call("POST", "/v1/runs", {"agent": values["field"], "input": "x", values["field"]: 1})).status == 422
    assert (await call("POST", "/v1/runs", {"agent": values["field"], "input": "x"})).status == 404
    assert (await call("GET", f"/v1/runs?status={quote(values['query'])}&limit={quote(values['query'])}")).status == 400
    assert (await call("GET", f"/v1/nothing/{values['path']}")).status == 404
    assert (await call("GET", f"/v1/runs/{quote(values['path'], safe='')}")).status == 404
    for path in (
        f"/v1/runs/{run}",
        f"/v1/runs/{run}/events?deltas=false",
        "/v1/runs",
        "/v1/schedules",
        "/v1/sessions",
        "/v1/approvals",
    ):
        await call("GET", path)
    return run


async def _stream(server: Served, run: str, said: list[bytes]) -> None:
    """Read a run's stream as it comes, byte for byte."""
    headers = {"accept": "text/event-stream"}
    async with server.session.get(f"{server.url}/v1/runs/{run}/events", headers=headers) as response:
        said.append(await response.read())


@pytest.mark.parametrize("kind", ["file", "database"])
async def test_no_secret_is_found_in_anything_that_is_kept_or_said(
    tmp_path: Path, log: Lines, kind: str, request: pytest.FixtureRequest
) -> None:
    """Requests, what models and tools and providers say, decisions: all of it is searched for all of it."""
    GOT.clear()
    data = "test.db" if kind == "file" else request.getfixturevalue("dsn")
    said: list[bytes] = []
    async with providing() as (provider, url):
        environment = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": CANARIES.values["key"]}
        named = {place: value for place, value in CANARIES.values.items() if place not in ("key", "input")}
        environment["STANCHION_SECRET_input"] = CANARIES.values["input"]
        settings = Settings(port=0, grace_s=5.0, log="off", access_log=True)
        async with served(
            tmp_path, agents=[desk()], settings=settings, data=data, clients={}, environment=environment, secrets=named
        ) as server:
            server.runtime.secrets.add("minted", MINTED, minted=True)
            run = await _plant(server, provider, said)
            broken = RuntimeError(CANARIES.at("crash"))
            log_ = logging.getLogger("stanchion.engine")
            log_.error(
                "%s broke by %s", CANARIES.at("crash"), "jane@example.com", exc_info=broken, extra={"id": MINTED}
            )
            kept = await _kept(server.runtime, tmp_path if kind == "file" else None)
        kept += _files(tmp_path) if kind == "file" else b""
    streams, lines, prompts = b"\n".join(said), "\n".join(log.lines).encode(), b"\n".join(provider.asked)
    for name, blob in (
        ("kept", kept),
        ("said", streams),
        ("log", lines),
        ("prompts", prompts),
        ("tool", repr(GOT).encode()),
    ):
        assert CANARIES.found_in(blob) == [], name
        _holds_the_words(name, blob)
    assert b"jane@example.com" not in lines
    assert run.encode() in lines + streams


def _holds_the_words(name: str, blob: bytes) -> None:
    """The words that are no secret came through: what was searched is what was said."""
    journaled = {
        "input",
        "message",
        "text",
        "thinking",
        "arguments",
        "result",
        "tool_error",
        "crash",
        "edit",
        "reason",
        "partial",
        "provider_error",
        "after",
    }
    wanted = {
        "kept": journaled | {"cancel", "schedule"},
        "said": journaled | {"schedule"},
        "log": {"crash"},
        "prompts": {"input", "message", "text", "arguments", "result", "tool_error", "edit"},
        "tool": {"edit"},
    }[name]
    missing = {place for place in wanted if f"{MARK}-{place}".encode() not in blob}
    assert missing == set(), (name, missing)
    assert (b"[secret:" in blob) is True


async def _kept(runtime: Runtime, folder: Path | None) -> bytes:
    """Read all that a store holds: its files, and its rows as they come out (envelopes lie packed in a file)."""
    found: list[object] = []
    for row in await runtime.store.runs("default", limit=100):
        found += [row, *await runtime.store.read("default", row.run), *await runtime.store.inbox("default", row.run)]
        found.append(await runtime.store.bundle("default", row.bundle))
    found += [*await runtime.store.schedules.listed("default"), *await runtime.store.sessions("default", limit=100)]
    found += await runtime.store.outbox.endpoints("default")
    return b"\n".join(msgspec.json.encode(item) for item in found) + (_files(folder) if folder else b"")


def _files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# --- what is registered, and what is refused ---------------------------------------------------------------------------


def test_what_a_process_knows_is_registered() -> None:
    """By name, by variable, the keys of providers, the password of the database; not what is no secret by its length."""
    environment = {
        "STANCHION_SECRET_CRM": "crm-token-123",
        "STANCHION_SECRET_EMPTY": "",
        "OPENAI_API_KEY": "sk-0123456789",
        "VLLM_API_KEY": "none",
        "OTHER": "not-a-secret-of-ours",
    }
    found: Secrets = known_secrets({"mine": "12345678"}, environment, "postgresql://app:s3cr3t-p%40ssword@db/x")
    assert found.names() == {"mine", "CRM", "OPENAI_API_KEY", "DATABASE_PASSWORD"}
    assert found.spans("postgresql://app:s3cr3t-p@ssword@db/x")
    with pytest.raises(ConfigError, match="PIN"):
        known_secrets({}, {"STANCHION_SECRET_PIN": "1234"})


async def test_an_agent_that_holds_a_secret_is_refused(tmp_path: Path) -> None:
    """Its identity would be stored, and said to the model."""
    agent = Agent(name="desk", identity="The key is crm-token-123.", model="anthropic:claude-sonnet-4-6")
    with pytest.raises(ConfigError, match=r"its identity holds \[secret:CRM\]"):
        await Runtime.open(agent, data=tmp_path / "a.db", secrets={"CRM": "crm-token-123"}, drive=False)


async def test_a_name_that_holds_a_secret_is_refused(tmp_path: Path) -> None:
    """Names are stored as they are; the message does not say the value."""
    runtime = await Runtime.open(desk(), data=tmp_path / "a.db", secrets={"CRM": "crm-token-123"}, drive=False)
    async with runtime:
        with pytest.raises(InputError, match=r"session: holds \[secret:CRM\]") as caught:
            await runtime.start("desk", "hello", session="crm-token-123")
        assert "crm-token" not in str(caught.value)
