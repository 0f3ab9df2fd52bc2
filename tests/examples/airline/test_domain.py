"""The rules of the booking system, one operation at a time."""

from __future__ import annotations

from typing import Any

import pytest

from examples.airline import domain
from examples.airline.domain import Booking, Refused
from examples.airline.records import FlightChoice, Passenger, Payment
from examples.airline.store import AirlineDb

ADA = Passenger("Ada", "Moss", "1990-01-01")
BOB = Passenger("Bob", "Moss", "1990-01-01")
DIRECT = FlightChoice("TST001", "2024-05-20")


def booking(**changes: Any) -> Booking:
    """A booking that is right: Ada alone, economy at 200, one paid bag, insurance: 280."""
    right = {
        "user_id": "ada_moss",
        "origin": "JFK",
        "destination": "SEA",
        "flight_type": "one_way",
        "cabin": "economy",
        "flights": [DIRECT],
        "passengers": [ADA],
        "payments": [Payment("certificate_3", 150), Payment("gift_card_2", 130)],
        "total_baggages": 4,
        "nonfree_baggages": 1,
        "insurance": "yes",
    }
    return Booking(**{**right, **changes})


def test_booking_charges_flights_bags_and_insurance_and_takes_the_payments(db: AirlineDb) -> None:
    """A gift card pays its part, a certificate is used up, the reservation is the user's, and no seat is taken."""
    made = db.apply("k", "book", lambda desk: domain.book(desk, booking()))
    assert made["reservation_id"] == "HATHAT"
    assert made["created_at"] == domain.NOW
    assert made["flights"] == [
        {"flight_number": "TST001", "date": "2024-05-20", "price": 200, "origin": "JFK", "destination": "SEA"}
    ]
    assert made["payment_history"] == [
        {"payment_id": "certificate_3", "amount": 150},
        {"payment_id": "gift_card_2", "amount": 130},
    ]
    with db.reading() as desk:
        user = domain.user_details(desk, "ada_moss")
        assert user["reservations"] == ["AAAAAA", "HATHAT"]
        assert "certificate_3" not in user["payment_methods"]
        assert user["payment_methods"]["gift_card_2"].get("amount") == 370
        assert domain.reservation_details(desk, "HATHAT") == made
        assert domain.direct_flights(desk, "JFK", "SEA", "2024-05-20")[0]["available_seats"]["economy"] == 5


def test_each_booking_has_its_own_id(db: AirlineDb) -> None:
    """Ids count up from the first free one, so that a conversation run again gets the same ones."""
    paid = [Payment("credit_card_1", 280)]
    ids = [
        db.apply(f"k{n}", "book", lambda desk: domain.book(desk, booking(payments=paid)))["reservation_id"]
        for n in range(8)
    ]
    assert ids[:3] == ["HATHAT", "HATHAU", "HATHAV"]
    assert ids[6:] == ["HATHAZ", "HATHBA"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": "nobody"}, "user not found"),
        ({"flights": [FlightChoice("TST999", "2024-05-20")]}, "flight TST999 not found"),
        ({"flights": [FlightChoice("TST001", "2025-01-01")]}, "flight TST001 not found on date 2025-01-01"),
        ({"flights": [FlightChoice("TST001", "2024-05-15")]}, "flight TST001 not available on date 2024-05-15"),
        (
            {"flights": [FlightChoice("TST001", "2024-05-21")], "passengers": [ADA, BOB]},
            "not enough seats on flight TST001",
        ),
        ({"cabin": "first"}, "no cabin 'first' on flight TST001"),
        ({"payments": [Payment("gift_card_9", 280)]}, "payment method gift_card_9 not found"),
        ({"payments": [Payment("gift_card_2", 501)]}, "not enough balance in payment method gift_card_2"),
        ({"payments": [Payment("certificate_3", 151)]}, "not enough balance in payment method certificate_3"),
        (
            {"payments": [Payment("credit_card_1", 279)]},
            "payment amount does not add up, total price is 280, but paid 279",
        ),
        (
            {"payments": [Payment("certificate_3", 140), Payment("certificate_3", 140)]},
            "certificate certificate_3 can be used only once",
        ),
    ],
)
def test_a_refused_booking_says_why_and_changes_nothing(db: AirlineDb, changes: dict[str, Any], message: str) -> None:
    """Each check has its message, and the database is as it was."""
    before = db.fingerprint()
    with pytest.raises(Refused) as refused:
        db.apply("k", "book", lambda desk: domain.book(desk, booking(**changes)))
    assert str(refused.value) == message
    assert db.fingerprint() == before
    assert not db.applied("k")


def test_cancelling_books_every_payment_back(db: AirlineDb) -> None:
    """The reservation stays, marked as cancelled, with a refund for each payment."""
    cancelled = db.apply("k", "cancel", lambda desk: domain.cancel(desk, "AAAAAA"))
    assert cancelled.get("status") == "cancelled"
    assert [payment["amount"] for payment in cancelled["payment_history"]] == [180, -180]


