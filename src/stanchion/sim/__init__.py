"""A simulated model provider over HTTP: the three wires at token speed, scripts, recordings, faults, an exact bill."""

from stanchion.sim.embed import SimProcess, running_sim, start_sim_process
from stanchion.sim.faults import Fault, FaultPlan
from stanchion.sim.moderations import ModerationRule
from stanchion.sim.script import Pacing, Reply, ReplyCall, Rule, Script, UsageOverride, When, load_script
from stanchion.sim.server import SimServer, serve
from stanchion.sim.settings import SimSettings

__all__ = [
    "Fault",
    "FaultPlan",
    "ModerationRule",
    "Pacing",
    "Reply",
    "ReplyCall",
    "Rule",
    "Script",
    "SimProcess",
    "SimServer",
    "SimSettings",
    "UsageOverride",
    "When",
    "load_script",
    "running_sim",
    "serve",
    "start_sim_process",
]
