"""Agent files for `run` and `serve`: load them, choose their model, and start the simulated provider where it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from stanchion.agent import Agent

KEYLESS = {"ollama", "sglang", "vllm"}
"""Providers of one's own machine: they need no key."""
START_S = 30.0


class Provider(msgspec.Struct, frozen=True):
    """Which models will answer: the environment that says where, and the address of the simulated one, if there is one."""

    environment: Mapping[str, str]
    simulated: str = ""


def load(files: Sequence[str], model: str = "") -> list[Agent]:
    """Load the agents of some files, each with another model where one is given. Raises `ConfigError`."""
    from stanchion.runtime import load_agents

    agents: dict[str, Agent] = {}
    for file in files:
        for agent in load_agents(file):
            if agent.name in agents:
                raise ConfigError(f"{file}: an agent named {agent.name!r} is in an earlier file already")
            agents[agent.name] = with_model(agent, model) if model else agent
    return list(agents.values())


def with_model(agent: Agent, model: str) -> Agent:
    """Give the agent another model, asked as its own is, without fallbacks."""
    if not all(model.partition(":")):
        raise InputError(f"{model!r} is not of the form provider:model (as in openai:gpt-5)", field="--model")
    first = agent.models()[0]
    other = model if isinstance(agent.model, str) else dataclasses.replace(first, name=model, price=None)
    return dataclasses.replace(agent, model=other, fallbacks=())


@contextlib.asynccontextmanager
async def model_provider(
    agents: Sequence[Agent], *, simulated: bool, if_no_key: bool, script: str
) -> AsyncGenerator[Provider]:
    """Settle who answers for the models. Raises `ConfigError` where a key is missing and nothing may be simulated."""
    missing = missing_keys(agents, os.environ)
    if missing and not (simulated or if_no_key):
        agent, model, variable = missing[0]
        raise ConfigError(
            f"agent {agent!r} uses {model}, and {variable} is not set: "
            f"export {variable}=.., or pass --simulated to try it without a model"
        )
    if not simulated and not missing:
        yield Provider(os.environ)
        return
    async with _simulator(script) as base_url:
        yield Provider(simulated_environment(agents, base_url), base_url)


def missing_keys(agents: Sequence[Agent], environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """List (agent, model, variable) of the models whose provider has neither a key nor an address of one's own."""
    found: list[tuple[str, str, str]] = []
    for agent in agents:
        for model in agent.every_model():
            provider = model.provider
            name = prefix_of(provider)
            said = any(environment.get(f"{name}_{what}", "").strip() for what in ("API_KEY", "BASE_URL"))
            if provider not in KEYLESS and not said:
                found.append((agent.name, model.name, f"{name}_API_KEY"))
    return found


def prefix_of(provider: str) -> str:
    """How a provider's environment variables begin."""
    return "OPENAI" if provider == "openai-chat" else provider.upper().replace("-", "_")


def simulated_environment(agents: Sequence[Agent], base_url: str) -> dict[str, str]:
    """The environment, with the provider of every model at the simulator's address."""
    environment = dict(os.environ)
    for provider in {model.provider for agent in agents for model in agent.every_model()}:
        name = prefix_of(provider)
        environment[f"{name}_BASE_URL"] = base_url if provider == "anthropic" else f"{base_url}/v1"
        environment[f"{name}_API_KEY"] = "simulated"
    return environment


@contextlib.asynccontextmanager
async def _simulator(script: str) -> AsyncGenerator[str]:
    """Run the simulated provider as a process that ends with this one, even if this one is killed.

    It has a session of its own, so that a Ctrl-C in the terminal stops the run in good order and not its model.
    """
    command = [sys.executable, "-m", "stanchion.cli", "sim", "--port", "0", "-o", "json", "--with-parent"]
    process = await asyncio.create_subprocess_exec(
        *command, *(["--script", script] if script else []),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        yield await _address(process)
    finally:
        process.stdin.close()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
    except TimeoutError:
        raise ConfigError(f"the simulated provider did not start within {START_S:.0f} s") from None
    if not line:
        said = (await process.stderr.read()).decode(errors="replace").strip().removeprefix("error: ")
        raise ConfigError(f"the simulated provider did not start: {said}")
    return str(msgspec.json.decode(line)["base_url"])
