"""The rules of the booking system: what each operation checks, changes and returns.

The system trusts its agents: who may cancel, change or be compensated is in `policy.md` and is not checked here. What is
checked is what would make a record wrong: unknown things, seats, sums, balances. An operation that raises `Refused` has
changed nothing. Seats are not taken at booking: the timetable follows with a delay and belongs to another system.
Nothing here knows the database file, the model or the runtime; the clock is `NOW`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import cast

from examples.airline.records import (
    Dollars,
    FlightChoice,
    FlightDay,
    FlightRecord,
    LegRecord,
    Offer,
    Passenger,
    PassengerRecord,
    Payment,
    PaymentMethod,
    PaymentRecord,
    Reservation,
    User,
)
from examples.airline.store import Desk

NOW = "2024-05-15T15:00:00"  # the airline's clock stands still, so that a conversation can be run again
BAG_PRICE = 50
INSURANCE_PRICE = 30
FIRST_RESERVATION_ID = "HATHAT"
FIRST_CERTIFICATE = 3221322


class Refused(Exception):
    """The booking system refused; nothing was changed. The message says what was wrong."""


# Reading


def user_details(desk: Desk, user_id: str) -> User:
    user = desk.user(user_id)
    if user is None:
        raise Refused("user not found")
    return user


def reservation_details(desk: Desk, reservation_id: str) -> Reservation:
    reservation = desk.reservation(reservation_id)
    if reservation is None:
        raise Refused("reservation not found")
    return reservation


def direct_flights(desk: Desk, origin: str, destination: str, date: str) -> list[Offer]:
    """Find the flights between two airports that can be booked on a date."""
    flights = desk.flights(origin=origin, destination=destination)
    return [offer for flight in flights if (offer := _offer(desk, flight, date)) is not None]


def onestop_flights(desk: Desk, origin: str, destination: str, date: str) -> list[list[Offer]]:
    """Find the pairs of flights over one airport, the first on `date`, both of which can be booked."""
    return list(_connections(desk, origin, destination, date))


def _connections(desk: Desk, origin: str, destination: str, date: str) -> Iterator[list[Offer]]:
    for first in desk.flights(origin=origin):
        first_offer = _offer(desk, first, date)
        if first_offer is None:
            continue
        arrives = first["scheduled_arrival_time_est"]
        second_date = _next_day(date) if "+1" in arrives else date
        for second in desk.flights(origin=first["destination"], destination=destination):
            # Compared as text, as the recorded system does: "01:30:00+1" is before "02:00:00".
            if arrives <= second["scheduled_departure_time_est"] and _offer(desk, second, second_date) is not None:
                yield [{**first_offer, "date": date}, {**_shown(desk, second, date, second_date), "date": second_date}]


def _shown(desk: Desk, second: FlightRecord, first_date: str, second_date: str) -> Offer:
    """Show the second flight of a connection with the seats and prices of the *first* date.

    That is a flaw of the recorded system in connections over midnight (5 recorded results say so); a booking charges
    the right date's price. It is kept, since the recordings are what these tools are measured by.
    """
    day = desk.flight_day(second["flight_number"], first_date) or desk.flight_day(second["flight_number"], second_date)
    return cast(Offer, {**second, **(day or {})})


def _next_day(date: str) -> str:
    month, day = date[:-2], date[-2:]
    return f"{month}{int(day) + 1:02d}" if day.isdigit() else date


def _offer(desk: Desk, flight: FlightRecord, date: str) -> Offer | None:
    day = desk.flight_day(flight["flight_number"], date)
    if day is None or day["status"] != "available":
        return None
    return cast(Offer, {**flight, **day})


# Writing


@dataclass(frozen=True, slots=True)
class Booking:
    """What a new reservation is made of."""

    user_id: str
    origin: str
    destination: str
    flight_type: str
    cabin: str
    flights: Sequence[FlightChoice]
    passengers: Sequence[Passenger]
    payments: Sequence[Payment]
    total_baggages: int
    nonfree_baggages: int
    insurance: str


def book(desk: Desk, booking: Booking) -> Reservation:
    """Make a reservation and take the payments; certificates are used up whole, credit cards are charged elsewhere."""
    user = user_details(desk, booking.user_id)
    legs = [_leg(desk, choice, booking.cabin, len(booking.passengers)) for choice in booking.flights]
    price = sum(leg["price"] for leg in legs) * len(booking.passengers)
    price += INSURANCE_PRICE * len(booking.passengers) if booking.insurance == "yes" else 0
    price += BAG_PRICE * booking.nonfree_baggages
    _check_payments(user, booking.payments, price)
    for payment in booking.payments:
        _take(user, payment)
    reservation: Reservation = {
        "reservation_id": _free_reservation_id(desk),
        "user_id": booking.user_id,
        "origin": booking.origin,
        "destination": booking.destination,
        "flight_type": booking.flight_type,
        "cabin": booking.cabin,
        "flights": legs,
        "passengers": _passenger_records(booking.passengers),
        "payment_history": [cast(PaymentRecord, asdict(payment)) for payment in booking.payments],
        "created_at": NOW,
        "total_baggages": booking.total_baggages,
        "nonfree_baggages": booking.nonfree_baggages,
        "insurance": booking.insurance,
    }
    user["reservations"].append(reservation["reservation_id"])
    desk.save_user(booking.user_id, user)
    desk.save_reservation(reservation)
    return reservation


def cancel(desk: Desk, reservation_id: str) -> Reservation:
    """Cancel a whole reservation. Every payment is booked back; the money itself arrives days later."""
    reservation = reservation_details(desk, reservation_id)
    paid = reservation["payment_history"]
    refunds: list[PaymentRecord] = [{"payment_id": p["payment_id"], "amount": -p["amount"]} for p in paid]
    reservation["payment_history"] = paid + refunds
    reservation["status"] = "cancelled"
    desk.save_reservation(reservation)
    return reservation


def change_flights(
    desk: Desk, reservation_id: str, cabin: str, flights: Sequence[FlightChoice], payment_id: str
) -> Reservation:
    """Replace all flights of a reservation; the difference in price is charged or, if negative, given back.

    A flight kept in the cabin of the reservation keeps the price paid. The reservation goes on naming the cabin it was
    booked in, as the recorded system does.
    """
    reservation = reservation_details(desk, reservation_id)
    travellers = len(reservation["passengers"])
    kept = {(leg["flight_number"], leg["date"]): leg for leg in reversed(reservation["flights"])}
    if cabin != reservation["cabin"]:
        kept = {}
    legs = [_kept_leg(kept, choice) or _leg(desk, choice, cabin, travellers) for choice in flights]
    old_price = sum(leg["price"] for leg in reservation["flights"])
    difference = (sum(leg["price"] for leg in legs) - old_price) * travellers
    _charge_change(desk, reservation, payment_id, difference)
    reservation["flights"] = legs
    desk.save_reservation(reservation)
    return reservation


def change_baggages(
    desk: Desk, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
) -> Reservation:
    """Set the number of bags; each paid bag more than before is charged, none is given back."""
    reservation = reservation_details(desk, reservation_id)
    added = max(0, nonfree_baggages - reservation["nonfree_baggages"])
    _charge_change(desk, reservation, payment_id, BAG_PRICE * added)
    reservation["total_baggages"] = total_baggages
    reservation["nonfree_baggages"] = nonfree_baggages
    desk.save_reservation(reservation)
    return reservation


def change_passengers(desk: Desk, reservation_id: str, passengers: Sequence[Passenger]) -> Reservation:
    """Replace the passengers by as many others."""
    reservation = reservation_details(desk, reservation_id)
    if len(passengers) != len(reservation["passengers"]):
        raise Refused("number of passengers does not match")
    reservation["passengers"] = _passenger_records(passengers)
    desk.save_reservation(reservation)
    return reservation


def give_certificate(desk: Desk, user_id: str, amount: Dollars) -> str:
    """Add a travel certificate to the user's payment methods and return its id."""
    user = user_details(desk, user_id)
    methods = user["payment_methods"]
    names = (f"certificate_{number}" for number in count(FIRST_CERTIFICATE))
    certificate = next(name for name in names if name not in methods)
    methods[certificate] = {"source": "certificate", "amount": amount, "id": certificate}
    desk.save_user(user_id, user)
    return certificate


