"""`python -m bench.bill`: what a support task costs by the simulated provider's own bill, each row beside its floor by arithmetic.

A session of 15 turns (or 200) over HTTP against `stanchion sim`: the input grows evenly from a stable prefix of 60,000 tokens
to 80,000, 500 tokens are answered a turn. *Warm*: other sessions of the agent keep the shared beginning in the provider's cache; what they
cost is not counted. Pauses pass on the clocks of provider and runtime, nobody waits for them. What is billed is read from `GET /bill`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from bench import planted
from bench.floor import ASKED, BRIEF, CHEAP, ROWS, SHEETS, WORKED, Row, Task, floor
from stanchion import Agent, Approve, Limits, Model, tool
from stanchion.core import event as ev
from stanchion.core.message import Usage
from stanchion.core.money import parse_usd
from stanchion.routing import Brief, Routing
from stanchion.runtime import Runtime
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimProcess, When, start_sim_process
from stanchion.testing import FakeClock

RULE = "A parcel that is lost is paid for when the carrier says so, and not before. "
ANSWER = ("I have looked at it and will see to the rest of it at once. " * 40)[: 4 * 500]
OTHERS_S = 240
"""How often another session of the agent asks something, where others keep the shared beginning warm."""
TRIAL, TASK = "trial", "task"
SCRIPT = Script(
    rules=(
        Rule(
            when=When(user=r"settle (\d+)\.*$"),
            reply=Reply(text=ANSWER[:-80], calls=(ReplyCall(name="settle", arguments={"turn": "${match.1}"}),)),
        ),
    ),
    default=Reply(text=ANSWER),
)
"""A call takes about 20 tokens of what is answered."""
STEP_S = 20.0
"""How far the clocks go at once in a pause."""
AFTER_S = 7_200.0
"""How long a session is watched after its last turn: what refreshes it then is billed, too."""
WORKS_S = 3_600.0
"""A tool may take so long."""
NEXT_S = 100_000.0
"""From one session to the next of the same agent, where it had some before."""


class Bill(msgspec.Struct):
    """A row, as it was billed. Nano-dollars."""

    row: str
    model: str
    nano_usd: int
    """With all refreshes, those after the last turn among them."""
    floor: int
    usages: list[Usage]
    lives: list[str]
    refreshes: int = 0
    refreshes_nano_usd: int = 0
    wrong: int = 0
    """Answers that were wrong, since the request did not hold what it needed: any voids a routed row."""
    brief_tokens: list[int] = []
    """Input of each turn that was routed."""

    @property
    def ratio(self) -> float:
        """Ours over the floor."""
        return self.nano_usd / self.floor


class Work:
    """A tool that is at work until it is told to end."""

    def __init__(self) -> None:
        self.begun, self._ended = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        """Be at work."""
        self._ended.clear()
        self.begun.set()
        await self._ended.wait()

    def end(self) -> None:
        """Have the tool answer."""
        self.begun.clear()
        self._ended.set()


class Desk:
    """An agent's sessions at one simulated provider."""

    def __init__(
        self, runtime: Runtime, sim: SimProcess, clock: FakeClock, http: aiohttp.ClientSession, work: Work
    ) -> None:
        self.runtime, self._sim, self._clock, self._http, self.work = runtime, sim, clock, http, work
        self._others = 0
        self.lives: list[str] = []
        self.refreshes: list[int] = []
        """What each cost, in nano-dollars."""
        self.wrong = 0
        self.aside: list[int] = []
        """Input of each request that was not the conversation's."""

    async def ask(self, session: str, text: str, step: str = "") -> ev.ModelCallFinished:
        """Have a turn; give how its model call ended."""
        started = await self.runtime.start("desk", text, session=session, step=step)
        view = await self.runtime.wait(started.run, timeout_s=60)
        if view.outcome != "done":
            raise RuntimeError(f"run {started.run} of {session} ended as {view.outcome}: {view.reason}")
        if not self.work.begun.is_set():
            await self._let_go()
        page = await self.runtime.store.read("default", started.run)
        if session == TASK:
            calls = [entry.event for entry in page if isinstance(entry.event, ev.ModelCallStarted)]
            self.lives += [call.cache for call in calls if not call.view]
            self.wrong += view.text.startswith(planted.WRONG) or len(calls) > 1
        answer = next(entry.event for entry in page if isinstance(entry.event, ev.ModelCallFinished))
        if step and session == TASK and answer.usage is not None:
            self.aside.append(answer.usage.total_input_tokens)
        return answer

    async def interrupted(self, session: str, text: str, row: Row) -> tuple[list[Usage], int]:
        """Have a turn whose call waits for a person, or works, for as long as the row says, and the turn with its result; as `session` does."""
        run = (await self.runtime.start("desk", text, session=session)).run
        if row.worked:
            await self.work.begun.wait()
            others = await self.pause(row.pause_s, warm=row.warm)
            self.work.end()
        else:
            view = await self.runtime.wait(run, timeout_s=60)
            await self._let_go()
            others = await self.pause(row.pause_s, warm=row.warm)
            await self.runtime.decide(run, view.waiting[0].call, "approve")
        told = [item.event async for item in self.runtime.tail(run, deltas=False) if isinstance(item, ev.Entry)]
        await self._let_go()
        calls = [event for event in told if isinstance(event, ev.ModelCallStarted)]
        self.lives += [call.cache for call in calls if session == TASK]
        usages = [event.usage for event in told if isinstance(event, ev.ModelCallFinished) and event.usage]
        if len(usages) != 2 or not isinstance(told[-1], ev.RunFinished) or told[-1].outcome != "done":
            raise RuntimeError(f"run {run} of {session} did not go on as it should: {told[-1]}")
        return usages, others

    async def _let_go(self) -> None:
        while self.runtime.active:  # noqa: ASYNC110 - an end is noted just after it can be seen
            await asyncio.sleep(0)

    async def other(self) -> None:
        """Have another session ask something."""
        self._others += 1
        await self.ask(f"other-{self._others}", "Hello, a short question.")

    async def billed(self) -> int:
        """Read the bill so far, in nano-dollars."""
        async with self._http.get(f"{self._sim.base_url}/bill") as response:
            return (await response.json())["total"]["nano_usd"]

    async def pause(self, seconds: float, *, warm: bool) -> int:
        """Let time pass, other sessions asking now and then; give what these cost."""
        others, since = 0, 0.0
        while seconds > 0:
            step = min(seconds, STEP_S)
            await self.forward(step)
            await self._refresh()
            seconds -= step
            since += step
            if warm and since >= OTHERS_S:
                since, before = 0.0, await self.billed()
                await self.other()
                others += await self.billed() - before
        return others

    async def _refresh(self) -> None:
        """Have what is due read once more, and wait for it."""
        for run in await self.runtime.refresh_caches():
            view = await self.runtime.wait(run, timeout_s=60)
            if view.outcome != "done":
                raise RuntimeError(f"refresh {run} ended as {view.outcome}: {view.reason}")
            self.refreshes.append(parse_usd(view.usd, field="usd"))

    async def forward(self, seconds: float) -> None:
        """Put the clocks forward."""
        self._clock.advance(seconds)
        async with self._http.post(f"{self._sim.base_url}/sim/clock", json={"advance_s": seconds}) as response:
            response.raise_for_status()


