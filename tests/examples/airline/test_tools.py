"""The tools as the runtime sees them: what the model is shown, what each does to the world, and what a refusal reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from examples.airline import domain
from examples.airline.store import AirlineDb
from examples.airline.tools import TOOLS
from stanchion.toolbox.answer import Answer, Checked, Failure, Problem, ToolContext
from stanchion.toolbox.registry import Registry

WRITING = {
    "book_reservation",
    "cancel_reservation",
    "send_certificate",
    "transfer_to_human_agents",
    "update_reservation_baggages",
    "update_reservation_flights",
    "update_reservation_passengers",
}


@pytest.fixture
def registry(db: AirlineDb) -> Registry:
    return Registry(TOOLS, {AirlineDb: db})


async def run(registry: Registry, name: str, arguments: dict[str, Any], key: str = "k") -> Answer | Failure:
    checked = registry.check(name, json.dumps(arguments))
    assert isinstance(checked, Checked), checked
    return await registry.run(name, checked.arguments, ToolContext(key=key))


def test_whatever_writes_has_a_tier_and_a_key(registry: Registry) -> None:
    """A tool that writes the database is write tier or above and keyed, so it may be made again after a crash."""
    specs = {spec.name: spec for spec in registry.specs}
    assert {name for name, spec in specs.items() if spec.effect != "read"} == WRITING
    assert {name for name, spec in specs.items() if spec.keyed} == WRITING
    assert specs["cancel_reservation"].effect == "irreversible"
    assert specs["transfer_to_human_agents"].ends_run


def test_the_model_sees_neither_database_nor_key(registry: Registry) -> None:
    """Only what the model fills in is in the schema, and every tool says what it is for."""
    for spec in registry.specs:
        assert not {"db", "key"} & set(spec.parameters.get("properties", {})), spec.name
        assert spec.description


async def test_a_refusal_reads_as_the_booking_system_says_it(registry: Registry) -> None:
    """The model reads the message after "Error: "; nothing is in doubt."""
    refused = await run(registry, "get_user_details", {"user_id": "nobody"})
    assert refused == Failure("tool_failed", "Error: user not found")
    refused = await run(registry, "cancel_reservation", {"reservation_id": "ZZZZZZ"})
    assert refused == Failure("tool_failed", "Error: reservation not found")
    refused = await run(registry, "calculate", {"expression": "x"})
    assert refused == Failure("tool_failed", "Error: invalid characters in expression")


async def test_a_call_made_again_under_its_key_gets_the_same_answer(registry: Registry, db: AirlineDb) -> None:
    """After a crash the runtime repeats the call: the certificate is not given twice."""
    give = {"user_id": "ada_moss", "amount": 50}
    first = await run(registry, "send_certificate", give, key="one")
    assert first == Answer("Certificate certificate_3221322 added to user ada_moss with amount 50.")
    state = db.fingerprint()
    assert await run(registry, "send_certificate", give, key="one") == first
    assert db.fingerprint() == state
    assert await run(registry, "send_certificate", give, key="two") != first


async def test_a_flight_may_be_sent_back_as_a_reservation_shows_it(registry: Registry, db: AirlineDb) -> None:
    """Its origin, destination and price are not an error, and are not believed; anything else is."""
    with db.reading() as desk:
        leg = dict(domain.reservation_details(desk, "AAAAAA")["flights"][0])
    change = {"reservation_id": "AAAAAA", "cabin": "business", "payment_id": "credit_card_1"}
    changed = await run(registry, "update_reservation_flights", {**change, "flights": [{**leg, "price": 1}]})
    assert isinstance(changed, Answer)
    assert json.loads(changed.text)["flights"] == [{**leg, "price": 400}]
    wrong = registry.check("update_reservation_flights", json.dumps({**change, "flights": [{**leg, "seat": "1A"}]}))
    assert isinstance(wrong, Problem)


async def test_a_handover_is_in_the_queue_of_the_human_agents_once(registry: Registry, db: AirlineDb) -> None:
    """The summary waits for a person; the booking records are untouched."""
    before = db.fingerprint()
    for _ in range(2):
        assert await run(registry, "transfer_to_human_agents", {"summary": "lost bag"}) == Answer("Transfer successful")
    with db.reading() as desk:
        assert desk.handovers() == ["lost bag"]
    assert db.fingerprint() == before


async def test_every_read_answers(registry: Registry) -> None:
    """What cannot fail does not, and structured answers are JSON."""
    airports = await run(registry, "list_all_airports", {})
    assert airports == Answer('{"JFK":"New York","SEA":"Seattle","ATL":"Atlanta"}')
    route = {"origin": "JFK", "destination": "SEA", "date": "2024-05-20"}
    for name in ("search_direct_flight", "search_onestop_flight"):
        found = await run(registry, name, route)
        assert isinstance(found, Answer)
        assert json.loads(found.text)
    assert await run(registry, "think", {"thought": "hm"}) == Answer("")
    assert await run(registry, "calculate", {"expression": "1 + 1"}) == Answer("2.0")
