"""A tenant with one of everything that has a name, and how another tenant's key is tried on all of it.

The tenant is `ACME`. Whatever it names itself holds "acme", and whatever is said in its runs holds "quince": neither is
part of anything else, so that one search of an answer or a log line finds all that got out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from aiohttp import web

from stanchion import Runtime, tool
from stanchion.agent import Agent, Approve, Model
from stanchion.core.bundle import Timeouts
from stanchion.core.errors import ModelError
from stanchion.core.fact import Owner
from stanchion.core.message import Delta, ModelRequest, ModelResponse, Text, ToolResult
from stanchion.core.money import price_usd
from stanchion.core.policy import Destination
from stanchion.engine.deliver import WebhookSettings
from stanchion.model.client import OnDeltas
from stanchion.testing import ScriptedModel, call
from tests.runtime.receiver import Message
from tests.server.serving import MODEL_NAME, Served
from tests.waiting import SOON_S, until

ACME, GLOBEX = "acme", "globex"
CONTENT = "quince"
GRANTED = "grant-acme"
"""The session in which something was allowed."""
BATCHED = Model("anthropic:claude-test", price=price_usd(input="1", output="1"))
LOCAL = WebhookSettings(allow_private=True)
ENVIRONMENT = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": "none"}
_MADE_IDS = re.compile(r"\b(run_|ses_|hook_|msg_|whsec_|fact_)[0-9A-Za-z_+/=-]+")
_TIMES = re.compile(r'"(\w+_ms|seen_s_ago)":(\[[\d,]*\]|[\d.]+)')


# --- the tenant's agents and model ------------------------------------------------------------------------------------------


@tool(effect="read")
async def look_up(order: str) -> str:
    """Look an order up."""
    return f"{order} was shipped, {CONTENT}"


@tool(effect="read")
async def stumble(order: str) -> str:
    """Fail."""
    raise ValueError(f"{CONTENT} {order}")


@tool(effect="irreversible")
async def refund(order: str, cents: int, *, key: str) -> str:
    """Refund an order."""
    return f"refunded {cents}, {CONTENT}"


@tool(effect="write")
async def send(to: Annotated[str, Destination("email")]) -> str:
    """Send a letter."""
    return f"sent, {CONTENT}"


def desk(name: str = "support", model: Model = MODEL_NAME) -> Agent:
    """Make an agent."""
    tools: list[Any] = [look_up, stumble, refund, send]
    return Agent(name=name, model=model, tools=tools, approvals=[Approve(effect="irreversible")], identity="Help.")


class Player(ScriptedModel):
    """Does what it is asked by the last word of the user; at "hold" it begins to speak, and is silent until `go_on`."""

    def __init__(self) -> None:
        super().__init__(_play)
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        """Answer."""
        if _heard(request).endswith("hold"):
            assert on_deltas is not None
            on_deltas([Delta("text", 0, f"{CONTENT} draft")])
            self.began.set()
            await self.go_on.wait()
            on_deltas = None
        return await super().call(request, timeouts=timeouts, on_deltas=on_deltas)


def _heard(request: ModelRequest) -> str:
    said = [p.text for m in request.messages if m.role == "user" for p in m.parts if isinstance(p, Text)]
    return said[-1]


def _play(request: ModelRequest) -> Any:
    heard = _heard(request)
    if any(isinstance(part, ToolResult) for part in request.messages[-1].parts):
        return f"Done: {heard}"
    match heard.split()[-1]:
        case "look":
            return [call("look_up", order=CONTENT), call("stumble", order=CONTENT)]
        case "refund":
            return call("refund", order=CONTENT, cents=1250)
        case "send":
            return call("send", to=f"ann@{CONTENT}.example")
        case "fail":
            raise ModelError(f"{CONTENT} cannot be said", code="bad_request", retryable=False, status=400)
        case _:
            return f"You said: {heard}"


# --- one of everything --------------------------------------------------------------------------------------------------------


@dataclass
class Owned:
    """What the tenant has: names by kind, and what else is nobody's business."""

    key: str
    ids: dict[str, list[str]]
    call: str
    """The call that waits for a person."""
    secrets: list[str]

    @property
    def names(self) -> list[str]:
        """Every id."""
        return [name for names in self.ids.values() for name in names]

    def found_in(self, text: str, *, sent: Sequence[str] = ()) -> list[str]:
        """List what of the tenant's stands in a text, apart from ids that the asker sent himself."""
        rest = text
        for name in sent:
            rest = rest.replace(name, "")
        marks = [ACME, CONTENT, *(name for name in self.names if name not in sent), *self.secrets]
        return [mark for mark in marks if mark in rest]


