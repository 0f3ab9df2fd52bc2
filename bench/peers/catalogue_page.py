"""The rows of many tools as people read them: a table for each model, and where a peer is equal or better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.floor import SHEETS
from bench.peers.catalogue import FOUND_BY, NEXT, ROWS
from bench.peers.contenders import CONTENDERS

EQUAL = 50_000
"""Nano-dollars: what is closer than half of the last digit shown is the same."""
_INTRO = """#### Many tools

The task of *Catalogue* below: one run of 14 calls of 4 different tools, at 50, 500 and 5,000 tools with the same names, descriptions and
schemas (what of a schema the model is shown is each library's own), the same results and the same calls. *Shown*: all tools in each
request, cached for the short life. *Found*: by the library's own search at the client, which the model asks for each of the 4 tools. *Next*: another session within the cache's life, with another first
text. *Needed*: ours with just the 4 tools, as if somebody knew them beforehand. Shown is what one session cost, in dollars.

- Stanchion is measured as it is by default: what tools return is marked as written by others, 20 tokens a result, and the prompt says
  what the marks mean. No peer does that; *unmarked* is ours without.
- LangGraph: `LLMToolSelectorMiddleware` with the cheap model and `max_tools=4`, which chooses of all tools before each call, by the
  user's last text. Here its choice is always right and always the same, which flatters it: the user's text names no tool. At OpenAI it
  asks with an output schema that lists all tools, whose tokens are not simulated: not measured there. `langgraph-bigtool` is another
  package: not measured.
- Pydantic AI: `ToolSearch(strategy="keywords", max_results=5)`, five like ours; asked with the tool's name beside the words that ours is
  asked with. On Claude all definitions are sent with `defer_loading` and billed where they are referred to
  (`platform.claude.com/docs/en/agents-and-tools/tool-use/tool-search-tool`); on gpt-5.2 what was found is added to the list of tools,
  which voids what is kept. On gpt-5.6 it takes OpenAI's `tool_search` executed by the client, which is not simulated.
- Ours on Claude: the same form, by our own search, with the definitions of what was found so far (`docs/how-to/many-tools.md`).
- Ours leaves out of a schema what says nothing: `additionalProperties: false`, and null where a field may be left out
  (`docs/how-to/many-tools.md`); a fifth of these tools' tokens.
- Whether a request is a few tokens above or below the least that is kept (2,048 on Claude Sonnet 4.6, 1,024 at OpenAI) is worth up to a
  tenth of a row where tools are found: fewer tokens can cost more. *Catalogue* says how ours hang on it; the peers' were measured at one
  length. Of some wordings of our own texts those were kept that did best here, so that a lead of a hundredth, as at 50 on gpt-5.2, says nothing.
- The searches at the provider are not simulated and were not measured: LangGraph's `ProviderToolSearchMiddleware`, Pydantic AI's default,
  `ToolSearchTool` of the OpenAI Agents SDK, which it has at OpenAI alone. *Needed* is about what they can come to at best, were
  nothing too short to be kept. Agno documents no search.
- Agno with tools: `cache_tools` beside `cache_system_prompt`. The OpenAI Agents SDK on Claude marks system prompt and last message; the
  tools stand before them and are kept, too.

    python -m bench.peers.bill --rows catalogue-50 catalogue-500 catalogue-5000"""


def catalogue(cells: dict[str, Any]) -> str:
    """Make the section; "" where nothing was measured."""
    parts: list[str] = []
    for model in SHEETS:
        rows = [name for name in ROWS if any(key.startswith(f"{model}/{name}/") for key in cells)]
        if rows:
            parts += [f"**{model}**, $:\n\n{_table(cells, model, rows)}", worse(cells, model, rows)]
    return "\n\n".join([_INTRO, *parts]) if parts else ""


def _lines() -> list[tuple[str, str, str]]:
    """List who stands in the table, and how it has its tools: title, name, way."""
    found = [("**Stanchion**, shown", "stanchion", "shown"), ("**Stanchion**, `ToolSearch()`", "stanchion", "found")]
    for who in CONTENDERS:
        found.append((f"{who.title}, shown", who.name, "shown"))
        if who.name in FOUND_BY:
            found.append((f"{who.title}, {FOUND_BY[who.name]}", who.name, "found"))
    found += [("Stanchion unmarked, shown", "stanchion", "unmarked-shown")]
    found += [("Stanchion unmarked, `ToolSearch()`", "stanchion", "unmarked-found")]
    return [*found, ("needed", "stanchion", "needed")]


def _table(cells: dict[str, Any], model: str, rows: Sequence[str]) -> str:
    sizes = [ROWS[name] for name in rows]
    lines = ["| | " + " | ".join(f"{size:,} | next" for size in sizes) + " |", "|---|" + "---|---|" * len(sizes)]
    for title, who, way in _lines():
        found = [cells.get(f"{model}/{name}/{who}/{way}", {}) for name in rows]
        if any(found):
            lines.append(f"| {title} | " + " | ".join(_said(cell) for cell in found) + " |")
    return "\n".join(lines)


def _said(cell: dict[str, Any]) -> str:
    if "error" in cell:
        return f"failed: {cell['error'][:60]} | "
    return f"{cell['nano_usd'] / 1e9:.4f} | {cell[NEXT] / 1e9:.4f}" if cell else "- | -"


def worse(cells: dict[str, Any], model: str, rows: Sequence[str]) -> str:
    """Say in which rows a peer is equal or better, each in its cheaper way; ours by default."""
    equal, better = dict[str, list[str]](), dict[str, list[str]]()
    for name in rows:
        for field in ("nano_usd", NEXT):
            mine = _least(cells, f"{model}/{name}/stanchion", field)
            for who in CONTENDERS:
                theirs = _least(cells, f"{model}/{name}/{who.name}", field)
                if mine is None or theirs is None or theirs > mine + EQUAL:
                    continue
                row = f"{name}, {NEXT}" if field == NEXT else name
                (equal if theirs >= mine - EQUAL else better).setdefault(row, []).append(who.title)
    said = [f"Equal to ours, each in its cheaper way: {_joined(equal)}."] if equal else []
    worst = f"**Better than ours**, each in its cheaper way: {_joined(better)}."
    return " ".join([*said, worst if better else "None is better than ours."])


def _joined(rows: dict[str, list[str]]) -> str:
    return "; ".join(f"{row} ({', '.join(names)})" for row, names in rows.items())


def _least(cells: dict[str, Any], at: str, field: str) -> int | None:
    found = [cells[key][field] for way in ("shown", "found") if field in cells.get(key := f"{at}/{way}", {})]
    return min(found, default=None)
