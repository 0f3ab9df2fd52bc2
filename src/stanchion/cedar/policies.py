"""A set of Cedar policies that answers what may become of a call.

`forbid` denies; a `permit` with `@ask("why")` asks a person; a plain `permit` allows; what nothing permits is denied. Where several
permits match, one that asks wins. **Any error while a policy is evaluated denies**: to Cedar itself a `forbid` that fails is no
`forbid`, and a call would pass. Policies are parsed once; what is asked of a call is small.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from stanchion.cedar.context import CONTEXT
from stanchion.cedar.named import named_by
from stanchion.cedar.schema import actions_of, groups_of, schema_of
from stanchion.cedar.shape import Record, Unfit, arguments_of, fitted
from stanchion.cedar.source import PolicyText, split
from stanchion.cedar.unknown import unknown_names
from stanchion.core.bundle import Bundle, ToolSpec
from stanchion.core.errors import ConfigError
from stanchion.guard.ground import Finding
from stanchion.guard.standing import Said, Standing

try:
    import cedarpy
except ImportError as error:
    raise ConfigError('policies in Cedar need cedarpy; install it with: pip install "stanchion[cedar]"') from error

_KEPT = 512
"""Parsed entities that are remembered: of tools, with the users they are called for."""
_ID = re.compile(r"`(policy\d+)`")
_encode = msgspec.json.Encoder().encode
_Effect = Literal["permit", "forbid"]


class Policy(msgspec.Struct, frozen=True):
    """One policy of a set."""

    name: str
    """Its `@id`, or its file and line."""
    file: str
    line: int
    effect: _Effect
    ask: str | None = None
    reason: str = ""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a set, and where."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class CedarPolicies:
    """A parsed set. Implements `guard.standing.Policies`."""

    def __init__(self, text: PolicyText) -> None:
        """Parse a set. Raises `ConfigError` with the file and line of each problem."""
        self.text = text
        self.digest = text.digest
        problems: list[Problem] = []
        self.policies: list[Policy] = []
        pieces: list[str] = []
        for file in text.files:
            for line, piece in split(file.text):
                read = _read(file.name, line, piece)
                if isinstance(read, Problem):
                    problems.append(read)
                else:
                    self.policies.append(read)
                    pieces.append(piece)
        refuse([*problems, *_twice(self.policies)])
        self._pieces = pieces
        self._tells = named_by(map(_parsed, pieces))
        self._set = cedarpy.PolicySet.from_str("\n".join(pieces))
        self._shapes: OrderedDict[int, tuple[ToolSpec, Record]] = OrderedDict()
        self._entities: OrderedDict[tuple[str, ...], cedarpy.Entities] = OrderedDict()

    def problems(self, bundles: Iterable[Bundle]) -> list[Problem]:
        """List what does not fit the tools of some bundles: unknown tools and fields, wrong types, unguarded optional fields."""
        actions = actions_of(bundles)
        schema = cedarpy.Schema.from_json_str(schema_of(actions))
        found: list[Problem] = []
        for policy, piece in zip(self.policies, self._pieces, strict=True):
            result = cedarpy.validate_policies(piece, schema)  # pyright: ignore[reportUnknownMemberType]
            errors = list(dict.fromkeys(_words(error.error) for error in result.errors))
            if not result.validation_passed:
                errors = errors or ["it does not fit the schema"]
            elif unknown := unknown_names(_parsed(piece), actions):
                errors = [f"it can never match: no call has {', '.join(unknown)}"]
            if errors:
                found.append(Problem(policy.file, policy.line, "; ".join(errors)))
        return found

    def decide(self, standing: Standing, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding]) -> Said:
        """Say what may become of a call. Doubt denies."""
        try:
            context = self._context(standing, spec, arguments, found)
            principal = f"{standing.tenant}/{standing.user}"
            result = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
                {
                    "principal": {"type": "User", "id": principal},
                    "action": {"type": "Action", "id": spec.name},
                    "resource": {"type": "Tool", "id": spec.name},
                    "context": _encode(context).decode(),
                },
                self._set,
                self._known(spec, principal, standing),
            )
        except Unfit as error:
            return Said("deny", ("unfit",), f"no policy can be asked about it: {error}")
        except (ValueError, KeyError, TypeError) as error:
            return Said("deny", ("error",), f"the policies could not be asked: {_first_line(error)}")
        return self._said(result)

    def _said(self, result: cedarpy.AuthzResult) -> Said:
        if result.diagnostics.errors:
            why = "; ".join(map(self._named, result.diagnostics.errors[:3]))
            return Said("deny", ("error",), f"a policy failed, and what cannot be decided is denied: {why}")
        decided = [self._policy(reason) for reason in result.diagnostics.reasons]
        match result.decision:
            case cedarpy.Decision.Allow:
                asks = [policy for policy in decided if policy.ask is not None]
                if not decided or not asks:
                    return Said("allow" if decided else "deny", tuple(policy.name for policy in decided))
                return _because("ask", asks, "the policy {} wants a person's yes")
            case cedarpy.Decision.Deny if decided:
                return _because("deny", decided, "the policy {} forbids it")
            case cedarpy.Decision.Deny:
                return Said("deny", ("no_permit",), "no policy permits it")
            case _:
                return Said("deny", ("no_decision",), "the policies came to no decision")

    def _named(self, error: str) -> str:
        """Call a policy by its name where Cedar does by its number."""
        return _ID.sub(lambda found: repr(self._policy(found[1]).name), error.removeprefix("error while evaluating "))

    def _policy(self, reason: str) -> Policy:
        return self.policies[int(reason.removeprefix("policy"))]

    def _context(
        self, standing: Standing, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding]
    ) -> dict[str, Any]:
        """Give what a policy may look at, as far as one does."""
        told = {name: tell(standing, found) for name, tell in CONTEXT.items() if self._tells.tells(name)}
        return told | {"arguments": fitted(self._shape(spec), dict(arguments), "")}

    def _shape(self, spec: ToolSpec) -> Record:
        """Give the shape of a tool's arguments, as far as policies name them."""
        known = self._shapes.get(id(spec))
        if known is None:
            fields = arguments_of(spec.parameters).fields.items()
            shape = Record({name: field for name, field in fields if self._tells.tells_argument(name)})
            known = self._shapes[id(spec)] = (spec, shape)  # with the tool, so that no other takes its id
            if len(self._shapes) > _KEPT:
                self._shapes.popitem(last=False)
        return known[1]

    def _known(self, spec: ToolSpec, principal: str, standing: Standing) -> cedarpy.Entities:
        """Give the entities of a call, parsed once for each tool and user."""
        key = (spec.name, spec.effect, standing.tenant, standing.user, standing.agent, standing.task)
        known = self._entities.get(key)
        if known is None:
            body = _encode(_entities(spec, principal, standing)).decode()
            known = cedarpy.Entities.from_json_str(body)  # pyright: ignore[reportUnknownMemberType]
            self._entities[key] = known
            if len(self._entities) > _KEPT:
                self._entities.popitem(last=False)
        return known


