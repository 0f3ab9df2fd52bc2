"""Scripts: rules on the conversation that say what the simulated model answers.

A script is plain data (JSON, or these types in Python). The first rule whose conditions all hold answers; else the
default; without one, the built-in demo. In texts and arguments `${..}` takes something from the conversation:

    ${user}              the last thing the user said          ${turn}     how often the assistant has spoken
    ${match.1}           a group of the rule's regex           ${model}    the model asked for
    ${match.order}       .. by its name                        ${system}   the system prompt
    ${tool}              the last tool result                  ${words:40} forty simulated words
    ${tool.items.0.id}   a member of it, where it is JSON

An argument that is only one `${..}` keeps the type of what it takes (a number stays a number). Nothing here keeps state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.sim.demo import demo_reply, words
from stanchion.sim.exchange import Ask, Call, Finish, Said, WireName
from stanchion.sim.faults import FaultPlan
from stanchion.sim.moderations import ModerationRule, check_moderations

_TEMPLATE = re.compile(r"\$\{([^}]+)\}")
Seconds = Annotated[float, msgspec.Meta(ge=0)]
_ROOTS = ("user", "tool", "match", "turn", "model", "system", "words")


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The conditions of a rule; all that are set must hold. Regular expressions are searched for, not anchored."""

    user: str = ""
    """Regex on the last thing the user said. Holds only where the user spoke last, unless `after` says otherwise."""
    tool_result: str = ""
    """Regex on the last tool result; holds only where a tool result came last."""
    tool: str = ""
    """Name of the tool whose result came last."""
    after: Literal["", "user", "tool", "any"] = ""
    turn: int | tuple[int, ...] | None = None
    """How often the assistant has spoken: 0 in the first request."""
    model: str = ""
    """Regex on the model's name."""
    contains: str | tuple[str, ...] = ""
    """A text, or several of which each, stands anywhere in the system prompt or the messages."""
    wire: WireName | None = None
    conversation: str = ""
    """Regex on the conversation's name."""


class ReplyCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A tool call of a reply. `arguments` is an object, or a text that goes out as it stands."""

    name: str
    arguments: Any = {}
    id: str = ""


class Pacing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Token speed. `events` deltas, one every `interval_s`, the first after `first_s`."""

    first_s: Seconds = 0.0
    """Time to the first token; for a response that is not streamed, its whole delay."""
    interval_s: Seconds = 0.0
    events: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Deltas in a turn, never more than its characters. None: one for each simulated token."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Each interval is drawn from 1 - jitter to 1 + jitter times its length, seeded by the request."""


class UsageOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Token counts to report and to bill in place of the counted ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What the simulated model says."""

    text: str = ""
    thinking: str = ""
    calls: tuple[ReplyCall, ...] = ()
    finish: Finish | None = None
    """None: "tool_calls" where there are calls, else "stop"."""
    usage: UsageOverride = UsageOverride()
    pacing: Pacing | None = None
    """None: the script's."""
    fault: FaultPlan | None = None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A reply and when it is given."""

    when: When
    reply: Reply
    name: str = ""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Rules, tried in order, and what is said when none holds."""

    rules: tuple[Rule, ...] = ()
    default: Reply | None = None
    """None: the built-in demo, which echoes, and calls a tool the user names."""
    pacing: Pacing = Pacing()
    moderations: tuple[ModerationRule, ...] = ()
    """What `/v1/moderations` flags."""


class Played(msgspec.Struct, frozen=True):
    """What a script or a recording answers to a request."""

    said: Said
    rule: str
    pacing: Pacing | None = None
    fault: FaultPlan | None = None
    usage: UsageOverride = UsageOverride()


def load_script(data: bytes) -> Script:
    """Decode and check a script; raises `ConfigError` that names the field."""
    try:
        script = msgspec.json.decode(data, type=Script)
    except msgspec.DecodeError as error:
        raise ConfigError(f"this is no script: {error}") from None
    check_script(script)
    return script


def check_script(script: Script) -> None:
    """Find regular expressions and templates that cannot work, before a request meets them."""
    for i, rule in enumerate(script.rules):
        for name in ("user", "tool_result", "model", "conversation"):
            _compile(getattr(rule.when, name), f"rules[{i}].when.{name}")
        _check_templates(rule.reply, f"rules[{i}].reply")
    if script.default is not None:
        _check_templates(script.default, "default")
    check_moderations(script.moderations)


