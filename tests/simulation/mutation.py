"""Faults put into the product on purpose, to see that the simulation finds them.

Those of the store are in `database.AuditedTables`; the others replace one function of the product for one simulation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import CommitUnknown
from stanchion.engine import drive as driving
from stanchion.engine.drive import Drive
from stanchion.engine.lease import Lease
from stanchion.engine.live import Live, Watch
from stanchion.engine.rows import RowsEngine
from stanchion.guard.judge import Verdict
from stanchion.loop import decide as deciding
from stanchion.loop import step

IN_STORE = ("no_epoch_check", "no_epoch_raised")


def _act_before_durable() -> list[tuple[Any, str, Any]]:
    append = Drive._append

    async def early(self: Any, stage: Any, over: bool, decision: Any) -> Any:
        if stage.effects and self._performer is not None:
            for effect in stage.effects:
                self._flights.begin(self._performer, effect)
            stage.effects.clear()
        return await append(self, stage, over, decision)

    return [(Drive, "_append", early)]


def _no_lease_check() -> list[tuple[Any, str, Any]]:
    """As it was before the simulation found it."""

    async def holds(self: Any) -> bool:
        return True

    return [(Lease, "holds", holds)]


def _lost_is_not_in_doubt() -> list[tuple[Any, str, Any]]:
    lost = deciding._lost

    def forgetful(state: Any, moment: Any) -> tuple[ev.Event, ...]:
        return tuple(
            msgspec.structs.replace(event, in_doubt=False) if isinstance(event, ev.ToolCallFailed) else event
            for event in lost(state, moment)
        )

    return [(deciding, "_lost", forgetful)]


def _key_of_each_attempt() -> list[tuple[Any, str, Any]]:
    key = step.idempotency_key
    return [(step, "idempotency_key", lambda state, call: key(state, call)[:24] + f"{call.attempt:08d}")]


def _never_settles() -> list[tuple[Any, str, Any]]:
    return [(driving, "settlements", lambda before, entries: ())]


def _allows_all() -> list[tuple[Any, str, Any]]:
    def judge(*given: Any, **more: Any) -> Verdict:
        return Verdict("allow", "mutant")

    return [(step, "judge", judge)]


def _reads_inbox_twice() -> list[tuple[Any, str, Any]]:
    append = Drive._append

    async def keep(self: Any, stage: Any, over: bool, decision: Any) -> Any:
        if not stage.state.ended:
            stage.inbox = []
        return await append(self, stage, over, decision)

    return [(Drive, "_append", keep)]


def _watchers_miss_takeovers() -> list[tuple[Any, str, Any]]:
    """As it was before the simulation found it."""
    publish = Live.publish

    def blind(self: Any, tenant: str, run: str, entries: Sequence[ev.Entry]) -> None:
        topic = self._topics.get((tenant, run))
        before = list(topic.recent) if topic is not None and topic.watches else []
        publish(self, tenant, run, entries)
        if topic is not None and before:
            topic.recent.clear()
            topic.recent.extend([*before, *entries])

    return [(Live, "publish", blind)]


def _no_sweeper() -> list[tuple[Any, str, Any]]:
    async def never(self: Any, driver: Any) -> None:
        await asyncio.sleep(1e9)

    return [(RowsEngine, "_sweep", never)]


def _forgets_reservation() -> list[tuple[Any, str, Any]]:
    return [(driving, "reservations", lambda entries: ())]


def _first_answer_settles() -> list[tuple[Any, str, Any]]:
    """As it was before the simulation found it."""
    attempt = step._attempt

    def sure(*given: Any) -> Any:
        decision = attempt(*given)
        effects = tuple(
            msgspec.structs.replace(effect, in_doubt=False) if hasattr(effect, "in_doubt") else effect
            for effect in decision.effects
        )
        return msgspec.structs.replace(decision, effects=effects)

    return [(step, "_attempt", sure)]


def _keeps_lost_runs() -> list[tuple[Any, str, Any]]:
    """As it was before the simulation found it."""
    return [(Lease, "lose", lambda self: None)]


def _unknown_is_retried() -> list[tuple[Any, str, Any]]:
    """After an append of which it is not known whether it was made, go on as if it was."""
    append = Drive._append

    async def hopeful(self: Any, stage: Any, over: bool, decision: Any) -> Any:
        try:
            return await append(self, stage, over, decision)
        except CommitUnknown:
            return None

    return [(Drive, "_append", hopeful)]


def _releases_in_flight() -> list[tuple[Any, str, Any]]:
    return [(Drive, "_let_go", lambda self, state, decision: not self._poll_budget)]


def _words_after_the_end() -> list[tuple[Any, str, Any]]:
    return [(Watch, "passed", lambda self, entry: None)]


def _words_before_their_event() -> list[tuple[Any, str, Any]]:
    deltas = Watch.deltas
    return [(Watch, "deltas", lambda self, after: deltas(self, after + 100))]


IN_ENGINE: dict[str, Callable[[], list[tuple[Any, str, Any]]]] = {
    "act_before_durable": _act_before_durable,
    "no_lease_check": _no_lease_check,
    "lost_is_not_in_doubt": _lost_is_not_in_doubt,
    "key_of_each_attempt": _key_of_each_attempt,
    "never_settles": _never_settles,
    "forgets_reservation": _forgets_reservation,
    "allows_all": _allows_all,
    "reads_inbox_twice": _reads_inbox_twice,
    "watchers_miss_takeovers": _watchers_miss_takeovers,
    "no_sweeper": _no_sweeper,
    "first_answer_settles": _first_answer_settles,
    "keeps_lost_runs": _keeps_lost_runs,
    "unknown_is_taken_for_made": _unknown_is_retried,
    "releases_in_flight": _releases_in_flight,
    "words_after_the_end": _words_after_the_end,
    "words_before_their_event": _words_before_their_event,
}
MUTATIONS = (*IN_STORE, *IN_ENGINE)


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Break something for the time of a simulation; "" or a mutant of the store: nothing here."""
    changes = IN_ENGINE[name]() if name in IN_ENGINE else []
    kept = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in changes]
    for owner, attribute, value in changes:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in kept:
            setattr(owner, attribute, value)
