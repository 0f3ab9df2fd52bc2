"""The order in which permits are handed out, and what becomes of those that are not used. Pure: time is a number."""

from __future__ import annotations

from collections import Counter

import pytest

from stanchion.engine.permit import FairQueue, Lane, Need, Ticket
from stanchion.journal.quota import Block, Changed, Taken

RPM = Need("a/rpm", "sent", 1, 100, 60_000)
SLOT = Need("tool:t/concurrency", "slot", 1, 4)


def ticket(lane: Lane, tenant: str = "t", rank: int = 0, *needs: Need) -> Ticket:
    """Make a ticket that waits."""
    made = Ticket(lane, tenant, rank, needs or (RPM,), lambda: None)
    lane.queue.push(made)
    return made


def give(lane: Lane, amount: int, need: Need = RPM, now_s: float = 0.0, id: int = 1) -> None:
    """Have the lane given a block."""
    wishes = [pair for pair in lane.wishes(now_s) if (pair[0].limit, pair[0].kind) == (need.limit, need.kind)]
    lane.take_in(wishes[:1], Taken((Block(id, need.limit, amount),)), now_s)


def served(queue: FairQueue, count: int) -> list[Ticket]:
    """Serve the queue."""
    found: list[Ticket] = []
    for _ in range(count):
        assert queue.first() is not None
        found.append(queue.pop())
        found[-1].state = "granted"
    return found


@pytest.mark.parametrize(("weights", "shares"), [((1, 1), (50, 50)), ((1, 3), (25, 75)), ((2, 3), (40, 60))])
def test_tenants_are_served_by_weight(weights: tuple[int, int], shares: tuple[int, int]) -> None:
    """Two tenants that always want more get what their weights say, to within one call."""
    lane = Lane("x", {"a": weights[0], "b": weights[1]}.__getitem__)
    for _ in range(100):
        ticket(lane, "a")
    for _ in range(100):
        ticket(lane, "b")
    counted = Counter(each.tenant for each in served(lane.queue, 100))
    assert counted["a"] == pytest.approx(shares[0], abs=1)
    assert counted["b"] == pytest.approx(shares[1], abs=1)


def test_a_newcomer_does_not_wait_for_the_long_queue_of_another() -> None:
    """One tenant has a thousand calls waiting; the first of another goes next but one. Nor is idleness saved up."""
    lane = Lane("x", lambda _: 1.0)
    for _ in range(1_000):
        ticket(lane, "many")
    served(lane.queue, 500)
    for _ in range(10):
        ticket(lane, "late")
    assert Counter(each.tenant for each in served(lane.queue, 12))["late"] in (5, 6, 7)


def test_interactive_goes_before_batch_and_each_tenant_in_order() -> None:
    """A class goes wholly before the next; within a tenant who came first is first."""
    lane = Lane("x", lambda _: 1.0)
    batch = [ticket(lane, "a", 1) for _ in range(3)]
    interactive = [ticket(lane, "a", 0) for _ in range(3)]
    assert served(lane.queue, 6) == [*interactive, *batch]


def test_large_calls_weigh_more() -> None:
    """A tenant whose calls take ten times the tokens is served a tenth as often."""
    lane = Lane("x", lambda _: 1.0)
    for _ in range(200):
        ticket(lane, "small", 0, Need("a/tpm", "sent", 10, 1_000, 60_000))
        ticket(lane, "large", 0, Need("a/tpm", "sent", 100, 1_000, 60_000))
    counted = Counter(each.tenant for each in served(lane.queue, 110))
    assert counted["large"] == pytest.approx(10, abs=1)


def test_who_is_dropped_is_not_served() -> None:
    """A call that was cancelled while it waited leaves its place to the next."""
    lane = Lane("x", lambda _: 1.0)
    first, second = ticket(lane), ticket(lane)
    lane.close(first, 0.0)
    give(lane, 1)
    lane.serve(0.0)
    assert (first.state, second.state, lane.queue.waiting) == ("closed", "granted", 0)


def test_what_is_not_used_in_time_goes_back() -> None:
    """A permit that was not handed out is given up in time to be had elsewhere; one in hand is handed on before."""
    lane = Lane("x", lambda _: 1.0)
    first = ticket(lane)
    give(lane, 3)
    lane.serve(0.0)
    lane.close(first, 0.1)  # it was not sent: another may have it
    second = ticket(lane)
    lane.serve(0.1)
    assert second.state == "granted"
    assert second.fresh(0.4)
    assert not second.fresh(0.6)
    lane.tidy(0.6)
    [hold] = lane.holds.values()
    assert hold.changed(0.6) == Changed(1, 1)
    lane.requeue(second, 0.6)
    assert (second.state, hold.changed(0.6)) == ("waiting", Changed(1, 0))


def test_a_late_call_counts_from_its_answer_on() -> None:
    """A request may have been on its way for long: its slot is not free before a window after it surely arrived."""
    lane = Lane("x", lambda _: 1.0)
    made = ticket(lane)
    give(lane, 1)
    lane.serve(0.0)
    lane.used(made, 0.4)
    lane.close(made, 1.3)
    [hold] = lane.holds.values()
    assert hold.changed(1.3) == Changed(1, 1, 60_000)


def test_tokens_are_settled_by_what_was_used() -> None:
    """Input is lowered to what was counted; output counts until a window after the call's end."""
    lane = Lane("x", lambda _: 1.0)
    needs = (Need("a/tpm", "sent", 900, 10_000, 60_000), Need("a/tpm", "ended", 100, 10_000, 60_000))
    made = ticket(lane, "t", 0, *needs)
    lane.take_in(lane.wishes(0.0), Taken((Block(1, "a/tpm", 900), Block(2, "a/tpm", 100))), 0.0)
    lane.serve(0.0)
    lane.used(made, 0.1)
    lane.close(made, 0.9, sent=300, ended=20)
    assert [hold.changed(0.9) for hold in lane.holds.values()] == [Changed(1, 300), Changed(2, 20, 60_000)]
    lane.tidy(2.0)
    assert not lane.holds


def test_a_slot_passes_on_and_then_goes_back() -> None:
    """In one process a slot goes from call to call, for a second: then others are to have their turn."""
    lane = Lane("x", lambda _: 1.0)
    first = ticket(lane, "t", 0, SLOT)
    second = ticket(lane, "t", 0, SLOT)
    give(lane, 1, SLOT)
    lane.serve(0.0)
    lane.used(first, 0.0)
    lane.close(first, 0.5)
    lane.serve(0.5)
    assert second.state == "granted"
    lane.used(second, 0.5)
    lane.close(second, 1.5)
    assert [hold.changed(1.5) for hold in lane.holds.values()] == [Changed(1, 0)]


def test_an_ask_is_for_all_that_wait_and_for_what_is_to_come() -> None:
    """The least is what the first lacks; where the last ask was served in full, calls to come are asked for too."""
    lane = Lane("x", lambda _: 1.0)
    waiting = [ticket(lane) for _ in range(5)]
    [(_, wish)] = lane.wishes(0.0)
    assert (wish.amount, wish.least, wish.most, wish.for_ms) == (5, 1, 100, 61_000)
    give(lane, 5)
    lane.serve(0.0)
    for each in waiting:
        lane.used(each, 0.0)
    ticket(lane)
    [(_, wish)] = lane.wishes(1.0)
    assert wish.amount == 5  # one waits; of five in a second about half come while the block is good, and some to spare
