"""When schedules are due: zones, clock changes by Debian cron's rules, and errors that name the field."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from stanchion.core.errors import InputError
from stanchion.runtime.desks.cron import next_time, upcoming


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def times(expression: str, zone: str, after: str, count: int) -> list[str]:
    found = upcoming(next_time(expression, zone), ms(after, zone), count)
    return [datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).isoformat(timespec="minutes") for at in found]


def test_a_working_days_morning_in_a_zone() -> None:
    """Nine in Berlin from Monday to Friday, over the change to summer time."""
    assert times("0 9 * * MON-FRI", "Europe/Berlin", "2026-03-26T10:00", 3) == [
        "2026-03-27T09:00+01:00",
        "2026-03-30T09:00+02:00",
        "2026-03-31T09:00+02:00",
    ]


def test_a_time_that_is_left_out_comes_right_after_the_gap() -> None:
    """In the night to summer time 02:30 does not exist: the job is done at 03:00, once."""
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_a_time_that_comes_twice_is_done_once() -> None:
    """In the night to winter time 02:30 comes twice: the job is done at the first, also asked between the two."""
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]
    between = ms("2026-10-25T02:10", "Europe/Berlin", fold=1)
    assert next_time("30 2 * * *", "Europe/Berlin")(between) == ms("2026-10-26T02:30", "Europe/Berlin")


def test_every_hour_goes_by_the_clock() -> None:
    """A star in the hour: each hour that passes, 25 on the long day and 23 on the short one."""
    for day, hours in (("2026-10-25", 25), ("2026-03-29", 23), ("2026-06-01", 24)):
        behind = next_time("0 * * * *", "Europe/Berlin")
        end = ms(day, "Europe/Berlin") + hours * 3_600_000
        found = upcoming(behind, ms(day, "Europe/Berlin") - 1, hours + 1)
        assert [at for at in found if at < end] == list(found[:-1])
        assert len(found) == hours + 1


def test_a_time_is_always_behind_the_one_before() -> None:
    """Strictly later, from any millisecond, so that no time is done twice."""
    behind = next_time("*/15 * * * *", "Europe/Berlin")
    at = ms("2026-10-25T00:00", "Europe/Berlin") + 1
    for _ in range(40):
        found = behind(at)
        assert found > at
        assert behind(found - 1) == found
        at = found


def test_every_so_often() -> None:
    """`@every` counts from 1970 UTC, wherever it is asked."""
    assert upcoming(next_time("@every 5m"), ms("2026-01-01T00:01"), 2) == [
        ms("2026-01-01T00:05"),
        ms("2026-01-01T00:10"),
    ]
    assert next_time("@every 1d")(ms("2026-01-01T00:00")) == ms("2026-01-02T00:00")
    assert next_time("@daily")(ms("2026-01-01T00:00")) == ms("2026-01-02T00:00")


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 9 * * *", "the minute '61'"),
        ("0 25 * * *", "the hour '25'"),
        ("0 9 32 * *", "the day of the month '32'"),
        ("0 9 * FOO *", "the month 'FOO'"),
        ("0 9 * * MON-FUN", "the weekday 'MON-FUN'"),
        ("0 9 * *", "4 fields"),
        ("* 0 9 * * *", "6 fields"),
        ("", "0 fields"),
        ("0 9 30 2 *", "the day of the month '30'"),
        ("@often", "none of"),
        ("@every 5x", "none of"),
        ("@every 1s", "10s or more"),
    ],
)
def test_an_error_names_the_field_and_shows_an_example(expression: str, said: str) -> None:
    """What is wrong, where, and how it is right."""
    with pytest.raises(InputError, match=said) as refused:
        next_time(expression)
    assert refused.value.field == "cron"
    assert "like" in str(refused.value) or "example" in str(refused.value) or "@every 5m" in str(refused.value)


def test_a_zone_that_there_is_not() -> None:
    """A misspelt zone names the one that was meant."""
    with pytest.raises(InputError, match="did you mean Europe/Berlin") as refused:
        next_time("0 9 * * *", "Europe/Berln")
    assert refused.value.field == "tz"
    for name in ("", "../etc/passwd", "Nowhere/Land"):
        with pytest.raises(InputError):
            next_time("0 9 * * *", name)


def test_utc_is_the_default() -> None:
    """Without a zone an expression is read in UTC."""
    assert next_time("0 9 * * *")(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1000) == ms("2026-01-01T09:00")
