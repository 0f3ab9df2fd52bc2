"""When a schedule is due: cron expressions of five fields in a time zone, and "@every 5m".

Where clocks are set forward or back the rules are Debian cron's: what was to be at a time that is left out comes right after
the gap, what comes twice is done once; expressions with a star in minute or hour go by what the clock says.
`@every` counts from 1970 UTC, so it is the same wherever it is asked, and knows no time zone.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from stanchion.core.errors import InputError

EXAMPLE = '"0 9 * * MON-FRI": minute, hour, day of the month, month, weekday'
_EVERY = re.compile(r"@every\s+([0-9]{1,6})\s*(s|m|h|d)")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LEAST_S = 10
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = {
    "minute": (0, "minute", "0-59, like 30, 0,30 or */15"),
    "hour": (1, "hour", "0-23, like 9, 9-17 or */2"),
    "day-of-month": (2, "day of the month", "1-31, like 1, 1,15 or L for the last"),
    "month": (3, "month", "1-12 or JAN-DEC, like 1,7 or JAN-JUN"),
    "day-of-week": (4, "weekday", "0-7 or SUN-SAT, like MON-FRI, 6,0 or MON#1 for the first Monday"),
}
NextTime = Callable[[int], int]
"""Gives the first time behind another, both in milliseconds since 1970 UTC; 0: there is none in 50 years."""


def next_time(expression: str, tz: str = "UTC") -> NextTime:
    """Read an expression. Raises `InputError` (`cron`, `tz`) that names what is wrong in it and shows an example."""
    zone = _zone(tz)
    text = " ".join(expression.split())
    every = _EVERY.fullmatch(text)
    if every is not None:
        return _every(int(every[1]) * _UNIT_S[every[2]])
    if text.startswith("@") and text.lower() not in _NAMED:
        known = ", ".join(_NAMED)
        raise InputError(f"{expression!r} is none of {known} or @every 5m (s, m, h, d)", field="cron")
    fields = _NAMED.get(text.lower(), text)
    _check(fields)

    def behind(at_ms: int) -> int:
        times = CronSim(fields, datetime.fromtimestamp(at_ms // 1000, zone))
        for found in times:
            found_ms = int(found.timestamp()) * 1000
            if found_ms > at_ms:  # where an hour comes twice, the library begins again with the first of them
                return found_ms
        return 0

    if not behind(int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1000):
        raise InputError(f"{expression!r} never comes: there is no such day; an example is {EXAMPLE}", field="cron")
    return behind


def upcoming(behind: NextTime, at_ms: int, count: int) -> Sequence[int]:
    """List the next times behind a time."""
    times: list[int] = []
    while len(times) < count and (at_ms := behind(at_ms)):
        times.append(at_ms)
    return times


def _every(step_s: int) -> NextTime:
    if step_s < _LEAST_S:
        raise InputError(f"@every takes {_LEAST_S}s or more, like @every 5m", field="cron")
    step_ms = step_s * 1000
    return lambda at_ms: (at_ms // step_ms + 1) * step_ms


def _check(fields: str) -> None:
    parts = fields.split()
    if len(parts) != 5:
        raise InputError(f"{fields!r} has {len(parts)} fields and needs five; an example is {EXAMPLE}", field="cron")
    try:
        CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        place, name, allowed = _FIELDS.get(str(error).removeprefix("Bad "), (0, "", ""))
        if not name:
            raise InputError(
                f"{fields!r} is no cron expression ({error}); an example is {EXAMPLE}", field="cron"
            ) from None
        text = f"the {name} {parts[place]!r} is wrong: it takes {allowed}; an example is {EXAMPLE}"
        raise InputError(text, field="cron") from None


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        close = difflib.get_close_matches(name, zoneinfo.available_timezones(), 1, 0.6)
        hint = f"; did you mean {close[0]}?" if close else "; use an IANA name like Europe/Berlin or UTC"
        raise InputError(f"there is no time zone {name[:60]!r}{hint}", field="tz") from None
