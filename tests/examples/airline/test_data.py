"""The airline we make up: the same for the same seed, of the form the tools need, and fit for the demonstration."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.airline import data, domain
from examples.airline.store import AirlineDb


def test_the_same_seed_makes_the_same_airline(tmp_path: Path) -> None:
    """Equal documents and equal databases; another seed makes another."""
    assert data.make_document(3) == data.make_document(3)
    assert data.make_document(3) != data.make_document(4)
    first, second = (AirlineDb.create(tmp_path / f"{n}.db", data.make_document(3)) for n in range(2))
    assert first.fingerprint() == second.fingerprint()


def test_every_reservation_belongs_to_a_user_and_is_paid() -> None:
    """Records refer to one another as the booking system would have them."""
    document = data.make_document()
    assert len(document["users"]) == data.USERS + 1
    for code, reservation in document["reservations"].items():
        user = document["users"][reservation["user_id"]]
        assert code in user["reservations"]
        assert reservation["created_at"][:10] <= min(leg["date"] for leg in reservation["flights"])
        assert {payment["payment_id"] for payment in reservation["payment_history"]} <= set(user["payment_methods"])


def test_the_demonstration_finds_its_reservations(tmp_path: Path) -> None:
    """Nora's business trip is in the future, and there are direct and onestop flights to be found."""
    db = data.ensure(tmp_path / "new" / "airline.db")
    with db.reading() as desk:
        trip = domain.reservation_details(desk, data.DEMO_BUSINESS)
        assert trip["cabin"] == "business"
        assert trip["flights"][0]["date"] > "2024-05-15"
        assert domain.direct_flights(desk, "DEN", "SEA", "2024-05-22")
        assert any(domain.onestop_flights(desk, "JFK", end, "2024-05-22") for end in ("SEA", "SFO", "BOS", "MIA"))
    assert data.ensure(db.path).fingerprint() == db.fingerprint()


def test_the_command_writes_a_database_and_says_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path works at once; one that cannot be written is said so."""
    assert data.main([str(tmp_path / "a.db")]) == 0
    assert data.DEMO_USER in capsys.readouterr().out
    assert AirlineDb(tmp_path / "a.db").fingerprint()
    assert data.main([str(tmp_path / "no" / "a.db")]) == 2
    assert "cannot write" in capsys.readouterr().err
