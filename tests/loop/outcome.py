"""What attempts of a play come back as: the events that the edge would make of what was scripted. Nothing is kept here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle
from stanchion.core.errors import ModelError
from stanchion.core.message import RUNTIME, Label, ModelResponse, Text, ToolResult, Usage
from stanchion.core.money import cost
from stanchion.engine import classify, embed, summarise
from stanchion.guard.evidence import label_of
from stanchion.loop.effect import Attempt, CallModel, CallTool, CheckText, EmbedTexts, Summarise, backoff_s
from stanchion.model.embedding import Embedded
from tests.loop.script import USAGE, Break, Done, Doubt, Not, Outcome, Say, Scored, Vectors, Wrong


class Outcomes:
    """Outcomes of one bundle's attempts. `metered`: a model counts a token for every four bytes, where its script does not count."""

    def __init__(self, bundle: Bundle, *, metered: bool) -> None:
        self._bundle = bundle
        self._metered = metered

    def model(self, effect: CallModel, outcome: Say | Break, now_ms: int) -> list[ev.Event]:
        """A model call's."""
        if isinstance(outcome, Break):
            return [self._model_failed(effect, outcome, now_ms)]
        if self._metered and outcome.usage is USAGE:
            size = len(msgspec.json.encode(outcome.parts))
            outcome = replace(outcome, usage=Usage(len(msgspec.json.encode(effect.request)) // 4, size // 4))
        route = self._bundle.route(effect.route)
        billed = effect.reserved if outcome.usage is None else cost(route.price, outcome.usage)
        finished = ev.ModelCallFinished(
            turn=effect.turn,
            attempt=effect.attempt,
            finish=outcome.finish,
            cost=billed,
            usage=outcome.usage,
            parts=outcome.parts,
        )
        if billed > effect.reserved:
            return [finished, ev.BudgetOverrun(turn=effect.turn, reserved=effect.reserved, cost=billed)]
        return [finished]

    def summary(self, effect: Summarise, outcome: Say | Break, now_ms: int) -> list[ev.Event]:
        """A summary's."""
        route = self._bundle.route(effect.route)
        if isinstance(outcome, Break):
            error = ModelError("it failed", code=outcome.code, retryable=outcome.retryable)  # type: ignore[arg-type]
            return [summarise.failed(effect, route, error, 0.5, now_ms, unbilled=not outcome.billed)]
        return summarise.written(effect, route, ModelResponse(outcome.parts, outcome.finish, outcome.usage), 0.0)

    def score(self, effect: CheckText, said: Scored, now_ms: int) -> list[ev.Event]:
        """A classifier's."""
        if not said.error:
            return classify.answered(effect, classify.Score(bool(said.categories), said.categories, said.cost))
        error = ModelError("it failed", code=said.error, retryable=said.retryable)  # type: ignore[arg-type]
        return classify.failed(effect, error, 0.5, now_ms, unbilled=False)

    def vectors(self, effect: EmbedTexts, outcome: Vectors, now_ms: int) -> list[ev.Event]:
        """An embedder's, of what was learned."""
        said = outcome.said
        if isinstance(said, Break):
            return embed.failed(effect, _error(said), 0.5, now_ms)
        return embed.made(effect, Embedded([[float(len(text)), 1.0] for text in effect.texts], said), 0.0)

    def with_vector(self, effect: CallTool, done: list[ev.Event], said: Usage | Break | None) -> list[ev.Event]:
        """An embedder's, of what a call of a tool of memory looks for or writes; with the call's own."""
        (finished,) = done
        assert isinstance(finished, ev.ToolCallFinished)
        vector = embed.CallVector(effect, None)
        if effect.embed is not None and isinstance(said, Break):
            vector.failed(effect.embed, _error(said))
        elif effect.embed is not None and not isinstance(said, Break):
            vector.came(effect.embed, said)
        return vector.settled(finished)

    def tool(self, effect: CallTool, outcome: Outcome, now_ms: int) -> list[ev.Event]:
        """A tool call's."""
        match outcome:
            case Done():
                kind = "pretended" if effect.mode == "dry" else "ok"
                return [self._finished(effect, kind, outcome.text, outcome.cost)]
            case Wrong():
                return [self._finished(effect, "error", outcome.text)]
            case Not():
                code, after_s = "tool_unavailable", outcome.after_s
                return [self._tool_failed(effect, code, now_ms, retryable=True, after_s=after_s)]
            case Doubt():
                doubt, again = effect.doubtful, outcome.retryable
                return [self._tool_failed(effect, outcome.code, now_ms, in_doubt=doubt, retryable=again)]

    def reconciled(self, effect: CallTool, answer: Any) -> list[ev.Event]:
        """That of a tool which was asked what became of a call."""
        told = ev.ToolCallReconciled(call=effect.call, attempt=effect.attempt, answer=answer)
        return [told, self._finished(effect, "ok", "ok")] if answer == "done" else [told]

    def stopped(self, effect: Attempt, now_ms: int) -> list[ev.Event]:
        """That of an attempt which was cancelled."""
        if isinstance(effect, CheckText):
            return self.score(effect, Scored(error="cancelled"), now_ms)
        if isinstance(effect, Summarise):
            return self.summary(effect, Break("cancelled", billed=True), now_ms)
        if isinstance(effect, EmbedTexts):
            return self.vectors(effect, Vectors(Break("cancelled", billed=True)), now_ms)
        if isinstance(effect, CallModel):
            return self.model(effect, Break("cancelled", billed=True), now_ms)
        return [self._tool_failed(effect, "cancelled", now_ms, in_doubt=effect.doubtful, retryable=True)]

    def _model_failed(self, effect: CallModel, failed: Break, now_ms: int) -> ev.ModelCallFailed:
        wait_s = backoff_s(self._bundle.route(effect.route).retry, effect.attempt, 0.5, failed.after_s)
        return ev.ModelCallFailed(
            turn=effect.turn,
            attempt=effect.attempt,
            code=failed.code,
            retryable=failed.retryable,
            retry_at_ms=now_ms + int(wait_s * 1000) if failed.retryable else 0,
            cost=effect.reserved if failed.billed else 0,
            parts=(Text("it failed", RUNTIME),),
        )

    def _tool_failed(
        self,
        effect: CallTool,
        code: str,
        now_ms: int,
        *,
        in_doubt: bool = False,
        retryable: bool,
        after_s: float | None = None,
    ) -> ev.ToolCallFailed:
        wait_s = backoff_s(effect.retry, effect.attempt, 0.5, after_s)
        return ev.ToolCallFailed(
            call=effect.call,
            attempt=effect.attempt,
            code=code,
            in_doubt=in_doubt,
            retryable=retryable,
            retry_at_ms=now_ms + int(wait_s * 1000) if retryable else 0,
            parts=(Text(f"{effect.tool}: {code}", RUNTIME),),
        )

    def _finished(self, effect: CallTool, outcome: Any, text: str, cost_nano_usd: int = 0) -> ev.ToolCallFinished:
        shown = effect.max_result_chars if len(text) > effect.max_result_chars else -1
        spec = self._bundle.tool(effect.tool)
        label = Label("tool", effect.tool) if spec is None else label_of(spec, text)
        if effect.ask is not None:
            label = Label("tool", effect.tool, secrecy=effect.ask.label.secrecy)
        result = ToolResult(effect.provider_id, effect.tool, text, label, error=outcome == "error")
        return ev.ToolCallFinished(call=effect.call, outcome=outcome, shown=shown, cost=cost_nano_usd, parts=(result,))


def _error(said: Break) -> ModelError:
    """Make the error of an embedder."""
    return ModelError("it failed", code=said.code, retryable=said.retryable, sent=said.billed)  # type: ignore[arg-type]
