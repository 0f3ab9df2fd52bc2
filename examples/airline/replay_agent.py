"""The airline's agent as `replay.py` has it served: the same tools, policy and approvals, one database for each session.

    REPLAY_DATABASES=FOLDER REPLAY_MODEL=openai-chat:gpt-4o stanchion serve examples/airline/replay_agent.py

The database of session S is the file FOLDER/S.db, which must be there. Nothing here knows a recording. The limits are
lifted and no loop is looked for: what the recorded assistant did is done again, however often it repeats itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `examples.airline` is found however this was started

from examples.airline.agent import make_agent
from examples.airline.store import AirlineDb
from stanchion import ConfigError, Limits, LoopRules, ToolContext

PLENTY = 1000


def _setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set; `python examples/airline/replay.py --help` says what serves this agent")
    return value


def open_database(context: ToolContext) -> AirlineDb:
    """Open the database of the call's conversation."""
    return AirlineDb(FOLDER / f"{context.session}.db")


FOLDER = Path(_setting("REPLAY_DATABASES"))
airline = make_agent(
    model=_setting("REPLAY_MODEL"),
    database=open_database,
    limits=Limits(turns=PLENTY),
    loop=LoopRules(same_call=0, window_repeats=0, failures=0, calls_per_minute=0, malformed=PLENTY),
)
