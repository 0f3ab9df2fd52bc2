"""`python -m bench.peers.bill`: what the support task of `bench.bill` costs in each framework, by the same provider's bill.

The same bytes: one identity, the same texts of the user, the same answers; each framework in its own locked environment, through its own
client, with its caching as its pages describe it (`contenders.py`, `*/bill.py`), asked for the short and for the long life. Pauses are not
announced to any of them. Bills do not vary: `--twice` measures each cell twice and says where two differ.

    python -m bench.peers.bill                          every model and row: an hour, most of it ours with pauses
    python -m bench.peers.bill --missing                go on with a set that was broken off
    python -m bench.peers.bill --publish                tables and plots into BENCHMARKS.md, from the set
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench import bill as ours
from bench import compaction, planted
from bench.floor import ROWS, SHEETS, Row, Task
from bench.peers import catalogue
from bench.peers.bill_page import COMMITTED, LONG_RUN, publish
from bench.peers.contenders import COMPACTING, CONTENDERS, Contender, chatting
from bench.peers.peers import ENVIRONMENTS, make
from bench.peers.world import Running
from stanchion.compaction import Compaction
from stanchion.core.money import cost
from stanchion.sim import Reply, Rule, Script, SimProcess, When, start_sim_process

LONG = "200"
"""The row of 200 turns, beside those of 15."""
TASKS = {LONG: Task(turns=200, last=180_000)}
LIVES = ("short", "long")
RETAINED = "auto-retained"
"""Ours at OpenAI before gpt-5.6 where an organisation's data may be retained: what is sent is kept for a day, unasked."""

LONG_TASK = Task(turns=200, first=10_000, last=10_000 + 900 * 199)
"""A session of 200 turns that may be compacted, as in `bench.compaction`."""

Cells = dict[str, dict[str, Any]]


class Till:
    """The provider: its clock and its bill."""

    def __init__(self, sim: SimProcess, http: aiohttp.ClientSession) -> None:
        self._sim, self._http = sim, http

    async def billed(self) -> int:
        """Read the bill so far, in nano-dollars."""
        async with self._http.get(f"{self._sim.base_url}/bill") as response:
            return (await response.json())["total"]["nano_usd"]

    async def forward(self, seconds: float) -> None:
        """Put the clock forward."""
        async with self._http.post(f"{self._sim.base_url}/sim/clock", json={"advance_s": seconds}) as response:
            response.raise_for_status()

    async def play(self, script: Script) -> None:
        """Have it say something else until the next reset."""
        async with self._http.put(f"{self._sim.base_url}/sim/script", data=msgspec.json.encode(script)) as response:
            response.raise_for_status()

    async def reset(self) -> None:
        """Empty bill and cache."""
        async with self._http.post(f"{self._sim.base_url}/sim/reset") as response:
            response.raise_for_status()


class Desk:
    """A framework's agent at the provider, with the sessions of a row."""

    def __init__(self, till: Till, running: Running) -> None:
        self._till, self._running = till, running
        self._others = self._others_cost = 0

    async def say(self, session: str, text: str, *, cheap: bool = False) -> None:
        """Have a turn; the answer must be whole, and not wrong."""
        found = await self._running.ask("say", session=session, text=text, cheap=cheap)
        if found["begins"].startswith(planted.WRONG):
            raise RuntimeError(f"{session} was answered wrongly")
        if found["chars"] < len(ours.ANSWER) - 1:
            raise RuntimeError(f"{session} was answered with {found['chars']} of {len(ours.ANSWER)} characters")

    async def other(self) -> None:
        """Have another session ask something, at no cost to the row."""
        before = await self._till.billed()
        self._others += 1
        await self.say(f"other-{self._others}", "Hello, a short question.")
        self._others_cost += await self._till.billed() - before

    async def pause(self, seconds: float, *, warm: bool) -> None:
        """Let time pass, other sessions asking now and then."""
        while seconds > 0:
            step = min(seconds, ours.OTHERS_S)
            await self._till.forward(step)
            seconds -= step
            if warm and step == ours.OTHERS_S:
                await self.other()

    async def billed(self) -> int:
        """Give what the row has cost so far."""
        return await self._till.billed() - self._others_cost


