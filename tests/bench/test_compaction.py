"""A long session costs the same in each cycle of its compactions, by the provider's own bill; without them it costs more and more."""

from __future__ import annotations

import pytest

from bench.compaction import Turn, turns
from bench.floor import Task
from stanchion.compaction import Compaction

TASK = Task(turns=52, first=6_000, last=6_000 + 900 * 51)


def cost(found: list[Turn]) -> float:
    return sum(turn.nano_usd for turn in found) / len(found)


async def test_a_cycle_costs_what_the_one_before_it_did() -> None:
    """From one compaction to the next, the summary included."""
    found = await turns(TASK, Compaction())
    at = [number for number, turn in enumerate(found) if turn.compactions]
    assert len(at) >= 3
    one, other = found[at[0] : at[1]], found[at[1] : at[2]]
    assert cost(other) == pytest.approx(cost(one), rel=0.05)
    assert max(turn.tokens for turn in found[at[1] :]) <= 1.1 * max(turn.tokens for turn in found[: at[1]])


async def test_without_it_each_turn_costs_more_than_the_last() -> None:
    """Of as many turns, the later half costs more."""
    found = await turns(TASK, None)
    assert cost(found[26:]) > 1.2 * cost(found[:26])
    assert found[-1].tokens > 50_000