def play(script: Script, ask: Ask, conversation: str = "") -> Played:
    """Answer a request by the first rule that holds."""
    for i, rule in enumerate(script.rules):
        held = _holds(rule.when, ask, conversation)
        if held is not None:
            return _settle(rule.reply, ask, held, rule.name or f"rules[{i}]")
    if script.default is not None:
        return _settle(script.default, ask, {}, "default")
    return Played(demo_reply(ask), "demo")


def _compile(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is no regular expression: {error}") from None


def _check_templates(reply: Reply, where: str) -> None:
    text = msgspec.json.encode(reply).decode()
    for found in _TEMPLATE.findall(text):
        root = re.split(r"[.:]", found)[0]
        if root not in _ROOTS or (root == "words" and not re.fullmatch(r"words:\d{1,6}", found)):
            raise ConfigError(f"{where}: ${{{found}}} is not known; use one of {', '.join(_ROOTS)}")


def _holds(when: When, ask: Ask, conversation: str) -> dict[str, str] | None:
    """Say whether all conditions hold: the groups of the regex that did, or None."""
    wanted = when.after or ("tool" if when.tool or when.tool_result else "user" if when.user else "any")
    if wanted not in ("any", ask.after):
        return None
    if when.turn is not None and ask.turn not in (when.turn if isinstance(when.turn, tuple) else (when.turn,)):
        return None
    if when.wire not in (None, ask.wire) or not re.search(when.model, ask.model):
        return None
    if not re.search(when.conversation, conversation):
        return None
    if when.tool and ask.tool_of(ask.turns[-1].call_id) != when.tool:
        return None
    texts = (when.contains,) if isinstance(when.contains, str) else when.contains
    if not all(_contains(ask, text) for text in texts if text):
        return None
    groups: dict[str, str] = {}
    for pattern, text in ((when.user, ask.last_user), (when.tool_result, ask.last_tool)):
        found = re.search(pattern, text)
        if found is None:
            return None
        groups |= {str(i): value or "" for i, value in enumerate((found[0], *found.groups()))} if pattern else {}
        groups |= {name: value or "" for name, value in found.groupdict().items()}
    return groups


def _contains(ask: Ask, text: str) -> bool:
    return text in ask.system or any(
        text in turn.text or any(text in call.arguments for call in turn.calls) for turn in ask.turns
    )


def _settle(reply: Reply, ask: Ask, groups: Mapping[str, str], rule: str) -> Played:
    def look_up(name: str) -> Any:
        return _look_up(name, ask, groups)

    calls = tuple(Call(c.name, _arguments(c.arguments, look_up), c.id) for c in reply.calls)
    finish: Finish = reply.finish or ("tool_calls" if calls else "stop")
    said = Said(_fill_text(reply.text, look_up), _fill_text(reply.thinking, look_up), calls, finish)
    return Played(said, rule, reply.pacing, reply.fault, reply.usage)


def _arguments(value: Any, look_up: Callable[[str], Any]) -> str:
    if isinstance(value, str):
        return _fill_text(value, look_up)
    return msgspec.json.encode(_fill(value, look_up)).decode()


def _fill(value: Any, look_up: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        whole = _TEMPLATE.fullmatch(value)
        return look_up(whole[1]) if whole else _fill_text(value, look_up)
    if isinstance(value, dict):
        return {k: _fill(v, look_up) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_fill(v, look_up) for v in cast("list[Any]", value)]
    return value


def _fill_text(text: str, look_up: Callable[[str], Any]) -> str:
    def put(found: re.Match[str]) -> str:
        value = look_up(found[1])
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    return _TEMPLATE.sub(put, text)


def _look_up(name: str, ask: Ask, groups: Mapping[str, str]) -> Any:
    root, _, rest = name.partition(".")
    if root == "match":
        return groups.get(rest, "")
    if root == "tool" and rest:
        return _member(ask.last_tool, rest)
    if name.startswith("words:"):
        return words(int(name.removeprefix("words:")))
    plain = {"user": ask.last_user, "tool": ask.last_tool, "turn": ask.turn, "model": ask.model, "system": ask.system}
    return plain.get(name, "")


def _member(text: str, path: str) -> Any:
    """Take a member of a JSON text by its path; "" where there is none."""
    try:
        value: Any = msgspec.json.decode(text)
        for step in path.split("."):
            value = value[int(step) if isinstance(value, list) else step]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError):
        return ""
    return value
