"""What the loop asks of the edge, in the imperative, and what it must be told to decide. Data only."""

from __future__ import annotations

from typing import Literal, Protocol, assert_never

import msgspec

from stanchion.context.assemble import Preamble, preamble
from stanchion.context.forecast import Forecast
from stanchion.context.life import Habit
from stanchion.core.bundle import Bundle, RetryPolicy
from stanchion.core.catalogue import Catalogue
from stanchion.core.embedding import EmbeddingModel
from stanchion.core.event import Event
from stanchion.core.message import Label, ModelRequest
from stanchion.core.policy import Where
from stanchion.core.quarantine import Wanted
from stanchion.core.routing import Measured
from stanchion.guard.check import Checks
from stanchion.guard.evidence import Evidence
from stanchion.guard.standing import Policies


class Moment(msgspec.Struct, frozen=True):
    """When, and under which claim, a decision is made."""

    now_ms: int
    epoch: int
    """Attempts of an earlier one were lost with their worker."""
    blocked: frozenset[str] = frozenset()
    """Tool calls of which no attempt may begin yet: a limit that others share has no room for them."""
    model_blocked: bool = False
    """Nor may a model call that goes out at once."""
    down: frozenset[int] = frozenset()
    """Routes whose calls failed of late, and which are left alone for a time."""
    habit: Habit = Habit()
    """How the agent's sessions have gone until now: what a cache's life is chosen by."""
    forecast: Forecast | None = None
    """What the run will have cost when it comes to its end, by past runs; None: it is not asked, or not known."""
    measured: tuple[Measured, ...] = ()
    """How models did at the types of the agent's steps: what a turn's model is chosen by."""
    refreshed_ms: int = 0
    """When the session's last request was refreshed, while the run waited for a person; 0: it was not."""


class CallModel(msgspec.Struct, frozen=True):
    """Make an attempt at a model call."""

    turn: int
    attempt: int
    route: int
    request: ModelRequest
    deadline_ms: int
    reserved: int
    tries: int = 1
    """Which try on this route it is: what the wait before the next one goes by."""
    bound_tokens: int = 0
    """Upper bound of its input."""
    held: bool = False
    """What it says is not for those who watch: it may not be taken."""


class HandIn(msgspec.Struct, frozen=True):
    """Hand a model call in with the next batch. Its request is assembled then, as of its `ModelCallStarted`."""

    turn: int
    attempt: int
    route: int
    reserved: int


class Ask(msgspec.Struct, frozen=True):
    """What the built-in `extract` asks of a model: a tool call to the loop, a model call to its bill."""

    turn: int
    route: int
    request: ModelRequest
    reserved: int
    bound_tokens: int
    wanted: Wanted
    label: Label
    """Of the text that is read."""


class Embed(msgspec.Struct, frozen=True):
    """What a tool of memory asks of the model that gives vectors."""

    text: str
    model: EmbeddingModel
    turn: int
    reserved: int
    bound_tokens: int


class CallTool(msgspec.Struct, frozen=True):
    """Make an attempt at a tool call, reconcile one that is in doubt, or pretend one in a dry run."""

    call: str
    attempt: int
    revision: int
    tool: str
    mode: Literal["run", "reconcile", "dry"]
    arguments: bytes
    key: str
    deadline_ms: int
    provider_id: str
    """The provider's id of the call, which the result repeats."""
    retry: RetryPolicy
    doubtful: bool
    """Not a read: without a definite answer it is in doubt."""
    max_result_chars: int
    in_doubt: bool = False
    """An earlier attempt may have been done: that this one was not does not settle the call."""
    ask: Ask | None = None
    """It is an `extract`."""
    said: Label | None = None
    """Of what `remember_fact` is to remember: who said it."""
    embed: Embed | None = None
    """It is a tool of memory, and embeds what it looks for or writes; None: words alone .."""
    lacked: str = ""
    """.. because of this, as in `ToolCallFinished`."""


class CheckText(msgspec.Struct, frozen=True):
    """Ask a classifier about a text."""

    check: str
    uses: str
    """By which name it is bound."""
    where: Where
    of: str
    call: str
    attempt: int
    text: str
    deadline_ms: int
    reserved: int
    tries: int


