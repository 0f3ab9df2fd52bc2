"""Do what the loop asks, and say in events what happened. Never raises but for its own cancellation by the worker.

A cancelled attempt is told too: the drive cancels the task, and the outcome says that it was stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import MEMORY_TOOLS, Route
from stanchion.core.errors import JournalError, ModelError
from stanchion.core.message import RUNTIME, Delta, Label, Part, Text, ToolResult, Usage, is_own
from stanchion.core.money import cost
from stanchion.core.state import State
from stanchion.engine import classify, embed, extract, summarise
from stanchion.engine.bound import BoundAgent
from stanchion.engine.breaker import Barred, Passed, refusal
from stanchion.engine.clock import Clock
from stanchion.engine.gate import Gate
from stanchion.engine.live import Live
from stanchion.engine.memory import MemoryTools
from stanchion.engine.minting import Minting
from stanchion.engine.permit import Ticket
from stanchion.guard.evidence import label_of
from stanchion.guard.redact import DeltaRedactor
from stanchion.guard.telling import told_of
from stanchion.journal.memory import Memories
from stanchion.loop.effect import Ask, Attempt, CallModel, CallTool, CheckText, EmbedTexts, Summarise, backoff_s
from stanchion.model.failure import is_unbilled
from stanchion.toolbox.answer import Answer, Failure, ToolContext

MAX_PAUSE_S = 60.0
"""A provider that asks for a longer rest is not waited for by all: calls go on to the next model (loop `PATIENCE_MS`)."""
_NO_PERMIT = "a limit that all workers share had no room for this call before its time was up; nothing was sent"


class Performer:
    """Performs the effects of one run's drive."""

    def __init__(
        self,
        agent: BoundAgent,
        state: State,
        clock: Clock,
        live: Live,
        gate: Gate | None = None,
        *,
        memories: Memories | None = None,
    ) -> None:
        self._gate = gate
        rules = agent.bundle.memory
        self._memory = MemoryTools(memories, rules, state) if memories is not None and rules is not None else None
        self._agent = agent
        self._clock = clock
        self._live = live
        self._tenant, self._run = state.tenant, state.run
        self._session, self._user = state.session, state.user
        self._minting = Minting(agent, state)
        self._quarantine = state.quarantine
        self._held = state.quarantine or "output" in state.checked

    async def call_model(self, effect: CallModel, ticket: Ticket | None = None) -> list[ev.Event]:
        """Make an attempt at a model call. `ticket`: its permits, where a limit is shared."""
        route = self._agent.bundle.route(effect.route)
        try:
            if not await self._leaves(ticket, effect.deadline_ms):
                late = ModelError(_NO_PERMIT, code="rate_limited", retryable=True, sent=False)
                return [self._model_failed(effect, route, late)]
        except asyncio.CancelledError:
            return self.stopped(effect)
        left_s = max((effect.deadline_ms - self._clock.now_ms()) / 1000, 0.001)
        timeouts = msgspec.structs.replace(route.timeouts, total_s=min(route.timeouts.total_s, left_s))
        began = time.monotonic()
        first = 0.0
        redactor = DeltaRedactor(self._agent.redactor)
        held = self._held or effect.held

        def on_deltas(deltas: Sequence[Delta]) -> None:
            nonlocal first
            first = first or time.monotonic()
            if self._quarantine:  # it has references in it: who watches is told the answer, once they are filled in
                return
            if held:  # a check needs the whole text: what is said is told when it has passed
                deltas = [delta for delta in deltas if delta.kind == "tool_call"]
            self._live.delta(self._tenant, self._run, effect.turn, effect.attempt, redactor.feed(deltas))

        try:
            client = self._agent.clients[effect.route]
            response = await client.call(effect.request, timeouts=timeouts, on_deltas=on_deltas)
            self._live.delta(self._tenant, self._run, effect.turn, effect.attempt, redactor.end())
        except ModelError as error:
            await self._told_off(effect.route, ticket, error)
            return [self._model_failed(effect, route, error)]
        except asyncio.CancelledError:
            await self._noted(effect.route, "cancelled")
            return self.stopped(effect)
        except Exception as error:  # a client that breaks its contract must not take the worker with it
            await self._noted(effect.route, "garbled")
            broken = ModelError(f"{type(error).__name__}: {error}", code="garbled", retryable=False)
            return [self._model_failed(effect, route, broken)]
        if ticket is not None and self._gate is not None:
            self._gate.close(ticket, response.usage)
        await self._noted(effect.route)
        billed = effect.reserved if response.usage is None else cost(route.price, response.usage)
        finished = ev.ModelCallFinished(
            turn=effect.turn,
            attempt=effect.attempt,
            finish=response.finish,
            cost=billed,
            usage=response.usage,
            model=response.model if response.model != route.model else "",
            response=response.id,
            first_ms=int((first - began) * 1000) if first else 0,
            took_ms=int((time.monotonic() - began) * 1000),
            held=held,
            parts=named(response.parts, route),
        )
        if billed > effect.reserved:
            return [finished, ev.BudgetOverrun(turn=effect.turn, reserved=effect.reserved, cost=billed)]
        return [finished]

    async def _leaves(self, ticket: Ticket | None, deadline_ms: int) -> bool:
        """Use the permits; wait for new ones where they ran out since. False: there were none until the deadline."""
        return ticket is None or self._gate is None or await self._gate.leave(ticket, deadline_ms)

    async def _told_off(self, route: int, ticket: Ticket | None, error: ModelError) -> None:
        """Give back what a failed call did not use, and rest where its provider says so."""
        gate = self._gate
        if gate is None:
            return
        if ticket is not None:
            used = Usage() if is_unbilled(error) else error.usage
            gate.close(ticket, used, unsent=not error.sent)
        if error.code == "rate_limited" and error.retry_after_s:
            model = self._agent.bundle.route(route).model
            await gate.pause(self._agent.account(route), model, min(error.retry_after_s, MAX_PAUSE_S))
        await self._noted(route, error.code)  # (it may wait for the store, and what was given back is not to)

    async def _noted(self, route: int, code: str = "") -> None:
        """Tell the model's breaker how a call went."""
        breaker = self._agent.breaker(route)
        if self._gate is not None and breaker is not None:
            account, model = self._agent.account(route), self._agent.bundle.route(route).model
            await self._gate.breakers.model_told(account, model, breaker, self._run, code)

    async def check_text(self, effect: CheckText) -> list[ev.Event]:
        """Ask a classifier about a text."""
        left_s = max((effect.deadline_ms - self._clock.now_ms()) / 1000, 0.001)
        try:
            said = await classify.score(effect, self._agent.classifiers.get(effect.uses), left_s)
        except ModelError as error:
            return self._check_failed(effect, error)
        except asyncio.CancelledError:
            return self.stopped(effect)
        return classify.answered(effect, said)

    def _check_failed(self, effect: CheckText, error: ModelError) -> list[ev.Event]:
        draw, now_ms = self._clock.draw(), self._clock.now_ms()
        return classify.failed(effect, error, draw, now_ms, unbilled=is_unbilled(error))

    def stopped(self, effect: Attempt) -> list[ev.Event]:
        """Say that an attempt was stopped by us, whether or not it had left."""
        text = "the runtime stopped this call"
        if isinstance(effect, CheckText):
            return self._check_failed(effect, ModelError(text, code="cancelled", retryable=True))
        if isinstance(effect, EmbedTexts):
            return self._embedding_failed(effect, ModelError(text, code="cancelled", retryable=True))
        if isinstance(effect, CallModel | Summarise):
            route = self._agent.bundle.route(effect.route)
            return [self._model_failed(effect, route, ModelError(text, code="cancelled", retryable=True))]
        failure = Failure("cancelled", text, in_doubt=effect.doubtful, retryable=True)
        return self._minting.told(effect, [self._tool_failed(effect, failure)])

    def overdue(self, effect: Attempt) -> list[ev.Event]:
        """Say that an attempt went on behind its deadline and was given up. What it still does is not ours to know."""
        if isinstance(effect, CheckText):
            text = f"{effect.check} did not stop at its deadline"
            return self._check_failed(effect, ModelError(text, code="timeout_total", retryable=True))
        if isinstance(effect, EmbedTexts):
            text = "the embedder did not stop at its deadline"
            return self._embedding_failed(effect, ModelError(text, code="timeout_total", retryable=True))
        if isinstance(effect, CallModel | Summarise):
            route = self._agent.bundle.route(effect.route)
            text = "the model client did not stop at its deadline"
            return [self._model_failed(effect, route, ModelError(text, code="timeout_total", retryable=True))]
        text = f"{effect.tool} did not stop at its deadline"
        failure = Failure("tool_timeout", text, in_doubt=effect.doubtful, retryable=True)
        return self._minting.told(effect, [self._tool_failed(effect, failure)])

    def broken(self, effect: Attempt, error: BaseException) -> list[ev.Event]:
        """Say that an attempt ended by an exception that nothing foresees (a tool may raise what closes generators)."""
        text = f"{type(error).__name__}: {error}"
        if isinstance(effect, CheckText):
            return self._check_failed(effect, ModelError(text, code="garbled", retryable=False))
        if isinstance(effect, EmbedTexts):
            return self._embedding_failed(effect, ModelError(text, code="garbled", retryable=False))
        if isinstance(effect, CallModel | Summarise):
            route = self._agent.bundle.route(effect.route)
            return [self._model_failed(effect, route, ModelError(text, code="garbled", retryable=False))]
        failure = Failure("tool_crashed", self._minting.clean(text), in_doubt=effect.doubtful)
        return self._minting.told(effect, [self._tool_failed(effect, failure)])

    async def summarise(self, effect: Summarise, ticket: Ticket | None = None) -> list[ev.Event]:
        """Have a model sum up what is left out of the prompt. As of a model call its bill is settled, and its permits."""
        route = self._agent.bundle.route(effect.route)
        try:
            if not await self._leaves(ticket, effect.deadline_ms):
                late = ModelError(_NO_PERMIT, code="rate_limited", retryable=True, sent=False)
                return [self._model_failed(effect, route, late)]
            left_s = (effect.deadline_ms - self._clock.now_ms()) / 1000
            began = time.monotonic()
            response = await summarise.summary(effect, self._agent.clients[effect.route], route, left_s)
        except ModelError as error:
            await self._told_off(effect.route, ticket, error)
            return [self._model_failed(effect, route, error)]
        except asyncio.CancelledError:
            return self.stopped(effect)
        if ticket is not None and self._gate is not None:
            self._gate.close(ticket, response.usage)
        return summarise.written(effect, route, response, began)

    def _model_failed(self, effect: CallModel | Summarise, route: Route, error: ModelError) -> ev.Event:
        unbilled = is_unbilled(error)
        if isinstance(effect, Summarise):
            draw, now_ms = self._clock.draw(), self._clock.now_ms()
            return summarise.failed(effect, route, error, draw, now_ms, unbilled=unbilled)
        wait_s = backoff_s(route.retry, effect.tries, self._clock.draw(), error.retry_after_s)
        partial = named(tuple(error.partial), route)
        return ev.ModelCallFailed(
            turn=effect.turn,
            attempt=effect.attempt,
            code=error.code,
            retryable=error.retryable,
            retry_at_ms=self._clock.now_ms() + int(wait_s * 1000) if error.retryable else 0,
            cost=0 if unbilled else effect.reserved,
            usage=error.usage,
            status=error.status,
            held=self._held or effect.held,
            parts=(*partial, Text(storable(str(error)), RUNTIME)),
        )

    async def call_tool(self, effect: CallTool, ticket: Ticket | None = None) -> list[ev.Event]:
        """Make an attempt at a tool call: for real, reconciling, or pretended. `ticket`: its permits, if it needs some."""
        context = ToolContext(
            run=self._run,
            session=self._session,
            user=self._user,
            tenant=self._tenant,
            call=f"{self._run}/{effect.call}",
            attempt=effect.attempt,
            key=effect.key,
            dry_run=effect.mode == "dry",
            deadline_ms=effect.deadline_ms,
        )
        try:
            if not await self._leaves(ticket, effect.deadline_ms):
                return [self._tool_failed(effect, Failure("tool_busy", _NO_PERMIT, retryable=True), unsent=True)]
            began = time.monotonic()
            if effect.ask is not None:
                return await self._extract(effect, effect.ask, ticket, began)
            if self._memory is not None and effect.tool in MEMORY_TOOLS:
                return await self._remember(effect, self._memory, began)
            if effect.mode == "reconcile":
                return self._minting.told(effect, await self._reconcile(effect, context))
            answer = await self._answer(effect, context)
        except asyncio.CancelledError:
            return self.stopped(effect)
        took_ms = int((time.monotonic() - began) * 1000)
        if isinstance(answer, Barred):
            return [self._barred(effect, answer)]
        return self._minting.told(effect, [self._outcome(effect, self._minting.cleaned(answer), took_ms)])

    def _outcome(self, effect: CallTool, answer: Answer | Failure, took_ms: int) -> ev.Event:
        if isinstance(answer, Answer):
            return self._answered(effect, answer, took_ms)
        if not (answer.retryable or answer.in_doubt or effect.in_doubt):
            return _finished(effect, "error", answer.text, Label("tool", effect.tool), took_ms=took_ms)
        return self._tool_failed(effect, answer)

    async def _remember(self, effect: CallTool, memory: MemoryTools, began: float) -> list[ev.Event]:
        """Search what is remembered, or add to it. What its vector cost is told with the outcome."""
        vector = embed.CallVector(effect, self._agent.embedder)
        try:
            said = await memory.answer(effect, self._clock.now_ms(), vector)
        except JournalError as error:
            return vector.settled(self._tool_failed(effect, Failure("memory", str(error), retryable=True)))
        outcome = "error" if said.error else "pretended" if effect.mode == "dry" else "ok"
        took_ms = int((time.monotonic() - began) * 1000)
        return vector.settled(_finished(effect, outcome, said.text, said.label, took_ms=took_ms))

    async def embed_texts(self, effect: EmbedTexts) -> list[ev.Event]:
        """Have what was learned embedded."""
        left_s, began = (effect.deadline_ms - self._clock.now_ms()) / 1000, time.monotonic()
        try:
            said = await embed.embedded(self._agent.embedder, effect.texts, left_s)
        except ModelError as error:
            return self._embedding_failed(effect, error)
        except asyncio.CancelledError:
            return self.stopped(effect)
        return embed.made(effect, said, began)

    def _embedding_failed(self, effect: EmbedTexts, error: ModelError) -> list[ev.Event]:
        return embed.failed(effect, error, self._clock.draw(), self._clock.now_ms())

    async def _extract(self, effect: CallTool, ask: Ask, ticket: Ticket | None, began: float) -> list[ev.Event]:
        """Ask a model for values of a text. As of a model call its bill is settled, and its permits."""
        route = self._agent.bundle.route(ask.route)
        left_s = (effect.deadline_ms - self._clock.now_ms()) / 1000
        try:
            response = await extract.extracted(effect, ask, self._agent.clients[ask.route], route, left_s)
        except ModelError as error:
            await self._told_off(ask.route, ticket, error)
            unbilled, draw = is_unbilled(error), self._clock.draw()
            return [extract.failed(effect, ask, error, draw, self._clock.now_ms(), unbilled=unbilled)]
        if ticket is not None and self._gate is not None:
            self._gate.close(ticket, response.usage)
        return extract.finished(effect, ask, route, response, began)

    async def _answer(self, effect: CallTool, context: ToolContext) -> Answer | Failure | Barred:
        """Call the tool, or pretend to; not at all while its breaker is open."""
        registry, mint = self._agent.registry, self._minting.of(effect)
        if effect.mode == "dry":
            return await registry.dry_run(effect.tool, effect.arguments, context, mint)
        limits, gate = registry.limits(effect.tool), self._gate
        if limits is None or limits.breaker is None or gate is None:
            return await registry.run(effect.tool, effect.arguments, context, mint)
        passed = await gate.breakers.admit(effect.tool, max(effect.deadline_ms - self._clock.now_ms(), 0))
        if not isinstance(passed, Passed):
            return passed
        told = gate.breakers.told
        try:
            answer = await registry.run(effect.tool, effect.arguments, context, mint)
        except BaseException:
            await told(effect.tool, limits.breaker, passed, None)
            raise
        await told(effect.tool, limits.breaker, passed, answer)
        return answer

    def _barred(self, effect: CallTool, barred: Barred) -> ev.ToolCallFailed:
        """Say that an attempt was refused by the tool's breaker before it left. What is in doubt waits for the next."""
        return ev.ToolCallFailed(
            call=effect.call,
            attempt=effect.attempt,
            code="breaker_open",
            retryable=effect.in_doubt,
            retry_at_ms=self._clock.now_ms() + int(barred.for_s * 1000) if effect.in_doubt else 0,
            parts=(Text(storable(refusal(effect.tool, barred)), RUNTIME),),
        )

    async def _reconcile(self, effect: CallTool, context: ToolContext) -> list[ev.Event]:
        mint = self._minting.of(effect)
        said = await self._agent.registry.reconcile(effect.tool, effect.arguments, context, mint)
        told = ev.ToolCallReconciled(call=effect.call, attempt=effect.attempt, answer=said.answer)
        if said.answer != "done":
            return [told]
        return [told, self._answered(effect, Answer(self._minting.clean(said.text)), 0)]

    def _answered(self, effect: CallTool, answer: Answer, took_ms: int) -> ev.ToolCallFinished:
        outcome = "pretended" if effect.mode == "dry" else "ok"
        spec = self._agent.bundle.tool(effect.tool)
        label = label_of(spec, answer.text) if spec is not None else Label("tool", effect.tool)
        done = _finished(effect, outcome, answer.text, label, answer.cost_nano_usd, took_ms)
        if not self._quarantine or spec is None or (told := told_of(spec, answer.text)) is None:
            return done
        return msgspec.structs.replace(done, parts=(*done.parts, told))

    def _tool_failed(self, effect: CallTool, failure: Failure, *, unsent: bool = False) -> ev.ToolCallFailed:
        wait_s = backoff_s(effect.retry, effect.attempt, self._clock.draw(), failure.retry_after_s)
        return ev.ToolCallFailed(
            call=effect.call,
            attempt=effect.attempt,
            code=failure.code,
            in_doubt=failure.in_doubt,
            retryable=failure.retryable,
            retry_at_ms=self._clock.now_ms() + int(wait_s * 1000) if failure.retryable else 0,
            cost=0 if unsent else _reserved(effect),
            parts=(Text(storable(failure.text), RUNTIME),),
        )


