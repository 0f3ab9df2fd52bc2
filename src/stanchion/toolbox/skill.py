"""Skills as files: a folder with a `SKILL.md`, in the common form (https://agentskills.io/specification), with keys of ours.

    name, description                     what every agent that knows the form goes by
    trigger, version, tools               when to use it; which version it is; the tools that it speaks of
    restrictions                          what calls of tools must be: enforced by the guard
    evals                                 files with cases for it; they must be there, and nothing is done with them
    license, compatibility, metadata      taken as they are; metadata.version is the version where none is said

Anything else is left aside with a warning. Files are read when the agent is made. Each error names file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stanchion.core.bundle import BUILT_IN, ToolSpec
from stanchion.core.errors import ConfigError
from stanchion.core.policy import Param
from stanchion.core.skill import Restriction, Skill
from stanchion.guard.values import normal

if TYPE_CHECKING:
    from stanchion.toolbox.frontmatter import FrontMatter

FILE = "SKILL.md"
MAX_NAME = 64
MAX_DESCRIPTION = 4_096
LONG_DESCRIPTION = 1_024
"""The form's own bound. Published skills pass it, so that it is a warning here."""
MAX_BODY_CHARS = 100_000
LONG_BODY_CHARS = 20_000
"""From here on a body is worth splitting: the form's authors recommend less than 5,000 tokens."""
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KEYS = frozenset(
    {
        "name",
        "description",
        "trigger",
        "version",
        "tools",
        "restrictions",
        "evals",
        "license",
        "compatibility",
        "metadata",
    }
)
_RULE_KEYS = ("tool", "most", "least", "among", "ask", "never", "expires_s", "quorum")


@dataclass(frozen=True, slots=True)
class SkillFile:
    """A skill and what its file says beside it."""

    skill: Skill
    file: str = ""
    evals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Each with file and line."""


def read_skills(given: Iterable[object], base: Path | None = None) -> tuple[SkillFile, ...]:
    """Read skills: of folders with a SKILL.md, folders of such folders, files; or `Skill` as data. Sorted by name.

    `base`: where relative paths begin. Raises `ConfigError`.
    """
    found: list[SkillFile] = []
    for one in given:
        if isinstance(one, SkillFile):
            found.append(one)
        elif isinstance(one, Skill):
            found.append(_as_data(one))
        elif isinstance(one, str | Path):
            found += [read_skill(file) for file in files_of((base or Path()) / one)]
        else:
            raise ConfigError(f"skills: {one!r} is no path of a skill's folder, as in 'skills/refunds'")
    found.sort(key=lambda read: read.skill.name)
    for one, other in pairwise(found):
        if one.skill.name == other.skill.name:
            places = f"{one.file or 'data'} and {other.file or 'data'}"
            raise ConfigError(f"skills: two are named {one.skill.name!r}: {places}; give one another name")
    return tuple(found)


def _as_data(skill: Skill) -> SkillFile:
    if not _NAME.fullmatch(skill.name) or not skill.description.strip() or not skill.body.strip():
        text = "needs a name of a-z, 0-9 and single hyphens, a description and a body"
        raise ConfigError(f"skills: Skill(name={skill.name!r}) {text}")
    return SkillFile(skill)


def files_of(path: Path) -> list[Path]:
    """Find the files of skills at a path. Raises `ConfigError` if there are none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        where = "" if path.is_absolute() else f" in {Path().absolute()}"
        raise ConfigError(f"skills: there is no {path}{where}; name a folder with a {FILE}")
    if (path / FILE).is_file():
        return [path / FILE]
    found = sorted(path.glob(f"*/{FILE}"))
    if not found:
        raise ConfigError(f"skills: the folder {path} has no {FILE}, and no folder in it has one")
    return found


def read_skill(path: Path) -> SkillFile:
    """Read one file. Raises `ConfigError` with file and line."""
    from stanchion.toolbox.frontmatter import read_front_matter  # (YAML is read where there are skills only)

    front = read_front_matter(path)
    metadata: Any = front.values.get("metadata")
    version = _text(front, "version") or (str(metadata.get("version") or "") if isinstance(metadata, dict) else "")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    skill = Skill(
        name=_name(front),
        description=_description(front),
        body=_body(front),
        trigger=_line(_text(front, "trigger")),
        version=version,
        tools=_names(front, "tools"),
        restrictions=tuple(_restrictions(front)),
    )
    evals = _names(front, "evals")
    for number, name in enumerate(evals):
        if not (path.parent / name).exists():
            raise ConfigError(f"{front.at('evals', number)}: evals: there is no {path.parent / name}")
    return SkillFile(skill, str(path), evals, tuple(_warnings(front, skill, path, evals)))


