"""Circuit breakers of tools and models, shared by all workers: the row of one is written only when it opens, is probed or closes.

    closed --N failures in a row (in one worker)--> open --open_s--> half open --one tries--> closed, or open again

Workers keep the rows in memory and read them every second. A failure counts if it is the tool's or the provider's for the
moment: it timed out, could not be reached, broke off, or answered that it fails. What the model did wrong does not. Each worker
counts its own failures; the first that reaches the number opens it for all.

A tool's call is refused while its breaker is open, and of all workers one tries. A model's is not: whoever has another model asks that. Its
failures must be of two runs at least, since there are requests that a provider never answers; and of each worker one run tries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from stanchion.core.errors import JournalError
from stanchion.journal.quota import BreakerRow, Quotas
from stanchion.toolbox.answer import Answer, Failure
from stanchion.toolbox.options import Breaker

log = logging.getLogger("stanchion.engine")

_TRANSIENT = ("tool_timeout", "tool_unreachable", "tool_cut", "tool_unavailable", "http_408", "http_429", "http_5")
_OUTAGE = frozenset(
    (
        "connect",
        "timeout_connect",
        "timeout_first_byte",
        "timeout_idle",
        "cut",
        "early_end",
        "overloaded",
        "server_error",
    )
)
"""What a model's breaker counts. Where a limit was passed its provider says how long to wait, and all do (`Gate.pause`)."""
PROBE_SLACK_MS = 5_000
"""So long after a probe's own time another may try: the worker of the first is gone."""
TRIES_FOR_S = 60.0
"""So long a run that tries a model has for its answer; then another tries as well."""
LEAST_RUNS = 2


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


@dataclass(slots=True)
class _Failed:
    """Failures in a row, here."""

    count: int = 0
    runs: set[str] = field(default_factory=set[str])


class Breakers:
    """The breakers as one process knows them."""

    def __init__(self, quotas: Quotas, worker: str) -> None:
        self._quotas = quotas
        self._worker = worker
        self._open: dict[str, _Open] = {}
        self._mended: dict[str, float] = {}
        self._failures: dict[str, _Failed] = {}
        self._trying: dict[str, tuple[str, float]] = {}
        """The run that tries a model, and until when nobody else does."""

    @property
    def any_open(self) -> bool:
        """Whether one is not closed."""
        return bool(self._open)

    def hear(self, rows: Sequence[BreakerRow], asked_s: float) -> None:
        """Take in the rows as they were read; what was done here since stands."""
        found = {row.name: _Open(asked_s + row.for_ms / 1000, row.probed, asked_s) for row in rows}
        for name, mended_s in list(self._mended.items()):
            if mended_s >= asked_s:
                found.pop(name, None)
            else:
                del self._mended[name]
        self._open = found | {name: row for name, row in self._open.items() if row.since_s >= asked_s}

    # --- tools -------------------------------------------------------------------------------------------------------

    async def admit(self, tool: str, timeout_ms: int) -> Passed | Barred:
        """Ask whether an attempt may leave; of those that ask when the time is up, one may."""
        name = _of_tool(tool)
        row = self._open.get(name)
        if row is None:
            return Passed()
        left_s = row.until_s - _now_s()
        if left_s > 0:
            return Barred(left_s)
        if row.probed:
            return Barred(1.0)
        try:
            mine = await self._quotas.probe(name, self._worker, timeout_ms + PROBE_SLACK_MS)
            if mine:
                return Passed(probe=True)
            asked_s = _now_s()
            self.hear((await self._quotas.signals()).breakers, asked_s)
        except JournalError as error:
            log.warning("the breaker of %s could not be read: %s", name, error)
            return Barred(1.0)
        return Barred(1.0) if name in self._open else Passed()

    async def told(self, tool: str, breaker: Breaker, passed: Passed, answer: Answer | Failure | None) -> None:
        """Note what came of an attempt that passed; None: it was stopped."""
        name = _of_tool(tool)
        try:
            if isinstance(answer, Failure) and answer.code.startswith(_TRANSIENT):
                await self._failed(name, breaker, probe=passed.probe)
            elif answer is None:
                if passed.probe:
                    await self._quotas.trip(name, 0)  # the next may try
            else:
                await self._works(name, probe=passed.probe)
        except JournalError as error:
            log.warning("the breaker of %s could not be written: %s", name, error)

    # --- models ------------------------------------------------------------------------------------------------------

    def is_down(self, account: str, model: str, run: str) -> bool:
        """Whether a run is to ask another model, if it has one: this one is left alone, or another run tries it."""
        name = _of_model(account, model)
        row = self._open.get(name)
        if row is None:
            return False
        now_s = _now_s()
        tries, until_s = self._trying.get(name, (run, 0.0))
        return row.until_s > now_s or (tries != run and until_s > now_s)

    def tries(self, account: str, model: str, run: str) -> None:
        """Note that a run asks a model: where its breaker's time is up, it is the one that tries."""
        name = _of_model(account, model)
        if name in self._open and not self.is_down(account, model, run):
            self._trying[name] = (run, _now_s() + TRIES_FOR_S)

    async def model_told(self, account: str, model: str, breaker: Breaker, run: str, code: str) -> None:
        """Note what came of a model call: the code of its failure, or "" for an answer."""
        name = _of_model(account, model)
        probe = self._trying.get(name, ("", 0.0))[0] == run
        if probe:
            del self._trying[name]
        try:
            if code in _OUTAGE:
                await self._failed(name, breaker, probe=probe, run=run)
            elif not code:
                await self._works(name, probe=probe)
        except JournalError as error:
            log.warning("the breaker of %s could not be written: %s", name, error)

    # --- both --------------------------------------------------------------------------------------------------------

    async def _failed(self, name: str, breaker: Breaker, *, probe: bool, run: str = "") -> None:
        failed = self._failures.setdefault(name, _Failed())
        failed.count += 1
        failed.runs |= {run} if len(failed.runs) < LEAST_RUNS else set()
        enough = failed.count >= breaker.failures and (not run or len(failed.runs) >= LEAST_RUNS)
        if not probe and (not enough or name in self._open):
            return
        self._failures.pop(name, None)
        now_s = _now_s()
        self._open[name] = _Open(now_s + breaker.open_s, False, now_s)
        self._mended.pop(name, None)
        log.warning("the breaker of %s opens for %g s: it failed too often", name, breaker.open_s)
        await self._quotas.trip(name, int(breaker.open_s * 1000))

    async def _works(self, name: str, *, probe: bool) -> None:
        self._failures.pop(name, None)
        if not probe:
            return
        await self._quotas.mend(name)
        self._open.pop(name, None)
        self._mended[name] = _now_s()
        log.warning("the breaker of %s is closed: it works again", name)


def refusal(tool: str, barred: Barred) -> str:
    """Say to the model that a tool is not to be had, until when, and what it may do."""
    return (
        f"{tool} is not available: its last calls failed, so it is not called for the moment. Nothing was done by this call. "
        f"It may be tried again in {max(barred.for_s, 1):.0f} s; until then a call is refused. Go on without it, or say what "
        "cannot be done now."
    )


def _of_tool(tool: str) -> str:
    return f"tool:{tool}"


def _of_model(account: str, model: str) -> str:
    return f"model:{account}:{model}"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
