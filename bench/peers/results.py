"""What was measured, cell by cell: a JSON file that is written after every cell, so that a broken-off run can go on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Figures = dict[str, Any]


class Spread(NamedTuple):
    """The middle of a figure's repeats, and how far they lie apart."""

    median: float
    low: float
    high: float
    repeats: int


def spread(values: list[float]) -> Spread | None:
    """Give the median and the ends; None of nothing."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


@dataclass(slots=True)
class Results:
    """All cells of a set: "comparison/peer/repeat" and what was found."""

    short: bool = False
    machine: Figures = field(default_factory=dict[str, Any])
    versions: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    cells: dict[str, Figures] = field(default_factory=dict[str, Figures])

    def has(self, key: str) -> bool:
        """Whether a cell was measured."""
        return key in self.cells and "error" not in self.cells[key]

    def of(self, part: str, peer: str) -> Iterator[Figures]:
        """Give the repeats of a comparison."""
        for key, found in self.cells.items():
            if key.startswith(f"{part}/{peer}/") and "error" not in found:
                yield found

    def errors(self) -> dict[str, str]:
        """Give what could not be measured."""
        return {key: found["error"] for key, found in self.cells.items() if "error" in found}

    def figure(self, part: str, peer: str, *path: str) -> Spread | None:
        """Give a figure over its repeats, by its place in the cells; None where no cell has it."""
        values: list[float] = []
        for found in self.of(part, peer):
            value: Any = found
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            if isinstance(value, int | float):
                values.append(float(value))
        return spread(values)

    def total(self, part: str, peer: str, *path: str) -> int:
        """Add a count up over its repeats."""
        found = [self._at(cell, path) for cell in self.of(part, peer)]
        return int(sum(found))

    @staticmethod
    def _at(cell: Figures, path: tuple[str, ...]) -> float:
        value: Any = cell
        for step in path:
            value = value.get(step, 0) if isinstance(value, dict) else 0
        return value or 0

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {"short": self.short, "machine": self.machine, "versions": self.versions, "cells": self.cells}
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")
        beside.replace(path)


def read(path: Path) -> Results:
    """Read a set."""
    body = json.loads(path.read_text())
    return Results(body["short"], body["machine"], body["versions"], body["cells"])
