"""Another tenant's key, tried on every route with every id: it finds nothing, learns nothing and changes nothing.

What an answer tells is measured against an id that nobody has: status, headers and body must be the same. The routes are
those of the application itself, so a new one fails here until `PLACES` says whose it is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from fastapi.routing import iter_route_contexts

from stanchion.server.app import create_app
from tests.runtime.receiver import receiving
from tests.server.serving import QUIET, Json, Reply, Served, served
from tests.server.tenancy import (
    ACME,
    BATCHED,
    CONTENT,
    ENVIRONMENT,
    GLOBEX,
    GRANTED,
    LOCAL,
    Owned,
    Player,
    blurred,
    desk,
    leave_standing,
    nobody,
    receive,
    settle,
    snapshot,
)

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Place:
    """Whose a route is, and what is asked of it: bodies and queries, in which {id} stands for each id in turn."""

    whose: Literal["tenant", "operator", "all"]
    """The asker's own alone; refused to tenants; the same for all of them."""
    bodies: tuple[Any, ...] = (None,)
    queries: tuple[str, ...] = ("",)
    makes: bool = False
    """It makes something of the asker's own under any name, so it is tried last."""


PLACES: dict[tuple[str, str], Place] = {
    ("GET", "/openapi.json"): Place("all"),
    ("HEAD", "/openapi.json"): Place("all"),
    ("GET", "/health"): Place("all"),
    ("GET", "/ready"): Place("all"),
    ("GET", "/v1/agents"): Place("all"),
    ("GET", "/v1/workers"): Place("all"),
    ("GET", "/v1/shares"): Place("tenant"),
    ("PUT", "/v1/shares"): Place("operator", ({"tenant": ACME, "weight": 1}, {"weight": 2})),
    ("GET", "/v1/quotas"): Place("operator"),
    ("PUT", "/v1/quotas/{name:path}"): Place("operator", ({"rpm": 1},)),
    ("DELETE", "/v1/quotas/{name:path}"): Place("operator"),
    ("GET", "/v1/runs"): Place(
        "tenant", queries=("", "before={id}", "session={id}", "user={id}", "agent=support", "status=parked")
    ),
    ("GET", "/v1/costs"): Place(
        "tenant", queries=("", "session={id}", "user={id}", "by=session,user", "by=tenant,run", "agent=support&by=day")
    ),
    ("GET", "/v1/forecast"): Place(
        "tenant", queries=("agent=support", "agent=support&turns=3", "agent={id}", "agent=support&input_bytes=9")
    ),
    ("POST", "/v1/runs"): Place(
        "tenant", tuple({"agent": "support", "input": "Hi", name: "{id}"} for name in ("session", "user")), makes=True
    ),
    ("GET", "/v1/runs/{run}"): Place("tenant"),
    ("GET", "/v1/runs/{run}/events"): Place("tenant", queries=("", "format=json", "after=1", "after=999")),
    ("GET", "/v1/runs/{run}/calls/{call}/explanation"): Place("tenant"),
    ("POST", "/v1/runs/{run}/cancel"): Place("tenant", (None, {"reason": "no"})),
    ("POST", "/v1/runs/{run}/decisions"): Place(
        "tenant",
        (
            {"call": "{call}", "decision": "approve"},
            {"call": "{id}", "decision": "reject"},
            {"decisions": [{"call": "{call}", "decision": "reject"}]},
        ),
    ),
    ("POST", "/v1/runs/{run}/messages"): Place("tenant", ({"input": "Hi"},)),
    ("POST", "/v1/runs/{run}/revive"): Place("tenant", (None, {"by": "me"})),
    ("GET", "/v1/sessions"): Place("tenant", queries=("", "before={id}")),
    ("GET", "/v1/sessions/{session}"): Place("tenant"),
    ("GET", "/v1/sessions/{session}/messages"): Place("tenant"),
    ("GET", "/v1/sessions/{session}/grants"): Place("tenant"),
    ("DELETE", "/v1/sessions/{session}/grants/{grant}"): Place("tenant"),
    ("GET", "/v1/approvals"): Place(
        "tenant", queries=("", "before={id}", "session={id}", "user={id}", "agent=support")
    ),
    ("GET", "/v1/dlq"): Place("tenant", queries=("", "reason=all", "reason=all&before={id}", "reason=agent_missing")),
    ("GET", "/v1/dlq/{run}"): Place("tenant"),
    ("POST", "/v1/dlq/replay"): Place("tenant", ({}, {"reason": "agent_missing"}, {"agent": "gone"})),
    ("POST", "/v1/dlq/{run}/replay"): Place("tenant"),
    ("POST", "/v1/dlq/{run}/drop"): Place("tenant"),
    ("GET", "/v1/budgets"): Place("tenant"),
    ("GET", "/v1/budgets/{ledger:path}"): Place("tenant"),
    ("PUT", "/v1/budgets/{ledger:path}"): Place("tenant", ({"usd": "1"}, {"usd": None}), makes=True),
    ("GET", "/v1/schedules"): Place("tenant"),
    ("GET", "/v1/schedules/{name}"): Place("tenant"),
    ("PUT", "/v1/schedules/{name}"): Place(
        "tenant", ({"cron": "0 0 1 1 *", "agent": "support", "input": "Hi"},), makes=True
    ),
    ("PATCH", "/v1/schedules/{name}"): Place("tenant", ({"enabled": False}, {"enabled": True})),
    ("POST", "/v1/schedules/{name}/run"): Place("tenant"),
    ("DELETE", "/v1/schedules/{name}"): Place("tenant"),
    ("GET", "/v1/connections"): Place("tenant", queries=("", "user={id}")),
    ("GET", "/v1/connections/callback"): Place("tenant", queries=("", "state={id}&user={id}&code=x", "user={id}")),
    ("GET", "/v1/connections/{name}/authorize"): Place("tenant", queries=("", "user={id}")),
    ("DELETE", "/v1/connections/{name}"): Place("tenant", queries=("", "user={id}")),
    ("GET", "/v1/memory"): Place("tenant", queries=("", "after={id}")),
    ("GET", "/v1/memory/{user}"): Place("tenant", queries=("", "query={id}", "history=true", "space={id}")),
    ("POST", "/v1/memory/{user}"): Place(
        "tenant", ({"space": "support", "attribute": "city", "value": "Hi"},), makes=True
    ),
    ("DELETE", "/v1/memory/{user}"): Place("tenant"),
    ("GET", "/v1/memory/{user}/{fact}"): Place("tenant"),
    ("PATCH", "/v1/memory/{user}/{fact}"): Place("tenant", ({"value": "{id}"},)),
    ("POST", "/v1/memory/{user}/{fact}/retract"): Place("tenant", (None, {})),
    ("DELETE", "/v1/memory/{user}/{fact}"): Place("tenant"),
    ("GET", "/v1/webhooks"): Place("tenant"),
    ("POST", "/v1/webhooks"): Place("tenant", ({"url": "http://127.0.0.1:9/x", "agents": ["{id}"]},), makes=True),
    ("GET", "/v1/webhooks/deliveries"): Place(
        "tenant", queries=("", "before={id}", "endpoint={id}", "run={id}", "standing=dead")
    ),
    ("GET", "/v1/webhooks/deliveries/{delivery}"): Place("tenant"),
    ("POST", "/v1/webhooks/redeliver"): Place("tenant", ({"id": "{id}"},)),
    ("GET", "/v1/webhooks/secret"): Place("tenant"),
    ("POST", "/v1/webhooks/secret"): Place("tenant"),
    ("GET", "/v1/webhooks/{id}"): Place("tenant"),
    ("PATCH", "/v1/webhooks/{id}"): Place("tenant", ({"enabled": True},)),
    ("DELETE", "/v1/webhooks/{id}"): Place("tenant"),
    ("POST", "/v1/webhooks/{id}/test"): Place("tenant"),
    ("POST", "/v1/webhooks/{id}/secret"): Place("tenant", (None, {"overlap_s": 0})),
}


