"""The kill matrix on PostgreSQL: faults are delivered to a fleet while customers' runs go on, and then everything is counted.

Nothing may be lost, nothing done twice, no event of a claim may come after another claim's, and every journal must verify and
read back gapless, as the customer saw it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stanchion.core import event as ev
from stanchion.core.event import Entry
from stanchion.runtime import Runtime, entry_json
from tests.chaos.agent import EFFECTS
from tests.chaos.customers import Case, Customer
from tests.chaos.faults import Fault, Trouble
from tests.chaos.fleet import Fleet, start_fleet

FLEET = ("serve", "worker", "worker", "api")
"""Three processes that drive, of which one takes requests as well, and one that only does that. All of them are struck."""

LONG_FROM = 250
"""From so many faults on there are black holes longer than any timeout among them."""


@dataclass(slots=True)
class Shape:
    """How large a matrix is played."""

    faults: int
    seed: int
    kinds: Sequence[str] = FLEET
    in_flight: int = 24
    gap_s: float = 0.6
    """Between two faults of one process, at most."""
    database_every_s: tuple[float, float] = (8.0, 20.0)
    durable: bool = True
    keep: bool = False
    """Keep the processes' logs though nothing was bad."""


@dataclass(slots=True)
class Played:
    """What came of it."""

    cases: list[Case] = field(default_factory=list[Case])
    problems: list[str] = field(default_factory=list[str])
    takeovers_s: list[float] = field(default_factory=list[float])
    late_appends: int = 0
    left_in_doubt: int = 0
    """Calls with an effect that a frozen worker had released when another took its run over."""
    verified: int = 0
    events: int = 0


async def matrix(shape: Shape, tell: Any = print) -> dict[str, Any]:
    """Play a matrix and report. Raises `NoPostgres` where there is none to start."""
    folder = Path(tempfile.mkdtemp(prefix="stanchion-fleet-"))
    chance, began_s = random.Random(shape.seed), time.monotonic()
    played = Played()
    async with start_fleet(folder, shape.kinds, durable=shape.durable) as fleet:
        trouble = Trouble(fleet, chance, long=shape.faults >= LONG_FROM)
        await _play(shape, fleet, trouble, played, tell)
        fault_s = time.monotonic() - began_s
        entries = await _read_back(fleet, played)
        _judge(trouble, played, entries)
        members = fleet.members
    _write_timeline(folder, trouble, entries)
    played.problems += [problem for member in members for problem in member.problems]
    report = _report(shape, trouble, played, fault_s, time.monotonic() - began_s, _tracebacks(folder))
    report["kept"] = str(folder) if report["bad"] or shape.keep else ""
    if not report["kept"]:
        shutil.rmtree(folder)
    return report


async def _play(shape: Shape, fleet: Fleet, trouble: Trouble, played: Played, tell: Any) -> None:
    """Start runs and deliver faults until there were enough; then let what is in flight come to its end."""
    over, calm = asyncio.Event(), asyncio.Event()
    numbers = iter(range(1 << 30))

    async def customers() -> None:
        while not over.is_set():
            number = next(numbers)
            case = Case(f"{shape.seed}-{number}")
            played.cases.append(case)
            chance = random.Random(f"{shape.seed}/{number}")
            await Customer(fleet, case, chance, deltas=number % 4 == 0, calm=calm).play()

    async def strikes(number: int) -> None:
        chance = random.Random(f"{shape.seed}/strikes/{number}")
        while not over.is_set():
            await asyncio.sleep(chance.uniform(0.0, shape.gap_s))  # the random moment is what is tested
            await trouble.strike(fleet.members[number])

    async def restarts() -> None:
        chance = random.Random(f"{shape.seed}/restarts")
        while not await _set_within(over, chance.uniform(*shape.database_every_s)):
            await trouble.restart()  # never cut short: a database that was stopped must be started

    async def watch() -> None:
        told = 0
        while len(trouble.faults) < shape.faults:
            await asyncio.sleep(0.2)
            if len(trouble.faults) // 100 > told:
                told = len(trouble.faults) // 100
                bad = sum(bool(case.problems) for case in played.cases)
                tell(
                    f"  {len(trouble.faults)} of {shape.faults} faults, {len(played.cases)} runs, {bad} bad", flush=True
                )
        over.set()

    striking = [asyncio.create_task(strikes(number)) for number in range(len(fleet.members))]
    striking.append(asyncio.create_task(restarts()))
    living = [asyncio.create_task(customers()) for _ in range(shape.in_flight)]
    try:
        await watch()
        await asyncio.gather(*striking, return_exceptions=True)
        calm.set()
        await asyncio.gather(*living)
    finally:
        for task in (*striking, *living):
            task.cancel()
    for task in striking:
        if not task.cancelled() and task.exception() is not None:
            played.problems.append(f"the faults ended: {task.exception()!r}")