class Summarise(msgspec.Struct, frozen=True):
    """Have the beginning of the conversation summed up by a model."""

    attempt: int
    route: int
    request: ModelRequest
    deadline_ms: int
    reserved: int
    tries: int = 1
    bound_tokens: int = 0
    """Upper bound of its input."""


class EmbedTexts(msgspec.Struct, frozen=True):
    """Have what was learned embedded."""

    attempt: int
    texts: tuple[str, ...]
    model: EmbeddingModel
    deadline_ms: int
    reserved: int
    tries: int = 1
    retry: RetryPolicy = RetryPolicy()


class Abort(msgspec.Struct, frozen=True):
    """Stop the model call, the summary, the embedding, the checks and the reads in flight. Effects are awaited."""

    calls: tuple[str, ...]
    model: bool
    """The model call, the summary, the embedding, and what is asked of classifiers."""


Attempt = CallModel | CallTool | CheckText | Summarise | EmbedTexts
"""What is performed at once, and told in events."""
Effect = CallModel | HandIn | CallTool | CheckText | Summarise | EmbedTexts | Abort


def reserves(effect: Effect) -> bool:
    """Whether an effect is performed with money that was set aside for it."""
    match effect:
        case CallModel() | HandIn() | CheckText() | Summarise() | EmbedTexts():
            return effect.reserved > 0
        case CallTool():
            return any(asked is not None and asked.reserved > 0 for asked in (effect.ask, effect.embed))
        case Abort():
            return False
        case _:
            assert_never(effect)


class Decision(msgspec.Struct, frozen=True):
    """What to write, what to do once it is durable, and when to ask again if nothing happens before."""

    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
    wake_at_ms: int = 0
    """0: only when something happens."""


class Check(Protocol):
    """Validation of what a model wrote. Pure: code is bound to it, but no clock and no I/O."""

    def arguments(self, tool: str, text: str) -> bytes | str:
        """Give the arguments in canonical form, or in words what is wrong with them."""
        ...

    def output(self, text: str) -> str:
        """Give in words what is wrong with a final answer, or ""."""
        ...


_BUILT_IN = Checks()


class View(msgspec.Struct, frozen=True):
    """What does not change while a run is driven: the bundle, what of the request it decides, and the checks."""

    bundle: Bundle
    shown: Preamble
    check: Check
    marked: Preamble
    """.. where untrusted text stands in marked blocks. A session keeps how it began (I8)."""
    evidence: Evidence
    """The memo of what the run was told by whom; of one run, so that it grows with it."""
    catalogue: Catalogue
    """The tools, to be searched."""
    batchable: frozenset[int] = frozenset()
    """The routes that have a batch API here."""
    policies: Policies | None = None
    """The policies in force here beside the built-in rules."""
    checks: Checks = _BUILT_IN
    """The pure checks that are bound here."""

    @property
    def checked(self) -> tuple[Where, ...]:
        """Where text of a new run waits for its checks."""
        rules = self.bundle.guard.checks
        waits = {rule.where for rule in rules if rule.where != "output" or rule.action != "flag"}
        return tuple(place for place in ("input", "result", "output") if place in waits)

    def preamble(self, *, mark: bool) -> Preamble:
        """Give what stands before the conversation."""
        return self.marked if mark else self.shown


def view(
    bundle: Bundle,
    check: Check,
    batchable: frozenset[int] = frozenset(),
    policies: Policies | None = None,
    checks: Checks = _BUILT_IN,
) -> View:
    """Make the view of a bundle."""
    marked = preamble(bundle, mark=True)
    return View(
        bundle, preamble(bundle), check, marked, Evidence(bundle), Catalogue(bundle), batchable, policies, checks
    )


def for_one_run(seen: View) -> View:
    """Give a view a memo of its own."""
    return msgspec.structs.replace(seen, evidence=Evidence(seen.bundle))


def backoff_s(policy: RetryPolicy, tries: int, draw: float, retry_after_s: float | None) -> float:
    """Seconds until the next try, after `tries` of them: full jitter under an exponential cap, or what the other side asks.

    `draw` is uniform in [0, 1). Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    jittered = draw * min(policy.cap_s, policy.base_s * 2 ** max(tries - 1, 0))
    return jittered if retry_after_s is None else max(retry_after_s, 0.0) + jittered
