"""What people demand, and what they name, is found in the languages that they write in."""

from __future__ import annotations

import pytest

from stanchion.context.wording import DEMAND, sentences, values

DEMANDS = [
    "It must not cost more than before.",
    "Das Hotel darf höchstens 120 Euro kosten.",
    "Bitte unter 500 Euro bleiben.",
    "Il ne faut jamais appeler mon bureau.",
    "No me llames nunca antes de las nueve.",
    "Tem de ser no máximo duas malas.",
    "Non più di due scali, per favore.",
    "Bel me nooit op mijn werk.",
    "Najpóźniej w piątek.",
    "Koridor koltuğu mutlaka olsun.",
    "Не раньше девяти утра.",
    "الفندق فقط مع الإفطار",
    "预算不超过五千元",
    "必ず窓側の席にしてください",
    "창가 자리는 절대 싫어요",
]
PLAIN = [
    "Where is my order?",
    "Wo ist meine Bestellung?",
    "Je cherche un vol pour Lyon.",
    "Quiero cambiar mi vuelo.",
    "Queria saber onde está.",
    "Vorrei cambiare il volo.",
    "Waar is mijn bestelling?",
    "Gdzie jest moja przesyłka?",
    "Siparişim nerede?",
    "Где мой заказ?",
    "我的订单在哪里？",
    "注文はどこですか",
    "제 주문은 어디에 있나요?",
    "The musty minimalist is here nevertheless.",
]


@pytest.mark.parametrize("text", DEMANDS)
def test_a_demand_is_found(text: str) -> None:
    """By its words."""
    assert DEMAND.search(text)


@pytest.mark.parametrize("text", PLAIN)
def test_a_question_is_no_demand(text: str) -> None:
    """Whole words count, where there are any."""
    assert DEMAND.search(text) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Order HAT271 of May 5, 2026 was $1,234.50", ["HAT271", "May 5, 2026", "$1,234.50"]),
        ("Bestellung HAT271 vom 5. März 2026: 1.234,50 €", ["HAT271", "5. März 2026", "1.234,50 €"]),
        ("le 14 juillet 2026, 99 euros", ["14 juillet 2026", "99 euros"]),
        ("el 3 de agosto de 2026", ["3 de agosto de 2026"]),
        ("订单HAT271在2026-11-30之前付500元", ["HAT271", "2026-11-30", "500元"]),
        ("2026年11月30日に届く", ["2026年11月30日"]),
        ("5 мая 2026, 300₽", ["5 мая 2026", "300₽"]),
        ("write to a.b@c.example or https://c.example/x?y=1.", ["a.b@c.example", "https://c.example/x?y=1"]),
        ("the well-known reader", []),
    ],
)
def test_what_is_named_is_found(text: str, named: list[str]) -> None:
    """Addresses, amounts, dates and ids, as they are written."""
    assert values(text) == named


def test_sentences_end_where_they_end() -> None:
    """A point in an amount ends none; the marks of other scripts do."""
    assert list(sentences("It is 1.50 now.\nGood!  多少钱？我要两个。")) == [
        "It is 1.50 now.",
        "Good!",
        "多少钱？",
        "我要两个。",
    ]
