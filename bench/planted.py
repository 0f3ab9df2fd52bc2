"""A support task whose questions need facts: planted in a long identity and in what was said, among many that look like them. Deterministic.

The simulated model answers a question rightly only if the request holds every fact that it needs, word for word; else it says that it is
wrong, which voids the row. It does so for whatever model is asked and however the request was made.
"""

from __future__ import annotations

import random

import msgspec

from bench.floor import Task
from stanchion.sim import Reply, Rule, Script, When

RIGHT, WRONG = "Rightly", "Wrongly"
_PLACES = (
    "Brill",
    "Corva",
    "Dunmere",
    "Eskholm",
    "Farrow",
    "Gillan",
    "Harth",
    "Ivelet",
    "Jorvick",
    "Kelling",
    "Lund",
    "Marsk",
)
_THINGS = ("locker", "counter", "van", "depot", "cage", "shelf", "gate", "ramp", "belt", "office")
_WORDS = (
    "I was at home on the day and heard nobody at the door",
    "the neighbours took in a box that turned out to be somebody else's",
    "my sister says that she saw the van turn round at the end of our road",
    "it is a present, and the birthday is on Saturday",
    "the card that was left in the letter box cannot be read any more",
    "I have written twice and was told that it would be looked into",
    "the box is about as large as a bread bin and has a blue lid",
    "last year the same thing happened with a pair of boots",
    "please do not ring before nine, since the children are asleep then",
    "the gate at the back sticks, so that it must be lifted a little",
)


class Fact(msgspec.Struct, frozen=True):
    """Something that a later question is about. `turn`: when it is said, from 0 on; -1: it stands in the identity."""

    text: str
    turn: int = -1
    by: str = "identity"


class Question(msgspec.Struct, frozen=True):
    """What a routable turn asks, and by which facts it is answered."""

    text: str
    facts: tuple[Fact, ...]


def _rule(number: int) -> str:
    chance = random.Random(number)
    place, thing = chance.choice(_PLACES), chance.choice(_THINGS)
    days, cents = chance.randint(2, 28), chance.randint(100, 999)
    return (
        f"Rule {number}: what lies in {thing} {place[:2].upper()}-{number} of the {place} depot is held for {days} days, and the fee "
        f"is {cents / 100:.2f} euros."
    )


_FIRST = (_rule(137), _rule(911), _rule(1_402), _rule(618), _rule(1_777))
_SAID = (
    Fact("My parcel HAT271 is to be left with Mrs. Oduya at number twelve.", 1, "user"),
    Fact("The claim for it is booked under reference QX-4471.", 3, "assistant"),
    Fact("The second parcel, KLM058, weighs 4.7 kilograms.", 5, "user"),
    Fact("The inspector who looks into it is called Tamsin Vole.", 7, "assistant"),
)
QUESTIONS = {
    0: Question("For how long, and for what fee, as to rule 137?", (Fact(_FIRST[0]),)),
    2: Question("With whom is HAT271 to be left?", (_SAID[0],)),
    4: Question("Under which reference is the claim booked?", (_SAID[1],)),
    6: Question("What is the fee under rule 911?", (Fact(_FIRST[1]),)),
    8: Question("Remind me: where does HAT271 go, if nobody is at home?", (_SAID[0],)),
    10: Question("What does KLM058 weigh, and what is the fee under rule 1402?", (_SAID[2], Fact(_FIRST[2]))),
    12: Question("What is the name of the inspector who looks into my claim?", (_SAID[3],)),
    14: Question("How do the days of rule 618 compare with those of rule 1777?", (Fact(_FIRST[3]), Fact(_FIRST[4]))),
}
"""By turn, from 0 on: every second one, the first and the last among them."""


def identity(size: int) -> str:
    """Write an identity of so many bytes: rules that differ by their numbers, in an order that says nothing."""
    numbers = list(range(1, size // 90))
    random.Random(7).shuffle(numbers)
    needed = [int(rule.split()[1].rstrip(":")) for rule in _FIRST]
    most = [number for number in numbers if number not in needed]
    said: list[str] = []
    length = 0
    for place, number in enumerate(most):
        due = [n for at, n in enumerate(needed) if place == (at + 1) * 90]
        for each in (*due, number):
            said.append(_rule(each))
            length += len(said[-1]) + 1
        if length >= size:
            break
    return " ".join(said)[:size]


def said(task: Task, turn: int) -> str:
    """Write what the user says in a turn, as long as it takes for the input to grow evenly: a story, and what it is about in it."""
    tokens = 20 if turn == 0 else task.input(turn) - task.input(turn - 1) - task.output
    asked = [f"(ask {turn}) {QUESTIONS[turn].text}" if turn in QUESTIONS else f"(ask {turn}) See to it."]
    asked += [fact.text for fact in _SAID if (fact.turn, fact.by) == (turn, "user")]
    chance, story = random.Random(1_000 + turn), list[str]()
    while sum(map(len, (*story, *asked))) + 3 * len(story) < 4 * tokens:
        story.append(chance.choice(_WORDS).capitalize() + ".")
    story[len(story) // 2 : len(story) // 2] = asked[1:]
    whole = " ".join((*story, asked[0]))
    return whole[-4 * tokens :].rjust(4 * tokens, ".") if turn else asked[0][: 4 * tokens].ljust(4 * tokens, ".")


def script(output: int) -> Script:
    """Write what the model says: rightly where the facts are in the request, in so many tokens."""
    rules: list[Rule] = []
    for turn in range(14, -1, -1):
        facts = QUESTIONS[turn].facts if turn in QUESTIONS else ()
        told = [fact.text for fact in _SAID if (fact.turn, fact.by) == (turn, "assistant")]
        when = When(user=rf"\(ask {turn}\)", contains=tuple(fact.text for fact in facts))
        rules.append(
            Rule(when=when, reply=Reply(text=_padded(" ".join((f"{RIGHT}, as to ask {turn}.", *told)), output)))
        )
        rules.append(Rule(when=When(user=rf"\(ask {turn}\)"), reply=Reply(text=_padded(f"{WRONG}.", output))))
    return Script(rules=tuple(rules), default=Reply(text=_padded("I have looked at it.", output)))


def _padded(text: str, tokens: int) -> str:
    filler = " I have written it down and will see to the rest of it."
    return (text + filler * (4 * tokens // len(filler) + 1))[: 4 * tokens]
