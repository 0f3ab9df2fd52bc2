"""The sweeps: a kill at every boundary of the scripted run, and kills at random moments."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.rig import Case, clean, play, start_witness

POINTS = ("append", "sync", "synced", "appended", "effect")


async def measure(folder: Path, witness: str, http: aiohttp.ClientSession) -> tuple[int, float]:
    """Play the script once without a kill: how many events it has, and how long it takes."""
    case = await play(Case("plain", folder / "plain.db"), witness, http)
    if case.problems:
        raise AssertionError(f"without any kill: {case.problems}")
    return len(case.seqs), case.took_s


async def sweep(
    *, appends: int, syncs: int, effects: int, random_kills: int, seed: int, parallel: int = 3
) -> dict[str, Any]:
    """Kill at the first so many appends, syncs and effects, and so many times at random. 0 appends: at all of them."""
    folder = Path(tempfile.mkdtemp(prefix="stanchion-chaos-"))
    async with start_witness() as witness, aiohttp.ClientSession() as http:
        events, plain_s = await measure(folder, witness, http)
        chance = random.Random(seed)
        cases = [
            *_boundaries(folder, "append", appends),
            *_boundaries(folder, "appended", appends),
            *_boundaries(folder, "sync", syncs),
            *_boundaries(folder, "synced", syncs),
            *_boundaries(folder, "effect", effects),
        ]
        cases += [
            Case(f"random-{n}", folder / f"random-{n}.db", kill_after_s=chance.uniform(0.0, plain_s))
            for n in range(random_kills)
        ]
        began = time.monotonic()
        done = await _play_all(cases, witness, http, parallel)
    report = _report(done, events, time.monotonic() - began, folder, seed)
    if not report["bad"]:
        shutil.rmtree(folder)
    return report


def _boundaries(folder: Path, point: str, count: int) -> Iterable[Case]:
    return (Case(f"{point}-{at}", folder / f"{point}-{at}.db", point, at) for at in range(1, count + 1))


async def _play_all(cases: list[Case], witness: str, http: aiohttp.ClientSession, parallel: int) -> list[Case]:
    waiting = iter(cases)
    done: list[Case] = []

    async def work() -> None:
        for case in waiting:
            done.append(await play(case, witness, http))
            if not case.problems:
                clean(case)
            if len(done) % 25 == 0:
                print(f"  {len(done)} of {len(cases)} cases", flush=True)

    await asyncio.gather(*(work() for _ in range(parallel)))
    return done


def _report(cases: list[Case], events: int, seconds: float, folder: Path, seed: int) -> dict[str, Any]:
    bad = [case for case in cases if case.problems]
    by_point = {point: sum(case.killed > 0 for case in cases if case.point == point) for point in POINTS}
    return {
        "cases": len(cases),
        "killed": sum(case.killed > 0 for case in cases),
        "killed_at": by_point | {"random": sum(case.killed > 0 for case in cases if case.kill_after_s is not None)},
        "events_of_a_plain_run": events,
        "bad": len(bad),
        "asked_a_person_about_doubt": sum(case.asked for case in cases),
        "seconds": round(seconds, 1),
        "seed": seed,
        "problems": [{"case": case.name, "problems": case.problems} for case in bad[:20]],
        "kept": str(folder) if bad else "",
    }