def _warnings(front: FrontMatter, skill: Skill, path: Path, evals: Sequence[str]) -> Iterator[str]:
    for key in front.values:
        if key == "allowed-tools":
            yield f"{front.at(key)}: allowed-tools allows nothing here: what needs approval is the agent's to say"
        elif key not in _KEYS:
            yield f"{front.at(key)}: {key!r} means nothing here and is left aside"
    folder = path.resolve().parent
    if path.name == FILE and folder.name != skill.name:
        yield f"{front.at('name')}: the common form wants the name of the folder: {folder.name!r}, not {skill.name!r}"
    if len(skill.description) > LONG_DESCRIPTION:
        text = f"the form wants at most {LONG_DESCRIPTION:,} characters, and they stand in every prompt"
        yield f"{front.at('description')}: description: it has {len(skill.description):,}; {text}"
    if len(skill.body) > LONG_BODY_CHARS:
        yield f"{front.file}:{front.body_line}: the body has {len(skill.body):,} characters; the model reads them all when it opens the skill"
    if path.name == FILE:
        known = {folder / name for name in evals} | {path.resolve()}
        others = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("LICENSE")]
        if others := [file for file in others if not known & {file, *file.parents}]:
            named = ", ".join(str(file.relative_to(folder)) for file in others[:3])
            yield f"{front.file}:1: the model is not shown the other files of the folder ({named}{', ..' if others[3:] else ''})"


def _name(front: FrontMatter) -> str:
    name = _text(front, "name", needed=True)
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        text = f"name: {name!r} must be 1 to {MAX_NAME} of a-z, 0-9 and single hyphens between them"
        raise ConfigError(f"{front.at('name')}: {text}")
    return name


def _description(front: FrontMatter) -> str:
    text = _line(_text(front, "description", needed=True))
    if len(text) > MAX_DESCRIPTION:
        raise ConfigError(
            f"{front.at('description')}: description: it has {len(text):,} characters, which stand in every prompt; "
            f"at most {MAX_DESCRIPTION:,} are taken"
        )
    return text


def _body(front: FrontMatter) -> str:
    if not front.body.strip():
        raise ConfigError(f"{front.file}:{front.body_line}: there is no text below the front matter; say what to do")
    if len(front.body) > MAX_BODY_CHARS:
        text = f"the body has {len(front.body):,} characters; at most {MAX_BODY_CHARS:,} are taken"
        raise ConfigError(f"{front.file}:{front.body_line}: {text}")
    return front.body


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(front: FrontMatter, key: str, *, needed: bool = False) -> str:
    value = front.values.get(key)
    if value is None or value == "":
        if needed:
            raise ConfigError(f"{front.at(key)}: {key} is missing; add a line {key}: ..")
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{front.at(key)}: {key} must be a text, not {_shown(value)}{_quote(value)}")
    return value


def _names(front: FrontMatter, key: str) -> tuple[str, ...]:
    """Read a list of names, or a text of them with spaces or commas between."""
    value: Any = front.values.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(re.split(r"[\s,]+", value.strip()))
    return _strings(front, value, key)


def _strings(front: FrontMatter, value: Any, *where: str | int) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{front.at(*where)}: {_path(where)} must be a list of texts, not {_shown(value)}")
    items = cast("list[Any]", value)
    for number, item in enumerate(items):
        if not isinstance(item, str) or not item:
            text = f"{_path((*where, number))} must be a text, not {_shown(item)}{_quote(item)}"
            raise ConfigError(f"{front.at(*where, number)}: {text}")
    return tuple(items)


def _restrictions(front: FrontMatter) -> Iterator[Restriction]:
    value: Any = front.values.get("restrictions")
    if value is None:
        return
    if not isinstance(value, list):
        text = "restrictions must be a list, as in - {tool: refund, most: {cents: 5000}, ask: true}"
        raise ConfigError(f"{front.at('restrictions')}: {text}. What cannot be enforced belongs into the text below")
    for number, rule in enumerate(cast("list[Any]", value)):
        yield _restriction(front, rule, number)


