"""What tools agents have, which of them stand in every prompt, and what a model would find among the others."""

from __future__ import annotations

import msgspec

from stanchion.agent import Agent
from stanchion.core.bundle import FIND_TOOLS, Bundle
from stanchion.core.catalogue import disclosure
from stanchion.core.errors import ConfigError
from stanchion.core.message import MODEL, ToolCall
from stanchion.core.prices import load_prices
from stanchion.core.state import Call, State
from stanchion.engine.bound import bind
from stanchion.loop.find import found
from stanchion.runtime.authoring.skills import CHARS_PER_TOKEN
from stanchion.runtime.opening.files import load_agents
from stanchion.toolbox.registry import Registry

_ON = "2026-01-01"
"""Of the price, of which nothing is said here."""


class ToolView(msgspec.Struct, frozen=True):
    """A tool, as people are told of it."""

    name: str
    agent: str
    group: str
    effect: str
    shown: bool
    """Whether it stands in every prompt; else it is found by `find_tools`."""
    tokens: int
    """Estimate of what it is in a prompt."""
    description: str


def tools_of(file: str) -> list[ToolView]:
    """List the tools of a file's agents, the built-in ones among them. Raises `ConfigError`."""
    views: list[ToolView] = []
    for agent in load_agents(file):
        bundle, _ = _made(agent)
        shown = {spec.name for spec in bundle.shown}
        for spec in bundle.tools:
            tokens = -(-len(disclosure(spec)) // CHARS_PER_TOKEN)
            views.append(
                ToolView(spec.name, agent.name, spec.group, spec.effect, spec.name in shown, tokens, spec.description)
            )
    return views


def answer_to(file: str, query: str) -> str:
    """Give what a model is answered that looks for tools in a new conversation. Raises `ConfigError`."""
    agents = [agent for agent in load_agents(file) if agent.search is not None]
    if not agents:
        raise ConfigError(f"{file}: no agent there searches its tools; give it search=ToolSearch(shown=(..))")
    if len(agents) > 1:
        named = ", ".join(f"{file}:{agent.name}" for agent in agents)
        raise ConfigError(f"{file}: more than one agent there searches its tools; say which: {named}")
    bundle, registry = _made(agents[0])
    arguments = msgspec.json.encode({"query": query})
    call = Call("1.0", ToolCall("", FIND_TOOLS, arguments.decode(), MODEL))
    return found(State(calls=(call,)), call, bind(bundle, registry, ()).view, arguments).text


def _made(agent: Agent) -> tuple[Bundle, Registry]:
    registry = agent.registry()
    return agent.bundle(registry, load_prices(), _ON), registry
