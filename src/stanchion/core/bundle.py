"""What shapes an agent's behaviour, as data: identity, tools, model routes, limits, rules. Hashed, stored, and named by runs.

The callables behind the tools and the keys of the providers are not here; they are bound at the edge by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal

import msgspec

from stanchion.core.credential import Needs
from stanchion.core.message import JsonSchema, OutputSchema
from stanchion.core.money import Price
from stanchion.core.policy import GuardRules, ResultField, Role
from stanchion.core.remembered import MemoryRules
from stanchion.core.routing import RouteTable
from stanchion.core.skill import Skill

EffectTier = Literal["read", "write", "irreversible", "destructive"]
"""What a tool does to the world: nothing; something that can be undone; something that cannot; something that loses data."""

READ_RESULT = "read_result"
"""The built-in tool by which a model reads on in a result that was too long to show whole."""

DECLARE_PLAN = "declare_plan"
"""The built-in tool by which a model says what effects it means to have, before it reads untrusted text."""
EXTRACT = "extract"
"""The built-in tool by which a planner has typed values taken out of text that it is not shown."""
USE_SKILL = "use_skill"
"""The built-in tool by which a model opens a skill."""
RECALL = "recall_memory"
"""The built-in tool by which a model searches what is remembered of the user."""
REMEMBER = "remember_fact"
"""The built-in tool by which it remembers a fact at once."""
NOTE = "write_note"
"""The built-in tool by which it writes a note for itself."""
MEMORY_TOOLS = frozenset({RECALL, REMEMBER, NOTE})
STEPS = ("extract", "summarise", "judge", "remember")
"""The types of steps that a model of their own may do: take values out of sealed text, summarise a history, grade an answer, note what is
worth remembering."""
FIND_TOOLS = "find_tools"
"""The built-in tool by which a model looks for tools that it is not shown."""
CALL_TOOL = "call_tool"
"""The built-in form of a call of a tool that is not shown. To all but the provider it is a call of that tool."""
READ_HISTORY = "read_history"
"""The built-in tool by which a model reads what was said before and is not in its prompt any more."""
BUILT_IN = (
    frozenset({READ_RESULT, DECLARE_PLAN, EXTRACT, USE_SKILL, FIND_TOOLS, CALL_TOOL, READ_HISTORY}) | MEMORY_TOOLS
)


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Retries of what failed for the moment only: full jitter under an exponential cap."""

    attempts: int = 3
    """In all, the first included."""
    base_s: float = 0.5
    cap_s: float = 30.0


class Timeouts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Seconds allowed for each phase of a model call."""

    connect_s: float = 10.0
    first_byte_s: float = 120.0
    idle_s: float = 60.0
    """Between two events of a stream."""
    total_s: float = 600.0


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as the loop knows it."""

    name: str
    description: str
    parameters: JsonSchema
    effect: EffectTier
    timeout_s: float = 30.0
    keyed: bool = False
    """Takes an idempotency key, and does nothing the second time it sees one."""
    reconciles: bool = False
    """Can answer whether a call in doubt was done."""
    repeatable: bool = False
    """The same call with the same result is no sign of a loop (polling, waiting)."""
    retry: RetryPolicy = RetryPolicy()
    max_result_chars: int = 16_000
    """Of a result shown to the model at once; the rest is read with `read_result`."""
    strict: bool = False
    dry_run: bool = False
    """Has an answer of its own for a dry run. Otherwise a dry run reads for real and pretends the effects."""
    ends_run: bool = False
    """After it succeeded the run ends as escalated: a person has the conversation now."""
    version: str = ""
    params: Mapping[str, Role] = {}
    """Path of an argument -> what it means to the guard. Nothing said at all: only the tier is judged."""
    result: Mapping[str, ResultField] = {}
    """Path of a value of the result -> what it is."""
    needs: Mapping[str, Needs] = {}
    """Parameter -> the credential that the runtime fills in. The model sees none of it."""
    group: str = ""
    """Where it belongs in a catalogue, from the widest to the narrowest ("billing/refunds")."""
    essential: bool = False
    """Without it a run has no use: while it is not to be had the run ends and says so. Others are gone on without."""


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model to call, with what it costs and how it is asked. `provider:model` resolves to a wire and an endpoint."""

    provider: str
    model: str
    price: Price
    max_output_tokens: int = 4096
    context_tokens: int = 200_000
    temperature: float | None = None
    top_p: float | None = None
    thinking_tokens: int | None = None
    effort: str = ""
    options: Mapping[str, Any] = {}
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy = RetryPolicy(attempts=5, base_s=0.5, cap_s=30.0)
    max_extra_nano_usd: int = 0
    """A declared bound of what hosted tools and remote content may add to one call's bill."""
    cache: Literal["auto", "short", "long", "off"] = "auto"
    """For how long the provider is asked to keep what a request begins with, where it must be asked. "auto": what costs least."""
    loads_tools: bool = False
    """Found tools are loaded by the provider (`core/loading.py`)."""


class LoopRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a run is going in circles. Each is first told to the model, then ends the run. 0: it is not looked for."""

    same_call: int = 3
    """The same call with the same result so many times (tools that are `repeatable` apart)."""
    window: int = 6
    """The longest sequence of calls whose repetition is looked for."""
    window_repeats: int = 3
    failures: int = 5
    """Tool calls failed in a row."""
    calls_per_minute: int = 120
    """Below 256, which is as far as is looked back."""
    malformed: int = 3
    """Answers in a row that cannot be used: bad JSON, unknown tools, wrong arguments, nothing at all."""


class CompactionRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """When and how the beginning of a long conversation is left out of the prompt. Sizes are in tokens."""

    when: Literal["auto", "room"] = "auto"
    """"auto": as soon as it pays, and before the context is full; "room": only then."""
    recent: int = 4
    """So many of the model's turns, the last ones, stay as they are."""
    minimum: int = 4_000
    """Less than this is not left out for the money's sake."""
    summary: int = 1_000
    """At most so long a summary."""
    facts: int = 1_000
    """At most so much of what the user said and what was done, word for word, beside the goal and what is declared."""
    keep: tuple[str, ...] = ()
    """Values of results that are kept for ever, as "tool.path" ("get_order.order_id", "get_order.items.*.sku")."""
    patterns: tuple[str, ...] = ()
    """Regular expressions: what they find in what the user says and in results is kept for ever."""


class Caps(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hard limits of a run; 0 means none. Money is in nano-dollars."""

    nano_usd: int = 0
    turns: int = 50
    tool_calls: int = 0
    tool_calls_per_turn: int = 32
    input_tokens: int = 0
    output_tokens: int = 0
    wall_s: float = 0.0
    """From the start, the time waited for people apart."""
    warn_at: float = 0.8
    """The part of a limit at which the model is told, once."""
    budget_wait_s: float = 30.0
    """How long to wait for money that other runs have reserved and may give back."""
    stop_early: bool = False
    """A run that is not to be expected to end within `nano_usd` is told so, and stopped soon, with what it has."""


class ApprovalRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Calls that wait for a person: of a tool, of a tier, or both; only above an amount where one is given."""

    tool: str = ""
    effect: EffectTier | Literal[""] = ""
    above: Mapping[str, float] = {}
    """Argument name -> number: ask only if one of these arguments is larger (or is not a number)."""
    expires_s: float = 0.0
    """After so long without an answer the call counts as rejected; 0: it waits for ever."""
    to: tuple[str, ...] = ()
    """Patterns of destinations: ask only if one of these is among them."""
    ground: tuple[str, ...] = ()
    """Ask only if a value has one of these grounds ("field": a tool's result named it)."""
    quorum: int = 0
    """How many people must say yes; 0: one."""


class ToolSearch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tools stand in every prompt; the others are found by `find_tools`."""

    shown: tuple[str, ...] = ()
    """Names of tools. The built-in ones are shown beside them."""
    results: int = 5
    """How many tools one search gives at most."""
    max_chars: int = 8_000
    """Of one search's answer: about 2,000 tokens. The best tool is given whole, however long it is."""


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """Everything that shapes what an agent does, content-hashed."""

    agent: str
    identity: str
    routes: tuple[Route, ...]
    """The first is the model; the others are tried in order when it fails for good."""
    tools: tuple[ToolSpec, ...] = ()
    caps: Caps = Caps()
    loop: LoopRules = LoopRules()
    approvals: tuple[ApprovalRule, ...] = ()
    guard: GuardRules = GuardRules()
    credentials: Mapping[str, tuple[str, ...]] = {}
    """Name -> the most that its tools may be given of it, as scopes."""
    skills: tuple[Skill, ...] = ()
    """By name."""
    memory: MemoryRules | None = None
    """What is remembered of users; None: nothing."""
    others: tuple[Route, ...] = ()
    """Models for single types of steps. None falls back on them."""
    steps: Mapping[str, int] = {}
    """Type of step -> the number of its route."""
    search: ToolSearch | None = None
    """None: all tools are shown."""
    routing: RouteTable = RouteTable()
    """Which turns go to another model first."""
    fallback_message: str = ""
    """What is said to the user where no model could answer; "": the runtime's own words."""
    compaction: CompactionRules | None = None
    """None: long results are left out where a provider says that a request is too long, and nothing else."""
    output: OutputSchema | None = None
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    redaction: str = ""
    """Version of the rules by which secrets are taken out of what comes in."""
    framework: str = ""
    """Version of Stanchion that made it."""

    @property
    def every_route(self) -> tuple[Route, ...]:
        """All routes, by number: those that are tried in order, then those of single steps."""
        return self.routes + self.others

    def route(self, number: int) -> Route:
        """Find a route by its number."""
        return self.routes[number] if number < len(self.routes) else self.others[number - len(self.routes)]

    def step_route(self, step: str) -> int:
        """Number of the route of a type of step; the agent's own model where none is named."""
        return self.steps.get(step, 0)

    def tool(self, name: str) -> ToolSpec | None:
        """Find a tool by name."""
        return self.by_name.get(name)

    @cached_property
    def by_name(self) -> Mapping[str, ToolSpec]:
        """The tools by their names."""
        return {spec.name: spec for spec in reversed(self.tools)}

    @cached_property
    def shown(self) -> tuple[ToolSpec, ...]:
        """The tools that stand in every prompt, in their order."""
        if self.search is None:
            return self.tools
        names = BUILT_IN.union(self.search.shown)
        return tuple(spec for spec in self.tools if spec.name in names)


_encoder = msgspec.json.Encoder(order="deterministic")


def encode_bundle(bundle: Bundle) -> bytes:
    """Encode a bundle: the same bytes for the same bundle."""
    return _encoder.encode(bundle)


@lru_cache(maxsize=8)
def decode_bundle(body: bytes) -> Bundle:
    """Decode a bundle. The last few are remembered: a page of runs has mostly the same, and one of 5,000 tools takes 65 ms."""
    return msgspec.json.decode(body, type=Bundle)


def digest_of(bundle: Bundle) -> str:
    """Hash of a bundle without the framework's version, as hex: 128 bits of SHA-256."""
    return hashlib.sha256(encode_bundle(msgspec.structs.replace(bundle, framework=""))).hexdigest()[:32]
