"""The days that a text names: "May 15th", "2024-05-15", "from the 13th to the 17th of May", "next Monday", "for a week".

A day that was named grounds a date; so does one between two that were named as a span, and one that lies a named number of days
after another. The time of day within it is not looked at. Where no year is said, any year's day is meant.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_M = (
    r"(?P<m>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)\b\.?"
)
_TO = r"\s*(?:to|until|till|through|-|–)\s*(?:the\s+)?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_MONTH_FIRST = re.compile(
    rf"\b{_M}\s+(?:the\s+)?(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:{_TO}(?P<e>\d{{1,2}})(?:st|nd|rd|th)?\b(?![:\d]))?"
    r"(?:\s*,?\s*(?P<y>(?:19|20)\d\d))?"
)
_DAY_FIRST = re.compile(
    rf"\b(?:{_DAY}{_TO})?(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_M}(?:\s*,?\s*(?P<y>(?:19|20)\d\d))?"
)
_ISO = re.compile(r"\b(?P<y>(?:19|20)\d\d)[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})(?!\d)")
_LOCAL = re.compile(r"\b(?P<a>\d{1,2})[./](?P<b>\d{1,2})[./](?P<y>(?:19|20)?\d\d)\b")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY = re.compile(r"\b(" + "|".join(_WEEKDAYS) + r")s?\b")
_SPAN = re.compile(r"^\s*(?:to|until|till|through|-|–)\s*(?:the\s+)?$")
_FOR = re.compile(
    r"\b(?P<n>\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten)[\s-](?P<u>day|night|week|fortnight|month)s?\b"
)
_WORDS = {
    word: number
    for number, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
} | {"a": 1, "an": 1}  # fmt: skip
_UNIT = {"day": 1, "night": 1, "week": 7, "fortnight": 14, "month": 30}
_RELATIVE = {"today": (0, 0), "tonight": (0, 0), "tomorrow": (1, 1), "yesterday": (-1, -1), "this week": (-6, 6),
             "next week": (1, 14), "last week": (-14, -1), "weekend": (0, 13), "next month": (1, 62), "this month": (-31, 31)}  # fmt: skip

Day = tuple[int, int, int]
"""Year, or 0 where none was said; month; day."""


class Days:
    """The days that texts name."""

    def __init__(self) -> None:
        self.named: set[Day] = set()
        self.spans: set[tuple[Day, Day]] = set()
        self.weekdays: set[int] = set()
        self.steps: set[int] = set()
        """Spans of time that were named, in days."""
        self.relative: set[tuple[int, int]] = set()

    def add(self, text: str) -> None:
        """Read a text, case folded."""
        last: tuple[int, Day] | None = None
        for start, end, day, other in _days(text):
            self.named.add(day)
            if other is not None:
                self.named.add(other)
                self.spans.add((min(day, other), max(day, other)))
            if last is not None and _SPAN.match(text[last[0] : start]):
                self.spans.add((last[1], day))
            last = end, other or day
        self.weekdays |= {_WEEKDAYS.index(found[1]) for found in _WEEKDAY.finditer(text)}
        self.relative |= {reach for words, reach in _RELATIVE.items() if words in text}
        for found in _FOR.finditer(text):
            number = int(found["n"]) if found["n"].isdigit() else _WORDS[found["n"]]
            self.steps.add(number * _UNIT[found["u"]])

    def ground(self, date: str, todays: set[str]) -> bool:
        """Whether a date (YYYY-MM-DD) was named. `todays`: what day it is, as far as that is known."""
        wanted = read_day(date)
        if wanted is None:
            return False
        if self._named(wanted) or self._near(wanted, todays):
            return True
        return any(self._named(wanted - dt.timedelta(days=step)) for step in self.steps)

    def _named(self, day: dt.date) -> bool:
        exact, any_year = (day.year, day.month, day.day), (0, day.month, day.day)
        if exact in self.named or any_year in self.named:
            return True
        return any(_within(day, *span) for span in self.spans)

    def _near(self, day: dt.date, todays: set[str]) -> bool:
        for today in filter(None, map(read_day, todays)):
            away = (day - today).days
            if any(least <= away <= most for least, most in self.relative):
                return True
            if day.weekday() in self.weekdays and -7 <= away <= 14:
                return True
            if away in self.steps:
                return True
        return False


def read_day(text: str) -> dt.date | None:
    """Read a date that begins with YYYY-MM-DD, or None."""
    try:
        return dt.date.fromisoformat(text.strip()[:10])
    except ValueError:
        return None


def _within(day: dt.date, first: Day, last: Day) -> bool:
    try:
        begin = dt.date(first[0] or last[0] or day.year, *first[1:])
        end = dt.date(last[0] or first[0] or day.year, *last[1:])
    except ValueError:
        return False
    if end < begin and not last[0]:
        end = end.replace(year=end.year + 1)
    return begin <= day <= end


def _days(text: str) -> Iterator[tuple[int, int, Day, Day | None]]:
    found = [*_by_month(text), *_by_number(text)]
    found.sort(key=lambda item: item[:2])
    yield from found


def _by_month(text: str) -> Iterator[tuple[int, int, Day, Day | None]]:
    for match in _MONTH_FIRST.finditer(text):
        year, month = int(match["y"] or 0), _MONTHS.index(match["m"][:3]) + 1
        other = (year, month, int(match["e"])) if match["e"] else None
        yield match.start(), match.end(), (year, month, int(match["d"])), other
    for match in _DAY_FIRST.finditer(text):
        year, month = int(match["y"] or 0), _MONTHS.index(match["m"][:3]) + 1
        other = (year, month, int(match[1])) if match[1] else None
        yield match.start(), match.end(), (year, month, int(match["d"])), other


def _by_number(text: str) -> Iterator[tuple[int, int, Day, Day | None]]:
    for match in _ISO.finditer(text):
        yield match.start(), match.end(), (int(match["y"]), int(match["m"]), int(match["d"])), None
    for match in _LOCAL.finditer(text):
        year = int(match["y"]) + (2000 if len(match["y"]) == 2 else 0)
        for month, day in {(int(match["a"]), int(match["b"])), (int(match["b"]), int(match["a"]))}:
            yield match.start(), match.end(), (year, month, day), None
