"""The bills of peers: a framework has a short session in its own environment; the page says where one is equal or better.

Skipped where the environments are not made: `python -m bench.peers.bill --rows cold` makes them.
"""

from __future__ import annotations

import aiohttp
import pytest

from bench import bill as ours
from bench.floor import ROWS, Task
from bench.peers import catalogue
from bench.peers.bill import Till, play
from bench.peers.bill_page import draw, page, worse
from bench.peers.catalogue_page import catalogue as catalogue_part
from bench.peers.contenders import CONTENDERS, chatting
from stanchion.sim import Reply, Script, start_sim_process

SONNET = "anthropic:claude-sonnet-4-6"
TASK = Task(turns=3, first=4_000, last=6_000)


async def test_a_peer_is_billed_for_the_same_bytes() -> None:
    """LangGraph, three turns: what it marks is read again; without a cache the same is dearer, by just what was read."""
    contender = CONTENDERS[0]
    if not contender.peer.ready:
        pytest.skip(f"no environment .peers/{contender.peer.folder}; `python -m bench.peers.bill` makes it")
    identity = ours.RULE * 200
    sim = await start_sim_process(Script(default=Reply(text=ours.ANSWER)))
    try:
        async with aiohttp.ClientSession() as http, chatting(contender, SONNET, sim) as running:
            till = Till(sim, http)
            bills = [
                await play(till, running, ROWS["cold"], TASK, identity, life) for life in ("short", "short", "off")
            ]
            async with http.get(f"{sim.base_url}/bill") as response:
                total = (await response.json())["total"]
    finally:
        await sim.stop()
    assert bills[0] == bills[1], "bills do not vary"
    assert bills[0][-1] < bills[2][-1]
    assert total["cache_read_tokens"] == 0
    assert (total["requests"], total["output_tokens"]) == (3, 1_500)


def _cells(**bills: float) -> dict[str, dict[str, int]]:
    return {f"{SONNET}/{name.replace('_', '/')}": {"nano_usd": round(usd * 1e9)} for name, usd in bills.items()}


def test_the_page_says_where_a_peer_is_equal_or_better() -> None:
    """By the digits that are shown, over the lives that its user might have chosen."""
    cells = _cells(
        cold_stanchion_auto=0.70352, cold_langgraph_short=0.70354, cold_agno_short=0.6, warm_stanchion_auto=0.5
    )
    cells |= _cells(warm_langgraph_short=0.51, naive_langgraph_off=3.0)
    said = worse(cells, SONNET)
    assert "Equal to ours: cold (LangGraph)." in said
    assert "**Better than ours**: cold (Agno)." in said
    text = page({"cells": cells, "versions": {}})
    assert "| cold | 0.7035 | **0.7035** | 0.7035 | - |" in text
    assert "None is better" not in text
    assert set(draw(cells)) == {"bill-claude-sonnet-4-6"}
    assert "<svg" in draw(cells)["bill-claude-sonnet-4-6"]


@pytest.mark.parametrize("name", list(catalogue.FOUND_BY))
async def test_a_peer_does_the_task_of_the_catalogue(name: str) -> None:
    """Fifteen calls where all tools are shown; more where they are looked for. A task that was not done raises."""
    contender = next(each for each in CONTENDERS if each.name == name)
    if not contender.peer.ready:
        pytest.skip(f"no environment .peers/{contender.peer.folder}; `python -m bench.peers.bill` makes it")
    shown, found = [await catalogue.billed(contender, SONNET, 50, way) for way in ("shown", "found")]
    assert (shown["requests"], found["requests"]) == (15, 30 if name == "langgraph" else 19)
    assert shown["next"] < shown["nano_usd"], "the tools are kept"


def test_the_page_says_where_a_peer_is_better_at_many_tools() -> None:
    """Each in its cheaper way; what ours would cost unmarked, or with just the tools that are needed, is no way of ours."""
    usd = {"stanchion/shown": 0.4, "stanchion/found": 0.07, "stanchion/needed": 0.01, "stanchion/unmarked-found": 0.05}
    usd |= {"pydantic-ai/shown": 0.42, "pydantic-ai/found": 0.06, "langgraph/shown": 0.41, "langgraph/found": 0.2}
    cells: dict[str, dict[str, int]] = {}
    for at, said in usd.items():
        cells[f"{SONNET}/catalogue-500/{at}"] = {"nano_usd": round(said * 1e9), "next": round(said * 1e9) + 10**7}
    text = catalogue_part(cells)
    assert (
        "**Better than ours**, each in its cheaper way: catalogue-500 (Pydantic AI); catalogue-500, next (Pydantic AI)."
        in text
    )
    assert "| **Stanchion**, `ToolSearch()` | 0.0700 | 0.0800 |" in text
    assert text in page({"cells": cells, "versions": {}})
    assert not catalogue_part({})
