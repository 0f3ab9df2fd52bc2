"""Make a small airline up: flights, people and reservations, the same ones for the same seed.

    python examples/airline/data.py airline.db [--seed 1]

All names and numbers are invented. The shape is the one `store.AirlineDb.create` takes. The airline's clock stands at
2024-05-15 15:00, so flights before that have landed, those of the day are under way, and later ones can be booked. Nora
Winter and her three reservations are always there: the demonstration (`customer.py`, `script.json`) is about them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `examples.airline` is found however this was started

from examples.airline.records import FlightRecord, LegRecord, PassengerRecord, PaymentMethod, Reservation, User
from examples.airline.store import AirlineDb, BadDatabase

Json = dict[str, Any]

TODAY = date(2024, 5, 15)
DATES = [TODAY + timedelta(days=offset) for offset in range(-5, 15)]
HUBS = ("ORD", "ATL", "DEN")
SPOKES = ("JFK", "SEA", "SFO", "BOS", "MIA")
USERS = 40
FIRST_NAMES = ("Ines", "Tomas", "Priya", "Otto", "Leila", "Jonas", "Maren", "Kofi", "Yuki", "Paolo", "Greta", "Samir")
LAST_NAMES = ("Falk", "Okafor", "Brandt", "Moreau", "Silva", "Tanaka", "Novak", "Rahman", "Quist", "Aldous", "Berg")
STREETS = ("Mill Lane", "Harbor Road", "Station Street", "Orchard Way")
PRICES = {"basic_economy": (50, 100), "economy": (100, 200), "business": (200, 500)}

DEMO_USER = "nora_winter_2041"
DEMO_BUSINESS = "NWBUS7"  # business: can always be cancelled
DEMO_RETURN = "NWRET8"  # business too: the way back
DEMO_BASIC = "NWBAS3"  # basic economy, bought a week ago, no insurance: cannot


def make_document(seed: int = 1) -> Json:
    """Make the document of an airline up."""
    chance = random.Random(seed)
    flights = {flight["flight_number"]: flight for flight in _flights(chance)}
    document: Json = {"flights": flights, "users": {}, "reservations": {}}
    for number in range(USERS):
        _add_user(document, chance, number)
    _add_demo(document)
    return document


def ensure(path: Path | str, seed: int = 1) -> AirlineDb:
    """Open the database, making it first where there is none: whole or not at all, whoever else makes it too."""
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = AirlineDb.create(path.with_name(f"{path.name}.{os.getpid()}.new"), make_document(seed)).path
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return AirlineDb(path)


def _flights(chance: random.Random) -> Iterator[Json]:
    """Fly each way between each hub and each spoke, and between the hubs, twice a day."""
    routes = [
        (a, b) for hub in HUBS for other in (*SPOKES, *HUBS) if hub != other for a, b in ((hub, other), (other, hub))
    ]
    for number, (origin, destination) in enumerate(sorted(set(routes)) * 2):
        departs = chance.randrange(5, 23)
        minutes = departs * 60 + 30 * chance.randrange(3, 10)
        arrives = f"{minutes // 60 % 24:02d}:{minutes % 60:02d}:00" + ("+1" if minutes >= 24 * 60 else "")
        schedule: FlightRecord = {
            "flight_number": f"STN{number + 1:03d}",
            "origin": origin,
            "destination": destination,
            "scheduled_departure_time_est": f"{departs:02d}:00:00",
            "scheduled_arrival_time_est": arrives,
        }
        yield {**schedule, "dates": {day.isoformat(): _day(chance, day, departs, minutes) for day in DATES}}


def _day(chance: random.Random, day: date, departs: int, arrives_minutes: int) -> Json:
    midnight = datetime.combine(day, datetime.min.time())
    late = timedelta(minutes=chance.randrange(0, 40))
    departure = (midnight + timedelta(hours=departs) + late).isoformat()
    arrival = (midnight + timedelta(minutes=arrives_minutes) + late).isoformat()
    if day > TODAY:
        seats = {cabin: chance.randrange(0, 20) for cabin in PRICES}
        prices = {cabin: chance.randrange(*bounds) for cabin, bounds in PRICES.items()}
        return {"status": "available", "available_seats": seats, "prices": prices}
    if chance.random() < 0.07:
        return {"status": "cancelled"}
    if day < TODAY or arrives_minutes < 14 * 60:
        return {"status": "landed", "actual_departure_time_est": departure, "actual_arrival_time_est": arrival}
    if departs < 14:
        return {"status": "flying", "actual_departure_time_est": departure, "estimated_arrival_time_est": arrival}
    status = "delayed" if late > timedelta(minutes=30) else "on time"
    return {"status": status, "estimated_departure_time_est": departure, "estimated_arrival_time_est": arrival}


def _add_user(document: Json, chance: random.Random, number: int) -> None:
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    user_id = f"{first}_{last}_{1000 + 97 * number}".lower()
    methods = [_payment_method(chance, source) for source in ("credit_card", "gift_card", "certificate")]
    user = _user(first, last, user_id, chance.choice(("regular", "silver", "gold")), methods)
    document["users"][user_id] = user
    for _ in range(chance.randrange(1, 4)):
        _add_reservation(document, chance, user_id, user)


def _user(first: str, last: str, user_id: str, membership: str, methods: list[PaymentMethod]) -> User:
    street = STREETS[len(user_id) % len(STREETS)]
    return {
        "name": {"first_name": first, "last_name": last},
        "address": {"address1": f"{len(user_id)} {street}", "city": "Denver", "country": "USA", "zip": "80014"},
        "email": f"{user_id.replace('_', '.')}@example.com",
        "dob": f"{1950 + len(user_id) * 2}-03-0{1 + len(user_id) % 9}",
        "payment_methods": {method["id"]: method for method in methods},
        "saved_passengers": [],
        "membership": membership,
        "reservations": [],
    }


def _payment_method(chance: random.Random, source: str) -> PaymentMethod:
    name = f"{source}_{chance.randrange(1000000, 9999999)}"
    if source == "credit_card":
        return {"source": source, "brand": "visa", "last_four": f"{chance.randrange(1000, 9999)}", "id": name}
    return {"source": source, "amount": 50 * chance.randrange(1, 8), "id": name}


def _add_reservation(document: Json, chance: random.Random, user_id: str, user: User) -> None:
    flight = chance.choice(list(document["flights"].values()))
    cabin = chance.choice(list(PRICES))
    day = chance.choice(DATES)
    leg = _leg(flight, day, chance.randrange(*PRICES[cabin]))
    travellers = [_passenger(*_both_names(user), user["dob"])]
    travellers += [_passenger(chance.choice(FIRST_NAMES), _both_names(user)[1], "1988-11-02")] * chance.randrange(0, 2)
    code = "".join(chance.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=6))
    latest = datetime.combine(min(day, TODAY), datetime.min.time())
    booked = latest - timedelta(minutes=chance.randrange(1, 14 * 24 * 60))
    method = next(iter(user["payment_methods"]))
    insurance = chance.choice(("yes", "no"))
    paid = (leg["price"] + (30 if insurance == "yes" else 0)) * len(travellers)
    _store(
        document,
        {
            "reservation_id": code,
            "user_id": user_id,
            "origin": flight["origin"],
            "destination": flight["destination"],
            "flight_type": "one_way",
            "cabin": cabin,
            "flights": [leg],
            "passengers": travellers,
            "payment_history": [{"payment_id": method, "amount": paid}],
            "created_at": booked.isoformat(),
            "total_baggages": chance.randrange(0, 3),
            "nonfree_baggages": 0,
            "insurance": insurance,
        },
    )


def _both_names(user: User) -> tuple[str, str]:
    return user["name"]["first_name"], user["name"]["last_name"]


def _passenger(first: str, last: str, born: str) -> PassengerRecord:
    return {"first_name": first, "last_name": last, "dob": born}


def _leg(flight: Json, day: date, price: int) -> LegRecord:
    return {
        "flight_number": flight["flight_number"],
        "date": day.isoformat(),
        "price": price,
        "origin": flight["origin"],
        "destination": flight["destination"],
    }


def _store(document: Json, reservation: Reservation) -> None:
    document["reservations"][reservation["reservation_id"]] = reservation
    document["users"][reservation["user_id"]]["reservations"].append(reservation["reservation_id"])


def _add_demo(document: Json) -> None:
    """Add Nora Winter, who is in every airline: her business trips can be cancelled, her basic economy one cannot."""
    methods: list[PaymentMethod] = [
        {"source": "credit_card", "brand": "visa", "last_four": "4410", "id": "credit_card_2041001"},
        {"source": "gift_card", "amount": 120, "id": "gift_card_2041002"},
    ]
    document["users"][DEMO_USER] = _user("Nora", "Winter", DEMO_USER, "silver", methods)
    traveller = _passenger("Nora", "Winter", document["users"][DEMO_USER]["dob"])
    routes = {(flight["origin"], flight["destination"]): flight for flight in document["flights"].values()}
    trips = (
        (DEMO_BUSINESS, "business", "DEN", "SEA", 388),
        (DEMO_RETURN, "business", "SEA", "DEN", 412),
        (DEMO_BASIC, "basic_economy", "SEA", "ORD", 74),
    )
    for code, cabin, origin, destination, price in trips:
        leg = _leg(cast(Json, routes[origin, destination]), TODAY + timedelta(days=7), price)
        _store(
            document,
            {
                "reservation_id": code,
                "user_id": DEMO_USER,
                "origin": origin,
                "destination": destination,
                "flight_type": "one_way",
                "cabin": cabin,
                "flights": [leg],
                "passengers": [traveller],
                "payment_history": [{"payment_id": "credit_card_2041001", "amount": price}],
                "created_at": "2024-05-08T10:12:00",
                "total_baggages": 1,
                "nonfree_baggages": 0,
                "insurance": "no",
            },
        )


def main(argv: list[str] | None = None) -> int:
    """Write the database; 2 when it cannot be written."""
    parser = argparse.ArgumentParser(description="Make the database of a small, invented airline.")
    parser.add_argument("path", help="the SQLite file to write; an existing one is replaced")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes another airline")
    options = parser.parse_args(argv)
    document = make_document(options.seed)
    try:
        AirlineDb.create(options.path, document)
    except (BadDatabase, OSError) as error:
        print(f"data: {error}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{len(document[table])} {table}" for table in document)
    print(f"{options.path}: {counts}; try {DEMO_USER} and {DEMO_BUSINESS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