def _leg(desk: Desk, choice: FlightChoice, cabin: str, travellers: int) -> LegRecord:
    flight = desk.flight(choice.flight_number)
    if flight is None:
        raise Refused(f"flight {choice.flight_number} not found")
    day = desk.flight_day(choice.flight_number, choice.date)
    if day is None:
        raise Refused(f"flight {choice.flight_number} not found on date {choice.date}")
    return {
        "flight_number": choice.flight_number,
        "date": choice.date,
        "price": _price(day, choice, cabin, travellers),
        "origin": flight["origin"],
        "destination": flight["destination"],
    }


def _price(day: FlightDay, choice: FlightChoice, cabin: str, travellers: int) -> Dollars:
    seats, prices = day.get("available_seats"), day.get("prices")
    if day["status"] != "available" or seats is None or prices is None:
        raise Refused(f"flight {choice.flight_number} not available on date {choice.date}")
    if cabin not in seats or cabin not in prices:
        raise Refused(f"no cabin {cabin!r} on flight {choice.flight_number}")
    if seats[cabin] < travellers:
        raise Refused(f"not enough seats on flight {choice.flight_number}")
    return prices[cabin]


def _kept_leg(kept: dict[tuple[str, str], LegRecord], choice: FlightChoice) -> LegRecord | None:
    return kept.get((choice.flight_number, choice.date))


