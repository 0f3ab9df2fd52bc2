"""Bind each agent of a process to its code, its model clients and its credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

from stanchion.agent import Agent, OutputCheck
from stanchion.broker.broker import Broker
from stanchion.broker.port import Source
from stanchion.core.errors import ConfigError
from stanchion.core.prices import load_prices
from stanchion.engine.bound import BoundAgent, bind
from stanchion.guard.redact import Redactor
from stanchion.guard.secret import Secrets
from stanchion.model.batch import BatchClient
from stanchion.model.client import ModelClient
from stanchion.model.embedding import Embedder, opened_embedder
from stanchion.model.moderation import is_classifier, opened
from stanchion.model.providers import account, family, has_batches, open_batches, open_client, resolve_endpoint
from stanchion.plugin import pure_checks
from stanchion.runtime.opening.secrecy import check_bundles


def bind_agents(
    agents: tuple[Agent, ...],
    clients: Mapping[str, ModelClient],
    environment: Mapping[str, str],
    *,
    drive: bool,
    secrets: Secrets | None = None,
) -> dict[str, BoundAgent]:
    """Bind agents by name. One that is not driven here needs no model client. Raises `ConfigError`."""
    secrets = Secrets() if secrets is None else secrets
    bound: dict[str, BoundAgent] = {}
    for agent in agents:
        if agent.name in bound:
            raise ConfigError(f"two agents are named {agent.name!r}; give each its own name=")
        made = _bind(agent, clients, environment, drive=drive)
        rules = made.bundle
        redactor = Redactor(secrets, pii=rules.guard.pii == "redact", version=rules.redaction)
        bound[agent.name] = replace(made, redactor=redactor)
    _check_sources(agents)
    check_bundles((agent.bundle for agent in bound.values()), secrets)
    return bound


def _check_sources(agents: tuple[Agent, ...]) -> None:
    """A credential's name means one source in a process: users' connections are kept under it. Raises `ConfigError`."""
    known: dict[str, Source] = {}
    for agent in agents:
        for name, source in agent.credentials.items():
            if known.setdefault(name, source) != source:
                raise ConfigError(
                    f"agent {agent.name!r}: credentials[{name!r}] is another source than an earlier agent's of this name; "
                    "give one of them another name"
                )


def _bind(
    agent: Agent, clients: Mapping[str, ModelClient], environment: Mapping[str, str], *, drive: bool
) -> BoundAgent:
    registry = agent.registry()
    bundle = agent.bundle(registry, load_prices(), datetime.now(UTC).date().isoformat(), framework=version("stanchion"))
    embedder = _embedder(agent, environment) if drive else None
    check = OutputCheck(agent.output) if agent.output is not None else None
    checks = pure_checks(agent.checks)
    if not drive:
        return replace(bind(bundle, registry, (), check, checks=checks), broker=Broker(agent.credentials))
    replaced = [_replaced(f"{route.provider}:{route.model}", route.provider, clients) for route in bundle.every_route]
    ends = [
        None if client else resolve_endpoint(route.provider, environment)
        for route, client in zip(bundle.every_route, replaced, strict=True)
    ]
    found: list[ModelClient] = []
    for route, client, end in zip(bundle.every_route, replaced, ends, strict=True):
        found += [client] if client else [open_client(route.provider, end)] if end else []
    accounts = [
        account(route.provider, end) if end else family(route.provider)
        for route, end in zip(bundle.every_route, ends, strict=True)
    ]
    batchable = (n for n, route in enumerate(bundle.every_route) if replaced[n] is None and has_batches(route.provider))
    bound = bind(bundle, registry, found, check, frozenset(batchable), checks)
    if bundle.search is not None:
        bound.view.catalogue.prepare()
    asked = {plug.name: plug for plug in (opened(given, environment) for given in agent.checks if is_classifier(given))}
    breakers = [model.breaker for model in agent.every_model()]
    return replace(
        bound,
        classifiers=asked,
        accounts=accounts,
        breakers=breakers,
        broker=Broker(agent.credentials),
        embedder=embedder,
    )


def _embedder(agent: Agent, environment: Mapping[str, str]) -> Embedder | None:
    given = agent.memory.embeddings if agent.memory is not None else None
    return None if given is None else opened_embedder(given, environment)


def _replaced(model: str, provider: str, clients: Mapping[str, ModelClient]) -> ModelClient | None:
    return next((clients[name] for name in (model, provider, "*") if name in clients), None)


def batch_clients(agents: Iterable[BoundAgent], environment: Mapping[str, str]) -> dict[str, BatchClient]:
    """Make clients of the batch APIs that these agents' routes have, by provider."""
    providers = {agent.bundle.route(n).provider for agent in agents for n in agent.view.batchable}
    return {name: open_batches(name, resolve_endpoint(name, environment)) for name in sorted(providers)}


def closers(agents: Iterable[BoundAgent]) -> Iterator[Callable[[], Awaitable[None]]]:
    """Give what closes the clients that these agents were bound to."""
    for agent in agents:
        embedders = () if agent.embedder is None else (agent.embedder,)
        for client in (*agent.clients, *agent.classifiers.values(), *embedders):
            yield client.aclose
