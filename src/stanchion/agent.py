"""An agent as its author writes it, and how it becomes a bundle and code bound to it.

    support = Agent(name="support", identity="...", tools=[lookup_order, refund],
                    model="anthropic:claude-sonnet-4-6", limits=Limits(usd="0.50", turns=15))

Everything is checked here, where it is written: a wrong setting is a `ConfigError` that names it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from stanchion.broker.broker import check_needs, checked_sources
from stanchion.broker.port import Source
from stanchion.compaction import Compaction
from stanchion.core.bundle import (
    STEPS,
    ApprovalRule,
    Bundle,
    Caps,
    EffectTier,
    LoopRules,
    RetryPolicy,
    Route,
    Timeouts,
    ToolSearch,
    ToolSpec,
)
from stanchion.core.errors import ConfigError, InputError
from stanchion.core.loading import LOADERS, loads_tools
from stanchion.core.message import OutputSchema
from stanchion.core.money import Amount, Price, parse_usd
from stanchion.core.policy import GuardRules
from stanchion.core.prices import Prices, find_price
from stanchion.core.skill import Skill
from stanchion.guard.detector import VERSION as REDACTION
from stanchion.memory import Memory
from stanchion.model.providers import split_model
from stanchion.plugin import bound_rules
from stanchion.routing import Routing, check_shape, read_table
from stanchion.toolbox.options import Breaker, check_breaker
from stanchion.toolbox.registry import Registry
from stanchion.toolbox.rules import GROUNDS, checked_rules
from stanchion.toolbox.search import check_choice, checked_search
from stanchion.toolbox.skill import SkillFile, check_skills, read_skills

N = TypeVar("N", int, float)
V = TypeVar("V")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_ANY_S = float("inf")
"""Not said: narrows nothing, and is never stored."""
_EFFECTS = ("read", "write", "irreversible", "destructive")


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of a run, checked before each step; None: no limit. Near one, the model is told once.

    `usd` is dollars, best as a string ("0.50"). `wall_s` is seconds without the time spent waiting for people. An agent
    that says nothing of `turns`, `tool_calls_per_turn` and `budget_wait_s` has 50, 32 and 30; a request only ever narrows.
    `stop_early`: a run that by past ones cannot be expected to end within `usd` is told so, and stopped two turns later.
    """

    usd: Amount | None = None
    turns: int | None = None
    tool_calls: int | None = None
    tool_calls_per_turn: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    wall_s: float | None = None
    warn_at: float = 0.8
    budget_wait_s: float | None = None
    stop_early: bool = False

    def caps(self, name: str = "limits") -> Caps:
        """Read the limits. Raises `InputError` that names the field."""
        counts = {
            key: _count(getattr(self, key), f"{name}.{key}")
            for key in ("turns", "tool_calls", "tool_calls_per_turn", "input_tokens", "output_tokens")
        }
        if not 0 < _number(self.warn_at, f"{name}.warn_at") <= 1:
            raise InputError("must be above 0 and at most 1", field=f"{name}.warn_at")
        return Caps(
            nano_usd=0 if self.usd is None else _positive(parse_usd(self.usd, field=f"{name}.usd"), f"{name}.usd"),
            wall_s=0.0 if self.wall_s is None else _positive(_seconds(self.wall_s, f"{name}.wall_s"), f"{name}.wall_s"),
            warn_at=float(self.warn_at),
            budget_wait_s=_ANY_S
            if self.budget_wait_s is None
            else _seconds(self.budget_wait_s, f"{name}.budget_wait_s"),
            stop_early=_flag(self.stop_early, f"{name}.stop_early"),
            **counts,
        )


def _count(value: int | None, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"must be a whole number, not {value!r}", field=name)
    return _positive(value, name)


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"must be True or False, not {value!r}", field=name)
    return value


def _positive(value: N, name: str) -> N:
    if not value > 0:
        raise InputError(f"must be above 0, not {value!r} (leave it out for no limit)", field=name)
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"must be a number, not {value!r}", field=name)
    return float(value)


