"""What the booking system keeps and returns: the records, in the shape in which they are stored as JSON.

Users, reservations and flights are TypedDicts, because they are read, shown and stored as JSON and nothing else. What a
caller gives (a flight chosen, a passenger, a payment) is a dataclass, because it is validated on its way in.
Annotations are evaluated here: the store reads from them which keys a record must have.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from pydantic import BeforeValidator

Cabin = Literal["basic_economy", "economy", "business"]
FlightType = Literal["one_way", "round_trip"]
YesNo = Literal["yes", "no"]
Dollars = int | float


@dataclass(frozen=True, slots=True)
class FlightChoice:
    """One flight on one date ("2024-05-20")."""

    flight_number: str
    date: str


def _without_leg_details(value: Any) -> Any:
    """Drop what a reservation shows of a flight beyond the choice: a model sends back whole what it was shown."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, inner in cast(dict[str, Any], value).items() if name not in LEG_DETAILS}


LEG_DETAILS = ("origin", "destination", "price")
GivenFlight = Annotated[FlightChoice, BeforeValidator(_without_leg_details)]


@dataclass(frozen=True, slots=True)
class Passenger:
    """One traveller; `dob` is the date of birth as "1990-04-05"."""

    first_name: str
    last_name: str
    dob: str


@dataclass(frozen=True, slots=True)
class Payment:
    """An amount in dollars, taken from a payment method of the user's profile."""

    payment_id: str
    amount: Dollars


class PassengerRecord(TypedDict):
    first_name: str
    last_name: str
    dob: str


class PaymentRecord(TypedDict):
    payment_id: str
    amount: Dollars


class LegRecord(TypedDict):
    flight_number: str
    date: str
    price: Dollars
    origin: str
    destination: str


class Reservation(TypedDict):
    reservation_id: str
    user_id: str
    origin: str
    destination: str
    flight_type: str
    cabin: str
    flights: list[LegRecord]
    passengers: list[PassengerRecord]
    payment_history: list[PaymentRecord]
    created_at: str
    total_baggages: int
    nonfree_baggages: int
    insurance: str
    status: NotRequired[str]


class PaymentMethod(TypedDict):
    """`amount` is there for gift cards and certificates, `brand` and `last_four` for credit cards."""

    source: str
    id: str
    amount: NotRequired[Dollars]
    brand: NotRequired[str]
    last_four: NotRequired[str]


class User(TypedDict):
    name: dict[str, str]
    address: dict[str, str]
    email: str
    dob: str
    payment_methods: dict[str, PaymentMethod]
    saved_passengers: list[PassengerRecord]
    membership: str
    reservations: list[str]


class FlightRecord(TypedDict):
    """A flight's schedule; an arrival on the next day ends with "+1" ("01:30:00+1")."""

    flight_number: str
    origin: str
    destination: str
    scheduled_departure_time_est: str
    scheduled_arrival_time_est: str


class FlightDay(TypedDict):
    """A flight on one date; seats and prices by cabin are there only while it is "available"."""

    status: str
    available_seats: NotRequired[dict[str, int]]
    prices: NotRequired[dict[str, int]]


class Offer(FlightRecord):
    """A flight that can be booked, as a search shows it; `date` is there only in a connection."""

    status: str
    available_seats: dict[str, int]
    prices: dict[str, int]
    date: NotRequired[str]
