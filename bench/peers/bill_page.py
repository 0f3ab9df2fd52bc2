"""The bills as people read them: tables, where a peer is equal or better, plots, and the part of BENCHMARKS.md between the marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.floor import ROWS, SHEETS, Row, Task, floor
from bench.peers.catalogue_page import catalogue
from bench.peers.contenders import COMPACTING, CONTENDERS
from bench.peers.peers import HERE, ROOT
from bench.peers.plot import Dots, Line, dots, lines
from bench.peers.publish import PLOTS

COMMITTED = HERE / "bill.json"
BENCHMARKS = ROOT / "BENCHMARKS.md"
LONG_RUN = "long-run"
BEGIN, END = "<!-- bill peers: begin -->", "<!-- bill peers: end -->"
NAMES = {"short": "short", "long": "long", "off": "off"}
TURNS = (1, 2, 5, 10, 20, 50, 100, 150, 200)
EQUAL = 50_000
"""Nano-dollars: what is closer than half of the last digit shown is the same."""
_INTRO = """### The same task in its peers

The same bytes to the same provider: one identity, the same texts of the user, the same answers; each framework in its own locked environment, through its own client
library, with its caching as its pages describe it, told to keep for the short and for the long life. Shown is the cheapest of short, long and no cache at all, which
its user would have had to know beforehand. None is told of the pauses, and none refreshes. The pages and the settings: `bench/peers/*/bill.py`. In the routed rows their caller has every second turn
answered by the cheap model, on the whole conversation, as each library allows. A dash: not measured with this version.

    python -m bench.peers.bill                          # an hour, most of it ours with pauses; --rows, --models and --peers for a part
    python -m bench.peers.bill --publish                # these tables and plots from what was measured"""

_LONG = """#### A session of 200 turns that may be shortened

From 10,000 tokens on, 400 said and 500 answered a turn (`bench.compaction`), summaries by Haiku 4.5 in the bill. LangGraph's `SummarizationMiddleware` has no trigger unless it is given one:
measured as its page shows it, and with one that lets the conversation grow about as long as ours does. What a summary loses is not compared here. Pydantic AI and the OpenAI Agents SDK
have compaction at the provider only, which is not simulated; Agno can leave turns out (`num_history_runs`) or put a summary into the system prompt.

    python -m bench.peers.bill --models anthropic:claude-sonnet-4-6 --rows long-run"""


class Case(NamedTuple):
    """A row of a table: what it is called, and how it is played."""

    name: str
    row: Row
    task: Task


def publish(found: dict[str, Any], root: Path = ROOT) -> None:
    """Write results, plots and the part of the page."""
    (root / COMMITTED.relative_to(ROOT)).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    plots = root / PLOTS.relative_to(ROOT)
    plots.mkdir(parents=True, exist_ok=True)
    drawn = draw(found["cells"])
    for name, svg in drawn.items():
        (plots / f"{name}.svg").write_text(svg)
    images = "\n\n".join(f"![{name}]({(PLOTS / name).relative_to(ROOT)}.svg)" for name in drawn)
    target = root / BENCHMARKS.relative_to(ROOT)
    text = target.read_text()
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    target.write_text(f"{before}{BEGIN}\n{page(found)}\n\n{images}\n{END}{after}")


def page(found: dict[str, Any]) -> str:
    """Make the part of the page."""
    cells = found["cells"]
    parts = [_INTRO, versions(found["versions"])]
    for model in SHEETS:
        if any(key.startswith(f"{model}/") for key in cells):
            parts += [f"#### {model}", table(cells, model), worse(cells, model)]
    if said := long_run(cells, "anthropic:claude-sonnet-4-6"):
        parts += [_LONG, said]
    parts.append(catalogue(cells))
    return "\n\n".join(part for part in parts if part)


def versions(said: dict[str, dict[str, str]]) -> str:
    """Say who was measured, and how each was set up."""
    head = ["| Framework | Versions | Anthropic | OpenAI |", "| --- | --- | --- | --- |"]
    for who in CONTENDERS:
        known = ", ".join(f"{name} {version}" for name, version in said.get(who.name, {}).items())
        head.append(f"| {who.title} | {known} | {who.anthropic} | {who.openai or '-'} |")
    return "\n".join(head)