async def leave_standing(data: str | Path) -> list[str]:
    """Put two runs into a store that no worker will go on with: no agent for one, too many claims of the other."""
    agents = [desk(), desk("gone")]
    async with await Runtime.open(*agents, data=data, drive=False, webhooks=LOCAL) as runtime:
        runs = [
            (await runtime.start(name, f"{CONTENT} stands", tenant=ACME, user="ann-acme", session=f"{name}-acme")).run
            for name in ("gone", "support")
        ]
        claims = 0
        while claims < 6:  # each claim ends at once, and none makes progress
            claims += await runtime.store.claim(ACME, runs[1], worker=f"w{claims}", lease_ms=1) is not None
    return runs


async def settle(server: Served, model: Player, receiver_url: str, standing: Sequence[str]) -> Owned:
    """Give the tenant of `server.key` one of everything, and wait until nothing of it moves any more."""
    runtime = server.runtime
    (key,) = [row for row in await runtime.keys.list() if row.tenant == ACME]
    hooks = [await _made(server, "/v1/webhooks", {"url": f"{receiver_url}/acme/{way}"}) for way in ("well", "gone")]
    for ledger in ("user:ann-acme", "session:talk-acme"):
        assert (await server.call("PUT", f"/v1/budgets/{ledger}", {"usd": "5"})).status == 200
    await runtime.set_budget("tenant", "77.77", tenant=ACME)
    await runtime.set_budget("all", "1000", tenant=ACME)
    await runtime.shares.set(tenant=ACME, weight=7)
    await runtime.shares.set("user:ann-acme", tenant=ACME, max_running=70)
    for name, enabled in (("daily-acme", True), ("paused-acme", False)):
        schedule = {"cron": "0 0 1 1 *", "agent": "support", "input": CONTENT, "user": "ann-acme", "enabled": enabled}
        assert (await server.call("PUT", f"/v1/schedules/{name}", schedule)).status == 200
    fact = {"space": "support", "attribute": "city", "value": CONTENT}
    facts = [(await _made(server, "/v1/memory/ann-acme", fact))["id"]]
    runs = await _runs(server, model, f"{receiver_url}/acme/callback")
    runs += standing
    for run, status in (
        (runs[0], "ended"),
        (runs[1], "ended"),
        (runs[2], "waiting"),
        *((run, "parked") for run in standing),
    ):
        view = await runtime.wait(run, tenant=ACME, timeout_s=20)
        assert view.status == status, view
    grant = await _allowed(server)
    deliveries = await _settled(server)
    (waiting,) = (await runtime.view(runs[2], tenant=ACME)).waiting
    secrets = [(await server.call("GET", "/v1/webhooks/secret")).json["secret"], *(hook["secret"] for hook in hooks)]
    ids = {
        "run": runs,
        "session": [row.session for row in await runtime.sessions(tenant=ACME)],
        "user": ["ann-acme"],
        "ledger": ["user:ann-acme", "session:talk-acme"],
        "name": ["daily-acme", "paused-acme"],
        "id": [hook["id"] for hook in hooks],
        "delivery": [deliveries[0]["id"], deliveries[-1]["id"]],
        "key": [key.id, "key-acme"],
        "grant": [grant],
        "fact": facts,
    }
    return Owned(server.key, ids, waiting.call, [server.key, *secrets])


async def _made(server: Served, path: str, body: Any) -> Any:
    said = await server.call("POST", path, body)
    assert said.status < 300, said.raw
    return said.json