def routes() -> list[tuple[str, str]]:
    """List every route that the application takes, those that its document leaves out as well."""
    app = create_app(None)  # type: ignore[arg-type] the routes need no runtime
    contexts = list(iter_route_contexts(app.routes))
    return [(method, context.path or "") for context in contexts for method in sorted(context.methods or ())]


def test_each_route_says_whose_it_is() -> None:
    """A route that is not in `PLACES` is open to nobody knows whom: say whether it is a tenant's, the operator's or all's."""
    found = routes()
    assert len(found) > 40
    assert set(found) == set(PLACES), "place the routes that differ in PLACES, and give a tenant one of what they name"


def test_what_is_the_same_for_all_tenants_says_so() -> None:
    """A route that tells a tenant of what is not its own alone says in its document that it is of all tenants."""
    paths = create_app(None).openapi()["paths"]  # type: ignore[arg-type]
    everyones = [key for key, place in PLACES.items() if place.whose == "all" and key[1].startswith("/v1/")]
    assert everyones
    for method, path in everyones:
        assert "all tenants" in paths[path][method.lower()]["description"], (method, path)


# --- every route with every id ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def acme(folder: Path, data: str) -> AsyncGenerator[tuple[Served, Owned, str]]:
    """Serve a tenant that has one of everything, and make a key for another that has nothing."""
    model = Player()
    standing = await leave_standing(data if "://" in data else folder / data)
    options: Json = {"clients": {"openai": model}, "environment": ENVIRONMENT, "webhooks": LOCAL}
    agents = [desk(), desk("batched", BATCHED)]
    settings = msgspec.structs.replace(QUIET, access_log=True)
    async with (
        receiving() as receiver,
        served(
            folder,
            agents=agents,
            settings=settings,
            tenants=[ACME, GLOBEX],
            data=data,
            batch_gather_s=3600.0,
            **options,
        ) as server,
    ):
        receiver.answer = receive
        owned = await settle(server, model, receiver.url, standing)
        _, other = await server.runtime.keys.add(GLOBEX, "tried")
        try:
            yield server, owned, other
        finally:
            model.go_on.set()