def _seconds(value: float, name: str) -> float:
    if not 0 <= _number(value, name) < float("inf"):
        raise InputError(f"must be seconds of 0 or more, not {value!r}", field=name)
    return float(value)


def _bounded(caps: Caps) -> Caps:
    """Give an agent the limits that it did not set and should not be without."""
    usual = Caps()
    return msgspec.structs.replace(
        caps,
        turns=caps.turns or usual.turns,
        tool_calls_per_turn=caps.tool_calls_per_turn or usual.tool_calls_per_turn,
        budget_wait_s=usual.budget_wait_s if caps.budget_wait_s == _ANY_S else caps.budget_wait_s,
    )


def narrow(caps: Caps, asked: Caps) -> Caps:
    """Give the tighter of each limit: a request may ask for less than its agent allows, never for more."""

    def least(ours: N, theirs: N) -> N:
        return min(ours, theirs) if ours and theirs else ours or theirs

    return Caps(
        nano_usd=least(caps.nano_usd, asked.nano_usd),
        turns=least(caps.turns, asked.turns),
        tool_calls=least(caps.tool_calls, asked.tool_calls),
        tool_calls_per_turn=least(caps.tool_calls_per_turn, asked.tool_calls_per_turn),
        input_tokens=least(caps.input_tokens, asked.input_tokens),
        output_tokens=least(caps.output_tokens, asked.output_tokens),
        wall_s=least(caps.wall_s, asked.wall_s),
        warn_at=caps.warn_at,
        budget_wait_s=min(caps.budget_wait_s, asked.budget_wait_s),
        stop_early=caps.stop_early or asked.stop_early,
    )


