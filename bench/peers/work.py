"""What the simulated model says: the same turns for every framework.

A turn is a model call of 170 events and the tool call that it ends in; the last turn of a run has no tool call. Every word
of the text is another one, so that a client can tell what it missed and what it saw twice.
"""

from __future__ import annotations

from stanchion.sim import Pacing, Reply, ReplyCall, Rule, Script, When

EVENTS = 170
GAP_S = 0.020
FAST_GAP_S = 0.002
WORDS = 114
"""Words of seven characters, blank included: about 800 characters in a turn, of which each event carries 4 or 5."""
PROMPT = "run={} Where is the order?"
RUN = r"run=(?P<run>\S+)"


def words(turn: int) -> str:
    """Make the text of a turn."""
    return " ".join(f"t{turn % 10}w{word:03}" for word in range(WORDS)) + " "


def script(turns: int, *, gap_s: float = FAST_GAP_S, events: int = EVENTS, first_s: float = 0.0) -> Script:
    """Runs of so many turns that look something up in each but the last."""
    pacing = Pacing(events=events, interval_s=gap_s, first_s=first_s)
    rules = [_rule(turn, pacing, "lookup" if turn < turns - 1 else "") for turn in range(min(turns, 10))]
    if turns > 10:
        rules[9:] = [_rule(turns - 1, pacing, ""), _rule(None, pacing, "lookup")]
    return Script(rules=tuple(rules))


def killing() -> Script:
    """Runs that look something up, then write (without a key where their name begins with "note"), then are done."""
    pacing = Pacing(events=20, interval_s=GAP_S)
    writes = [_rule(1, pacing, tool, user=rf"run=(?P<run>{tool}\S*)") for tool in ("note", "refund")]
    return Script(rules=(_rule(0, pacing, "lookup"), *writes, _rule(None, pacing, "")))


def _rule(turn: int | None, pacing: Pacing, tool: str, user: str = RUN) -> Rule:
    calls = (ReplyCall(name=tool, arguments={"order": "${match.run}/${turn}"}),) if tool else ()
    reply = Reply(text=words(turn or 0), calls=calls, pacing=pacing)
    return Rule(when=When(user=user, after="any", turn=turn), reply=reply)