class Trial:
    """Asks as another tenant, and compares. `paths`: what was asked for, which the access log may repeat."""

    def __init__(self, server: Served, owned: Owned, key: str) -> None:
        self.server, self.owned, self.key = server, owned, key
        self.asked = 0
        self.paths: set[str] = set()

    async def ask(self, method: str, path: str, body: Any, query: str, sent: str, session: str) -> Reply:
        """Ask with an id in its place, of something in a session. Nothing of the tenant's may stand in the answer."""
        others = {"call": self.owned.call} | ({"session": session} if path.count("{") > 1 else {})
        others |= {"user": self.owned.ids["user"][0]} if "{fact}" in path else {}
        text = msgspec.json.encode(body).decode().replace("{id}", sent).replace("{call}", self.owned.call)
        where = _PARAMETER.sub(lambda found: others.get(found[1], sent), path)
        address = f"{where}?{query.replace('{id}', sent)}" if query else where
        self.paths.add(where)
        said = await self.server.call(method, address, None if body is None else text.encode(), key=self.key)
        told = said.raw.decode() + str(said.headers)
        assert self.owned.found_in(told, sent=(sent, session, others.get("user", sent))) == [], (method, address, told)
        assert said.status < 500, (method, address, told)
        self.asked += 1
        return said

    async def compare(self, method: str, path: str, place: Place, name: str) -> None:
        """Ask for an id of the tenant's, and for one that nobody has: it must be all the same."""
        for body in place.bodies:
            for query in place.queries:
                if "{" not in f"{path}{query}{msgspec.json.encode(body).decode()[1:]}" and name != self.owned.names[0]:
                    continue  # no id is in it: once will do
                pairs = ((name, GRANTED), (nobody(name), nobody(GRANTED)))
                found, missed = [await self.ask(method, path, body, query, *pair) for pair in pairs]
                assert found.status == missed.status, (method, path, name, found.raw, missed.raw)
                if place.whose == "operator":
                    assert (found.status, found.error["code"]) == (403, "forbidden"), (method, path)
                for one, pair in zip((found, missed), pairs, strict=True):
                    one.raw = blurred(one.raw.decode(), pair).encode()
                assert found.raw == missed.raw, (method, path, name)
                heads = [
                    sorted((n, v) for n, v in one.headers.items() if n.lower() != "date") for one in (found, missed)
                ]
                assert blurred(str(heads[0]), pairs[0]) == blurred(str(heads[1]), pairs[1])