@dataclass(frozen=True, slots=True)
class Model:
    """A model and how it is asked. `name` is `provider:model`; a plain string in an agent means this with defaults.

    `price` is needed only for models that the price table does not know. `max_extra_usd` bounds what hosted tools in
    `options` may add to a call's bill; without it they are refused under a budget. `retries` are attempts in all, or a
    `RetryPolicy` with its waits.
    """

    name: str
    price: Price | None = None
    max_output_tokens: int = 4096
    context_tokens: int = 200_000
    temperature: float | None = None
    top_p: float | None = None
    thinking_tokens: int | None = None
    effort: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int | RetryPolicy = 5
    max_extra_usd: Amount = 0
    cache: Literal["auto", "short", "long", "off"] = "auto"
    """For how long the provider is asked to keep what requests begin with: 5 minutes, an hour (writes cost more), not at all; or what
    costs least by the pauses of this agent's sessions, with a read before the end of a life where that pays."""
    breaker: Breaker | None = field(default_factory=Breaker)
    """When runs that have another model leave this one alone, and for how long: after so many failures in a row; None: never."""
    loads_tools: bool | None = None
    """Tools that are found (`Agent(search=)`) are loaded by the provider and called like listed ones, and not by `call_tool`. None: where the
    model is known to. False: for a gateway that does not know `tool_reference`."""

    def __post_init__(self) -> None:
        where = f"model {self.name!r}"
        _must_be(self.name, str, f"{where}: name", "a string, as in anthropic:claude-sonnet-4-6")
        _must_be(self.price, Price | None, f"{where}: price", "made with price_usd(input=.., output=..)")
        _must_be(self.timeouts, Timeouts, f"{where}: timeouts", "Timeouts(..)")
        _must_be(self.retries, int | RetryPolicy, f"{where}: retries", "a whole number, or RetryPolicy(..)")
        _must_be(self.effort, str, f"{where}: effort", "a word")
        if self.loads_tools is not None:
            _must_be(self.loads_tools, bool, f"{where}: loads_tools", "True, False or None")
        if self.breaker is not None:
            check_breaker(where, self.breaker)
        if self.cache not in ("auto", "short", "long", "off"):
            raise ConfigError(f'{where}: cache must be "auto", "short", "long" or "off", not {self.cache!r}')
        attempts = self.retries.attempts if isinstance(self.retries, RetryPolicy) else self.retries
        for name, value, least in (
            ("max_output_tokens", self.max_output_tokens, 1),
            ("context_tokens", self.context_tokens, 1),
            ("retries", attempts, 1),
            ("thinking_tokens", self.thinking_tokens, 0),
        ):
            _must_be(value, int | None, f"{where}: {name}", "a whole number")
            if value is not None and value < least:
                raise ConfigError(f"{where}: {name} must be {least} or more, not {value!r}")
        for name, value in (("temperature", self.temperature), ("top_p", self.top_p)):
            _must_be(value, int | float | None, f"{where}: {name}", "a number")
        for name in self.timeouts.__struct_fields__:
            _must_be(getattr(self.timeouts, name), int | float, f"{where}: timeouts.{name}", "seconds")
            if not getattr(self.timeouts, name) > 0:
                raise ConfigError(f"{where}: timeouts.{name} must be above 0 seconds")
        try:
            msgspec.json.encode(_must_be(self.options, Mapping, f"{where}: options", "a dict"))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}: options must be JSON: {error}") from error

    @property
    def provider(self) -> str:
        """The provider. Raises `ConfigError` if there is none of this name."""
        return split_model(self.name)[0]

    def route(self, prices: Prices, on_date: str, *, search: bool = False) -> Route:
        """Resolve provider and price. `search`: for an agent whose tools are found. Raises `ConfigError`."""
        provider, model = split_model(self.name)
        if self.loads_tools and provider not in LOADERS:
            raise ConfigError(
                f"model {self.name!r}: loads_tools: only {', '.join(sorted(LOADERS))} can refer to tools; leave it out"
            )
        price = self.price or find_price(prices, provider, model, on_date)
        if price is None:
            raise ConfigError(
                f"the price of {self.name!r} is not known; give it: "
                'Model(name, price=price_usd(input="..", output="..")), in dollars per million tokens'
            )
        return Route(
            provider=provider,
            model=model,
            price=price,
            max_output_tokens=self.max_output_tokens,
            context_tokens=self.context_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            thinking_tokens=self.thinking_tokens,
            effort=self.effort,
            options=dict(self.options),
            timeouts=self.timeouts,
            retry=self.retries if isinstance(self.retries, RetryPolicy) else RetryPolicy(attempts=self.retries),
            max_extra_nano_usd=parse_usd(self.max_extra_usd, field=f"model {self.name!r}: max_extra_usd"),
            cache=self.cache,
            loads_tools=search and (loads_tools(provider, model) if self.loads_tools is None else self.loads_tools),
        )


