"""Costs over HTTP: what the runtime reckons, in the form that the document says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stanchion.core.money import parse_usd
from stanchion.runtime import CostQuestion, CostReport
from stanchion.runtime.money.bill import CostGroup, CostSum, WhatIfView
from stanchion.server.costs import CostGroupModel, CostsModel, CostsQuery, CostSumModel, WhatIfModel
from stanchion.server.routes import costs
from tests.server.serving import served


def test_the_document_says_what_is_asked_and_answered() -> None:
    """Every field, and no other."""
    pairs = (
        (CostsModel, CostReport), (CostSumModel, CostSum), (CostGroupModel, CostGroup), (WhatIfModel, WhatIfView),
        (CostsQuery, CostQuestion),
    )  # fmt: skip
    for model, struct in pairs:
        assert set(model.model_fields) == {field.name for field in msgspec.structs.fields(struct)}, model


async def test_a_tenant_asks_what_its_runs_cost(tmp_path: Path) -> None:
    """Grouped by two things, and what if; another tenant's key is told nothing of it."""
    async with served(tmp_path, tenants=["acme", "globex"]) as server:
        for _ in range(2):
            await server.start(session="s", mode="wait")
        routed = await server.call("GET", "/v1/costs?by=skill&route=answer=openai:gpt-5@200,act=openai:gpt-5")
        assert routed.json["what_if"]["route"] == ["answer=openai:gpt-5@200", "act=openai:gpt-5"]
        assert (await server.call("GET", "/v1/costs?route=answer")).status == 422
        said = await server.call("GET", "/v1/costs?by=agent,day&on_model=openai:gpt-5&without_cache=true&since=1h")
        assert said.status == 200, said.raw
        spent = sum(row.cost for row in await server.runtime.runs(tenant="acme"))
        (group,) = said.json["groups"]
        assert set(group["key"]) == {"agent", "day"}
        assert parse_usd(group["usd"], field="usd") == parse_usd(said.json["total"]["usd"], field="usd") == spent > 0
        assert (said.json["what_if"]["model"], said.json["what_if"]["without_cache"]) == ("openai:gpt-5", True)
        assert (said.json["looked_at"], said.json["complete"]) == (2, True)
        _, other = await server.runtime.keys.add("globex", "other")
        none = await server.call("GET", "/v1/costs", key=other)
        assert (none.json["groups"], none.json["looked_at"]) == ([], 0)


async def test_a_request_looks_at_so_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there are more, and back to when it looked."""
    monkeypatch.setattr(costs, "MOST_RUNS", 1)
    async with served(tmp_path) as server:
        for _ in range(2):
            await server.start(mode="wait")
        said = (await server.call("GET", "/v1/costs")).json
        newest = (await server.runtime.runs(limit=1))[0]
        assert (said["complete"], said["looked_at"], said["reached_ms"]) == (False, 1, newest.created_ms)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("by=planet", "by"),
        ("by=", "by"),
        ("since=yesterday", "since"),
        ("on_model=gpt-5", "on_model"),
        ("top=0", "top"),
        ("batch=perhaps", "batch"),
        ("limit=5", "limit"),
    ],
)
async def test_a_bad_question_is_named(tmp_path: Path, query: str, field: str) -> None:
    """The parameter that is wrong, and no fault of ours."""
    async with served(tmp_path) as server:
        said = await server.call("GET", f"/v1/costs?{query}")
        assert said.status in (400, 422), said.raw
        assert said.error["field"] == field
