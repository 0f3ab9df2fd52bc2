"""The plan freeze: by which tools a run means to have effects is said before it reads what others wrote. Pure.

The model says it by the built-in `declare_plan`; the guard asks a person about each effect that was not announced. A plan that is
made after untrusted text was read is nobody's but perhaps that text's, so it is refused.
"""

from __future__ import annotations

import msgspec

from stanchion.core.bundle import FIND_TOOLS, Bundle
from stanchion.core.state import State
from stanchion.guard.evidence import Evidence


def declared(state: State, bundle: Bundle, evidence: Evidence, arguments: bytes) -> tuple[str, ...] | str:
    """Give the tools that a plan announces, or say why it is not taken."""
    wanted: list[str] = msgspec.json.decode(arguments)["tools"]
    if evidence.of(state).untrusted:
        return (
            "Not taken: text of others was read in this session, and a plan must come before that. "
            "Go on: a person is asked about each effect that was not announced."
        )
    effects = {spec.name for spec in bundle.tools if spec.effect != "read"}
    if unknown := [name for name in wanted if bundle.tool(name) is None]:
        shown = [spec.name for spec in bundle.shown if spec.name in effects]
        other = "" if len(shown) == len(effects) else f"; others are found with {FIND_TOOLS}"
        said = f"{', '.join(shown) or 'none'}{other}"
        return f"Not taken: there is no tool {unknown[0][:64]!r}. Tools with an effect: {said}."
    return tuple(sorted({name for name in wanted if name in effects}))


def confirmation(plan: tuple[str, ...]) -> str:
    """Tell the model what its plan is."""
    return f"Taken. Effects of this run: {', '.join(plan) or 'none'}. A person is asked about any other."
