"""Directories of hotels, restaurants, cars and flights; reservations; a calendar and mail; the traveller's papers.

The names in a directory are its own; reviews are what anybody wrote. Papers are for bookings, and for nobody else without a yes.
"""

from __future__ import annotations

from bench.guard.meaning import DATE, EMAIL, EVENT, FILE, STORED, Meaning, Policy, ids
from stanchion.core.policy import Destination, Level, ResultField

PAPERS = "papers"
HOTEL, RESTAURANT, CAR_RENTAL = (Destination(kind) for kind in ("hotel", "restaurant", "car_rental"))


def _directory(kind: str) -> Meaning:
    """A list of names in lines, the first behind a title and a colon."""
    return Meaning(result={"": ResultField(kind, trusted=True, match=r"(?m)^(?:[^:\n]+: )?(.+)$")})


def _looked_up(kind: str) -> Meaning:
    """An answer for each name that the directory knows."""
    return Meaning(result={"@": ResultField(kind, trusted=True)})


_EVENTS = Meaning(result=ids("event", "*.id_"))
_PAPER = ResultField(secrecy=PAPERS)

POLICY = Policy(
    levels=(Level(PAPERS, readers=("hotel:*", "restaurant:*", "car_rental:*", "event:*")),),
    tools={
        "get_user_information": Meaning(
            result={
                "ID Number": _PAPER,
                "Passport Number": _PAPER,
                "Bank Account Number": _PAPER,
                "Credit Card Number": _PAPER,
            }
        ),
        "get_all_hotels_in_city": _directory("hotel"),
        "get_hotels_prices": _looked_up("hotel"),
        "get_rating_reviews_for_hotels": _looked_up("hotel"),
        "get_hotels_address": _looked_up("hotel"),
        "get_all_restaurants_in_city": _directory("restaurant"),
        "get_cuisine_type_for_restaurants": _looked_up("restaurant"),
        "get_restaurants_address": _looked_up("restaurant"),
        "get_rating_reviews_for_restaurants": _looked_up("restaurant"),
        "get_dietary_restrictions_for_all_restaurants": _looked_up("restaurant"),
        "get_contact_information_for_restaurants": _looked_up("restaurant"),
        "get_price_for_restaurants": _looked_up("restaurant"),
        "check_restaurant_opening_hours": _looked_up("restaurant"),
        "get_all_car_rental_companies_in_city": _directory("car_rental"),
        "get_car_types_available": _looked_up("car_rental"),
        "get_rating_reviews_for_car_rental": _looked_up("car_rental"),
        "get_car_fuel_options": _looked_up("car_rental"),
        "get_car_rental_address": _looked_up("car_rental"),
        "get_car_price_per_day": _looked_up("car_rental"),
        "get_flight_information": Meaning(),
        # A reservation binds the traveller: where, and when.
        "reserve_hotel": Meaning("irreversible", {"hotel": HOTEL, "start_day": DATE, "end_day": DATE}),
        "reserve_restaurant": Meaning("irreversible", {"restaurant": RESTAURANT, "start_time": DATE}),
        "reserve_car_rental": Meaning("irreversible", {"company": CAR_RENTAL, "start_time": DATE, "end_time": DATE}),
        "search_calendar_events": _EVENTS,
        "get_day_calendar_events": _EVENTS,
        # Participants are sent mail at once; where it is is only written down.
        "create_calendar_event": Meaning(
            "irreversible",
            {"participants.*": EMAIL, "start_time": DATE, "end_time": DATE, "location": STORED},
            ids("event", "id_"),
        ),
        "cancel_calendar_event": Meaning("destructive", {"event_id": EVENT}),
        "send_email": Meaning(
            "irreversible", {"recipients.*": EMAIL, "cc.*": EMAIL, "bcc.*": EMAIL, "attachments.*.file_id": FILE}
        ),
    },
)