def _restriction(front: FrontMatter, rule: Any, number: int) -> Restriction:
    where = ("restrictions", number)
    if not isinstance(rule, dict):
        raise _wrong(front, where, f"must be keys with values, not {_shown(rule)}; prose belongs into the text below")
    rule = cast("dict[str, Any]", rule)
    if unknown := next((key for key in rule if key not in _RULE_KEYS), ""):
        raise _wrong(front, (*where, unknown), f"is unknown; a restriction has {', '.join(_RULE_KEYS)}")
    tool = rule.get("tool")
    if not isinstance(tool, str) or not tool:
        raise _wrong(front, where, "must name a tool, as in tool: refund")
    for key in ("ask", "never"):
        if not isinstance(rule.get(key, False), bool):
            raise _wrong(front, (*where, key), "must be true or false")
    params, ask, never = tuple(_params(front, rule, where)), bool(rule.get("ask")), bool(rule.get("never"))
    if never and (params or ask):
        raise _wrong(front, (*where, "never"), "forbids each call, so that nothing else can be said with it")
    if not (never or ask or params):
        raise _wrong(front, where, "says nothing; add never: true, ask: true, or a bound: most, least, among")
    expires_s = _number(front, rule, (*where, "expires_s")) if "expires_s" in rule else 0.0
    quorum = _number(front, rule, (*where, "quorum")) if "quorum" in rule else 0.0
    if (expires_s or quorum) and not ask:
        raise _wrong(front, where, "has expires_s or quorum, which mean something only with ask: true")
    return Restriction(tool, params, ask, expires_s, int(quorum) if quorum > 1 else 0)


def _params(front: FrontMatter, rule: dict[str, Any], where: tuple[str | int, ...]) -> Iterator[Param]:
    for path, bound in _bounds(front, rule, where, "most").items():
        yield Param(path, most=_decimal(front, bound, (*where, "most", path)))
    for path, bound in _bounds(front, rule, where, "least").items():
        yield Param(path, least=_decimal(front, bound, (*where, "least", path)))
    for path, values in _bounds(front, rule, where, "among").items():
        yield Param(path, among=_strings(front, values, *where, "among", path))


def _bounds(front: FrontMatter, rule: dict[str, Any], where: tuple[str | int, ...], key: str) -> dict[str, Any]:
    bounds: Any = rule.get(key, {})
    if not isinstance(bounds, dict) or (key in rule and not bounds):
        form = "{currency: [EUR, CHF]}" if key == "among" else "{cents: 5000}"
        raise _wrong(front, (*where, key), f"must name arguments, as in {key}: {form}")
    return cast("dict[str, Any]", bounds)


def _decimal(front: FrontMatter, value: Any, where: tuple[str | int, ...]) -> str:
    if not isinstance(value, str) or not normal("number", value):
        raise _wrong(front, where, f"must be a number, not {_shown(value)}")
    return value


def _number(front: FrontMatter, rule: dict[str, Any], where: tuple[str | int, ...]) -> float:
    value = rule[str(where[-1])]
    try:
        number = float(value) if isinstance(value, str) else -1.0
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise _wrong(front, where, f"must be a number above 0, not {_shown(value)}")
    return number


def _wrong(front: FrontMatter, where: tuple[str | int, ...], text: str) -> ConfigError:
    return ConfigError(f"{front.at(*where)}: {_path(where)} {text}")


def _path(where: tuple[str | int, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return text.removeprefix(".")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "keys with values"
        case list():
            return "a list"
        case _:
            return repr(value)


def _quote(value: Any) -> str:
    return " (yes, no, on, off, true and false need quotes to be texts)" if isinstance(value, bool) else ""


def check_skills(agent: str, skills: Iterable[Skill], tools: Mapping[str, ToolSpec]) -> None:
    """Hold skills against the tools of an agent. Raises `ConfigError`."""
    for skill in skills:
        for problem in _misfits(skill, tools):
            raise ConfigError(f"agent {agent!r}: skill {skill.name!r}: {problem}")


def _misfits(skill: Skill, tools: Mapping[str, ToolSpec]) -> Iterator[str]:
    own = ", ".join(name for name in tools if name not in BUILT_IN) or "none"
    for name in skill.tools:
        if name not in tools:
            yield f"tools: the agent has no tool {name!r}; its tools are: {own}"
    for number, rule in enumerate(skill.restrictions):
        where = f"restrictions[{number}]"
        spec = tools.get(rule.tool)
        if spec is None or rule.tool in BUILT_IN:
            yield f"{where}: the agent has no tool {rule.tool!r}; its tools are: {own}"
            continue
        for param in rule.params:
            named, _, rest = param.path.partition(".")
            known: Mapping[str, Any] = spec.parameters.get("properties", {})
            if named not in known:
                yield f"{where}: {rule.tool} has no argument {named!r}; it has: {', '.join(known) or 'none'}"
            elif not rest and known[named].get("type") in ("array", "object"):
                yield f"{where}: {named!r} of {rule.tool} holds more than one value; name one in it, as in {named}.*"
