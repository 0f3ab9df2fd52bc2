"""What users and adapters test with: a scripted model and a clock for agents, and the suite that every store must pass."""

from stanchion.testing.clock import FakeClock
from stanchion.testing.model import ScriptedModel, call
from stanchion.testing.store import exercise_store

__all__ = ["FakeClock", "ScriptedModel", "call", "exercise_store"]
