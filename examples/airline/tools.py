"""The tools of the airline's support agent: thin, each one operation of the booking system.

A refusal of the booking system reaches the model as it reads, after "Error: ". `db` is filled in by the runtime and not
seen by the model; `key` is the idempotency key of the call, under which the database applies an effect once, so a call
that may or may not have been made is safe to make again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from examples.airline import arithmetic, domain
from examples.airline.domain import Booking, Refused
from examples.airline.records import (
    Cabin,
    Dollars,
    FlightType,
    GivenFlight,
    Passenger,
    Payment,
    YesNo,
)
from examples.airline.store import AirlineDb, Desk
from stanchion import ToolError, tool
from stanchion.policy import Bound, Destination, ResultField

Record = dict[str, Any]
Customer = Annotated[str, Destination("customer")]
Reservation = Annotated[str, Destination("reservation")]
OURS = {
    "reservations.*": ResultField("reservation", trusted=True),
    "payment_methods.@": ResultField("payment", trusted=True),
}
"""What of a profile the guard may go by: ids that the airline itself gave."""


def _read(db: AirlineDb, look: Callable[[Desk], Any]) -> Any:
    try:
        with db.reading() as desk:
            return look(desk)
    except Refused as refusal:
        raise ToolError(f"Error: {refusal}") from None


def _apply(db: AirlineDb, key: str, name: str, effect: Callable[[Desk], Any]) -> Any:
    try:
        return db.apply(key, name, effect)
    except Refused as refusal:
        raise ToolError(f"Error: {refusal}") from None


@tool(effect="read", timeout_s=10, result=OURS)
def get_user_details(user_id: str, *, db: AirlineDb) -> Record:
    """Get a user's profile: name, payment methods, membership, reservations. Example: get_user_details("ada_byron_1815")."""
    return _read(db, lambda desk: domain.user_details(desk, user_id))


@tool(effect="read", timeout_s=10, result={"user_id": ResultField("customer", trusted=True)})
def get_reservation_details(reservation_id: str, *, db: AirlineDb) -> Record:
    """Get a reservation: flights, passengers, payments, bags, insurance. Example: get_reservation_details("8JX2WO")."""
    return _read(db, lambda desk: domain.reservation_details(desk, reservation_id))


@tool(effect="read", timeout_s=10)
def list_all_airports(*, db: AirlineDb) -> dict[str, str]:
    """List the airports the airline flies to, by code, with their cities."""
    return _read(db, lambda desk: desk.airports())


@tool(effect="read", timeout_s=10)
def search_direct_flight(origin: str, destination: str, date: str, *, db: AirlineDb) -> list[Record]:
    """Search for direct flights between two airports, by code, on a date. Example: ("JFK", "SEA", "2024-05-20")."""
    return _read(db, lambda desk: domain.direct_flights(desk, origin, destination, date))


@tool(effect="read", timeout_s=10)
def search_onestop_flight(origin: str, destination: str, date: str, *, db: AirlineDb) -> list[list[Record]]:
    """Search for connections over one airport between two airports, by code, starting on a date."""
    return _read(db, lambda desk: domain.onestop_flights(desk, origin, destination, date))


@tool(effect="irreversible", timeout_s=10, params={"payment_methods.*.payment_id": Destination("payment")})
def book_reservation(
    user_id: Customer,
    origin: str,
    destination: str,
    flight_type: FlightType,
    cabin: Cabin,
    flights: list[GivenFlight],
    passengers: list[Passenger],
    payment_methods: list[Payment],
    total_baggages: int,
    nonfree_baggages: int,
    insurance: YesNo,
    *,
    db: AirlineDb,
    key: str,
) -> Record:
    """Book a reservation. `flights` holds every segment, in order; the payments must add up to the total price.

    The total is the flights for all passengers, 50 dollars a bag in `nonfree_baggages`, 30 a passenger for insurance.
    """
    booking = Booking(
        user_id=user_id,
        origin=origin,
        destination=destination,
        flight_type=flight_type,
        cabin=cabin,
        flights=flights,
        passengers=passengers,
        payments=payment_methods,
        total_baggages=total_baggages,
        nonfree_baggages=nonfree_baggages,
        insurance=insurance,
    )
    return _apply(db, key, "book_reservation", lambda desk: domain.book(desk, booking))