@pytest.fixture(params=["sqlite", "postgres"])
def data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name a store of each kind. Runs that no worker serves are parked at once, as where a process is alone."""
    monkeypatch.setattr("stanchion.engine.taking.GRACE_S", 0.0)
    monkeypatch.setattr("stanchion.engine.taking.MISSING_CHECK_S", 0.1)
    return "test.db" if request.param == "sqlite" else request.getfixturevalue("dsn")


async def test_another_tenants_key_finds_nothing(tmp_path: Path, data: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every route, every method, every id of another tenant: as if there were none; and nothing of the tenant has changed."""
    caplog.set_level(logging.DEBUG)
    async with acme(tmp_path, data) as (server, owned, other):
        before = await snapshot(server.runtime, ACME)
        assert all(before.values()), before
        trial = Trial(server, owned, other)
        caplog.clear()
        for (method, path), place in sorted(PLACES.items(), key=lambda item: item[1].makes):
            for name in owned.names:
                await trial.compare(method, path, place, name)
        for path in dict.fromkeys(path for _, path in PLACES):
            for method in METHODS:
                if (method, path) not in PLACES:
                    for name in owned.names[:1]:
                        await trial.compare(method, path, Place("tenant", queries=("x={id}",)), name)
        assert trial.asked > 2_000
        assert await snapshot(server.runtime, ACME) == before
        assert [found.error async for found in server.runtime.verify(tenant=ACME)] == [""] * len(before["runs"])
        lines = [vars(record) for record in caplog.records]
    logged = {str(line["path"]) for line in lines if "path" in line}
    assert logged <= trial.paths
    assert len(logged) > len(PLACES)
    assert {line["tenant"] for line in lines if line.get("status") == 200 and line["path"].startswith("/v1/")} == {
        GLOBEX
    }
    assert owned.found_in(" ".join(str(line | {"path": ""}) for line in lines)) == []


async def test_no_line_of_the_log_holds_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Runs that end, fail, wait and stand: the lines about them say whose they are and nothing of what was said in them."""
    caplog.set_level(logging.DEBUG)
    async with acme(tmp_path, "test.db") as (_, owned, _):
        pass
    lines = [f"{vars(record)} {record.exc_text}" for record in caplog.records]
    assert CONTENT not in " ".join(lines)
    assert [secret for secret in owned.secrets if secret in " ".join(lines)] == []
    about = [record for record in caplog.records if any(run in record.getMessage() for run in owned.ids["run"])]
    assert {vars(record)["tenant"] for record in about} == {ACME}


async def test_its_own_key_finds_it_all(tmp_path: Path) -> None:
    """The trial above would find what there is: with the tenant's own key the same routes answer with its data."""
    async with acme(tmp_path, "test.db") as (server, owned, _):
        for kind, path in (
            ("run", "/v1/runs/{}"),
            ("session", "/v1/sessions/{}/messages"),
            ("session", "/v1/sessions/{}/grants"),
            ("ledger", "/v1/budgets/{}"),
            ("name", "/v1/schedules/{}"),
            ("user", "/v1/memory/{}"),
            ("fact", "/v1/memory/ann-acme/{}"),
            ("id", "/v1/webhooks/{}"),
            ("delivery", "/v1/webhooks/deliveries/{}"),
        ):
            for name in owned.ids[kind]:
                assert (await server.call("GET", path.format(name))).status == 200, name
        standings = {row["status"] for row in (await server.call("GET", "/v1/runs")).json["runs"]}
        assert standings == {"ended", "waiting", "queued", "runnable", "parked"}
        waiting = (await server.call("GET", "/v1/approvals")).json["approvals"]
        assert [call["call"] for call in waiting] == [owned.call]
        assert owned.ids["grant"][0] in (await server.call("GET", f"/v1/sessions/{GRANTED}/grants")).raw.decode()
        letters = (await server.call("GET", "/v1/dlq?reason=all")).json["letters"]
        assert {letter["reason"] for letter in letters} == {"dead_letter", "agent_missing"}
        deliveries = (await server.call("GET", "/v1/webhooks/deliveries?limit=200")).json["deliveries"]
        assert {row["standing"] for row in deliveries} == {"done", "dead"}
        assert len(owned.found_in(f"{owned.names} {owned.secrets} {ACME} {CONTENT}")) == len(owned.names) + 2 + len(
            owned.secrets
        )


# --- names that two tenants have in common ------------------------------------------------------------------------------------


