"""What every subject has in common: it is told what to do by JSON lines, and measures itself. Standard library only.

A subject is the same agent in one framework. It runs in that framework's own environment, in a process of its own, with
this file and `tools.py` beside it. It writes a line when it is ready, then answers each line it reads:

    {"do": "runs", "names": [..], "at_once": 10, "over_s": 1.0}   drive runs to their end; say what that cost
    {"do": "first", "name": ".."}      one run; seconds until its first piece of text
    {"do": "start", "names": [..]}     begin runs and answer at once
    {"do": "states", "names": [..]}    "done", "waiting" (for a person), "failed" or "open", of each
    {"do": "resume", "names": [..]}    go on with them by hand, as the framework's pages say; answer at once
    {"do": "serve"}                    serve streams; say where
    {"do": "stop"}
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

Spec = dict[str, Any]
OnText = Callable[[str], None]
PROMPT = "run={} Where is the order?"


def ignore_text(_: str) -> None:
    """Do nothing with a piece of text."""


class Subject:
    """One framework's agent. A subclass fills in `open`, `run`, and what else its framework can do."""

    again = "by hand"
    """How a run goes on after a kill: "by itself", or "by hand"."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.failures: list[str] = []

    async def open(self) -> None:
        """Make the agent and open the database."""
        raise NotImplementedError

    async def run(self, name: str, on_text: OnText) -> None:
        """Drive the run of this name to its end, streaming."""
        raise NotImplementedError

    async def resume(self, name: str, on_text: OnText) -> None:
        """Go on with a run that was killed, as the framework's pages say; where they say nothing, ask again."""
        await self.run(name, on_text)

    async def state(self, name: str) -> str:
        """Tell how a run stands, by what is stored."""
        task = self.tasks.get(name)
        if task is None or not task.done():
            return "open"
        return "failed" if task.exception() else "done"

    stream_variant = False
    """Whether `follow` is there."""

    def follow(self, name: str, after: int) -> AsyncIterator[tuple[int, str]]:
        """Give the pieces of a run's text from a place on, each with the place behind it."""
        raise NotImplementedError

    async def serve(self) -> str:
        """Serve streams of runs; give the address."""
        from endpoint import serve

        return await serve(self)

    async def close(self) -> None:
        """Close what is open."""

    # --- what is done with it -------------------------------------------------------------------------------------------

    async def do_runs(self, names: list[str], at_once: int, over_s: float = 0.0) -> dict[str, Any]:
        """Drive runs to their end, so many at once, the first of them begun evenly over a time."""
        seen = {"pieces": 0, "chars": 0}

        def on_text(text: str) -> None:
            seen["pieces"] += 1
            seen["chars"] += len(text)

        left, failed = iter(names), list[str]()

        async def worker(place: int) -> None:
            await asyncio.sleep(over_s * place / at_once)
            for name in left:
                try:
                    await self.run(name, on_text)
                except Exception as error:  # what a run ends with is a finding
                    failed.append(f"{type(error).__name__}: {error}"[:300])

        meter = Meter()
        watch = asyncio.create_task(meter.watch())
        await asyncio.gather(*(worker(place) for place in range(min(at_once, len(names)))))
        watch.cancel()
        return {**meter.read(), **seen, "runs": len(names), "failed": len(failed), "failures": sorted(set(failed))[:3]}

    async def do_first(self, name: str) -> dict[str, Any]:
        """Time the first piece of text of a run."""
        first: list[float] = []

        def on_text(_: str) -> None:
            if not first:
                first.append(time.perf_counter())

        began = time.perf_counter()
        await self.run(name, on_text)
        return {"first_s": first[0] - began}

    async def do_start(self, names: list[str]) -> dict[str, Any]:
        """Begin runs."""
        return self._begin(names, self.run)

    async def do_resume(self, names: list[str]) -> dict[str, Any]:
        """Go on with runs by hand."""
        return self._begin(names, self.resume)

    def _begin(self, names: list[str], work: Callable[[str, OnText], Coroutine[Any, Any, None]]) -> dict[str, Any]:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._kept(name, work))
        return {"begun": len(names)}

    async def _kept(self, name: str, work: Callable[[str, OnText], Awaitable[None]]) -> None:
        try:
            await work(name, ignore_text)
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}"[:300])
            raise

    async def do_states(self, names: list[str]) -> dict[str, Any]:
        """Tell how runs stand."""
        return {"states": {name: await self.state(name) for name in names}, "failures": self.failures[:3]}

    async def do_serve(self) -> dict[str, Any]:
        """Serve streams."""
        return {"url": await self.serve()}


class Meter:
    """CPU, wall and memory of this process since it was made."""

    def __init__(self) -> None:
        gc.collect()
        self.rss, self.uss = memory()
        self.rss_most, self.uss_most = self.rss, self.uss
        self.cpu, self.wall = cpu_s(), time.monotonic()

    async def watch(self) -> None:
        """Note the most memory, four times a second."""
        while True:
            await asyncio.sleep(0.25)
            rss, uss = memory()
            self.rss_most, self.uss_most = max(self.rss_most, rss), max(self.uss_most, uss)

    def read(self) -> dict[str, Any]:
        """Give what it cost."""
        return {
            "cpu_s": cpu_s() - self.cpu, "wall_s": time.monotonic() - self.wall, "rss_before": self.rss,
            "rss_most": self.rss_most, "uss_before": self.uss, "uss_most": self.uss_most,
        }  # fmt: skip


def cpu_s() -> float:
    """User and system time of this process, all its threads, and children that have ended."""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


def memory() -> tuple[int, int]:
    """Resident and unshared bytes now."""
    found = {"Rss:": 0, "Private_Clean:": 0, "Private_Dirty:": 0}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            name, *words = line.split()
            if name in found:
                found[name] = int(words[0]) * 1024
    return found["Rss:"], found["Private_Clean:"] + found["Private_Dirty:"]


async def _answer(subject: Subject) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not stand between the answers

    def say(answer: dict[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    await subject.open()
    say({"ready": True})
    while line := await reader.readline():
        asked = json.loads(line)
        do = asked.pop("do")
        if do == "stop":
            break
        try:
            say(await getattr(subject, f"do_{do}")(**asked))
        except Exception as error:  # the measurer decides what to make of it
            say({"error": f"{type(error).__name__}: {error}"[:500]})
    await subject.close()
    say({"stopped": True})


def main(kind: Callable[[Spec], Subject]) -> None:
    """Be the subject that the command line says."""
    import uvloop

    spec = json.loads(sys.argv[1])
    os.environ.update(spec.get("environment", {}))
    uvloop.run(_answer(kind(spec)))
    sys.stdout.flush()
    os._exit(0)  # threads that frameworks leave behind are not waited for
