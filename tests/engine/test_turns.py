"""Turns: shares by weight with few slots and many, long runs and short, and no waiting behind others' queues."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict

import pytest

from stanchion.engine.taking import apart
from stanchion.engine.turns import Turns
from stanchion.journal.share import Ready, Running, Share, Shares, fair_order


class Slots:
    """Plays a worker with so many slots whose tenants always have runs queued; each run takes its tenant's time."""

    def __init__(self, slots: int, weights: dict[str, int], length_s: dict[str, float]) -> None:
        self.turns = Turns()
        self.weights = weights
        self.length_s = length_s
        self.shares = Shares(Share(tenant=tenant, weight=weight) for tenant, weight in weights.items())
        self.free = slots
        self.busy: list[tuple[float, str, float]] = []
        self.runs: Counter[str] = Counter()
        self.time: defaultdict[str, float] = defaultdict(float)
        self.order: list[str] = []
        self._no = Counter({tenant: number for number, tenant in enumerate(weights)})

    def queued(self) -> list[Ready]:
        """The first of each tenant's queue."""
        return [Ready(0, tenant, "a", "", False, self._no[tenant], tenant) for tenant in self.weights]

    def play(self, until_s: float, now_s: float = 0.0) -> float:
        """Fill the slots as they come free."""
        while now_s < until_s:
            while self.free:
                found = fair_order(
                    self.queued(),
                    limit=1,
                    batch=-1,
                    running=Running(self.shares),
                    shares=self.shares,
                    ahead=self.turns.ahead(),
                )
                tenant = found[0].tenant
                self.turns.begin(0, tenant, self.weights[tenant])
                self.free -= 1
                self.order.append(tenant)
                self._no[tenant] += len(self.weights)
                heapq.heappush(self.busy, (now_s + self.length_s[tenant], tenant, self.length_s[tenant]))
            now_s, tenant, took_s = heapq.heappop(self.busy)
            self.turns.end(0, tenant, took_s)
            self.free += 1
            self.runs[tenant] += 1
            self.time[tenant] += took_s
        return now_s


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("weights", [{"a": 1, "b": 3}, {"a": 1, "b": 1, "c": 10}])
def test_shares_follow_the_weights(slots: int, weights: dict[str, int]) -> None:
    """With runs of one length each tenant gets runs by its weight, within 4 %, even with fewer slots than weights."""
    play = Slots(slots, weights, dict.fromkeys(weights, 1.0))
    play.play(300 * 14 / slots)
    total = sum(play.runs.values())
    for tenant, weight in weights.items():
        assert play.runs[tenant] / total == pytest.approx(weight / sum(weights.values()), rel=0.04)


def test_long_runs_take_fewer_turns() -> None:
    """A tenant whose runs take ten times as long gets about the same slot time as another, not ten times as much."""
    play = Slots(10, {"long": 1, "short": 1}, {"long": 10.0, "short": 1.0})
    play.play(3_000)
    assert play.time["long"] / sum(play.time.values()) == pytest.approx(0.5, abs=0.1)


def test_chance_does_not_move_shares() -> None:
    """Runs of very different lengths, the same for both tenants, and stalls: runs go by weight all the same."""
    chance = random.Random(7)
    play = Slots(6, {"a": 1, "b": 3}, {"a": 1.0, "b": 1.0})
    now_s = 0.0
    for _ in range(60):
        play.length_s = dict.fromkeys("ab", chance.expovariate(1.0) * (20 if chance.random() < 0.1 else 1))
        now_s = play.play(now_s + 2, now_s)
    assert play.runs["b"] / sum(play.runs.values()) == pytest.approx(0.75, rel=0.05)


def test_a_newcomer_waits_one_turn_at_most() -> None:
    """However much a tenant had while it was alone, and however little: the other's first is the next or next but one."""
    for weights in ({"a": 1, "b": 1}, {"a": 100, "b": 1}, {"a": 1, "b": 100}):
        play = Slots(3, {"a": weights["a"]}, {"a": 1.0, "b": 1.0})
        now_s = play.play(100)
        play.weights, play.shares = weights, Shares(Share(tenant=name, weight=its) for name, its in weights.items())
        play._no["b"] = 1_000_000
        before = len(play.order)
        play.play(now_s + 10, now_s)
        assert "b" in play.order[before : before + 2], weights


def test_what_was_not_used_is_not_given_back() -> None:
    """A tenant that had nothing to do for long does not get all slots when it comes back."""
    play = Slots(4, {"a": 1, "b": 1}, {"a": 1.0, "b": 1.0})
    play.weights = {"a": 1}
    now_s = play.play(500)
    play.weights = {"a": 1, "b": 1}
    play._no["b"] = 1_000_000
    before = play.runs.copy()
    play.play(now_s + 20, now_s)
    gained = {tenant: play.runs[tenant] - before[tenant] for tenant in "ab"}
    assert abs(gained["a"] - gained["b"]) <= 6


def test_a_run_that_was_not_had_costs_nothing() -> None:
    """Another worker claimed it first."""
    turns = Turns()
    turns.undo(0, "a", turns.begin(0, "a", 1))
    assert turns.ahead() == {}
    turns.begin(0, "a", 2)
    assert turns.ahead() == {(0, "a"): 0.5}
    turns.forget()
    assert turns.ahead() == {}


def test_workers_keep_apart_within_a_turn() -> None:
    """Which tenants go next stays as it is, and how many of each; only which of a tenant's first runs is left to chance."""
    found = [Ready(0, tenant, "a", "", begun, no, f"{tenant}{no}") for no, (tenant, begun) in enumerate(
        [("a", True), ("b", False), ("a", False), ("b", False), ("a", False), ("b", False), ("b", False)]
    )]  # fmt: skip
    chance = random.Random(3)
    seen: set[str] = set()
    for _ in range(50):
        chosen = apart(found, 4, chance.random)
        assert [(one.tenant, one.begun) for one in chosen] == [(one.tenant, one.begun) for one in found[:4]]
        assert len({one.run for one in chosen}) == 4
        seen |= {one.run for one in chosen}
    assert seen == {one.run for one in found}
    assert apart(found, 9, lambda: 0.0) == found
    assert apart([], 3, chance.random) == []
