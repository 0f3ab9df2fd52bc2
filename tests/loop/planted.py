"""A long session with facts planted in it: several hundred turns of a shop's desk, alike enough that one fact is easily taken for another.

Each customer orders several things and each thing is ordered by several customers, so that neither a name nor a thing tells which order is
meant. All that is said is made from the number of the run: the same session every time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec

FIRST = ("Nora", "Max", "Ida", "Paul", "Lena", "Omar", "Ruth", "Igor", "Mina", "Carl", "Tess", "Hugo")
LAST = ("Lind", "Weber", "Okafor", "Moreau", "Sato", "Novak", "Haas", "Costa")
THINGS = (
    "espresso machine", "desk lamp", "rain jacket", "bike trailer", "garden hose", "bread knife", "yoga mat", "phone charger",
    "wall clock", "camping stove", "office chair", "water filter", "hair dryer", "sewing machine", "picture frame", "tool box",
)  # fmt: skip
CARRIERS = ("Nordpost", "Speedy", "Blueline")
NOISE = (
    "The customer asked about the order and the tracking of the parcel. Refunds are paid within the usual time. The date of the order, "
    "the amount and the number stand in the invoice. Please note that a code may be needed at the door. It was decided to wait. "
)
REASONS = ("arrived with a crack in it", "came in the wrong colour", "never arrived", "stopped working after a week")


@dataclass(frozen=True)
class Fact:
    """Something to be known later: what is asked, and what must be in the answer."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Visit:
    """A run of the session: what the user says, what the tool finds, what is done, what the model answers."""

    user: str
    order: str
    """As the tool gives it: JSON."""
    refund: str
    """Arguments of a refund that is made, or ""."""
    answer: str
    facts: tuple[Fact, ...]
    kept: tuple[str, ...]
    """What is declared as to be kept."""


def visits(count: int, seed: int = 7) -> list[Visit]:
    """Make a session."""
    chance = random.Random(seed)
    pairs = [(f"{first} {last}", thing) for first in FIRST for last in LAST for thing in THINGS]
    chance.shuffle(pairs)
    return [_visit(number, who, thing, chance) for number, (who, thing) in enumerate(pairs[:count])]


def _visit(number: int, who: str, thing: str, chance: random.Random) -> Visit:
    order_id, case = f"ORD-{chance.randrange(100_000, 999_999)}", f"CASE-{4_000 + 7 * number}"
    total = f"{chance.randrange(20, 900)}.{chance.randrange(100):02}"
    day = f"2026-{chance.randrange(1, 12):02}-{chance.randrange(1, 28):02}"
    track = f"{chance.choice('ABCDEFGH')}{chance.choice('KLMNPQ')}{chance.randrange(10**8, 10**9)}"
    mail = f"{who.split(maxsplit=1)[0].lower()}.{chance.randrange(10, 99)}@{who.split()[1].lower()}.example"
    door, reason = str(chance.randrange(1_000, 9_999)), chance.choice(REASONS)
    order = {
        "order_id": order_id, "customer": who, "item": thing, "total": f"${total}", "ordered_on": day,
        "carrier": chance.choice(CARRIERS), "tracking": track, "email": mail, "remarks": NOISE * 3,
    }  # fmt: skip
    refunded = number % 3 == 0
    cents = round(float(total) * 100 * chance.choice((0.25, 0.5, 0.75)))
    decision = chance.choice(("send a replacement", "wait for the carrier", "offer a voucher", "close the matter"))
    user = f"{who} writes again ({case}): the {thing} {reason}. The door code for {who} is {door} this time, about the {thing}. {NOISE}"
    answer = f"For the {thing} of {who} it was decided to {decision}. {NOISE}"
    facts = [
        Fact("id", f"What is the order number of the {thing} that {who} ordered?", order_id),
        Fact("id", f"Which tracking number has {who}'s {thing}?", track),
        Fact("amount", f"How much did {who} pay for the {thing}?", f"${total}"),
        Fact("date", f"On which day did {who} order the {thing}?", day),
        Fact("address", f"What is the e-mail address of {who} on the order of the {thing}?", mail),
        Fact("id", f"What was the door code of {who} when it was about the {thing}?", door),
        Fact("decision", f"What was decided about the {thing} of {who}?", f"{who} it was decided to {decision}"),
        Fact("decision", f"What was wrong with the {thing} of {who}?", reason),
    ]
    refund = msgspec.json.encode({"order_id": order_id, "cents": cents}).decode() if refunded else ""
    if refunded:
        facts.append(Fact("amount", f"How many cents were refunded for order {order_id}?", str(cents)))
    return Visit(user, msgspec.json.encode(order).decode(), refund, answer, tuple(facts), (order_id, case))