@dataclass(frozen=True, slots=True)
class Approve:
    """Calls that wait for a person: of a tool, of a tier, or of both; with `above`, only when an argument is larger.

    `Approve(effect="irreversible")`, `Approve(tool="refund", above={"cents": 5000}, expires_s=86400)`.
    """

    tool: str = ""
    effect: EffectTier | Literal[""] = ""
    above: Mapping[str, float] = field(default_factory=dict[str, float])
    expires_s: float | None = None
    to: Sequence[str] = ()
    """Only if one of its destinations is like one of these ("*@partner.example")."""
    ground: Sequence[str] = ()
    """Only if a value of it has such a ground: "field" (a tool's result named it), "memory" (the user said it in an earlier session),
    "allowed" (a person did, in this session)."""
    quorum: int = 1
    """How many people must say yes."""

    def __post_init__(self) -> None:
        where = f"Approve(tool={self.tool!r}, effect={self.effect!r})"
        _must_be(self.tool, str, f"{where}: tool", "the name of a tool")
        if self.effect and self.effect not in _EFFECTS:
            raise ConfigError(f"{where}: effect must be one of {', '.join(_EFFECTS)}")
        for name, bound in _must_be(self.above, Mapping, f"{where}: above", 'a dict, as in {"cents": 5000}').items():
            _must_be(bound, int | float, f"{where}: above[{name!r}]", "a number")
        _must_be_list(self.to, str, f"{where}: to")
        _must_be_list(self.ground, str, f"{where}: ground")
        if unknown := set(self.ground) - set(GROUNDS):
            raise ConfigError(f"{where}: ground {min(unknown)!r} is none of {', '.join(GROUNDS)}")
        if _must_be(self.quorum, int, f"{where}: quorum", "a whole number") < 1:
            raise ConfigError(f"{where}: quorum must be 1 or more")
        if self.expires_s is not None:
            _must_be(self.expires_s, int | float, f"{where}: expires_s", "seconds")
            if not 0 < self.expires_s < float("inf"):
                raise ConfigError(f"{where}: expires_s must be above 0 (leave it out to wait for ever)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent: who it is, what it may use, which model thinks for it, and how far it may go."""

    name: str
    identity: str = ""
    tools: Sequence[object] = ()
    skills: Sequence[str | Path | Skill | SkillFile] = ()
    """Folders with a SKILL.md; a relative path begins beside the file in which the agent is made. Read when it is made."""
    search: ToolSearch | None = None
    """Which of its tools stand in every prompt; the model finds the others with `find_tools`. None: all of them stand there."""
    model: str | Model
    fallbacks: Sequence[str | Model] = ()
    steps: Mapping[str, str | Model] = field(default_factory=dict[str, str | Model])
    """Models for single types of steps, mostly cheaper ones: "extract", "summarise", "judge", "remember"."""
    routing: Routing = field(default_factory=Routing)
    """Which turns go to a cheaper model first (`stanchion.routing`)."""
    fallback_message: str = ""
    """What the user is told where no model can answer, before what became of the run; "": the runtime's own words."""
    memory: Memory | None = None
    """What it remembers of its users from one session to the next; None: nothing."""
    limits: Limits = Limits()
    compaction: Compaction | None = None
    """How long conversations are made shorter (`stanchion.compaction`). None: long results are left out where a provider says that a
    request is too long, and nothing else."""
    approvals: Sequence[Approve] = ()
    guard: GuardRules = field(default_factory=GuardRules)
    """How strict its guard is, and what it knows: trusted values, levels of secrecy, grants."""
    checks: Sequence[object] = ()
    """Own checks of text, and classifiers, that the guard's rules use by name (`stanchion.plugin`)."""
    deps: Mapping[Any, Any] = field(default_factory=dict[Any, Any])
    credentials: Mapping[str, Source] = field(default_factory=dict[str, Source])
    """Where the credentials of its tools come from, by name; each source says the most that may be asked of it."""
    output: Any = None
    """A type: the final answer is JSON of it, by the provider's strict mode, and checked."""
    loop: LoopRules = field(default_factory=LoopRules)
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    priority: Literal["interactive", "batch"] = "interactive"
    """Which of its runs go first when runs wait for a slot; a start may say otherwise."""
    session_expires_s: float = 0.0
    """A session that was idle for so long takes no more runs; 0: never. Its runs can still be read."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"agent name {self.name!r}: use 1 to 64 letters, digits, '_', '.' or '-'")
        where = f"agent {self.name!r}"
        _must_be(self.identity, str, f"{where}: identity", "a string")
        _must_be(self.limits, Limits, f"{where}: limits", 'Limits(..), as in Limits(usd="0.50", turns=15)')
        _must_be(self.compaction, Compaction | None, f"{where}: compaction", "Compaction(..)")
        _must_be(self.loop, LoopRules, f"{where}: loop", "LoopRules(..)")
        _must_be(self.guard, GuardRules, f"{where}: guard", "GuardRules(..)")
        _must_be(self.search, ToolSearch | None, f"{where}: search", "ToolSearch(..)")
        _must_be(self.deps, Mapping, f"{where}: deps", "a dict of types and what is given for them")
        checked_sources(self.name, self.credentials)
        _must_be(self.tool_choice, str, f"{where}: tool_choice", '"auto", "required", "none" or the name of a tool')
        if self.priority not in ("interactive", "batch"):
            raise ConfigError(f'{where}: priority must be "interactive" or "batch", not {self.priority!r}')
        _must_be(self.session_expires_s, int | float, f"{where}: session_expires_s", "a number of seconds")
        if isinstance(self.session_expires_s, bool) or not 0 <= self.session_expires_s < float("inf"):
            raise ConfigError(f"{where}: session_expires_s must be a number of seconds, or 0 for never")
        if not isinstance(self.parallel_tool_calls, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"{where}: parallel_tool_calls must be True or False")
        for name, kind in (("tools", object), ("checks", object), ("fallbacks", str | Model), ("approvals", Approve)):
            _must_be_list(getattr(self, name), kind, f"{where}: {name}")
        _must_be_list(self.skills, str | Path | Skill | SkillFile, f"{where}: skills")
        object.__setattr__(self, "skills", _read(self.skills, where))
        _must_be(self.model, str | Model, f"{where}: model", "provider:model, or Model(..)")
        _must_be(self.memory, Memory | None, f"{where}: memory", "Memory(..), as in Memory(tokens=800)")
        for step, model in _must_be(
            self.steps, Mapping, f"{where}: steps", "a dict of types of steps and models"
        ).items():
            if step not in STEPS:
                raise ConfigError(f"{where}: steps: {step!r} is none of {', '.join(STEPS)}")
            _must_be(model, str | Model, f"{where}: steps[{step!r}]", "provider:model, or Model(..)")
        check_shape(where, self.routing)
        _must_be(self.fallback_message, str, f"{where}: fallback_message", "a string")
        if self.guard.quarantine and self.routing.table:
            raise ConfigError(
                f"{where}: routing: a planner in quarantine has no brief context; leave one of the two out"
            )
        try:
            self.limits.caps()
        except InputError as error:
            raise ConfigError(f"{where}: {error}") from error

    def models(self) -> tuple[Model, ...]:
        """List the model and its fallbacks."""
        return tuple(_model(given) for given in (self.model, *self.fallbacks))

    def every_model(self) -> tuple[Model, ...]:
        """.. and behind them those of single steps that are none of these."""
        known = list(self.models())
        briefs = cast("tuple[str | Model, ...]", tuple(brief.model for brief in self.routing.briefs()))
        for model in map(_model, (*self.steps.values(), *briefs)):
            known += [model] if model not in known else []
        return tuple(known)

    def registry(self) -> Registry:
        """Make a registry of its tools. Raises `ConfigError`."""
        return Registry(
            self.tools,
            self.deps,
            freeze=self.guard.freeze,
            quarantine=self.guard.quarantine,
            skills=bool(self.skills),
            search=self.search is not None,
            history=self.compaction is not None,
            memory=self.memory.by_words(self.name) if self.memory is not None else None,
        )

    def skill_files(self) -> tuple[SkillFile, ...]:
        """List its skills by name, with where they were read."""
        return read_skills(self.skills)

    def bundle(self, registry: Registry, prices: Prices, on_date: str, *, framework: str = "") -> Bundle:
        """Make the bundle. Raises `ConfigError` or `InputError` that names the setting."""
        tools = registry.specs if self.tools or self.skills or self.compaction or self.memory else ()
        known = {spec.name: spec for spec in tools}
        check_needs(self.name, known, self.credentials)
        skills = tuple(read.skill for read in self.skill_files())
        check_skills(self.name, skills, known)
        search = checked_search(self.name, self.search, known)
        check_choice(self.name, self.tool_choice, known, search)
        models = [model.name for model in self.models()]
        every = self.every_model()
        if self.guard.extractor and self.guard.extractor not in models:
            text = f"guard.extractor {self.guard.extractor!r} is none of its models: {', '.join(models)}"
            raise ConfigError(f"agent {self.name!r}: {text}")
        return Bundle(
            agent=self.name,
            identity=self.identity,
            routes=tuple(model.route(prices, on_date, search=search is not None) for model in self.models()),
            others=tuple(model.route(prices, on_date) for model in every[len(models) :]),
            steps={step: every.index(_model(model)) for step, model in self.steps.items()},
            routing=read_table(
                f"agent {self.name!r}",
                self.routing,
                lambda model: every.index(_model(cast("str | Model", model))),
                known,
                judge="judge" in self.steps,
            ),
            fallback_message=self.fallback_message,
            tools=tools,
            caps=_bounded(self.limits.caps()),
            loop=self.loop,
            approvals=tuple(_approval(self.name, rule, known) for rule in self.approvals),
            guard=bound_rules(self.name, checked_rules(self.name, self.guard, known), self.checks, known),
            credentials={name: source.scopes for name, source in self.credentials.items()},
            skills=skills,
            search=search,
            compaction=self.compaction.rules(self.name, known) if self.compaction else None,
            memory=self.memory.rules(self.name, prices, on_date) if self.memory is not None else None,
            output=_output_schema(self.name, self.output),
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            redaction=REDACTION,
            framework=framework,
        )


def _model(given: str | Model) -> Model:
    return Model(given) if isinstance(given, str) else given


def _must_be(value: V, kind: Any, where: str, what: str) -> V:
    """Check what the type checker would have, for those who use none. Raises `ConfigError`."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} must be {what}, not {value!r}")
    return value


