"""Circuit breakers of tools, shared by all workers: the row of one is written only when it opens, is probed or closes.

    closed --N failures in a row (in one worker)--> open --open_s--> half open --one probe--> closed, or open again

Workers keep the rows in memory and read them every second. A failure counts if it is the tool's for the moment: it timed
out, could not be reached, broke off, or answered 429 or 5xx. What the model did wrong does not. Each worker counts its
own failures; the first that reaches the number opens it for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from stanchion.core.errors import JournalError
from stanchion.journal.quota import BreakerRow, Quotas
from stanchion.toolbox.answer import Answer, Failure
from stanchion.toolbox.options import Breaker

log = logging.getLogger("stanchion.engine")

_TRANSIENT = ("tool_timeout", "tool_unreachable", "tool_cut", "tool_unavailable", "http_408", "http_429", "http_5")
PROBE_SLACK_MS = 5_000
"""So long after a probe's own time another may try: the worker of the first is gone."""


@dataclass(frozen=True, slots=True)
class Passed:
    """An attempt may leave. `probe`: it is the one that tries."""

    probe: bool = False


@dataclass(frozen=True, slots=True)
class Barred:
    """An attempt is refused, for so long at least."""

    for_s: float


@dataclass(slots=True)
class _Open:
    until_s: float
    probed: bool
    since_s: float
    """When this was learned or done here."""


class Breakers:
    """The breakers as one process knows them."""

    def __init__(self, quotas: Quotas, worker: str) -> None:
        self._quotas = quotas
        self._worker = worker
        self._open: dict[str, _Open] = {}
        self._mended: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def hear(self, rows: Sequence[BreakerRow], asked_s: float) -> None:
        """Take in the rows as they were read; what was done here since stands."""
        found = {row.name: _Open(asked_s + row.for_ms / 1000, row.probed, asked_s) for row in rows}
        for name, mended_s in list(self._mended.items()):
            if mended_s >= asked_s:
                found.pop(name, None)
            else:
                del self._mended[name]
        self._open = found | {name: row for name, row in self._open.items() if row.since_s >= asked_s}

    async def admit(self, tool: str, timeout_ms: int) -> Passed | Barred:
        """Ask whether an attempt may leave; of those that ask when the time is up, one may."""
        row = self._open.get(_name(tool))
        if row is None:
            return Passed()
        left_s = row.until_s - _now_s()
        if left_s > 0:
            return Barred(left_s)
        if row.probed:
            return Barred(1.0)
        try:
            mine = await self._quotas.probe(_name(tool), self._worker, timeout_ms + PROBE_SLACK_MS)
            if mine:
                return Passed(probe=True)
            asked_s = _now_s()
            self.hear((await self._quotas.signals()).breakers, asked_s)
        except JournalError as error:
            log.warning("the breaker of %s could not be read: %s", tool, error)
            return Barred(1.0)
        return Barred(1.0) if _name(tool) in self._open else Passed()

    async def told(self, tool: str, breaker: Breaker, passed: Passed, answer: Answer | Failure | None) -> None:
        """Note what came of an attempt that passed; None: it was stopped."""
        try:
            if isinstance(answer, Failure) and _is_transient(answer):
                await self._failed(tool, breaker, passed)
            elif answer is None:
                if passed.probe:
                    await self._quotas.trip(_name(tool), 0)  # the next may try
            else:
                self._failures.pop(tool, None)
                if passed.probe:
                    await self._mend(tool)
        except JournalError as error:
            log.warning("the breaker of %s could not be written: %s", tool, error)

    async def _failed(self, tool: str, breaker: Breaker, passed: Passed) -> None:
        self._failures[tool] = self._failures.get(tool, 0) + 1
        if not passed.probe and (self._failures[tool] < breaker.failures or _name(tool) in self._open):
            return
        self._failures.pop(tool, None)
        now_s = _now_s()
        self._open[_name(tool)] = _Open(now_s + breaker.open_s, False, now_s)
        self._mended.pop(_name(tool), None)
        log.warning("the breaker of %s opens for %g s: it failed too often", tool, breaker.open_s)
        await self._quotas.trip(_name(tool), int(breaker.open_s * 1000))

    async def _mend(self, tool: str) -> None:
        await self._quotas.mend(_name(tool))
        self._open.pop(_name(tool), None)
        self._mended[_name(tool)] = _now_s()
        log.warning("the breaker of %s is closed: it works again", tool)


def refusal(tool: str, barred: Barred) -> str:
    """Say to the model that a tool is not to be had, until when, and what it may do."""
    return (
        f"{tool} is not available: its last calls failed, so it is not called for the moment. Nothing was done by this call. "
        f"It may be tried again in {max(barred.for_s, 1):.0f} s; until then a call is refused. Go on without it, or say what "
        "cannot be done now."
    )


def _is_transient(failure: Failure) -> bool:
    return failure.code.startswith(_TRANSIENT)


def _name(tool: str) -> str:
    return f"tool:{tool}"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