def cases(cells: dict[str, Any], model: str) -> list[Case]:
    """List the rows of a model that were measured."""
    known = [Case(name, row, Task()) for name, row in ROWS.items()]
    known += [Case(f"200-{name}", ROWS[name], Task(turns=200, last=180_000)) for name in ("cold", "warm")]
    return [case for case in known if any(key.startswith(f"{model}/{case.name}/") for key in cells)]


def best(cells: dict[str, Any], model: str, case: str, who: str, lives: Sequence[str]) -> tuple[int, str] | None:
    """Find the cheapest of the lives that were tried; a bill without a cache is that of the naive row, whatever pauses there are."""
    found: list[tuple[int, str]] = []
    for life in lives:
        at = "naive" if life == "off" and not case.startswith("200") else case
        cell = cells.get(f"{model}/{at}/{who}/{life}", {})
        if "nano_usd" in cell:
            found.append((cell["nano_usd"], life))
    return min(found, default=None)


def ours(cells: dict[str, Any], model: str, case: str, life: str = "auto") -> int | None:
    """Find our bill."""
    cell = cells.get(f"{model}/{case}/stanchion/{'off' if case == 'naive' else life}", {})
    return cell.get("nano_usd")


def table(cells: dict[str, Any], model: str) -> str:
    """Make a model's table; where the long life costs nothing apart, two: it is not chosen unasked, and some have it unasked."""
    free = SHEETS[model].cache_write == SHEETS[model].input
    first = _table(cells, model, cases(cells, model), ("short",) if free else ("off", "short", "long"), "auto", "short")
    if not free:
        return first
    paused = [case for case in cases(cells, model) if case.row.pause_s]
    asked = _table(cells, model, paused, ("long",), "long", "long")
    unasked = _table(cells, model, paused, ("long",), "auto-retained", "long")
    return (
        f"Kept in memory, 5 minutes are reckoned with:\n\n{first}\n\nKept for a day, which is asked for (`prompt_cache_retention: 24h`, "
        f'`Model(cache="long")`) and costs nothing:\n\n{asked}\n\nKept for a day unasked, as organisations have it whose data may be retained, '
        f"and with our default: what outlives its life is noticed, and not refreshed:\n\n{unasked}"
    )


def _table(
    cells: dict[str, Any], model: str, rows: Sequence[Case], lives: Sequence[str], own: str, floor_life: str
) -> str:
    shown = [who for who in CONTENDERS if who.openai or model.startswith("anthropic")]
    head = ["| row | floor | Stanchion | " + " | ".join(who.title for who in shown) + " |"]
    head.append("|---|---|---|" + "---|" * len(shown))
    for case in rows:
        least = floor(_as(case.row, floor_life), case.task, model)
        mine = ours(cells, model, case.name, own)
        said = [case.name, _usd(least), f"**{_usd(mine)}**" if mine is not None else "-"]
        for who in shown:
            theirs = best(cells, model, case.name, who.name, ("off",) if case.name == "naive" else lives)
            if theirs is None:
                said.append(_why(cells, model, case.name, who.name))
            else:
                said.append(_usd(theirs[0]) + (f" ({theirs[1]})" if len(lives) > 1 and case.row.pause_s else ""))
        head.append("| " + " | ".join(said) + " |")
    return "\n".join(head)


def _as(row: Row, life: str) -> Row:
    if life != "long" or row.cache == "off":
        return row
    return Row(row.name, row.warm, row.pause_s, row.before, "long", row.routed, row.learns)


def _why(cells: dict[str, Any], model: str, case: str, who: str) -> str:
    failed = [
        cell["error"] for key, cell in cells.items() if key.startswith(f"{model}/{case}/{who}/") and "error" in cell
    ]
    return f"failed: {failed[0][:60]}" if failed else "-"