def _read(given: Sequence[object], where: str) -> tuple[SkillFile, ...]:
    """Read skills once, where the agent is made, so that all that is made of it has the same. Raises `ConfigError`."""
    try:
        return read_skills(given, _made_in()) if given else ()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _made_in() -> Path:
    """Find the folder of the file that makes an agent: a path in it must mean the same from wherever a process is started."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    return Path(file).parent if isinstance(file, str) else Path()


def _must_be_list(value: object, kind: Any, where: str) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where} must be a list, not {value!r}")
    for item in cast("Sequence[object]", value):
        if not isinstance(item, kind):
            raise ConfigError(f"{where}: {item!r} does not belong there")


def _approval(agent: str, rule: Approve, tools: Mapping[str, ToolSpec]) -> ApprovalRule:
    where = f"agent {agent!r}: {rule!r}"
    if rule.tool and rule.tool not in tools:
        raise ConfigError(f"{where}: it has no tool {rule.tool!r}")
    for name in rule.above if rule.tool else ():
        if name not in tools[rule.tool].parameters.get("properties", {}):
            raise ConfigError(f"{where}: {rule.tool} has no argument {name!r}, so every call would wait")
    return ApprovalRule(
        tool=rule.tool,
        effect=rule.effect,
        above=dict(rule.above),
        expires_s=float(rule.expires_s or 0),
        to=tuple(rule.to),
        ground=tuple(rule.ground),
        quorum=rule.quorum if rule.quorum > 1 else 0,
    )


def _output_schema(agent: str, output: Any) -> OutputSchema | None:
    if output is None:
        return None
    wrong = f"agent {agent!r}: output {output!r} has no JSON schema; use a pydantic model or a dataclass"
    if inspect.isroutine(output):
        raise ConfigError(wrong)
    try:
        schema = TypeAdapter[Any](output).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ConfigError(wrong) from error
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(output, "__name__", "answer"))[:64]
    return OutputSchema(name, _closed(schema))


def _closed(schema: Any) -> Any:
    """Close the world of every object in a schema, as the strict modes want it."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {key: _closed(value) for key, value in schema.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
        closed["required"] = list(closed["properties"])
    return closed


class OutputCheck:
    """Checks a final answer against the agent's output type."""

    def __init__(self, output: Any) -> None:
        self._adapter = TypeAdapter[Any](output)

    def __call__(self, text: str) -> str:
        """Say what is wrong with an answer, or ""."""
        try:
            self._adapter.validate_json(text)
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, e['loc'])) or 'the answer'}: {e['msg']}" for e in error.errors(include_url=False)
            ]
            return "; ".join(wrong[:5])
        return ""