def _read(file: str, line: int, piece: str) -> Policy | Problem:
    """Parse one policy by itself."""
    try:
        parsed = msgspec.json.decode(cedarpy.policies_to_json_str(piece))
    except ValueError as error:
        return Problem(file, line, f"this is no Cedar policy: {_first_line(error)}")
    if parsed["templates"]:
        return Problem(file, line, "templates (?principal, ?resource) are not taken; write the policy out")
    [found] = parsed["staticPolicies"].values()
    notes: Mapping[str, str | None] = found.get("annotations", {})
    ask = notes.get("ask", "") or "" if "ask" in notes else None
    if ask is not None and found["effect"] == "forbid":
        return Problem(file, line, "@ask stands on a forbid, which denies; put it on a permit")
    name = notes.get("id") or f"{file}:{line}"
    return Policy(name[:80], file, line, found["effect"], ask, notes.get("reason") or "")


def _parsed(piece: str) -> Mapping[str, Any]:
    [found] = msgspec.json.decode(cedarpy.policies_to_json_str(piece))["staticPolicies"].values()
    return found


def _twice(policies: list[Policy]) -> list[Problem]:
    first: dict[str, Policy] = {}
    found: list[Problem] = []
    for policy in policies:
        other = first.setdefault(policy.name, policy)
        if other is not policy:
            text = f"@id({policy.name!r}) was given on {other.file}:{other.line} already; give each policy its own"
            found.append(Problem(policy.file, policy.line, text))
    return found


def refuse(problems: list[Problem]) -> None:
    """Raise `ConfigError` if there are problems: a set is taken whole or not at all."""
    if problems:
        more = f"\n.. and {len(problems) - 10} more" if len(problems) > 10 else ""
        listed = "\n".join(map(str, problems[:10]))
        raise ConfigError(
            f"the policies are refused, and none of them is in force:\n{listed}{more}", code="bad_policies"
        )


def _because(action: Literal["ask", "deny"], policies: list[Policy], otherwise: str) -> Said:
    policies = sorted(policies, key=lambda policy: (policy.file, policy.line))
    reasons = [policy.ask or policy.reason or otherwise.format(policy.name) for policy in policies]
    return Said(action, tuple(policy.name for policy in policies), "; ".join(dict.fromkeys(reasons)))


def _entities(spec: ToolSpec, principal: str, standing: Standing) -> list[dict[str, Any]]:
    about = {"tenant": standing.tenant, "user": standing.user, "agent": standing.agent, "task": standing.task}
    groups = [{"type": "Action", "id": group} for group in groups_of(spec)]
    return [
        {"uid": {"type": "User", "id": principal}, "attrs": about, "parents": []},
        {"uid": {"type": "Action", "id": spec.name}, "attrs": {}, "parents": groups},
        {"uid": {"type": "Tool", "id": spec.name}, "attrs": {"name": spec.name, "tier": spec.effect}, "parents": []},
    ]


def _words(error: str) -> str:
    """Leave out what only the parser calls a policy that was looked at by itself."""
    return error.removeprefix("for policy `policy0`, ")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
