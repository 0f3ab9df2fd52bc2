"""What a simulated provider is started with."""

from __future__ import annotations

from typing import Literal

import msgspec

from stanchion.sim.faults import FaultPlan
from stanchion.sim.limits import LimitSettings
from stanchion.sim.script import Pacing, Script


class SimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where it listens and what it plays. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0
    script: Script = Script()
    pacing: Pacing | None = None
    """Token speed for all replies that set none of their own; None: the script's."""
    faults: tuple[FaultPlan, ...] = ()
    limits: LimitSettings = LimitSettings()
    """Rate limits of each key."""
    context_tokens: int = 0
    """A request with more input is refused as too long, as its provider would; 0: none is."""
    batch_s: float | None = 1.0
    """How long a batch takes; a real one takes minutes to hours. None: there is no batch API, as on most servers."""
    retention: Literal["in_memory", "24h"] = "in_memory"
    """For how long OpenAI's models before gpt-5.6 keep what is sent where a request does not say: "24h" is what organisations get whose
    data may be retained."""
    prices_on: str = ""
    """The day whose prices the bill goes by ("2026-05-01"); "": today's."""
