"""SIGKILL inside a tool call after its effect has landed: what is done again, and who goes on.

So many runs are each in the middle of a write: the witness has counted it and keeps the answer back. Then the process is
killed, and a new one is started on the same database ("restart"), or another that was there all the time is watched ("other").
"""

from __future__ import annotations

import asyncio
import time

from bench.peers.cells import Figures, Size
from bench.peers.peers import Peer
from bench.peers.work import killing
from bench.peers.world import Running, World

CALLS = 3
"""Model calls of a run that nothing happens to."""
PATIENCE_S = {"by itself": 30.0, "by hand": 4.0}
OTHER_S = 12.0
"""How long another worker is given to notice: more than twice the longest lease here."""
_OVER = ("done", "waiting", "failed")


async def kill(world: World, peer: Peer, size: Size, mode: str) -> Figures:
    """Kill a process in which so many writes of each kind are under way; see what becomes of them."""
    kinds = ("note", "refund")
    names = [f"{kind}-{number}" for kind in kinds for number in range(size.kills)]
    await world.play(killing())
    dsn = await world.database()
    running = await world.start(peer, dsn, worker="a")
    other = await world.start(peer, dsn, worker="b") if mode == "other" else None
    after: Running | None = other
    try:
        await world.ask_witness("POST", "/hold")
        await running.ask("start", names=names)
        await world.ask_witness("GET", f"/landed/{len(names)}")
        await running.kill()
        killed = time.monotonic()
        await world.ask_witness("POST", "/release")
        if after is None:
            after = await world.start(peer, dsn, worker="a")
        alive_s = time.monotonic() - killed
        patience = OTHER_S if other else PATIENCE_S["by itself" if peer.other_worker else "by hand"]
        states = await _settled(after, names, patience)
        took = time.monotonic() - killed
        itself = [name for name in names if states[name] in _OVER]
        rest = [name for name in names if name not in itself]
        failures: list[str] = []
        by_hand_s = 0.0
        if rest and mode == "restart":
            began = time.monotonic()
            await after.ask("resume", names=rest)
            states = {**states, **await _settled(after, rest, 20)}
            by_hand_s = time.monotonic() - began
            failures = (await after.ask("states", names=rest[:1]))["failures"]
        counts = await world.ask_witness("GET", "/counts")
        bill = await world.bill()
    finally:
        for process in (running, other, after):
            if process is not None:
                await process.kill()
        await world.drop(dsn)
    found: Figures = {
        "runs": len(names), "by_itself": len(itself), "seconds": took if itself else None, "start_s": alive_s,
        "by_hand": len(rest) if mode == "restart" else 0, "by_hand_s": by_hand_s if rest else None,
        "calls_again": bill["requests"] - _expected(names, states), "failures": failures,
    }  # fmt: skip
    for kind in kinds:
        mine = [name for name in names if name.startswith(kind)]
        calls = [f"{kind}:{name}/1" for name in mine]
        found[kind] = {
            "runs": len(mine), "repeated": sum(counts["applied"].get(call, 0) - 1 for call in calls),
            "asked_again": sum(counts["asked"].get(call, 0) - 1 for call in calls),
            **{state: sum(states[name] == state for name in mine) for state in (*_OVER, "open")},
        }  # fmt: skip
    return found


def _expected(names: list[str], states: dict[str, str]) -> int:
    """Count the model calls that were to be made: a run that waits or was given up has not asked for its last."""
    return sum(CALLS if states[name] == "done" else CALLS - 1 for name in names)


async def _settled(running: Running, names: list[str], patience_s: float) -> dict[str, str]:
    """Ask how the runs stand until all are over, or so long."""
    end = time.monotonic() + patience_s
    while True:
        states: dict[str, str] = (await running.ask("states", names=names))["states"]
        if all(state in _OVER for state in states.values()) or time.monotonic() > end:
            return states
        await asyncio.sleep(0.05)
