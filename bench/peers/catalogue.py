"""The task of `bench.catalogue` in each framework: many tools, all of them shown, or found by the framework's own search at the client.

The same tools (names, descriptions, schemas), the same identity, the same results, the same calls of the model; a search is asked for in the
framework's form, once for each of the four tools. The task is run twice: a first session, and one within the cache's life.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from bench import catalogue as task
from bench.floor import CHEAP
from bench.peers.contenders import CONTENDERS, Contender, chatting
from bench.peers.world import Running
from stanchion.core.bundle import ToolSpec
from stanchion.sim import Reply, Rule, Script, SimProcess, When, start_sim_process

ROWS = {f"catalogue-{size}": size for size in task.SIZES}
FOUND_BY = {"langgraph": "`LLMToolSelectorMiddleware`", "pydantic-ai": "`ToolSearch`, keywords"}
"""The searches at the client, by contender. The providers' own are not simulated."""
_SEARCHES = {
    "langgraph": ("anthropic:claude-sonnet-4-6",),
    "pydantic-ai": ("anthropic:claude-sonnet-4-6", "openai:gpt-5.2"),
}
"""Where they are measured. At OpenAI LangGraph's choice is an output schema with all tools, whose tokens the simulated provider does not bill; on
gpt-5.6 Pydantic AI takes OpenAI's own tool for it."""
NEXT = "next"
OURS = ("shown", "found", "unmarked-shown", "unmarked-found", "needed")
LARGE_MODEL = "anthropic:claude-sonnet-4-6"
"""Where 5,000 tools are shown as well: half a million tokens, which OpenAI's models here do not take."""

Cells = dict[str, dict[str, Any]]


def ways(contender: Contender, model: str, size: int) -> list[str]:
    """List how a contender has its tools in a row."""
    if size == task.SIZES[-1] and model != LARGE_MODEL:
        return []
    found = contender.name in FOUND_BY and model in _SEARCHES[contender.name]
    return ["shown", "found"] if found else ["shown"]


def replies(specs: Sequence[ToolSpec], contender: Contender, model: str, way: str) -> Script:
    """Play the model: the task's calls, and before a tool's first one what finds it in this framework."""
    found: list[Reply] = []
    known: set[str] = set()
    calls = task.deeds(specs)
    for spec, values in calls:
        if contender.name == "pydantic-ai" and way == "found" and spec.name not in known:
            known.add(spec.name)
            found.append(task.reply("search_tools", {"queries": [f"{spec.name} {spec.description} {spec.group}"]}))
        found.append(task.reply(spec.name, values))
    if contender.name != "langgraph" or way != "found":
        return task.in_turn(found)
    chosen = {"tools": list(dict.fromkeys(spec.name for spec, _ in calls))}
    cheap = CHEAP[model][0].partition(":")[2]
    choice = Reply(text=json.dumps(chosen))
    if model.startswith("anthropic"):
        choice = task.reply("ToolSelectionResponse", chosen)
    return task.in_turn(found, Rule(when=When(model=cheap), reply=choice))


async def session(sim: SimProcess, http: aiohttp.ClientSession, running: Running, name: str) -> dict[str, int]:
    """Run the task once; give what it cost, and how many requests it took. Raises where it was not done."""
    before = await _total(sim, http)
    said = await running.ask("say", timeout_s=600, session=name, text=task.ASKED[name])
    if not said["ends"].endswith(task.DONE.strip()):
        raise RuntimeError(f"it ended with {said['ends']!r}")
    after = await _total(sim, http)
    fields = ("nano_usd", "requests")
    return {field: after[field] - before[field] for field in fields} | {"ran": said["ran"]}


async def _total(sim: SimProcess, http: aiohttp.ClientSession) -> dict[str, int]:
    async with http.get(f"{sim.base_url}/bill") as response:
        return (await response.json())["total"]


async def billed(contender: Contender, model: str, size: int, way: str) -> dict[str, Any]:
    """Run the task twice in a framework; give what each session cost."""
    specs, _ = task.made(size)
    tools = [task.as_tool(spec).spec for spec in specs]
    given = [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in tools]
    sim = await start_sim_process(replies(specs, contender, model, way))
    try:
        async with aiohttp.ClientSession() as http, chatting(contender, model, sim) as running:
            more = {"tools": given, "how": way, "filler": task.FILLER}
            await running.ask("begin", timeout_s=600, identity=task.IDENTITY, cache="short", **more)
            first = await session(sim, http, running, "first")
            after = await session(sim, http, running, NEXT)
    finally:
        await sim.stop()
    performed = task.TURNS - 1
    if (first["ran"], after["ran"]) != (performed, 2 * performed):
        raise RuntimeError(f"{first['ran']} and {after['ran']} tool calls were performed of {performed} a session")
    return {"nano_usd": first["nano_usd"], NEXT: after["nano_usd"], "requests": first["requests"]}


async def ours(model: str, size: int, way: str) -> dict[str, Any]:
    """.. in ours."""
    row = await task.billed(size, how=way.removeprefix("unmarked-"), model=model, mark=not way.startswith("unmarked"))
    sums = {name: round(row[session]["usd"] * 1e9) for name, session in (("nano_usd", "first"), (NEXT, "next"))}
    return sums | {"requests": row["first"]["calls"]}


async def measure(
    model: str, names: Sequence[str], peers: Sequence[str], cells: Cells, keep: Callable[[str, float], None], *, missing: bool
) -> None:  # fmt: skip
    """Measure a model's rows."""
    for name in (each for each in names if each in ROWS):
        size = ROWS[name]
        large = size == task.SIZES[-1]
        work = [(who.name, way, who) for who in CONTENDERS if who.name in peers for way in ways(who, model, size)]
        work = [each for each in work if model.startswith("anthropic") or each[2].openai]
        own = OURS if "stanchion" in peers and (not large or model == LARGE_MODEL) else ()
        for who, way, contender in (*(("stanchion", way, None) for way in own), *work):
            at, began = f"{model}/{name}/{who}/{way}", time.monotonic()
            if missing and "nano_usd" in cells.get(at, {}):
                continue
            try:
                made = ours(model, size, way) if contender is None else billed(contender, model, size, way)
                cells[at] = await made
            except Exception as error:  # what a framework cannot do is a finding
                cells[at] = {"error": f"{type(error).__name__}: {error}"[-600:]}
            keep(at, time.monotonic() - began)