def worse(cells: dict[str, Any], model: str) -> str:
    """List the rows in which a peer is equal or better."""
    free = SHEETS[model].cache_write == SHEETS[model].input
    equal, better = list[str](), list[str]()
    for case in cases(cells, model):
        mine = ours(cells, model, case.name)
        for who in CONTENDERS:
            lives = ("off",) if case.name == "naive" else ("short",) if free else ("off", "short", "long")
            theirs = best(cells, model, case.name, who.name, lives)
            if mine is None or theirs is None or theirs[0] > mine + EQUAL:
                continue
            (equal if theirs[0] >= mine - EQUAL else better).append(f"{case.name}: {who.title}")
    said = [f"Equal to ours: {_joined(equal)}."] if equal else []
    said.append(f"**Better than ours**: {_joined(better)}." if better else "None is better than ours.")
    return " ".join(said)


def _joined(pairs: Sequence[str]) -> str:
    rows: dict[str, list[str]] = {}
    for pair in pairs:
        row, _, who = pair.partition(": ")
        rows.setdefault(row, []).append(who)
    return "; ".join(f"{row} ({', '.join(names)})" for row, names in rows.items())


def _usd(nano: int) -> str:
    return f"{nano / 1e9:.4f}"


def draw(cells: dict[str, Any]) -> dict[str, str]:
    """Draw what was measured: each bill over its floor, and how a bill of 200 turns grows."""
    drawn: dict[str, str] = {}
    for model in SHEETS:
        free = SHEETS[model].cache_write == SHEETS[model].input
        lives = ("short",) if free else ("off", "short", "long")
        shown = [who for who in CONTENDERS if who.variant == ""]
        rows: list[Dots] = []
        for case in cases(cells, model):
            if case.name == "naive" or case.row.routed:
                continue
            least = floor(case.row, case.task, model)
            bills = [ours(cells, model, case.name)]
            bills += [(best(cells, model, case.name, who.name, lives) or (None,))[0] for who in shown]
            rows.append(Dots(case.name, [bill / least if bill is not None else None for bill in bills]))
        if rows:
            names = ["Stanchion", *(who.title for who in shown)]
            plain = model.partition(":")[2]
            drawn[f"bill-{plain}"] = dots(
                f"Bill of the support task over its floor, {plain}", "times the floor", names, rows
            )
    if series := grown(cells, "anthropic:claude-sonnet-4-6"):
        drawn["bill-200"] = lines("Bill of a long session, Claude Sonnet 4.6", "turns", "$", series)
    return drawn


def grown(cells: dict[str, Any], model: str) -> list[Line]:
    """Give how the bills of 200 turns grow, from 10,000 tokens on: with what shortens the conversation, and without."""
    at = [("Stanchion, compacting", "stanchion", "compacted", 0), ("Stanchion, without", "stanchion", "auto", 5)]
    short = [
        who.title.replace("`SummarizationMiddleware`, ", "summary at ").removesuffix(" tokens") for who in COMPACTING
    ]
    at += [(short[n], who.name, "short", n + 1) for n, who in enumerate(COMPACTING[:4])]
    series: list[Line] = []
    for title, name, life, colour in at:
        bills = cells.get(f"{model}/{LONG_RUN}/{name}/{life}", {}).get("bills")
        if bills:
            series.append(Line(title, [(turn, bills[turn - 1] / 1e9) for turn in TURNS], colour))
    return series


def long_run(cells: dict[str, Any], model: str) -> str:
    """Make the table of the session of 200 turns that may be shortened."""
    at = [("Stanchion, `Compaction()`", "stanchion", "compacted"), ("Stanchion, without", "stanchion", "auto")]
    at += [(who.title, who.name, "short") for who in COMPACTING if not who.variant or who.name.startswith("langgraph")]
    lines = ["| who | in all | a turn, 20-60 | a turn, 160-200 |", "|---|---|---|---|"]
    for title, name, life in at:
        cell = cells.get(f"{model}/{LONG_RUN}/{name}/{life}", {})
        if "bills" in cell:
            bills = cell["bills"]
            early, late = (bills[59] - bills[18]) / 41, (bills[199] - bills[158]) / 41
            lines.append(f"| {title} | {_usd(bills[-1])} | {_usd(early)} | {_usd(late)} |")
        elif "error" in cell:
            lines.append(f"| {title} | failed: {cell['error'][:80]} | | |")
    return "\n".join(lines) if len(lines) > 2 else ""
