"""What a simulated provider is started with."""

from __future__ import annotations

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
    prices_on: str = ""
    """The day whose prices the bill goes by ("2026-05-01"); "": today's."""
