"""An agent bound to code: its bundle, the registry behind its tools, the clients behind its routes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

from stanchion.broker.broker import Broker
from stanchion.core.bundle import Bundle, ToolSpec, digest_of
from stanchion.core.check import TextCheck
from stanchion.guard.check import Checks
from stanchion.guard.redact import Redactor
from stanchion.loop.effect import View, view
from stanchion.model.client import ModelClient
from stanchion.model.embedding import Embedder
from stanchion.model.moderation import Classifier
from stanchion.toolbox.answer import Problem
from stanchion.toolbox.options import Breaker
from stanchion.toolbox.registry import Registry


@dataclass(frozen=True, slots=True)
class BoundAgent:
    """What it takes to drive an agent's runs."""

    bundle: Bundle
    digest: str
    view: View
    registry: Registry
    clients: Sequence[ModelClient]
    """One for each route."""
    accounts: Sequence[str] = ()
    """For each route: the provider and a fingerprint of the key. Limits that others share go by it."""

    breakers: Sequence[Breaker | None] = ()
    """For each route: when its model is left alone for another, if at all."""

    broker: Broker = field(default_factory=lambda: Broker({}))
    """Where the credentials of its tools come from."""
    redactor: Redactor = field(default_factory=Redactor)
    """What takes secrets out of all that comes in for its runs."""

    embedder: Embedder | None = None
    """What gives its memory vectors."""

    classifiers: Mapping[str, Classifier] = field(default_factory=dict[str, Classifier])
    """What is asked about texts over the network, by name."""

    def account(self, route: int) -> str:
        """Name what a route's limits are counted under."""
        return self.accounts[route] if route < len(self.accounts) else self.bundle.route(route).provider

    def breaker(self, route: int) -> Breaker | None:
        """Say when a route's model is left alone."""
        return self.breakers[route] if route < len(self.breakers) else None


class _Check:
    """The loop's checks, by the registry's schemas and the agent's output type."""

    def __init__(self, registry: Registry, output: Callable[[str], str] | None) -> None:
        self._registry = registry
        self._output = output

    def arguments(self, tool: str, text: str) -> bytes | str:
        """Give the arguments in canonical form, or what is wrong with them."""
        checked = self._registry.check(tool, text)
        return checked.text if isinstance(checked, Problem) else checked.arguments

    def output(self, text: str) -> str:
        """Say what is wrong with a final answer, or ""."""
        return self._output(text) if self._output else ""


def bind(
    bundle: Bundle,
    registry: Registry,
    clients: Sequence[ModelClient],
    check_output: Callable[[str], str] | None = None,
    batchable: frozenset[int] = frozenset(),
    checks: Sequence[TextCheck] = (),
) -> BoundAgent:
    """Bind a bundle to code. `batchable`: the routes that have a batch API here. `checks`: the agent's own, the pure ones."""
    seen = view(bundle, _Check(registry, check_output), batchable, checks=Checks(checks))
    return BoundAgent(bundle, digest_of(bundle), seen, registry, clients)


def misfits(old: Bundle, new: Bundle, called: Container[str] = ()) -> str:
    """Say why a run of the old bundle cannot go on under the new one, or "": same tools by name, schema and tier.

    Of tools that are found by search only those that are `called` now count: of another the model is told when it calls it.
    """
    now: Mapping[str, ToolSpec] = {spec.name: spec for spec in new.tools}
    shown = {spec.name for spec in old.shown}
    for spec in old.tools:
        if spec.name not in shown and spec.name not in called:
            continue
        other = now.get(spec.name)
        if other is None:
            return f"the tool {spec.name!r} is gone"
        if other.parameters != spec.parameters:
            return f"the parameters of {spec.name!r} changed"
        if other.effect != spec.effect or other.keyed != spec.keyed:
            return f"the effect tier or key of {spec.name!r} changed"
    return ""
