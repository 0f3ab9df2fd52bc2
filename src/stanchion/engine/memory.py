"""What a run is told of its user, and the memory tools: recalled from the store, or written there. Each is told in events by the caller.

Writing is keyed by the call, so that an attempt that is made again writes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import NOTE, RECALL, Bundle
from stanchion.core.cosine import packed
from stanchion.core.fact import Fact, Operation, Owner
from stanchion.core.message import RUNTIME, Label
from stanchion.core.remembered import MemoryRules, fitting, offered, profile, search, told
from stanchion.core.state import State
from stanchion.engine.embed import CallVector
from stanchion.journal.memory import Change, Due, Memories, recalled_subject
from stanchion.journal.store import Key, Store
from stanchion.loop.effect import CallTool
from stanchion.loop.remember import moment, written

DAY_MS = 24 * 3_600_000
KNOWN_FACTS = 200
"""Of what is known already, at most so many are told to who looks for more."""
MANY_FACTS = 300
"""From so many on they are gone through in a thread: that takes a millisecond or two, and a thread costs a third of one."""
P = ParamSpec("P")
T = TypeVar("T")


class Said(msgspec.Struct, frozen=True):
    """What a memory tool answers."""

    text: str
    label: Label = RUNTIME
    error: bool = False


def rules_for(bundle: Bundle, first: ev.RunStarted) -> MemoryRules | None:
    """Say by which rules a run is remembered; None: it is not."""
    rules = bundle.memory
    aside = first.dry_run or first.refreshes is not None or first.remembers is not None
    return None if rules is None or aside or not first.user else rules


async def expect(store: Store, bundle: Bundle, first: ev.RunStarted) -> None:
    """Note that there is to be learned from a run, before it begins."""
    rules = rules_for(bundle, first)
    if rules is not None and (rules.extract or rules.episodes or rules.procedures):
        await store.memories.expect(Due(first.tenant, first.run, first.agent, first.user, 0))


async def recalled(store: Store, bundle: Bundle, state: State, now_ms: int) -> ev.MemoryRecalled:
    """Give what a run is told first; to one that looks what is to be remembered, all that is known."""
    rules = bundle.memory
    if rules is None:
        return ev.MemoryRecalled()
    facts = await store.memories.facts(Owner(state.tenant, state.user, rules.space), kinds=_PROFILE)
    return await beside(len(facts), _recalled, facts, state, rules, now_ms)


_PROFILE = ("fact", "note", "procedure")


def _recalled(facts: Sequence[Fact], state: State, rules: MemoryRules, now_ms: int) -> ev.MemoryRecalled:
    if state.remembers:
        known = [fact for fact in facts if fact.kind == "fact" and (rules.untrusted or fact.trust != "untrusted")]
        shown = profile(known[-KNOWN_FACTS:], now_ms, rules, untrusted=rules.untrusted)
        tokens = 4 * rules.tokens
    else:
        shown, tokens = profile(facts, now_ms, rules, untrusted=not state.quarantine), rules.tokens
    shown = fitting(shown, tokens)
    place = f"{state.session}/{state.run}/memory" if state.mark or state.remembers else ""
    parts = told(shown, tokens, place=place, space=rules.space)
    return ev.MemoryRecalled(facts=tuple(fact.id for fact in shown), parts=parts)


async def beside(facts: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what goes through so many facts: in a thread, where they are many, so that the loop has its turns meanwhile."""
    return await asyncio.to_thread(work, *args, **kwargs) if facts >= MANY_FACTS else work(*args, **kwargs)


async def key_of_recalled(store: Store, bundle: Bundle, tenant: str, user: str) -> Key | None:
    """Find the content key of what is recalled of a user; None: nothing is."""
    return await store.key_for(tenant, recalled_subject(user)) if bundle.memory is not None and user else None


class MemoryTools:
    """Answers the memory tools of one run's drive."""

    def __init__(self, memories: Memories, rules: MemoryRules, state: State) -> None:
        self._memories = memories
        self._rules = rules
        self._owner = Owner(state.tenant, state.user, rules.space)
        self._place = f"{state.session}/{state.run}" if state.mark else ""
        self._run = state.run
        self._shows_untrusted = not state.quarantine

    async def answer(self, effect: CallTool, now_ms: int, vector: CallVector) -> Said:
        """Answer a call; `vector` is that of its text, which is asked for where it is needed. Raises `JournalError`."""
        if not self._owner.user:
            return Said("This conversation is with nobody in particular: nothing is remembered.", error=True)
        if effect.mode == "dry" and effect.tool != RECALL:
            return Said("This is a dry run: nothing was remembered. Go on as if it had been.")
        asked = msgspec.json.decode(effect.arguments, type=dict[str, str])
        if effect.tool == RECALL:
            return await self._recall(effect, asked, now_ms, vector)
        op = written(effect.tool, asked, effect.said or Label("model"), now_ms)
        if op is None:
            text = "attribute and subject must be names of at most five plain words. Say it so, and again."
            return Said(f"Not remembered: {text}", error=True)
        found = await vector.get(_left_s(effect, now_ms))
        op = msgspec.structs.replace(op, run=self._run, place=effect.call, vector=packed(found) if found else b"")
        await self._memories.apply(Change(owner=self._owner, key=f"call/{effect.key}", at_ms=now_ms, operations=(op,)))
        return Said("Noted." if effect.tool == NOTE else _confirmed(op))

    async def _recall(self, effect: CallTool, asked: dict[str, str], now_ms: int, vector: CallVector) -> Said:
        known_at, as_of = moment(asked.get("known_at", "")), moment(asked.get("as_of", ""))
        at_ms = as_of + DAY_MS - 1 if as_of else now_ms  # a day is meant with its evening
        recorded_ms = known_at + DAY_MS - 1 if known_at else 0
        facts = [
            fact
            for fact in await self._memories.facts(self._owner, recorded_ms=recorded_ms)
            if fact.holds(at_ms) and offered(fact, self._rules) and (self._shows_untrusted or fact.trust != "untrusted")
        ]
        query = asked["query"]
        near = await vector.get(_left_s(effect, now_ms)) if any(fact.vector for fact in facts) else ()
        found = await beside(len(facts), search, facts, query, near, at_ms)
        place = f"{self._place}/{effect.call}" if self._place else ""
        parts = told(found, self._rules.tokens, place=place, space=self._rules.space)
        if not parts:
            return Said("Nothing is remembered that answers this.")
        levels = {level for part in parts for level in part.label.secrecy.split("+")} - {"public"}
        trust = parts[-1].label.trust  # (the less trusted stand last)
        label = Label("memory", self._rules.space, trust, "+".join(sorted(levels)) or "public")
        return Said("\n\n".join(part.text for part in parts), label)


def _left_s(effect: CallTool, now_ms: int) -> float:
    return (effect.deadline_ms - now_ms) / 1000


def _confirmed(op: Operation) -> str:
    said = "" if op.trust == "user" else " It is kept as unverified: the user did not say it in these words."
    return (
        f"Remembered: {op.subject}: {op.attribute} = {op.value}.{said}" if op.trust == "user" else f"Remembered.{said}"
    )
