"""What a runtime is opened with: where its store lies, and each agent bound to code and model clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeGuard

from stanchion.agent import Agent, OutputCheck
from stanchion.core.errors import ConfigError
from stanchion.core.prices import load_prices
from stanchion.engine.bound import BoundAgent, bind
from stanchion.engine.clock import Clock, StoreClock, SystemClock
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.sqlite.schema import APPLICATION_ID
from stanchion.journal.store import Store
from stanchion.model.client import ModelClient
from stanchion.model.providers import open_client, resolve_endpoint

SQLITE_APPLICATION_ID = APPLICATION_ID
"""By this a data file of ours is known."""


def is_database(data: str | Path) -> TypeGuard[str]:
    """Tell whether `data` names a database server, and no file."""
    return isinstance(data, str) and data.partition("://")[0] in ("postgresql", "postgres")


async def open_store(data: str | Path, clock: Clock | None) -> tuple[Store, Clock]:
    """Open the store that `data` names, and the clock that goes with it. Raises `ConfigError`, `JournalError`."""
    if is_database(data):
        try:
            from stanchion.journal.postgres import PostgresStore
        except ImportError as error:
            text = 'a PostgreSQL store needs asyncpg; install it with: pip install "stanchion[postgres]"'
            raise ConfigError(text) from error
        shared = await PostgresStore.open(data)
        return shared, clock or StoreClock(shared.clock_ms)
    clock = clock or SystemClock()
    return await SqliteStore.open(store_path(data), clock=clock.now_ms), clock


def store_path(data: str | Path) -> str | Path:
    """Read where the store lies: a path, "sqlite:///path" or "sqlite:////absolute/path". Raises `ConfigError`."""
    if isinstance(data, str) and "://" in data:
        scheme, _, path = data.partition("://")
        if scheme != "sqlite" or not path.startswith("/"):
            raise ConfigError(f"data {scheme}://..: write a path, sqlite:///path or postgresql://user@host/database")
        data = path[1:]
    if not str(data):
        raise ConfigError("data is empty; name the file that holds the runs")
    return data


def bind_agents(
    agents: tuple[Agent, ...], clients: Mapping[str, ModelClient], environment: Mapping[str, str], *, drive: bool
) -> dict[str, BoundAgent]:
    """Bind agents by name. One that is not driven here needs no model client. Raises `ConfigError`."""
    bound: dict[str, BoundAgent] = {}
    for agent in agents:
        if agent.name in bound:
            raise ConfigError(f"two agents are named {agent.name!r}; give each its own name=")
        bound[agent.name] = _bind(agent, clients, environment, drive=drive)
    return bound


def _bind(
    agent: Agent, clients: Mapping[str, ModelClient], environment: Mapping[str, str], *, drive: bool
) -> BoundAgent:
    registry = agent.registry()
    bundle = agent.bundle(registry, load_prices(), datetime.now(UTC).date().isoformat(), framework=version("stanchion"))
    routes = bundle.routes if drive else ()
    found = [_client(f"{route.provider}:{route.model}", route.provider, clients, environment) for route in routes]
    return bind(bundle, registry, found, OutputCheck(agent.output) if agent.output is not None else None)


def _client(
    model: str, provider: str, clients: Mapping[str, ModelClient], environment: Mapping[str, str]
) -> ModelClient:
    for name in (model, provider, "*"):
        if name in clients:
            return clients[name]
    return open_client(provider, resolve_endpoint(provider, environment))
