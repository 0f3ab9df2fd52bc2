"""Search by BM25: the score is the published formula's, wholes and parts are found, the order is the same every time."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.bm25 import K1, B, Index, search_once, stem, terms


def by_the_formula(documents: list[str], query: str) -> list[float]:
    """Score each text by BM25 as it is printed, without an index."""
    counted = [Counter(terms(document)) for document in documents]
    mean = sum(sum(counts.values()) for counts in counted) / len(counted)
    scores: list[float] = []
    for counts in counted:
        score = 0.0
        for term in dict.fromkeys(terms(query)):
            having = sum(term in other for other in counted)
            weight = math.log(1 + (len(counted) - having + 0.5) / (having + 0.5))
            count = counts[term]
            score += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * sum(counts.values()) / mean))
        scores.append(score)
    return scores


def test_the_scores_are_the_formulas() -> None:
    """Against texts of chance, each score agrees with the formula, and what is not found scores 0 there."""
    chance = random.Random(7)
    words = [f"w{n}" if n % 3 else f"word-{n}.x" for n in range(40)]
    documents = [" ".join(chance.choices(words, k=chance.randint(1, 60))) for _ in range(60)]
    index = Index(documents)
    for _ in range(50):
        query = " ".join(chance.choices(words, k=chance.randint(1, 6)))
        expected = by_the_formula(documents, query)
        found = index.search(query, 1000)
        assert len(found) == sum(score > 0 for score in expected)
        assert all(score == pytest.approx(expected[number]) for number, score in found)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        assert index.search(query, 3) == found[:3]


def test_fields_add_up_before_they_saturate() -> None:
    """A field of weight 3 counts as its text three times over: BM25F."""
    weighted = Index([[("cancel flight", 3.0), ("a flight", 1.0)], "something else about hotels"])
    written = Index(["cancel flight cancel flight cancel flight a flight", "something else about hotels"])
    for query in ("flight", "cancel a flight", "hotels"):
        assert weighted.search(query, 5) == written.search(query, 5)


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("Flight HAT271 leaves at 12:30", ["HAT271", "hat271", "HAT", "271", "12:30"]),
        ("Paid $1,234.50 on 2024-05-03", ["1234.50", "1,234.5", "$1234.5", "2024-05-03", "05"]),
        ("getHTTPResponse reads user_id", ["gethttpresponse", "http response", "get", "user_id", "user ids"]),
        ("Write to Jane.Doe@Example.com", ["jane.doe@example.com", "jane", "example"]),
        ("São Paulo, Ærø, naïve café", ["sao paulo", "NAIVE", "cafe"]),
        ("Policies on cancelled bookings", ["policy", "cancelling", "book", "cancels"]),
        ("取消航班的政策", ["航班", "政策"]),
        ("Отмена рейса", ["рейса", "ОТМЕНА"]),
        ("한국어 문서", ["한국어"]),
    ],
)
def test_what_a_text_is_found_by(text: str, queries: list[str]) -> None:
    """Ids, dates and amounts as wholes and by their parts; words without case, accents and endings."""
    index = Index(["something of another kind", text])
    for query in queries:
        assert [number for number, _ in index.search(query, 5)] == [1], query


def test_the_whole_goes_before_its_parts() -> None:
    """Of two texts that have the parts of an id, the one that has the id itself is first."""
    texts = ["seat 271 for the HAT and 271 for the HAT", "booked on HAT271 with luggage and a meal", "HAT272"]
    assert next(number for number, _ in Index(texts).search("HAT271", 3)) == 1


def test_equals_stand_in_their_own_order() -> None:
    """Of texts with the same score the earlier is first, however many are asked for."""
    index = Index(["same words"] * 20)
    assert [number for number, _ in index.search("same", 20)] == list(range(20))
    assert [number for number, _ in index.search("same", 4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("query", ["", "  ", "?!", "-_-", "\x00\ud800", "no such term"])
def test_a_query_that_says_nothing_finds_nothing(query: str) -> None:
    """No query is an error."""
    assert Index(["some text", "", "::"]).search(query, 5) == []
    assert Index([]).search(query, 5) == []


def test_nothing_is_asked_for() -> None:
    """A limit of 0 gives nothing."""
    assert Index(["some text"]).search("text", 0) == []


def test_long_wholes_count_by_their_parts_alone() -> None:
    """What is longer than any id, such as base64, is no term of its own."""
    assert max(len(term) for term in terms("/".join(["part"] * 100))) == 4


@pytest.mark.parametrize("word", ["string", "need", "is", "class", "status", "analysis", "process", "bring"])
def test_words_that_only_look_like_endings_stay(word: str) -> None:
    """An ending is taken off only where a word is left."""
    assert stem(word) == word


SPOKEN = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "the",
                "user",
                "users",
                "home",
                "city",
                "cities",
                "cancelled",
                "cancelling",
                "a",
                "Lisbon",
                "lisbon,",
                "$1,234.50",
                "1234.5",
                "readFile",
                "user_id",
                "a@b.example",
                "2024-05-03",
                "HAT271",
                "Café",
                "café",
                "東京駅",
                "½",
                "straße",
                "STRASSE",
                "x¨y",
                "İ",
                "___",
                "-",
                "..",
            ]
        ),
        st.text(max_size=12),
    ),
    max_size=8,
).map(" ".join)


@given(st.lists(SPOKEN, max_size=12), SPOKEN, st.integers(1, 5))
def test_a_single_search_needs_no_index(texts: list[str], query: str, limit: int) -> None:
    """It gives what an index of the same texts gives, scores included, for any texts: words in common, parts of words, accents, no words."""
    assert search_once(texts, query, limit) == Index(texts).search(query, limit)
    said = " ".join([query, *texts[:1]])
    assert search_once(texts, said, 99) == Index(texts).search(said, 99)
