"""The agent: its bundle is what its file says, and its database is made when it is first needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.airline import agent, data
from examples.airline.persona import PERSONAS, Customer, Persona
from examples.airline.store import AirlineDb
from stanchion.core.prices import load_prices
from stanchion.runtime import Runtime, RunView
from stanchion.sim import Pacing, load_script, running_sim

SCRIPT = Path(agent.__file__).with_name("script.json")


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


async def _decided(runtime: Runtime, persona: Persona, run: str) -> RunView:
    """Wait for the end of a run, deciding once on the call that waits."""
    view = await runtime.wait(run, timeout_s=20)
    if view.waiting:
        decision = "approve" if persona.approves else "reject"
        await runtime.decide(run, view.waiting[0].call, decision, by="colleague", reason=persona.reason)
        async for _ in runtime.tail(run, deltas=False):  # ends with the run
            pass
        view = await runtime.wait(run, timeout_s=20)
    assert view.status == "ended"
    return view


@pytest.mark.parametrize(
    ("name", "cancelled", "outcome"), [("cancels", [data.DEMO_BUSINESS], "done"), ("rejected", [], "escalated")]
)
async def test_the_demonstration_runs_on_the_simulated_provider(
    tmp_path: Path, name: str, cancelled: list[str], outcome: str
) -> None:
    """The customer, the script, the runtime and the tools together: what is approved is cancelled, and nothing else."""
    db, persona = data.ensure(tmp_path / "airline.db"), PERSONAS[name]
    made = agent.make_agent(model=agent.ANTHROPIC_MODEL, database=lambda: db)
    customer, session, answer, view = Customer(persona), "", "", None
    async with running_sim(load_script(SCRIPT.read_bytes()), pacing=Pacing()) as sim:
        environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim"}
        async with await Runtime.open(made, data=tmp_path / "runs.db", environment=environment) as runtime:
            while (line := customer.next_line(answer)) is not None:
                started = await runtime.start("airline", line, session=session)
                view = await _decided(runtime, persona, started.run)
                session, answer = started.session, view.text
    assert view is not None
    assert view.outcome == outcome
    assert _cancelled(db) == cancelled


def _cancelled(db: AirlineDb) -> list[str]:
    with db.reading() as desk:
        trips = (desk.reservation(code) for code in (data.DEMO_BUSINESS, data.DEMO_RETURN, data.DEMO_BASIC))
        return [trip["reservation_id"] for trip in trips if trip and trip.get("status") == "cancelled"]