def _check_payments(user: User, payments: Sequence[Payment], price: Dollars) -> None:
    for payment in payments:
        method = user["payment_methods"].get(payment.payment_id)
        if method is None:
            raise Refused(f"payment method {payment.payment_id} not found")
        if method["source"] != "credit_card" and _balance(method) < payment.amount:
            raise Refused(f"not enough balance in payment method {payment.payment_id}")
    paid = sum(payment.amount for payment in payments)
    if paid != price:
        raise Refused(f"payment amount does not add up, total price is {price}, but paid {paid}")


def _take(user: User, payment: Payment) -> None:
    method = user["payment_methods"].get(payment.payment_id)
    if method is None:
        raise Refused(f"certificate {payment.payment_id} can be used only once")
    if method["source"] == "gift_card":
        method["amount"] = _balance(method) - payment.amount
    elif method["source"] == "certificate":
        del user["payment_methods"][payment.payment_id]


def _charge_change(desk: Desk, reservation: Reservation, payment_id: str, amount: Dollars) -> None:
    user = user_details(desk, reservation["user_id"])
    method = user["payment_methods"].get(payment_id)
    if method is None:
        raise Refused("payment method not found")
    if method["source"] == "certificate":
        raise Refused("certificate cannot be used to update reservation")
    if method["source"] == "gift_card":
        if _balance(method) < amount:
            raise Refused("gift card balance is not enough")
        method["amount"] = _balance(method) - amount
        desk.save_user(reservation["user_id"], user)
    if amount != 0:
        reservation["payment_history"].append({"payment_id": payment_id, "amount": amount})


def _balance(method: PaymentMethod) -> Dollars:
    return method.get("amount", 0)


def _passenger_records(passengers: Sequence[Passenger]) -> list[PassengerRecord]:
    return [cast(PassengerRecord, asdict(passenger)) for passenger in passengers]


def _free_reservation_id(desk: Desk) -> str:
    code = FIRST_RESERVATION_ID
    while desk.reservation(code) is not None:
        code = _following(code)
    return code


def _following(code: str) -> str:
    """Count up in letters: HATHAT, HATHAU, .. HATHAZ, HATHBA."""
    head, last = code[:-1], code[-1]
    return head + chr(ord(last) + 1) if last != "Z" else _following(head or "A") + "A"
