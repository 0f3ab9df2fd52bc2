"""The agent: its bundle is what its file says, and its database is made when it is first needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.airline import agent, data
from stanchion.core.prices import load_prices


def test_the_agent_makes_a_bundle_with_its_policy_tools_and_approvals() -> None:
    """Whatever cannot be undone waits for a person; the model is told to call one tool at a time."""
    made = agent.airline
    bundle = made.bundle(made.registry(), load_prices(), "2025-10-01")
    assert bundle.agent == "airline"
    assert "It is now 2024-05-15 15:00" in bundle.identity
    assert [rule.effect for rule in bundle.approvals] == ["irreversible"]
    assert not bundle.parallel_tool_calls
    waiting = {spec.name for spec in bundle.tools if spec.effect == "irreversible"}
    assert waiting == {"book_reservation", "cancel_reservation", "send_certificate"}
    assert bundle.caps.nano_usd == 500_000_000


@pytest.mark.parametrize(
    ("environment", "model"),
    [
        ({}, agent.ANTHROPIC_MODEL),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, agent.ANTHROPIC_MODEL),
        ({"OPENAI_API_KEY": "k"}, agent.OPENAI_MODEL),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1"}, agent.OPENAI_MODEL),
        ({"AIRLINE_MODEL": "vllm:mine", "OPENAI_API_KEY": "k"}, "vllm:mine"),
    ],
)
def test_the_model_follows_the_key_that_is_set(environment: dict[str, str], model: str) -> None:
    """AIRLINE_MODEL beats the keys."""
    assert agent.choose_model(environment) == model


def test_the_database_is_made_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call makes it where AIRLINE_DB says, the next opens it."""
    monkeypatch.setenv("AIRLINE_DB", str(tmp_path / "mine.db"))
    made = agent.own_database()
    assert made.path == tmp_path / "mine.db"
    assert agent.own_database().fingerprint() == made.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.db"]
    with made.reading() as desk:
        assert desk.reservation(data.DEMO_BUSINESS)
