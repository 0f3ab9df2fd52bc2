"""The made catalogues are what the figures say of them, and the bench's task is billed as the provider bills it."""

from __future__ import annotations

from bench.catalogue import SIZES, asked, billed, bundled, made, recall, things
from bench.catalogue_words import DEEDS
from stanchion.core.catalogue import Catalogue


def test_a_catalogue_has_many_domains_and_near_duplicates() -> None:
    """Forty of them, twelve things each; names are unique, things are not; the same each time."""
    assert len(things()) == 480
    assert len({thing.domain for thing in things()}) == 40
    assert len({thing.name for thing in things()}) == 448
    specs, of = made(SIZES[-1])
    assert len({spec.name for spec in specs}) == len(specs) == SIZES[-1] <= 480 * len(DEEDS)
    assert made(SIZES[-1])[0] == specs
    assert all(len(spec.name) <= 64 and spec.description for spec in specs)
    assert {question.tool for question in asked(specs, of, 300)} <= {spec.name for spec in specs}


def test_questions_in_the_tools_words_are_answered() -> None:
    """Else the figures are of something that is broken; how far the other forms come is a figure, and no test."""
    specs, of = made(500)
    found = recall(Catalogue(bundled(specs)), asked(specs, of, 200))
    assert found["close"][5] >= 0.97
    assert found["deed"][5] > found["far"][5]


async def test_the_task_is_billed_as_the_provider_bills_it() -> None:
    """Shown and found do the same work; what is found is far less in the first request. A row that is wrong raises."""
    rows = {
        how: await billed(120, how=how, model="anthropic:claude-sonnet-4-6") for how in ("shown", "found", "needed")
    }
    assert (rows["shown"]["first"]["calls"], rows["found"]["first"]["calls"]) == (15, 19)
    assert rows["found"]["first"]["tokens_first"] * 5 < rows["shown"]["first"]["tokens_first"]
    assert rows["needed"]["first"]["usd"] < rows["found"]["first"]["usd"] < rows["shown"]["first"]["usd"]