@tool(effect="irreversible", timeout_s=10)
def cancel_reservation(reservation_id: Reservation, *, db: AirlineDb, key: str) -> Record:
    """Cancel a whole reservation and refund its payments. The API does not check whether the policy allows it."""
    return _apply(db, key, "cancel_reservation", lambda desk: domain.cancel(desk, reservation_id))


@tool(effect="write", timeout_s=10)
def update_reservation_flights(
    reservation_id: str, cabin: Cabin, flights: list[GivenFlight], payment_id: str, *, db: AirlineDb, key: str
) -> Record:
    """Change the flights or the cabin. `flights` holds every segment of the reservation, the unchanged ones too.

    `payment_id` is a credit card or gift card of the user, for the difference or the refund.
    """
    return _apply(
        db,
        key,
        "update_reservation_flights",
        lambda desk: domain.change_flights(desk, reservation_id, cabin, flights, payment_id),
    )


@tool(effect="write", timeout_s=10)
def update_reservation_baggages(
    reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str, *, db: AirlineDb, key: str
) -> Record:
    """Set the number of checked bags, all of them and those to be paid for (50 dollars for each more than before)."""
    return _apply(
        db,
        key,
        "update_reservation_baggages",
        lambda desk: domain.change_baggages(desk, reservation_id, total_baggages, nonfree_baggages, payment_id),
    )


@tool(effect="write", timeout_s=10)
def update_reservation_passengers(
    reservation_id: str, passengers: list[Passenger], *, db: AirlineDb, key: str
) -> Record:
    """Replace the passengers of a reservation by as many others."""
    return _apply(
        db,
        key,
        "update_reservation_passengers",
        lambda desk: domain.change_passengers(desk, reservation_id, passengers),
    )


@tool(effect="irreversible", timeout_s=10)
def send_certificate(user_id: Customer, amount: Annotated[Dollars, Bound("money")], *, db: AirlineDb, key: str) -> str:
    """Send a travel certificate of `amount` dollars to a user, as a compensation."""
    certificate = _apply(db, key, "send_certificate", lambda desk: domain.give_certificate(desk, user_id, amount))
    return f"Certificate {certificate} added to user {user_id} with amount {amount}."


@tool(effect="read", timeout_s=10, repeatable=True)
def calculate(expression: str) -> str:
    """Work out a sum of numbers with + - * / and brackets. Example: calculate("2 * (152 + 103)")."""
    try:
        return arithmetic.calculate(expression)
    except arithmetic.NoSum as error:
        raise ToolError(f"Error: {error}") from None


@tool(effect="read", timeout_s=10, repeatable=True)
def think(thought: str) -> str:  # noqa: ARG001 - the thought is in the journal; that is all it is for
    """Think something through before the next step. It changes nothing and gets nothing."""
    return ""


@tool(effect="write", timeout_s=10, ends_run=True)
def transfer_to_human_agents(summary: str, *, db: AirlineDb, key: str) -> str:
    """Hand the user over to a human agent, with a summary of the issue, when the policy leaves you nothing to do."""
    _apply(db, key, "transfer_to_human_agents", lambda desk: desk.hand_over(summary))
    return "Transfer successful"


TOOLS = (
    book_reservation,
    calculate,
    cancel_reservation,
    get_reservation_details,
    get_user_details,
    list_all_airports,
    search_direct_flight,
    search_onestop_flight,
    send_certificate,
    think,
    transfer_to_human_agents,
    update_reservation_baggages,
    update_reservation_flights,
    update_reservation_passengers,
)
