"""The floors are those of the published prices, worked out by hand; a small session is billed at its floor."""

from __future__ import annotations

import pytest

from bench.bill import measure
from bench.floor import ROWS, Task, floor

SONNET = "anthropic:claude-sonnet-4-6"


@pytest.mark.parametrize(
    ("row", "usd"),
    [
        ("naive", 3.2625),
        ("cold", 0.7035),
        ("warm", 0.4965),
        ("6min-once-cold", 0.723),
        ("6min-once-warm", 0.516),
        ("6min-every-cold", 0.879),
        ("6min-every-warm", 0.537),
        ("70min-once-cold", 0.900),
        ("70min-once-warm", 0.530),
        ("70min-every-cold", 1.170),
        ("70min-every-warm", 0.797),
    ],
)
def test_the_floors(row: str, usd: float) -> None:
    """15 turns from 60,000 to 80,000 tokens, 500 answered in each."""
    assert floor(ROWS[row], Task(), SONNET) / 1e9 == pytest.approx(usd, abs=6e-4)


async def test_a_session_is_billed_at_its_floor() -> None:
    """Over HTTP, by the provider's own bill: five turns without a pause."""
    task = Task(turns=5, first=8_000, last=12_000, output=500)
    (bill,) = await measure(SONNET, task, [ROWS["cold"]])
    assert bill.ratio == pytest.approx(1.0, abs=0.01)
    assert bill.lives == ["short"] * 5
