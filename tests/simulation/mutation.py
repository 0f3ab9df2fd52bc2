"""Faults put into the product on purpose, to see that the simulation finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def mutated(name: str, simulation: Any) -> Iterator[None]:
    """Break something for the time of a simulation."""
    yield