async def _set_within(event: asyncio.Event, limit_s: float) -> bool:
    """Wait for an event, for so long at most. True: it is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()


async def _read_back(fleet: Fleet, played: Played) -> dict[str, list[Entry]]:
    """Read every journal past the proxies, verify its chain, and compare it with what the customer saw."""
    found: dict[str, list[Entry]] = {}
    async with await Runtime.open(data=fleet.database.dsn(), drive=False) as runtime:
        async for verified in runtime.verify():
            played.verified += not verified.error
            played.problems += [f"journal of {verified.run}: {verified.error}"] if verified.error else []
        for case in played.cases:
            if not case.run:
                continue
            entries = found[case.run] = list(await runtime.store.read("default", case.run))
            played.events += len(entries)
            stored = [json.loads(entry_json(entry)) for entry in entries]
            if [entry.seq for entry in entries] != list(range(1, len(entries) + 1)):
                case.problems.append("the journal has gaps")
            if stored[: len(case.events)] != case.events:
                case.problems.append("the customer saw events that are not in the journal")
    return found


def _judge(trouble: Trouble, played: Played, journals: dict[str, list[Entry]]) -> None:
    """Look for events of a claim behind another claim's, and measure how soon runs were taken over."""
    for run, entries in journals.items():
        epochs = [entry.epoch for entry in entries]
        if epochs != sorted(epochs):
            played.problems.append(f"run {run}: an event of an older claim came behind a newer one's: {epochs}")
    for thaw in trouble.thaws:
        late = [e for e in journals.get(thaw.run, ()) if e.seq > thaw.seq and e.epoch <= thaw.epoch]
        played.late_appends += len(late)
        played.problems += [f"run {thaw.run}: a thawed worker appended {len(late)} events"] if late else []
        released, doubted = _released(journals.get(thaw.run, []), thaw.epoch)
        played.left_in_doubt += len(doubted)
        played.problems += [f"run {thaw.run}: call {call} was released and is not lost" for call in released - doubted]
    for fault in trouble.faults:
        if fault.kind.startswith("kill"):
            played.takeovers_s += _takeovers(fault, journals)


def _released(entries: list[Entry], epoch: int) -> tuple[set[str], set[str]]:
    """List the attempts with an effect that were under way when a claim was lost, and those that the next put in doubt."""
    effects: set[str] = set()
    released: set[str] = set()
    doubted: set[str] = set()
    for entry in entries:
        match entry.event:
            case ev.ToolCallJudged(call=call, tool=tool) if tool in EFFECTS:
                effects.add(call)
            case ev.ToolCallStarted(call=call, attempt=attempt, mode="run") if entry.epoch <= epoch and call in effects:
                released.add(f"{call}/{attempt}")
            case ev.ToolCallFailed(call=call, attempt=attempt) if entry.epoch <= epoch:
                released.discard(f"{call}/{attempt}")
            case ev.ToolCallFailed(call=call, attempt=attempt, code="lost", in_doubt=True):
                doubted.add(f"{call}/{attempt}")
            case ev.ToolCallFinished(call=call) if entry.epoch <= epoch:
                released = {each for each in released if not each.startswith(f"{call}/")}
            case _:
                pass
    return released, doubted & released


def _write_timeline(folder: Path, trouble: Trouble, journals: dict[str, list[Entry]]) -> None:
    """Write what was done when, and how long each run of a killed process was driven by nobody."""
    with (folder / "faults.jsonl").open("w") as file:
        for fault in trouble.faults:
            taken = {held.run: _takeovers(Fault("", "", fault.at_s, [held]), journals) for held in fault.held}
            line = {
                "at_s": round(fault.at_s, 3),
                "kind": fault.kind,
                "member": fault.member,
                "taken_over_after_s": taken,
            }
            file.write(json.dumps(line) + "\n")


def _takeovers(fault: Fault, journals: dict[str, list[Entry]]) -> list[float]:
    """From a kill to the first event of the next claim, of each run that the killed worker drove, in seconds."""
    found: list[float] = []
    for held in fault.held:
        after = [entry for entry in journals.get(held.run, ()) if entry.epoch > held.epoch]
        if after:
            found.append(after[0].at_ms / 1000 - fault.at_s)
    return found


def _tracebacks(folder: Path) -> dict[str, int]:
    """Count the last lines of the tracebacks in the processes' logs."""
    found: Counter[str] = Counter()
    for log in folder.glob("*.log"):
        for block in log.read_text(errors="replace").split("Traceback (most recent call last):")[1:]:
            last = re.search(r"^\S.*$", block.lstrip("\n"), re.MULTILINE)
            found[last.group(0)[:160] if last else "?"] += 1
    return dict(found)


def _report(
    shape: Shape, trouble: Trouble, played: Played, fault_s: float, all_s: float, tracebacks: dict[str, int]
) -> dict[str, Any]:
    problems = [*played.problems, *(f"{case.run}: {each}" for case in played.cases for each in case.problems)]
    takeovers = sorted(played.takeovers_s)
    taken = len(takeovers)
    hit = {held.run for fault in trouble.faults for held in fault.held}
    return {
        "faults": len(trouble.faults),
        "by_kind": dict(sorted(Counter(fault.kind for fault in trouble.faults).items())),
        "runs": len(played.cases),
        "runs_hit": len(hit),
        "hits": sum(len(fault.held) for fault in trouble.faults),
        "lost": sum(any("lost" in each or "did not finish" in each for each in case.problems) for case in played.cases),
        "repeated": sum("repeated" in each for case in played.cases for each in case.problems),
        "journals": {"verified": played.verified, "events": played.events},
        "take_over": {
            "runs": taken,
            "median_s": round(statistics.median(takeovers), 2) if takeovers else None,
            "p90_s": round(takeovers[taken * 9 // 10], 2) if takeovers else None,
            "max_s": round(takeovers[-1], 2) if takeovers else None,
        },
        "thawed": {
            "runs_taken_over_meanwhile": len(trouble.thaws),
            "released_calls_left_in_doubt": played.left_in_doubt,
            "appends_afterwards": played.late_appends,
        },
        "asked_a_person_about_doubt": sum(case.asked for case in played.cases),
        "late_calls_refused_by_the_witness": sum(case.late for case in played.cases),
        "dead_lettered_and_revived": sum(case.revived for case in played.cases),
        "median_run_s": round(statistics.median(case.took_s for case in played.cases), 1) if played.cases else None,
        "processes": list(shape.kinds),
        "tracebacks": tracebacks,
        "seconds": {"faults": round(fault_s, 1), "all": round(all_s, 1)},
        "seed": shape.seed,
        "bad": len(problems),
        "problems": problems[:30],
    }
