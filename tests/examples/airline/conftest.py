"""A small airline of our own for every test, and the recorded data where it is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from examples.airline.store import AirlineDb

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def _day(status: str, price: int, seats: int = 5) -> dict[str, Any]:
    if status != "available":
        return {"status": status}
    prices = {"basic_economy": price, "economy": 2 * price, "business": 4 * price}
    return {"status": status, "available_seats": dict.fromkeys(prices, seats), "prices": prices}


def _flight(number: str, origin: str, destination: str, departs: str, arrives: str, price: int) -> dict[str, Any]:
    days = {"2024-05-15": _day("on time", 0), "2024-05-20": _day("available", price)}
    return {
        "flight_number": number,
        "origin": origin,
        "destination": destination,
        "scheduled_departure_time_est": departs,
        "scheduled_arrival_time_est": arrives,
        "dates": {**days, "2024-05-21": _day("available", price + 1, seats=1)},
    }


@pytest.fixture
def airline_document() -> dict[str, Any]:
    """One user, one reservation of two passengers, flights JFK-SEA direct and over ATL (one over midnight)."""
    flights = [
        _flight("TST001", "JFK", "SEA", "06:00:00", "12:00:00", 100),
        _flight("TST002", "JFK", "ATL", "07:00:00", "09:00:00", 40),
        _flight("TST003", "ATL", "SEA", "10:00:00", "15:00:00", 50),
        _flight("TST004", "JFK", "ATL", "22:00:00", "00:30:00+1", 20),
    ]
    ada, bob = ({"first_name": name, "last_name": "Moss", "dob": "1990-01-01"} for name in ("Ada", "Bob"))
    leg = {"flight_number": "TST001", "date": "2024-05-20", "price": 90, "origin": "JFK", "destination": "SEA"}
    reservation = {
        "reservation_id": "AAAAAA",
        "user_id": "ada_moss",
        "origin": "JFK",
        "destination": "SEA",
        "flight_type": "one_way",
        "cabin": "economy",
        "flights": [leg],
        "passengers": [ada, bob],
        "payment_history": [{"payment_id": "credit_card_1", "amount": 180}],
        "created_at": "2024-05-01T10:00:00",
        "total_baggages": 1,
        "nonfree_baggages": 0,
        "insurance": "no",
    }
    methods = [
        {"source": "credit_card", "brand": "visa", "last_four": "1234", "id": "credit_card_1"},
        {"source": "gift_card", "amount": 500, "id": "gift_card_2"},
        {"source": "certificate", "amount": 150, "id": "certificate_3"},
    ]
    user = {
        "name": {"first_name": "Ada", "last_name": "Moss"},
        "address": {"city": "New York"},
        "email": "ada@example.com",
        "dob": "1990-01-01",
        "payment_methods": {method["id"]: method for method in methods},
        "saved_passengers": [],
        "membership": "gold",
        "reservations": ["AAAAAA"],
    }
    return {
        "flights": {flight["flight_number"]: flight for flight in flights},
        "users": {"ada_moss": user},
        "reservations": {"AAAAAA": reservation},
    }


@pytest.fixture
def db(tmp_path: Path, airline_document: dict[str, Any]) -> AirlineDb:
    return AirlineDb.create(tmp_path / "airline.db", airline_document)


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the recorded conversations are not here (shared/data beside the repository)")
    return SHARED
