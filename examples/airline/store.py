"""The airline's database: one SQLite file, read and written in short transactions.

Rules: one connection per transaction, so any thread or process may use an `AirlineDb`; a write with an idempotency key is
applied at most once, because the key and the effect are committed together; an effect that raises changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from examples.airline.records import FlightDay, FlightRecord, Reservation, User

T = TypeVar("T")
Json = dict[str, Any]

SCHEMA = """
CREATE TABLE airports (code TEXT PRIMARY KEY, city TEXT NOT NULL);
CREATE TABLE flights (
  flight_number TEXT PRIMARY KEY, origin TEXT NOT NULL, destination TEXT NOT NULL, departs TEXT NOT NULL, arrives TEXT NOT NULL
);
CREATE INDEX flights_by_route ON flights (origin, destination);
CREATE TABLE flight_days (
  flight_number TEXT NOT NULL, date TEXT NOT NULL, day TEXT NOT NULL, PRIMARY KEY (flight_number, date)
) WITHOUT ROWID;
CREATE TABLE users (user_id TEXT PRIMARY KEY, profile TEXT NOT NULL);
CREATE TABLE reservations (reservation_id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE handovers (handover INTEGER PRIMARY KEY, summary TEXT NOT NULL);
CREATE TABLE applied_keys (key TEXT PRIMARY KEY, tool TEXT NOT NULL, result TEXT NOT NULL);
"""

# The cities of the airports we know by name; a database may bring its own under "airports".
CITIES = {
    "SFO": "San Francisco",
    "JFK": "New York",
    "LAX": "Los Angeles",
    "ORD": "Chicago",
    "DFW": "Dallas",
    "DEN": "Denver",
    "SEA": "Seattle",
    "ATL": "Atlanta",
    "MIA": "Miami",
    "BOS": "Boston",
    "PHX": "Phoenix",
    "IAH": "Houston",
    "LAS": "Las Vegas",
    "MCO": "Orlando",
    "EWR": "Newark",
    "CLT": "Charlotte",
    "MSP": "Minneapolis",
    "DTW": "Detroit",
    "PHL": "Philadelphia",
    "LGA": "LaGuardia",
}


class BadDatabase(Exception):
    """This is not an airline database; the message names what is missing."""


class Desk:
    """One transaction's view of the database. Records are read and stored whole."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _one(self, query: str, *parameters: str) -> Any:
        row = self._connection.execute(query, parameters).fetchone()
        return None if row is None else json.loads(row[0])

    def user(self, user_id: str) -> User | None:
        return self._one("SELECT profile FROM users WHERE user_id = ?", user_id)

    def reservation(self, reservation_id: str) -> Reservation | None:
        return self._one("SELECT body FROM reservations WHERE reservation_id = ?", reservation_id)

    def save_user(self, user_id: str, user: User) -> None:
        query = "INSERT INTO users VALUES (?, ?) ON CONFLICT DO UPDATE SET profile = excluded.profile"
        self._connection.execute(query, (user_id, json.dumps(user)))

    def save_reservation(self, reservation: Reservation) -> None:
        query = "INSERT INTO reservations VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body"
        self._connection.execute(query, (reservation["reservation_id"], json.dumps(reservation)))

    def hand_over(self, summary: str) -> None:
        """Put a conversation in the queue of the human agents."""
        self._connection.execute("INSERT INTO handovers (summary) VALUES (?)", (summary,))

    def handovers(self) -> list[str]:
        return [row[0] for row in self._connection.execute("SELECT summary FROM handovers ORDER BY handover")]

    def flight(self, flight_number: str) -> FlightRecord | None:
        rows = self._flights("SELECT * FROM flights WHERE flight_number = ?", flight_number)
        return rows[0] if rows else None

    def flights(self, *, origin: str, destination: str | None = None) -> list[FlightRecord]:
        """List the flights from `origin` (to `destination`), in the order of the timetable."""
        if destination is None:
            return self._flights("SELECT * FROM flights WHERE origin = ? ORDER BY rowid", origin)
        query = "SELECT * FROM flights WHERE origin = ? AND destination = ? ORDER BY rowid"
        return self._flights(query, origin, destination)

    def _flights(self, query: str, *parameters: str) -> list[FlightRecord]:
        return [
            {
                "flight_number": number,
                "origin": origin,
                "destination": destination,
                "scheduled_departure_time_est": departs,
                "scheduled_arrival_time_est": arrives,
            }
            for number, origin, destination, departs, arrives in self._connection.execute(query, parameters)
        ]

    def flight_day(self, flight_number: str, date: str) -> FlightDay | None:
        return self._one("SELECT day FROM flight_days WHERE flight_number = ? AND date = ?", flight_number, date)

    def airports(self) -> dict[str, str]:
        return dict(self._connection.execute("SELECT code, city FROM airports ORDER BY rowid").fetchall())


class AirlineDb:
    """The airline's database in the file `path`, which must exist (`AirlineDb.create` makes it)."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BadDatabase(f"no airline database at {str(self.path)!r}; make one with examples/airline/data.py")

    @classmethod
    def create(cls, path: Path | str, document: object) -> AirlineDb:
        """Make the file from a document {flights, reservations, users[, airports]}; raise BadDatabase if it is not one."""
        flights, users, reservations, airports = _parts(document)
        path = Path(path)
        path.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.executescript(SCHEMA)
                connection.executemany("INSERT INTO airports VALUES (?, ?)", airports.items())
                connection.executemany("INSERT INTO flights VALUES (?, ?, ?, ?, ?)", _flight_rows(flights))
                connection.executemany("INSERT INTO flight_days VALUES (?, ?, ?)", _day_rows(flights))
                connection.executemany("INSERT INTO users VALUES (?, ?)", _json_rows(users))
                connection.executemany("INSERT INTO reservations VALUES (?, ?)", _json_rows(reservations))
        except sqlite3.Error as error:
            raise BadDatabase(f"cannot write {str(path)!r}: {error}") from None
        return cls(path)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as connection:
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Desk]:
        """Read a consistent state."""
        with self._transaction("BEGIN") as connection:
            yield Desk(connection)

    def apply(self, key: str, tool: str, effect: Callable[[Desk], T]) -> T:
        """Apply `effect` under an idempotency key; a key applied before returns its stored result and changes nothing."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            row = connection.execute("SELECT result FROM applied_keys WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return cast(T, json.loads(row[0]))
            result = effect(Desk(connection))
            connection.execute("INSERT INTO applied_keys VALUES (?, ?, ?)", (key, tool, json.dumps(result)))
            return result

    def applied(self, key: str) -> bool:
        """Say whether the effect under this key has been applied."""
        with self._transaction("BEGIN") as connection:
            return connection.execute("SELECT 1 FROM applied_keys WHERE key = ?", (key,)).fetchone() is not None

    def fingerprint(self) -> str:
        """Digest the records that can change: equal states give equal digests (1 and 1.0 differ, the order of keys does not)."""
        digest = hashlib.sha256()
        with self._transaction("BEGIN") as connection:
            for query in ("SELECT * FROM users ORDER BY 1", "SELECT * FROM reservations ORDER BY 1"):
                for name, text in connection.execute(query):
                    digest.update(json.dumps([query, name, json.loads(text)], sort_keys=True).encode())
        return digest.hexdigest()


def _parts(document: object) -> tuple[Json, Json, Json, dict[str, str]]:
    if not isinstance(document, dict):
        raise BadDatabase(
            f"a database is an object with flights, users and reservations, not {type(document).__name__}"
        )
    tables = cast(Json, document)
    for name in ("flights", "users", "reservations"):
        if not isinstance(tables.get(name), dict):
            raise BadDatabase(f"the database has no object {name!r}; it has {sorted(tables)!r}")
    for name, kind in (("flights", FlightRecord), ("users", User), ("reservations", Reservation)):
        _check_records(name, tables[name], kind.__required_keys__ | ({"dates"} if kind is FlightRecord else set()))
    used = {str(flight.get(end)) for flight in tables["flights"].values() for end in ("origin", "destination")}
    known = {code: city for code, city in CITIES.items() if code in used}
    own = tables.get("airports")
    airports = cast(dict[str, str], own) if isinstance(own, dict) else known
    return tables["flights"], tables["users"], tables["reservations"], airports


def _check_records(table: str, records: Json, fields: Set[str]) -> None:
    for name, record in records.items():
        if not isinstance(record, dict):
            raise BadDatabase(f"{table}.{name}: an object is needed, not {type(record).__name__}")
        missing = sorted(fields - record.keys())
        if missing:
            raise BadDatabase(f"{table}.{name}: {', '.join(missing)} missing")
        if "dates" in fields and not isinstance(record["dates"], dict):
            raise BadDatabase(f"{table}.{name}.dates: an object is needed, not {type(record['dates']).__name__}")


def _flight_rows(flights: Json) -> Iterator[tuple[str, ...]]:
    for number, flight in flights.items():
        departs, arrives = flight["scheduled_departure_time_est"], flight["scheduled_arrival_time_est"]
        yield number, flight["origin"], flight["destination"], departs, arrives


def _day_rows(flights: Json) -> Iterator[tuple[str, str, str]]:
    for number, flight in flights.items():
        for date, day in flight["dates"].items():
            yield number, date, json.dumps(day)


def _json_rows(records: Json) -> Iterator[tuple[str, str]]:
    for name, record in records.items():
        yield name, json.dumps(record)