def agent(model: str, identity_bytes: int, row: Row, task: Task, work: Work) -> Agent:
    """Make the desk, whose identity has so many bytes. Where the row's pause is within a run, it has a call whose result goes on with the task."""

    @tool(effect="irreversible" if row.asked else "read", timeout_s=WORKS_S)
    async def settle(turn: str) -> str:
        """Pay for the parcel."""
        if row.worked:
            await work.wait()
        return said(task, int(turn))

    identity = (RULE * (identity_bytes // len(RULE) + 1))[:identity_bytes]
    routed = row.routed
    cheap = Model(CHEAP[model][0], max_output_tokens=1_000)
    lookup = Brief(cheap, context_tokens=BRIEF, identity="You are the desk of a parcel service.")
    return Agent(
        name="desk",
        identity=planted.identity(identity_bytes) if routed else identity,
        routing=Routing(table={"lookup": lookup}) if routed else Routing(),
        model=Model(model, cache=row.cache, max_output_tokens=1_000),  # type: ignore[arg-type]
        tools=[settle] if row.inside else [],
        approvals=[Approve(tool="settle")] if row.asked else [],
        limits=Limits(usd="100", turns=300),
    )


@asynccontextmanager
async def opened(
    made: Agent, folder: Path, sim: SimProcess, work: Work | None = None, *, left_alone: bool = False
) -> AsyncGenerator[Desk]:
    """Open a runtime with one agent at the simulated provider. `left_alone`: nothing is refreshed within a run."""
    clock = FakeClock()
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
        "GEMINI_BASE_URL": sim.openai_base_url, "GEMINI_API_KEY": "sim-key",
    }  # fmt: skip
    runtime = await Runtime.open(made, data=folder.with_suffix(".db"), environment=environment, clock=clock)
    if left_alone and runtime._driving is not None:
        runtime._driving.worker.waits = runtime._driving.worker.works = None
    async with aiohttp.ClientSession() as http:
        try:
            yield Desk(runtime, sim, clock, http, work or Work())
        finally:
            await runtime.aclose(grace_s=1.0)


async def fitted(model: str, task: Task, folder: Path, row: Row = ROWS["cold"]) -> int:
    """Find how many bytes of identity make the first request as long as the task says: by a trial."""
    tried, row = 4_000, msgspec.structs.replace(row, cache="off", routed=False)
    sim = await start_sim_process(Script(default=Reply(text=ANSWER)))
    try:
        async with opened(agent(model, tried, row, task, Work()), folder, sim) as desk:
            usage = (await desk.ask(TRIAL, said(task, 0))).usage
    finally:
        await sim.stop()
    assert usage is not None
    return tried + 4 * (task.first - usage.total_input_tokens)


def said(task: Task, turn: int) -> str:
    """Write what the user says in a turn: as long as it takes for the input to grow evenly."""
    tokens = 20 if turn == 0 else task.input(turn) - task.input(turn - 1) - task.output
    text = f"Turn {turn} of {task.turns}: " + "what of my parcel with the blue lid? " * (tokens // 8)
    return text[: 4 * tokens].ljust(4 * tokens, ".")


async def billed(
    row: Row,
    model: str,
    task: Task,
    identity_bytes: int,
    folder: Path,
    *,
    retained: bool = False,
    left_alone: bool = False,
) -> Bill:
    """Run a row, and say what it was billed. `retained`: at OpenAI, by an organisation whose data may be retained for a day."""
    arguments = ["--retention", "24h"] if retained else []
    script = planted.script(task.output) if row.routed else SCRIPT
    sim = await start_sim_process(script, arguments=arguments)
    work = Work()
    made = agent(model, identity_bytes, row, task, work)
    try:
        async with opened(made, folder, sim, work, left_alone=left_alone) as desk:
            for number in range(row.learns):
                await session(desk, f"before-{number}", row.at(number, task), task)
                await desk.pause(AFTER_S, warm=row.warm)
                await desk.forward(NEXT_S)
            before, desk.refreshes, desk.wrong = await desk.billed(), [], 0
            usages, apart = await session(desk, TASK, row, task)
            apart += await desk.pause(AFTER_S, warm=row.warm) if row.pause_s else 0
            total = await desk.billed() - before - apart
    finally:
        await sim.stop()
    return Bill(
        row.name,
        model,
        total,
        floor(row, task, model),
        usages,
        desk.lives,
        len(desk.refreshes),
        sum(desk.refreshes),
        desk.wrong,
        desk.aside,
    )


async def session(desk: Desk, name: str, row: Row, task: Task) -> tuple[list[Usage], int]:
    """Have a session of the task; give what each turn used, and what other sessions cost meanwhile."""
    usages: list[Usage] = []
    others = await desk.billed()
    if row.warm:
        await desk.other()
    others = await desk.billed() - others
    for turn in range(task.turns):
        if row.inside and row.pauses_before(turn):  # it was the one before that waited
            continue
        if row.inside and row.pauses_before(turn + 1):
            text = f"{said(task, turn)[:-12]} settle {turn + 1}".ljust(len(said(task, turn)), ".")
            pair, apart = await desk.interrupted(name, text, row)
            usages, others = usages + pair, others + apart
            continue
        if row.pauses_before(turn):
            others += await desk.pause(row.pause_s, warm=row.warm)
        step = "lookup" if row.routed and turn % 2 == 0 else ""
        text = planted.said(task, turn) if row.routed else said(task, turn)
        usage = (await desk.ask(name, text, step)).usage
        assert usage is not None
        usages += [] if step else [usage]
    return usages, others


async def measure(model: str, task: Task, rows: Sequence[Row], *, left_alone: bool = False) -> list[Bill]:
    """Run rows, one after the other."""
    with tempfile.TemporaryDirectory(prefix="stanchion-bill-") as folder:
        sizes: dict[bool, int] = {}
        for row in rows:
            if row.inside not in sizes:
                sizes[row.inside] = await fitted(model, task, Path(folder) / f"{TRIAL}-{row.inside}", row)
        return [
            await billed(row, model, task, sizes[row.inside], Path(folder) / str(n), left_alone=left_alone)
            for n, row in enumerate(rows)
        ]


def table(bills: Sequence[Bill]) -> str:
    """Make a Markdown table."""
    lines = ["| row | floor | billed | ratio | of it refreshes | life | tokens read of those sent before |"]
    lines.append("|---|---|---|---|---|---|---|")
    for bill in bills:
        money = f"{bill.floor / 1e9:.4f} | {bill.nano_usd / 1e9:.4f} | {bill.ratio:.3f}"
        money = f"void: {bill.wrong} wrong | | " if bill.wrong else money
        again = f"{bill.refreshes}: {bill.refreshes_nano_usd / 1e9:.4f}" if bill.refreshes else ""
        lives = "/".join(sorted(set(bill.lives)))
        lines.append(f"| {bill.row} | {money} | {again} | {lives} | {share_read(bill.usages):.1%} |")
    return "\n".join(lines)


def share_read(usages: Sequence[Usage]) -> float:
    """Say how much of what the session had sent before was read from the cache."""
    before = sum(usage.total_input_tokens for usage in usages[:-1])
    return min(sum(usage.cache_read_tokens for usage in usages[1:]) / before, 1.0) if before else 0.0


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.bill", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", default=next(iter(SHEETS)), choices=list(SHEETS))
    parser.add_argument("--cache", choices=["auto", "short", "long"], default="auto", help="the life of what is kept")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--last", type=int, default=80_000, metavar="TOKENS", help="input of the last turn")
    known = {**ROWS, **ASKED, **WORKED}
    parser.add_argument("--rows", nargs="*", choices=list(known), default=list(ROWS), metavar="ROW")
    parser.add_argument(
        "--left-alone", action="store_true", help="refresh nothing while a run waits for a person or a tool"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    given = parser.parse_args()
    rows = [known[name] for name in given.rows]
    rows = [row if row.cache == "off" else msgspec.structs.replace(row, cache=given.cache) for row in rows]
    bills = asyncio.run(
        measure(given.model, Task(turns=given.turns, last=given.last), rows, left_alone=given.left_alone)
    )
    print(table(bills))
    if given.json:
        given.json.write_text(json.dumps(msgspec.to_builtins(bills), indent=1) + "\n")


if __name__ == "__main__":
    main()
