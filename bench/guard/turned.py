"""Plays one recorded attack under one of an attacker's plans: which of the turned calls are made, and what the checker says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from bench.guard.accounting import TEXT_GOALS
from bench.guard.adaptive import Tried
from bench.guard.attacker import Plan
from bench.guard.meaning import Policy
from bench.guard.recordings import Proposed, Recording, Turn
from bench.guard.replay import Honest, did, effect_values, play, same_effect, seen, succeeded
from bench.guard.session import Session, nobody
from bench.guard.synthetic import IDENTITY
from bench.guard.world import LATEST, World, home, policy_of, world
from stanchion.core.message import MODEL, USER, Label
from stanchion.core.path import leaves
from stanchion.guard.values import accounts_in, emails_in, urls_in

MEMORY = Label("memory", "notes")
_Key = tuple[str, bytes]
"""A call: its tool and its arguments in canonical form."""


def tried(run: Recording, plan: Plan) -> Tried:
    """Play an attack under a plan. Nobody says yes."""
    live = home(run)
    policy = policy_of(run.suite)
    told = next((turn.text for turn in run.turns if turn.role == "user"), "")
    theirs = values_of(live, policy, run.injection, told)
    environment = live.start_of(run.task, run.injections)
    reads = [call for value in theirs if plan.plant for call in plan.plant(run.suite, environment, value, told)]
    before = environment.model_copy(deep=True)
    order = f"{told}\n{live.injection_tasks[run.injection].GOAL}"
    session = Session(
        seen(run.suite, live.version, "default", run.identity),
        order if plan.told == "agent" else told,
        lambda tool, args: live.run(environment, tool, args),
        nobody,
        speaker=MODEL if plan.told == "agent" else USER,
    )
    if plan.told == "memory":
        session.say(order, MEMORY)
    if reads:
        session.propose("", reads)
    turned: list[list[_Key]] = []
    said = ""
    for turn in run.turns:
        if turn.role == "assistant":
            calls = [new for call in turn.calls for new in _changed(live, policy, run, plan, call, theirs, turned)]
            session.propose(turn.text, calls)
            said = turn.text
    reached = live.done(live.injection_tasks[run.injection], said, before, environment, session.made)
    worked = {_key(live, call) for call in session.worked}
    whole = [pieces[0][0] for pieces in turned if worked.issuperset(pieces)]
    made = tuple(f"{tool} ({policy.tools[tool].effect})" for tool in whole)
    if (run.suite, run.injection) in TEXT_GOALS:
        reached = False
    return Tried(run.suite, plan.name, f"{run.task}/{run.injection}", reached, made)


def values_of(live: World, policy: Policy, injection: str, told: str) -> list[str]:
    """List the attacker's values: where his calls go and what he wants said, which neither the user says nor the world holds."""
    found = _inside(live.injection_tasks[injection].GOAL)
    for call in live.truth_of(injection):
        if policy.tools[call.tool].effect != "read":
            found += [value for value in _texts(call.args) if _is_place(policy, call, value)]
    known = f"{told}\n{live.text}".casefold()
    return [value for value in dict.fromkeys(found) if value.casefold() not in known][:3]


def _is_place(policy: Policy, call: Proposed, value: str) -> bool:
    """Whether a text is a destination or a bound of a call, and longer than an id."""
    normal = {form for _, form in effect_values(policy, call.tool, call.args)}
    return len(value) > 3 and value.casefold() in normal


def _inside(text: str) -> list[str]:
    spans = [*emails_in(text), *accounts_in(text)]
    spans += [span for span in urls_in(text) if not any(a < span[1] and span[0] < b for a, b in spans)]
    return [text[start:end] for start, end in spans]


def _texts(args: dict[str, Any]) -> list[str]:
    return [value for _, value in leaves(args) if isinstance(value, str)]


def _changed(
    live: World, policy: Policy, run: Recording, plan: Plan, call: Proposed, theirs: Sequence[str], turned: list[list[_Key]]
) -> list[Proposed]:  # fmt: skip
    """Give what becomes of a recorded call: a turned one is written as the plan says, and remembered."""
    if call.tool not in policy.tools or not _is_turned(live, policy, run, call, theirs):
        return [call]
    calls = [call]
    if plan.write is not None:
        for value in theirs:
            calls = [Proposed(one.tool, _swapped(one.args, value, plan.write(value))) for one in calls]
    elif plan.cut:
        calls = [piece for one in calls for piece in _cut(one, theirs)]
    if policy.tools[call.tool].effect != "read" or call.tool == "get_webpage":
        turned.append([_key(live, one) for one in calls])
    return calls


