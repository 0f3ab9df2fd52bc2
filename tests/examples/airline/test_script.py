"""The demonstration's script: played against the real tools it holds the conversation it is meant to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.airline import data
from examples.airline.check import Bench
from examples.airline.persona import PERSONAS, Customer, Line, Persona
from stanchion.sim.exchange import Ask, AskedCall, Turn
from stanchion.sim.script import Script, load_script, play

SCRIPT = Path(data.__file__).with_name("script.json")


@pytest.fixture(scope="module")
def script() -> Script:
    return load_script(SCRIPT.read_bytes())


class Talk:
    """A conversation between a customer and the script, whose calls are made on the made-up airline."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.script = script
        self.bench = Bench(data.ensure(folder / "airline.db"))
        self.turns: list[Turn] = []
        self.called: list[str] = []

    async def say(self, text: str) -> str:
        self.turns.append(Turn("user", text))
        for _ in range(5):
            ask = Ask(wire="openai_chat", model="m", stream=False, system="", turns=tuple(self.turns), pieces=())
            said = play(self.script, ask).said
            calls = tuple(AskedCall(f"c{len(self.turns)}", call.name, call.arguments) for call in said.calls)
            self.turns.append(Turn("assistant", said.text, calls))
            for call in calls:
                self.called.append(call.name)
                result = await self.bench.call(call.name, json.loads(call.arguments))
                self.turns.append(Turn("tool", result, call_id=call.id))
            if not calls:
                return said.text
        raise AssertionError("the script calls tools without end")


async def test_a_business_trip_is_looked_up_and_cancelled_after_a_yes(script: Script, tmp_path: Path) -> None:
    """The agent looks first, asks, and cancels only on a yes; every answer says that it is simulated."""
    talk = Talk(script, tmp_path)
    asked = await talk.say(f"Hello, I am {data.DEMO_USER}. Please cancel {data.DEMO_BUSINESS}.")
    assert "388 dollars would go back to credit_card_2041001. Shall I cancel it?" in asked
    assert talk.called == ["get_reservation_details"]
    done = await talk.say(f"Yes, cancel {data.DEMO_BUSINESS}.")
    assert done.startswith(f"[simulated] Reservation {data.DEMO_BUSINESS} is cancelled.")
    assert talk.called[1:] == ["cancel_reservation"]
    assert "cancelled already" in await talk.say(f"Please cancel {data.DEMO_BUSINESS}")


@pytest.mark.parametrize(
    ("customer", "agent"),
    [
        (f"cancel {data.DEMO_BASIC} please", "By our policy I cannot cancel it"),
        (f"What is reservation {data.DEMO_BUSINESS}?", "can be cancelled"),
        ("cancel ZZZZZZ", "The booking system answered: Error: reservation not found"),
        ("Yes, cancel ZZZZZZ", "was not cancelled: Error: reservation not found"),
        ("Flights from DEN to SEA on 2024-05-22?", "leaves DEN at"),
        ("Flights from JFK to SFO on 2024-05-22?", "no direct flight"),
        (f"I am {data.DEMO_USER}", "Hello Nora. You are a silver member"),
        ("Let me talk to a human", "Transfer successful"),
        ("Thank you!", "You are welcome"),
        ("What?", "simulated provider playing a script"),
    ],
)
async def test_each_thing_to_try_has_its_answer(script: Script, tmp_path: Path, customer: str, agent: str) -> None:
    """What the default answer and the documentation offer works."""
    answer = await Talk(script, tmp_path).say(customer)
    assert agent in answer
    assert answer.startswith("[simulated]")


async def test_the_simulated_customer_and_the_script_hold_the_whole_conversation(
    script: Script, tmp_path: Path
) -> None:
    """Nora says all her lines, in an order that makes sense, and only her business trip is cancelled."""
    talk, customer = Talk(script, tmp_path), Customer(PERSONAS["cancels"])
    answers = [""]
    while (line := customer.next_line(answers[-1])) is not None:
        answers.append(await talk.say(line))
    assert talk.called == [
        "get_user_details",
        "get_reservation_details",
        "cancel_reservation",
        "get_reservation_details",
        "search_direct_flight",
    ]
    assert len(answers) == 1 + len(PERSONAS["cancels"].lines)
    assert "You are welcome" in answers[-1]


def test_a_customer_waits_for_what_a_line_answers_to() -> None:
    """A line whose condition does not hold is left out, not said too early."""
    persona = Persona("p", "", (Line("Hello"), Line("Yes", after="shall i"), Line("Bye", after="done|sorry")))
    customer = Customer(persona)
    assert customer.next_line("") == "Hello"
    assert customer.next_line("I am sorry") == "Bye"
    assert customer.next_line("What?") is None
    assert customer.next_line("SHALL I?") == "Yes"
    assert customer.next_line("SHALL I?") is None