async def play(till: Till, running: Running, row: Row, task: Task, identity: str, life: str) -> list[int]:
    """Run a row; give the bill after each turn, in nano-dollars."""
    await till.reset()
    if row.routed:
        identity = planted.identity(len(identity))
        await till.play(planted.script(task.output))
    await running.ask("begin", identity=identity, cache=life)
    desk = Desk(till, running)
    if row.warm:
        await desk.other()
    bills: list[int] = []
    for turn in range(task.turns):
        if row.pauses_before(turn):
            await desk.pause(row.pause_s, warm=row.warm)
        text = planted.said(task, turn) if row.routed else ours.said(task, turn)
        await desk.say(ours.TASK, text, cheap=row.routed and turn % 2 == 0)
        bills.append(await desk.billed())
    return bills


def lives_of(row: Row) -> tuple[str, ...]:
    """List how a peer is told to cache in a row. The long life only where there are pauses: it costs more to write."""
    if row.cache == "off":
        return ("off",)
    return LIVES if row.pause_s else LIVES[:1]


def key(model: str, row: str, who: str, life: str) -> str:
    """Name a cell."""
    return f"{model}/{row}/{who}/{life}"


def cases(model: str, names: Sequence[str]) -> list[tuple[str, Row, Task]]:
    """List the rows of a model, those of 200 turns among them."""
    found: list[tuple[str, Row, Task]] = []
    for name in (each for each in names if each != LONG_RUN and each not in catalogue.ROWS):
        plain = name.removeprefix(f"{LONG}-")
        row = ROWS[plain]
        if row.cache == "off" and SHEETS[model].cache_write == SHEETS[model].input:
            continue  # what is sent is kept unasked, at no price
        found.append((name, row, TASKS[LONG] if plain != name else Task()))
    return found


