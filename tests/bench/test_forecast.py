"""Recorded conversations are told before they are over: what the project claims of its forecasts, measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.forecast import airline, score, shortest_half


def test_the_cost_of_recorded_conversations_is_told_at_their_third_turn(shared_data: Path) -> None:
    """By other tasks alone: at least a tenth nearer than the best constant, and nine of ten within the range."""
    found = score(airline(shared_data / "tau-airline-trajectories.jsonl.xz"), 3)
    assert found is not None
    assert found.runs == 100
    assert found.error <= 0.9 * found.constant
    assert found.error <= found.hindsight
    assert found.covered >= 0.9
    assert found.width <= 1.1 * found.constant_width


def test_the_best_constant_is_the_middle_of_the_shortest_half() -> None:
    """It has the least median error, which the median has not."""
    assert shortest_half([1, 2, 3, 10, 100]) == pytest.approx(2)
