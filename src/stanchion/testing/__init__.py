"""What users and adapters test with: a scripted model and a clock for agents, and the suites that every store and every engine must pass."""

from stanchion.testing.clock import FakeClock
from stanchion.testing.engine import exercise_engine
from stanchion.testing.model import ScriptedModel, call
from stanchion.testing.store import exercise_store

__all__ = ["FakeClock", "ScriptedModel", "call", "exercise_engine", "exercise_store"]