def test_a_kept_flight_keeps_its_price_in_the_same_cabin_only(db: AirlineDb) -> None:
    """In the same cabin there is nothing to pay; in another, the difference for all passengers."""
    same = db.apply(
        "k1", "change", lambda desk: domain.change_flights(desk, "AAAAAA", "economy", [DIRECT], "gift_card_2")
    )
    assert [leg["price"] for leg in same["flights"]] == [90]
    assert len(same["payment_history"]) == 1
    up = db.apply(
        "k2", "change", lambda desk: domain.change_flights(desk, "AAAAAA", "business", [DIRECT], "credit_card_1")
    )
    assert [leg["price"] for leg in up["flights"]] == [400]
    assert up["payment_history"][-1] == {"payment_id": "credit_card_1", "amount": 620}
    assert up["cabin"] == "economy"


def test_a_cheaper_flight_gives_money_back_to_a_gift_card(db: AirlineDb) -> None:
    """A negative difference raises the balance."""
    legs = [FlightChoice("TST002", "2024-05-20")]
    db.apply("k", "change", lambda desk: domain.change_flights(desk, "AAAAAA", "basic_economy", legs, "gift_card_2"))
    with db.reading() as desk:
        assert domain.user_details(desk, "ada_moss")["payment_methods"]["gift_card_2"].get("amount") == 600


@pytest.mark.parametrize(
    ("reservation", "cabin", "payment", "message"),
    [
        ("ZZZZZZ", "economy", "credit_card_1", "reservation not found"),
        ("AAAAAA", "business", "nothing", "payment method not found"),
        ("AAAAAA", "business", "certificate_3", "certificate cannot be used to update reservation"),
        ("AAAAAA", "business", "gift_card_2", "gift card balance is not enough"),
    ],
)
def test_a_refused_change_says_why(db: AirlineDb, reservation: str, cabin: str, payment: str, message: str) -> None:
    """Unknown reservations and payments that cannot pay are refused."""
    before = db.fingerprint()
    with pytest.raises(Refused, match=f"^{message}$"):
        db.apply("k", "change", lambda desk: domain.change_flights(desk, reservation, cabin, [DIRECT], payment))
    assert db.fingerprint() == before


def test_only_added_bags_are_charged(db: AirlineDb) -> None:
    """More paid bags cost 50 each; fewer give nothing back."""
    more = db.apply("k1", "bags", lambda desk: domain.change_baggages(desk, "AAAAAA", 4, 2, "gift_card_2"))
    assert more["payment_history"][-1] == {"payment_id": "gift_card_2", "amount": 100}
    fewer = db.apply("k2", "bags", lambda desk: domain.change_baggages(desk, "AAAAAA", 4, 1, "gift_card_2"))
    assert fewer["payment_history"] == more["payment_history"]
    assert fewer["nonfree_baggages"] == 1


def test_the_number_of_passengers_stays(db: AirlineDb) -> None:
    """Others may fly, but as many."""
    with pytest.raises(Refused, match="number of passengers does not match"):
        db.apply("k1", "who", lambda desk: domain.change_passengers(desk, "AAAAAA", [ADA]))
    changed = db.apply("k2", "who", lambda desk: domain.change_passengers(desk, "AAAAAA", [BOB, ADA]))
    assert [passenger["first_name"] for passenger in changed["passengers"]] == ["Bob", "Ada"]


def test_certificates_are_numbered_from_the_first_free_one(db: AirlineDb) -> None:
    """Two certificates for one user are two payment methods."""
    given = [db.apply(k, "give", lambda desk: domain.give_certificate(desk, "ada_moss", 50)) for k in ("k1", "k2")]
    assert given == ["certificate_3221322", "certificate_3221323"]
    with pytest.raises(Refused, match="user not found"):
        db.apply("k3", "give", lambda desk: domain.give_certificate(desk, "nobody", 50))


def test_only_flights_that_can_be_booked_are_found(db: AirlineDb) -> None:
    """A flight under way is not shown, nor one on an unknown date."""
    with db.reading() as desk:
        assert [f["flight_number"] for f in domain.direct_flights(desk, "JFK", "SEA", "2024-05-20")] == ["TST001"]
        assert domain.direct_flights(desk, "JFK", "SEA", "2024-05-15") == []
        assert domain.direct_flights(desk, "JFK", "SEA", "soon") == []


def test_connections_wait_for_the_first_flight_and_may_pass_midnight(db: AirlineDb) -> None:
    """The second flight leaves after the first lands: on the same date, or on the next after a landing past midnight."""
    with db.reading() as desk:
        found = domain.onestop_flights(desk, "JFK", "SEA", "2024-05-20")
        late = domain.onestop_flights(desk, "JFK", "SEA", "2024-05-21")
    trips = [[(offer["flight_number"], offer.get("date")) for offer in pair] for pair in found]
    assert trips == [
        [("TST002", "2024-05-20"), ("TST003", "2024-05-20")],
        [("TST004", "2024-05-20"), ("TST003", "2024-05-21")],
    ]
    assert len(late) == 1, "there is no flight on the 22nd to go on with"
