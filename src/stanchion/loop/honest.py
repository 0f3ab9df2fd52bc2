"""What a run says of itself where it cannot go on: what was missing, what was done, what is not known. In plain words, and pure."""

from __future__ import annotations

from stanchion.core.bundle import Bundle
from stanchion.core.message import RUNTIME, Text
from stanchion.core.state import State

WORDS = {
    "breaker_open": "its last calls failed, so it was left alone",
    "connect": "could not be reached",
    "timeout_connect": "could not be reached",
    "timeout_first_byte": "did not answer in time",
    "timeout_idle": "stopped in the middle of an answer",
    "timeout_total": "did not answer in time",
    "cut": "broke off in the middle of an answer",
    "early_end": "broke off in the middle of an answer",
    "rate_limited": "had no room for this call",
    "overloaded": "was overloaded",
    "server_error": "failed on its side",
    "quota": "its account is used up",
    "auth": "did not accept the key",
    "budget": "there was no money left for it",
    "limit": "what was left of the run's limits did not suffice",
    "tool_timeout": "did not answer in time",
    "tool_unreachable": "could not be reached",
    "tool_cut": "broke off",
    "tool_busy": "had no room for this call",
}


def lacking(state: State, what: str) -> tuple[str, ...]:
    """Add to what a run had to do without."""
    return state.degraded if what in state.degraded else (*state.degraded, what)


def missing(state: State, bundle: Bundle) -> str:
    """Name a tool without which a run has no use and which is not to be had, or ""."""
    essential = {spec.name for spec in bundle.tools if spec.essential}
    down = (entry.split(":")[1] for entry in state.degraded if entry.startswith("tool:")) if essential else ()
    return next((name for name in down if name in essential), "")


def told(state: State, bundle: Bundle) -> Text:
    """Say why a run ends without an answer, and what became of what it did."""
    effects = {spec.name for spec in bundle.tools if spec.effect != "read"}
    said = [bundle.fallback_message or "This could not be finished."]
    said += [f"{sentence(entry)}." for entry in state.degraded]
    if done := [tool for _, tool in state.done if tool in effects]:
        said.append(f"Done before that: {', '.join(dict.fromkeys(done))}.")
    else:
        said.append("Nothing was changed.")
    if state.doubtful:
        said.append(f"Of {len(state.doubtful)} action(s) it is not known whether they were done.")
    if state.best:
        said.append("What was said before that stands above; it may not be the whole answer.")
    return Text(("\n\n" if state.best else "") + " ".join(said), RUNTIME)


def sentence(entry: str) -> str:
    """Say an entry of `RunFinished.degraded` in words."""
    kind, _, rest = entry.partition(":")
    name, _, code = rest.rpartition(":")
    why = WORDS.get(code, f"failed ({code})")
    return f"The {kind} {name}: {why}"
