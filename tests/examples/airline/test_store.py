"""The database: once per key, all or nothing, and clear words on what is no database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from examples.airline import domain
from examples.airline.store import AirlineDb, BadDatabase


def test_a_repeated_key_returns_the_first_result_and_changes_nothing(db: AirlineDb) -> None:
    """The same key is the same call, whoever makes it again."""
    first = db.apply("k", "cancel", lambda desk: domain.cancel(desk, "AAAAAA"))
    state = db.fingerprint()
    again = AirlineDb(db.path).apply("k", "cancel", lambda desk: domain.cancel(desk, "AAAAAA"))
    assert again == first
    assert db.fingerprint() == state
    assert db.applied("k")
    assert not db.applied("other")


def test_one_key_at_many_hands_is_applied_once(db: AirlineDb) -> None:
    """Eight threads make the same call at once: one certificate is given."""
    with ThreadPoolExecutor(8) as pool:
        give = [
            pool.submit(db.apply, "k", "give", lambda desk: domain.give_certificate(desk, "ada_moss", 50))
            for _ in range(8)
        ]
        given = {future.result() for future in give}
    assert given == {"certificate_3221322"}
    with db.reading() as desk:
        assert len(domain.user_details(desk, "ada_moss")["payment_methods"]) == 4


def test_an_effect_that_fails_half_way_leaves_nothing(db: AirlineDb) -> None:
    """What was written before the failure is rolled back, and the key is free."""
    before = db.fingerprint()

    def half(desk: Any) -> None:
        domain.cancel(desk, "AAAAAA")
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        db.apply("k", "half", half)
    assert db.fingerprint() == before
    assert not db.applied("k")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not list"),
        ({}, "no object 'flights'"),
        ({"flights": {}, "users": {}}, "no object 'reservations'"),
        ({"flights": {"A1": {"origin": "JFK"}}, "users": {}, "reservations": {}}, "flights.A1: dates, destination"),
        ({"flights": {"A1": 3}, "users": {}, "reservations": {}}, "flights.A1: an object is needed, not int"),
        ({"flights": {}, "users": {"ada": {}}, "reservations": {}}, "users.ada: address, dob"),
        ({"flights": {}, "users": {}, "reservations": {"R": {"user_id": "ada"}}}, "reservations.R: cabin"),
    ],
)
def test_what_is_no_database_is_named(tmp_path: Path, document: object, message: str) -> None:
    """The error says what is missing and where."""
    with pytest.raises(BadDatabase, match=message):
        AirlineDb.create(tmp_path / "a.db", document)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """Opening does not make an empty database."""
    with pytest.raises(BadDatabase, match=r"make one with examples/airline/data\.py"):
        AirlineDb(tmp_path / "none.db")