async def test_what_two_tenants_name_alike_is_two_things(tmp_path: Path, data: str) -> None:
    """One session, user, schedule, budget and idempotency key in both: neither's words, money or events reach the other."""
    model = Player()
    async with served(tmp_path, model, agents=[desk()], tenants=[ACME, GLOBEX], data=data) as server:
        _, other = await server.runtime.keys.add(GLOBEX, "second")
        keys = {ACME: server.key, GLOBEX: other}
        runs = {tenant: await _talk(server, tenant, key) for tenant, key in keys.items()}
        assert set(runs[ACME]).isdisjoint(runs[GLOBEX])
        for (tenant, key), stranger in zip(keys.items(), (GLOBEX, ACME), strict=True):
            listed = (await server.call("GET", "/v1/runs?session=s1&user=ann", key=key)).json["runs"]
            assert [row["run"] for row in listed] == runs[tenant][::-1]
            told = [await _told(server, f"/v1/runs/{run}/events", key) for run in runs[tenant]]
            paths = ("/v1/sessions/s1/messages", "/v1/schedules/daily", "/v1/runs", "/v1/sessions")
            told += [(await server.call("GET", path, key=key)).raw.decode() for path in paths]
            assert f"{tenant} says 1" in told[1]
            assert [stranger in text for text in told] == [False] * len(told)
            await _check_money(server, tenant, runs[tenant], key)
        for request in model.requests:
            asked = model.encode(request)
            assert (ACME.encode() in asked) != (GLOBEX.encode() in asked)


async def _talk(server: Served, tenant: str, key: str) -> list[str]:
    """Have two turns in the session "s1", the first one asked for twice, and make a schedule and a budget."""
    body = {"agent": "support", "session": "s1", "user": "ann", "mode": "wait"}
    budget = {"usd": "5" if tenant == ACME else "7"}
    assert (await server.call("PUT", "/v1/budgets/user:ann", budget, key=key)).status == 200
    schedule = {"cron": "0 0 1 1 *", "agent": "support", "input": f"{tenant} look"}
    assert (await server.call("PUT", "/v1/schedules/daily", schedule, key=key)).status == 200
    runs: list[str] = []
    for turn in (0, 0, 1):
        asked = body | {"input": f"{tenant} says {turn}"}
        said = await server.call("POST", "/v1/runs", asked, headers={"idempotency-key": f"k{turn}"}, key=key)
        assert (said.status, said.json["text"]) == (200, f"You said: {tenant} says {turn}")
        runs.append(said.json["run"])
    assert runs[0] == runs[1]
    return runs[1:]


async def _told(server: Served, path: str, key: str) -> str:
    return " ".join([str(event.data) async for event in server.events(path, key=key)])


async def _check_money(server: Served, tenant: str, runs: list[str], key: str) -> None:
    """The budget of "ann" counts what this tenant's runs cost, and nothing else."""
    (row,) = (await server.call("GET", "/v1/budgets/user:ann", key=key)).json["budgets"]
    costs = [(await server.runtime.store.run(tenant, run)) for run in runs]
    spent = sum(found.cost for found in costs if found is not None)
    assert spent > 0
    (ledger,) = [found for found in await server.runtime.budgets(tenant=tenant) if found.ledger == "user:ann"]
    assert (ledger.settled, ledger.reserved) == (spent, 0)
    assert row["limit_usd"] == ("5.00" if tenant == ACME else "7.00")


async def test_a_live_stream_is_opened_to_its_own_tenant_only(tmp_path: Path) -> None:
    """While a run speaks, another's key gets 404 at once and holds no stream; who watches goes on undisturbed."""
    model = Player()
    async with served(tmp_path, model, agents=[desk()], tenants=[ACME, GLOBEX]) as server:
        _, other = await server.runtime.keys.add(GLOBEX, "second")
        run = (await server.start(input=f"{CONTENT} hold"))["run"]
        await model.began.wait()
        stream = server.events(f"/v1/runs/{run}/events")
        seen = [await anext(stream)]
        while seen[-1].kind != "delta":
            seen.append(await anext(stream))
        for headers in ({"accept": "text/event-stream"}, {"accept": "application/json"}, {"last-event-id": "1"}):
            said = await server.call("GET", f"/v1/runs/{run}/events", headers=headers, key=other)
            assert (said.status, said.error["code"]) == (404, "not_found")
            assert CONTENT not in said.raw.decode()
        assert server.edge.streams == 1
        model.go_on.set()
        assert [event.kind async for event in stream][-1] == "end"
