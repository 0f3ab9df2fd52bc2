"""What agents' skills are: where they were read, what of them becomes a rule, and about how many tokens they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from stanchion.agent import Agent
from stanchion.core.errors import ConfigError
from stanchion.core.skill import HEADING, digest_of_skill, disclosure, index_line, said
from stanchion.runtime.opening.files import load_agents
from stanchion.toolbox.skill import SkillFile, check_skills, files_of, read_skill

CHARS_PER_TOKEN = 4
"""Of English prose, about: an estimate for people. Bills go by what providers count."""
HEADING_TOKENS = -(-len(HEADING) // CHARS_PER_TOKEN)
"""Estimate of what stands above the lines of an agent's skills."""


class SkillView(msgspec.Struct, frozen=True):
    """A skill, as people are told of it."""

    name: str
    description: str
    trigger: str
    version: str
    digest: str
    file: str
    """"" for one that is data in the agent's file."""
    agent: str
    """Whose it is, where an agent was asked about."""
    tools: list[str]
    rules: list[str]
    """What of it is enforced, in words."""
    evals: list[str]
    warnings: list[str]
    index_tokens: int
    """Estimate of its line in every prompt."""
    body_tokens: int
    """Estimate of what it adds once it is opened."""
    text: str
    """What the model reads that opens it."""


class Checked(msgspec.Struct, frozen=True):
    """What is wrong with skills, and what is doubtful."""

    skills: list[SkillView]
    problems: list[str]
    warnings: list[str]


def skills_of(target: str) -> list[SkillView]:
    """List the skills of an agent's file, of a skill's folder, or of a folder of such folders. Raises `ConfigError`."""
    if _is_agents(target):
        agents = load_agents(target)
        for agent in agents:
            _hold(agent, agent.skill_files())
        return [_view(read, agent.name) for agent in agents for read in agent.skill_files()]
    return [_view(read_skill(file)) for file in files_of(Path(target))]


def check_skill_files(targets: Sequence[str], agents: Sequence[str] = ()) -> Checked:
    """Check skills, each by itself, and against the tools of agents. What is wrong is told, not raised."""
    found: list[SkillView] = []
    problems: list[str] = []
    against = list(_loaded(agents, problems))
    for target in targets:
        try:
            pieces = [target] if _is_agents(target) else [str(file) for file in files_of(Path(target))]
        except ConfigError as error:
            problems.append(str(error))
            continue
        for piece in pieces:
            _check(piece, against, found, problems)
    return Checked(found, problems, [warning for view in found for warning in view.warnings])


def _check(piece: str, against: Sequence[Agent], found: list[SkillView], problems: list[str]) -> None:
    try:
        found += skills_of(piece)
        if not _is_agents(piece):
            for agent in against:
                _hold(agent, (read_skill(Path(piece)),))
    except ConfigError as error:
        problems.append(str(error))


def _loaded(files: Sequence[str], problems: list[str]) -> Iterator[Agent]:
    for file in files:
        try:
            yield from load_agents(file)
        except ConfigError as error:
            problems.append(str(error))


def _is_agents(target: str) -> bool:
    """Whether a target names Python, and no skill: agent.py, agent.py:name."""
    return target.partition(":")[0].endswith(".py")


def _hold(agent: Agent, skills: Sequence[SkillFile]) -> None:
    tools = {spec.name: spec for spec in agent.registry().specs}
    for read in skills:
        try:
            check_skills(agent.name, (read.skill,), tools)
        except ConfigError as error:
            raise ConfigError(f"{read.file}: {error}" if read.file else str(error)) from error


def _view(read: SkillFile, agent: str = "") -> SkillView:
    skill = read.skill
    text = disclosure(skill)
    return SkillView(
        name=skill.name,
        description=skill.description,
        trigger=skill.trigger,
        version=skill.version,
        digest=digest_of_skill(skill),
        file=read.file,
        agent=agent,
        tools=list(skill.tools),
        rules=[said(rule) for rule in skill.restrictions],
        evals=list(read.evals),
        warnings=list(read.warnings),
        index_tokens=_tokens(index_line(skill)),
        body_tokens=_tokens(text),
        text=text,
    )


def _tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)
