"""An agent as its author writes it, and how it becomes a bundle and code bound to it.

    support = Agent(name="support", identity="...", tools=[lookup_order, refund],
                    model="anthropic:claude-sonnet-4-6", limits=Limits(usd="0.50", turns=15))

Everything is checked here, where it is written: a wrong setting is a `ConfigError` that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from stanchion.core.bundle import (
    ApprovalRule,
    Bundle,
    Caps,
    EffectTier,
    LoopRules,
    RetryPolicy,
    Route,
    Timeouts,
)
from stanchion.core.errors import ConfigError, InputError
from stanchion.core.message import OutputSchema
from stanchion.core.money import Amount, Price, parse_usd
from stanchion.core.prices import Prices, find_price
from stanchion.model.providers import split_model
from stanchion.toolbox.registry import Registry

N = TypeVar("N", int, float)
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_EFFECTS = ("read", "write", "irreversible", "destructive")


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of a run, checked before each step; None: no limit. Near one, the model is told once.

    `usd` is dollars, best as a string ("0.50"). `wall_s` is seconds without the time spent waiting for people.
    """

    usd: Amount | None = None
    turns: int | None = 50
    tool_calls: int | None = None
    tool_calls_per_turn: int | None = 32
    input_tokens: int | None = None
    output_tokens: int | None = None
    wall_s: float | None = None
    warn_at: float = 0.8
    budget_wait_s: float = 30.0

    def caps(self, name: str = "limits") -> Caps:
        """Read the limits. Raises `InputError` that names the field."""
        counts = {
            key: _count(getattr(self, key), f"{name}.{key}")
            for key in ("turns", "tool_calls", "tool_calls_per_turn", "input_tokens", "output_tokens")
        }
        if not 0 < self.warn_at <= 1:
            raise InputError("must be above 0 and at most 1", field=f"{name}.warn_at")
        return Caps(
            nano_usd=0 if self.usd is None else _positive(parse_usd(self.usd, field=f"{name}.usd"), f"{name}.usd"),
            wall_s=0.0 if self.wall_s is None else _positive(self.wall_s, f"{name}.wall_s"),
            warn_at=self.warn_at,
            budget_wait_s=_seconds(self.budget_wait_s, f"{name}.budget_wait_s"),
            **counts,
        )


def _count(value: int | None, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"must be a whole number, not {value!r}", field=name)
    return _positive(value, name)


def _positive(value: N, name: str) -> N:
    if not value > 0:
        raise InputError(f"must be above 0, not {value!r} (leave it out for no limit)", field=name)
    return value


def _seconds(value: float, name: str) -> float:
    if not 0 <= value < float("inf"):
        raise InputError(f"must be seconds of 0 or more, not {value!r}", field=name)
    return float(value)


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
    timeouts: Timeouts = Timeouts()
    retries: int | RetryPolicy = 5
    max_extra_usd: Amount = 0

    def route(self, prices: Prices, on_date: str) -> Route:
        """Resolve provider and price. Raises `ConfigError`."""
        provider, model = split_model(self.name)
        price = self.price or find_price(prices, provider, model, on_date)
        if price is None:
            raise ConfigError(
                f"the price of {self.name!r} is not known; give it: "
                'Model(name, price=price_usd(input="..", output="..")), in dollars per million tokens'
            )
        attempts = self.retries.attempts if isinstance(self.retries, RetryPolicy) else self.retries
        if self.max_output_tokens < 1 or attempts < 1:
            raise ConfigError(f"model {self.name!r}: max_output_tokens and retries must be 1 or more")
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
            max_extra_nano_usd=parse_usd(self.max_extra_usd, field="max_extra_usd"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent: who it is, what it may use, which model thinks for it, and how far it may go."""

    name: str
    identity: str = ""
    tools: Sequence[object] = ()
    model: str | Model
    fallbacks: Sequence[str | Model] = ()
    limits: Limits = Limits()
    approvals: Sequence[Approve] = ()
    deps: Mapping[Any, Any] = field(default_factory=dict[Any, Any])
    output: Any = None
    """A type: the final answer is JSON of it, by the provider's strict mode, and checked."""
    loop: LoopRules = LoopRules()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"agent name {self.name!r}: use 1 to 64 letters, digits, '_', '.' or '-'")

    def models(self) -> tuple[Model, ...]:
        """List the model and its fallbacks."""
        return tuple(Model(m) if isinstance(m, str) else m for m in (self.model, *self.fallbacks))

    def registry(self) -> Registry:
        """Make a registry of its tools. Raises `ConfigError`."""
        return Registry(self.tools, self.deps)

    def bundle(self, registry: Registry, prices: Prices, on_date: str, *, framework: str = "") -> Bundle:
        """Make the bundle. Raises `ConfigError` or `InputError` that names the setting."""
        tools = registry.specs if self.tools else ()
        known = {spec.name for spec in tools}
        if self.tool_choice not in ("auto", "required", "none") and self.tool_choice not in known:
            raise ConfigError(f"agent {self.name!r}: tool_choice {self.tool_choice!r} is none of its tools")
        return Bundle(
            agent=self.name,
            identity=self.identity,
            routes=tuple(model.route(prices, on_date) for model in self.models()),
            tools=tools,
            caps=self.limits.caps(),
            loop=self.loop,
            approvals=tuple(_approval(self.name, rule, known) for rule in self.approvals),
            output=_output_schema(self.name, self.output),
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            framework=framework,
        )


def _approval(agent: str, rule: Approve, tools: set[str]) -> ApprovalRule:
    where = f"agent {agent!r}: {rule!r}"
    if rule.tool and rule.tool not in tools:
        raise ConfigError(f"{where}: it has no tool {rule.tool!r}")
    if rule.effect and rule.effect not in _EFFECTS:
        raise ConfigError(f"{where}: effect must be one of {', '.join(_EFFECTS)}")
    expires_s = 0.0 if rule.expires_s is None else _positive(rule.expires_s, "expires_s")
    return ApprovalRule(rule.tool, rule.effect, dict(rule.above), float(expires_s))


def _output_schema(agent: str, output: Any) -> OutputSchema | None:
    if output is None:
        return None
    try:
        schema = TypeAdapter[Any](output).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ConfigError(
            f"agent {agent!r}: output {output!r} has no JSON schema; use a pydantic model or a dataclass"
        ) from error
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