def _reserved(effect: CallTool) -> int:
    """What an attempt at a tool call reserved for the model that it asks."""
    asked = effect.ask or effect.embed
    return asked.reserved if asked is not None else 0


def named(parts: tuple[Part, ...], route: Route) -> tuple[Part, ...]:
    """Say on what only its model can read which one that is: reasoning, blocks of a provider's own, fields that go back verbatim."""
    if not any(is_own(part) for part in parts):
        return parts
    label = Label("model", f"{route.provider}:{route.model}")
    return tuple(msgspec.structs.replace(part, label=label) if is_own(part) else part for part in parts)


def storable(text: str) -> str:
    """Replace what is no Unicode text (a lone surrogate), which no store and no provider takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _finished(
    effect: CallTool, outcome: str, text: str, label: Label, cost_nano_usd: int = 0, took_ms: int = 0
) -> ev.ToolCallFinished:
    text = storable(text)
    long = len(text) > effect.max_result_chars
    result = ToolResult(effect.provider_id, effect.tool, text, label, error=outcome == "error")
    return ev.ToolCallFinished(
        call=effect.call,
        outcome=outcome,  # type: ignore[arg-type]
        shown=effect.max_result_chars if long else -1,
        cost=cost_nano_usd,
        took_ms=took_ms,
        parts=(result,),
    )
