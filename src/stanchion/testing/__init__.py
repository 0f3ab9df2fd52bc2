"""What users and adapters test with: a scripted model for agents, and the suite that every store must pass."""

from stanchion.testing.model import ScriptedModel, call
from stanchion.testing.store import exercise_store

__all__ = ["ScriptedModel", "call", "exercise_store"]