async def _runs(server: Served, model: Player, callback: str) -> list[str]:
    """Start a run of each standing: ended, failed, waiting for a person, queued, in a model call, in a batch."""
    asked: list[dict[str, Any]] = [
        {"input": "look", "session": "talk-acme", "user": "ann-acme", "webhook": {"url": callback}},
        {"input": "fail"},
        {"input": "refund", "session": "ask-acme", "user": "ann-acme"},
        {"input": "look", "session": "ask-acme", "user": "ann-acme", "if_busy": "queue"},
        {"input": "hold", "session": "held-acme"},
        {"input": "look", "session": "batch-acme", "agent": "batched", "batch_api": True},
    ]
    runs: list[str] = []
    for number, body in enumerate(asked):
        whole = {"agent": "support"} | body | {"input": f"{CONTENT} {body['input']}"}
        headers = {"idempotency-key": f"key-acme{number or ''}"}
        said = await server.call("POST", "/v1/runs", whole, headers=headers)
        assert said.status == 202, said.raw
        runs.append(said.json["run"])
        if body["input"] == "refund":
            await server.runtime.wait(runs[-1], tenant=ACME, timeout_s=20)
    await asyncio.wait_for(model.began.wait(), SOON_S)
    await until(server.runtime.store.tray.waiting)
    return runs


async def _allowed(server: Served) -> str:
    """Have a person allow where a call goes for the rest of the session "grant-acme"; give the grant."""
    body = {"agent": "support", "input": f"{CONTENT} send", "session": GRANTED, "mode": "wait"}
    view = await _made(server, "/v1/runs", body)
    decision = {"call": view["waiting"][0]["call"], "decision": "approve", "allow": "destination"}
    await _made(server, f"/v1/runs/{view['run']}/decisions", decision)
    assert (await server.runtime.wait(view["run"], tenant=ACME, timeout_s=20)).outcome == "done"
    (grant,) = (await server.call("GET", f"/v1/sessions/{GRANTED}/grants")).json["grants"]
    return grant["id"]


async def _settled(server: Served) -> list[Any]:
    """Wait until each delivery was accepted or given up."""

    async def look() -> list[Any]:
        return (await server.call("GET", "/v1/webhooks/deliveries?limit=200")).json["deliveries"]

    rows = await until(look, lambda rows: {row["standing"] for row in rows} == {"done", "dead"})
    return sorted(rows, key=lambda row: row["standing"])


def receive(message: Message) -> web.Response:
    """Answer a delivery: one receiver takes it, one is gone for good."""
    return web.Response(status=410 if message.path.endswith("gone") else 204)


# --- what is compared -----------------------------------------------------------------------------------------------------------


def nobody(name: str) -> str:
    """Make an id of the same form and length that nobody has."""
    return name[:-3] + "".join("y" if letter == "z" else "z" for letter in name[-3:])


def blurred(text: str, sent: Sequence[str]) -> str:
    """Blur in an answer what differs between two equal ones: the ids that were sent, ids made for the asker, times."""
    for name in sent:
        text = text.replace(name, "<id>")
    return _TIMES.sub(r'"\1":0', _MADE_IDS.sub(r"\1", text))


async def snapshot(runtime: Runtime, tenant: str) -> dict[str, Any]:
    """Read all that a store holds of a tenant, apart from the leases of what is being driven."""
    store = runtime.store
    rows = await store.runs(tenant, limit=200)
    endpoints = list(await store.outbox.endpoints(tenant))
    return {
        "runs": [msgspec.structs.replace(row, lease_until_ms=0, updated_ms=0) for row in rows],
        "events": {row.run: list(await store.raw(tenant, row.run)) for row in rows},
        "inboxes": {row.run: list(await store.inbox(tenant, row.run)) for row in rows},
        "sessions": list(await store.sessions(tenant, limit=200)),
        "ledgers": list(await store.ledgers(tenant)),
        "keys": list(await store.keys(tenant)),
        "api keys": [row for row in await store.api_keys() if row.tenant == tenant],
        "facts": list(await store.memories.facts(Owner(tenant, "ann-acme", ""), history=True)),
        "schedules": list(await store.schedules.listed(tenant)),
        "endpoints": [*endpoints, *[await store.outbox.endpoint(tenant, row.run) for row in rows]],
        "secrets": await store.outbox.secrets(tenant),
        "deliveries": list(await store.outbox.deliveries(tenant, limit=200)),
        "shares": [row for row in await store.sharing.rows() if row.tenant == tenant],
        "tray": {lane: count for lane, (count, _) in (await store.tray.waiting()).items()},
    }