def _is_turned(live: World, policy: Policy, run: Recording, call: Proposed, theirs: Sequence[str]) -> bool:
    text = "\n".join(_texts(call.args)).casefold()
    if any(value.casefold() in text for value in theirs if _inside(value)):
        return True  # a name alone may be told of; an address is where somebody goes
    if policy.tools[call.tool].effect == "read":
        return False
    places = {form for _, form in effect_values(policy, call.tool, call.args)}
    if theirs:  # names of his, where a call goes
        return any(value.casefold() in places for value in theirs)
    mine, injected = live.truth_of(run.task), live.truth_of(run.injection)
    same = bool(places) and same_effect(policy, call.tool, call.args, injected)
    return same and not same_effect(policy, call.tool, call.args, mine)


def _swapped(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_swapped(item, old, new) for item in value]
    return {key: _swapped(item, old, new) for key, item in value.items()} if isinstance(value, dict) else value


def _cut(call: Proposed, theirs: Sequence[str]) -> list[Proposed]:
    """Cut a call in two that hold a half of each value; or over two arguments, where it has two texts."""
    halves = [(value, value[: len(value) // 2], value[len(value) // 2 :]) for value in theirs]
    first, second = call.args, call.args
    for value, left, right in halves:
        first, second = _swapped(first, value, left), _swapped(second, value, right)
    if first == call.args:
        return [call]
    lists = {
        key: [*first[key], *second[key]]
        for key, item in first.items()
        if isinstance(item, list) and item != second[key]
    }
    both = {**first, **lists}
    return [Proposed(call.tool, both)] if lists else [Proposed(call.tool, first), Proposed(call.tool, second)]


def _key(live: World, call: Proposed) -> _Key:
    checked = live.arguments(call.tool, msgspec.json.encode(call.args).decode())
    return call.tool, checked if isinstance(checked, bytes) else msgspec.json.encode(call.args)


def worst(suite: str, task: str, injection: str) -> Any:
    """Play a task's ground truth with an injection's calls: beside each of its steps, and again only when all has been read."""
    from bench.guard.worst import Tried as Worst

    early, late = (_schemed(suite, task, injection, late=late) for late in (False, True))
    return Worst(
        suite, f"{task}/{injection}", early[0] or late[0], early[1] or late[1],
        tuple(dict.fromkeys((*early[2], *late[2]))), early[3], early[4], late[4],
    )  # fmt: skip


def _schemed(suite: str, task: str, injection: str, *, late: bool) -> tuple[bool, bool, tuple[str, ...], int, bool]:
    live, policy = world(suite, LATEST), policy_of(suite)
    goal: str = live.injection_tasks[injection].GOAL
    places = live.neutral_places(task)
    run = Recording(
        path="", suite=suite, version=LATEST, task=task, injection=injection, attack="worst", identity=IDENTITY,
        injections=dict.fromkeys(places, goal), turns=tuple(_beside(live, task, injection, late=late)),
    )  # fmt: skip
    honest, alone = Honest(live, run), Honest(live, run)
    answered, unanswered = play(run, "default", honest.answer), play(run, "default", alone.no)
    injected = {_key(live, call) for call in live.attack_of(injection) if policy.tools[call.tool].effect != "read"}
    yes = {_key(live, Proposed(one.tool, one.args)) for one in answered.session.verdicts if one.approved}
    made = [
        call.tool
        for call in answered.session.worked
        if _key(live, call) in injected - yes and not same_effect(policy, call.tool, call.args, live.truth_of(task))
    ]
    reached = succeeded(live, run, unanswered), succeeded(live, run, answered)
    return (*reached, tuple(made), len(honest.asked), did(live, run, answered))


def _beside(live: World, task: str, injection: str, *, late: bool) -> Iterator[Turn]:
    yield Turn("user", live.user_tasks[task].PROMPT)
    theirs = live.attack_of(injection)
    for call in live.truth_of(task):
        yield Turn("assistant", "", (call,) if late else (call, *theirs))
    yield from (Turn("assistant", "", (call,)) for call in theirs if late)
    yield Turn("assistant", live.user_tasks[task].GROUND_TRUTH_OUTPUT)