async def of_peer(
    contender: Contender, model: str, names: Sequence[str], size: int, cells: Cells, keep: Callable[[], None],
    *, missing: bool, twice: bool,
) -> None:  # fmt: skip
    """Measure a framework's cells of a model."""
    identity = (ours.RULE * (size // len(ours.RULE) + 1))[:size]
    sim = await start_sim_process(Script(default=Reply(text=ours.ANSWER)))
    try:
        async with aiohttp.ClientSession() as http, chatting(contender, model, sim) as running:
            till = Till(sim, http)
            for name, row, task in cases(model, names):
                for life in lives_of(row):
                    at = key(model, name, contender.name, life)
                    if missing and "nano_usd" in cells.get(at, {}):
                        continue
                    began = time.monotonic()
                    try:
                        bills = await play(till, running, row, task, identity, life)
                        again = await play(till, running, row, task, identity, life) if twice else bills
                        cells[at] = {"nano_usd": bills[-1], "bills": bills if task.turns > 15 else []}
                        cells[at] |= {} if again == bills else {"differs": again[-1]}
                    except Exception as error:  # what a framework cannot do is a finding
                        cells[at] = {"error": f"{type(error).__name__}: {error}"[-600:]}
                    tell(at, cells[at], time.monotonic() - began)
                    keep()
    finally:
        await sim.stop()


async def long_runs(model: str, peers: Sequence[str], cells: Cells, keep: Callable[[], None]) -> None:
    """Measure the long session: in frameworks that can shorten it and in those that cannot, and ours with and without."""
    size = 4 * LONG_TASK.first - 200
    identity = (ours.RULE * (size // len(ours.RULE) + 1))[:size]
    rule = Rule(when=When(model="haiku"), reply=Reply(text=compaction.SUMMARY))
    for contender in COMPACTING:
        if contender.name.partition("-4000")[0].partition("-30000")[0] not in peers:
            continue
        sim = await start_sim_process(Script(rules=(rule,), default=Reply(text=ours.ANSWER)))
        at = key(model, LONG_RUN, contender.name, "short")
        began = time.monotonic()
        try:
            async with aiohttp.ClientSession() as http, chatting(contender, model, sim) as running:
                bills = await play(Till(sim, http), running, ROWS["cold"], LONG_TASK, identity, "short")
                cells[at] = {"nano_usd": bills[-1], "bills": bills}
        except Exception as error:  # what a framework cannot do is a finding
            cells[at] = {"error": f"{type(error).__name__}: {error}"[-600:]}
        finally:
            await sim.stop()
        tell(at, cells[at], time.monotonic() - began)
        keep()
    for life, wanted in (("compacted", Compaction()), ("auto", None)):
        if "stanchion" in peers:
            began, at = time.monotonic(), key(model, LONG_RUN, "stanchion", life)
            bills = list(accumulate(turn.nano_usd for turn in await compaction.turns(LONG_TASK, wanted, model)))
            cells[at] = {"nano_usd": bills[-1], "bills": bills}
            tell(at, cells[at], time.monotonic() - began)
            keep()


async def of_ours(
    model: str, names: Sequence[str], size: int, cells: Cells, keep: Callable[[], None], *, missing: bool
) -> None:
    """Measure our cells of a model: "auto", and the long life of OpenAI's, which is not chosen unasked."""
    with tempfile.TemporaryDirectory(prefix="stanchion-bill-") as folder:
        number = 0
        for name, row, task in cases(model, names):
            lives = [row.cache]
            if row.pause_s and SHEETS[model].cache_write == SHEETS[model].input:  # a day costs nothing where it is had
                lives += ["long", RETAINED]
            for life in lives:
                at = key(model, name, "stanchion", life)
                if missing and "nano_usd" in cells.get(at, {}):
                    continue
                began, number = time.monotonic(), number + 1
                case = msgspec.structs.replace(row, cache="long") if life == "long" else row
                place = Path(folder) / str(number)
                bill = await ours.billed(case, model, task, size, place, retained=life == RETAINED)
                cells[at] = {"nano_usd": bill.nano_usd, "bills": []}
                if task.turns > 15:
                    total, sums = 0, list[int]()
                    for usage in bill.usages:
                        total += cost(SHEETS[model], usage)
                        sums.append(total)
                    cells[at]["bills"] = sums
                tell(at, cells[at], time.monotonic() - began)
                keep()


def tell(at: str, cell: dict[str, Any], took_s: float) -> None:
    """Say what was found."""
    said = f"${cell['nano_usd'] / 1e9:.4f}" if "nano_usd" in cell else f"FAILED: {cell['error']}"
    said += f", and ${cell['differs'] / 1e9:.4f} the second time" if "differs" in cell else ""
    print(f"{at}: {said} in {took_s:.0f} s", file=sys.stderr, flush=True)


async def measure(given: argparse.Namespace, found: dict[str, Any], keep: Callable[[], None]) -> None:
    """Measure what the command line says."""
    cells: Cells = found["cells"]

    def kept(at: str, took_s: float) -> None:
        tell(at, cells[at], took_s)
        keep()

    for model in given.models:
        await catalogue.measure(model, given.rows, given.peers, cells, kept, missing=given.missing)
        if all(name in catalogue.ROWS for name in given.rows):
            continue
        size = await _fitted(model)
        work: list[Awaitable[None]] = [
            of_peer(contender, model, given.rows, size, cells, keep, missing=given.missing, twice=given.twice)
            for contender in CONTENDERS
            if contender.name in given.peers and (model.startswith("anthropic") or contender.openai)
        ]
        if "stanchion" in given.peers:
            work.append(of_ours(model, given.rows, size, cells, keep, missing=given.missing))
        for each in work:
            await each
        if LONG_RUN in given.rows and model == compaction.MODEL:
            await long_runs(model, given.peers, cells, keep)


async def _fitted(model: str) -> int:
    with tempfile.TemporaryDirectory(prefix="stanchion-bill-") as folder:
        return await ours.fitted(model, Task(), Path(folder) / ours.TRIAL)


def main() -> None:
    """Do what the command line says."""
    given = _parsed()
    path: Path = given.json or ENVIRONMENTS / "bill.json"
    if given.publish:
        publish(json.loads((path if path.is_file() else COMMITTED).read_text()))
        return
    found: dict[str, Any] = {"versions": {}, "cells": {}}
    if path.is_file():
        found = json.loads(path.read_text())
    for contender in CONTENDERS:
        if contender.name in given.peers:
            make(contender.peer)
            found["versions"][contender.name] = contender.peer.versions()
    path.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(measure(given, found, lambda: _write(path, found)))
    _write(path, found)
    sys.exit(any("error" in cell for cell in found["cells"].values()))


def _write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def _parsed() -> argparse.Namespace:
    names = ["stanchion", *(contender.name for contender in CONTENDERS)]
    rows = [*ROWS, f"{LONG}-cold", f"{LONG}-warm", LONG_RUN, *catalogue.ROWS]
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers.bill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(SHEETS), default=list(SHEETS), metavar="MODEL")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--missing", action="store_true", help="keep the cells that are there, and measure the others")
    parser.add_argument(
        "--twice", action="store_true", help="measure each peer's cell twice, and say where they differ"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the set's file (default: .peers/bill.json)")
    parser.add_argument("--publish", action="store_true", help="measure nothing; write tables and plots from the set")
    return parser.parse_args()


if __name__ == "__main__":
    main()
