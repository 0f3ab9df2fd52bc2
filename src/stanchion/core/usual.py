"""Whether an amount is far above what is usual: by the median and the median deviation of past ones, which a few outliers do not move. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

LEAST = 6
"""Past amounts without which nothing counts as usual."""
SCORE = 3.5
"""A modified z-score above it is an outlier (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993)."""
TIMES = 2.0
""".. and it is at least so many times the median: where all are nearly alike, any other one has a high score."""
_NORMAL = 0.6745
"""By which a median deviation is to be divided to be the standard deviation of a normal distribution."""


class Usual(msgspec.Struct, frozen=True):
    """What is usual (nano-dollars)."""

    amount: int
    """The median of past amounts."""
    bound: int
    """Above it an amount is far from usual."""


def usual(past: Sequence[int], *, floor: int) -> Usual | None:
    """Say what is usual after past amounts; nothing below a floor is far from it. None: there are too few."""
    if len(past) < LEAST:
        return None
    middle = median(past)
    deviation = median(abs(each - middle) for each in past)
    return Usual(round(middle), round(max(middle + SCORE / _NORMAL * deviation, TIMES * middle, floor)))
