"""Values as the guard compares them: one form for each kind, and the values that stand in a text.

Two values of a kind are the same when their normal forms are. What cannot be brought into a form is no value, and grounds nothing:
a look-alike (another alphabet, an invisible character) is another value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

NUMERIC = frozenset({"number", "money", "count"})
DATES = frozenset({"date", "today"})
_EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_ENDINGS = (
    r"(?:com|org|net|edu|gov|mil|int|info|biz|app|dev|page|site|online|shop|store|cloud|tech|xyz|top|club|live|link|blog|news"
    r"|example|test|onion|[a-z]{2})"
)
_URL = re.compile(
    r"(?:(?:https?|ftp|wss?)://|www\.)[^\s<>\"'`\])},]+"
    r"|(?<![\w@./-])(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+" + _ENDINGS + r"(?![\w-])(?::\d+)?(?:/[^\s<>\"'`\])},]*)?",
    re.IGNORECASE,
)
_GLUED = re.compile(r"\." + _ENDINGS + r"(\.[A-Z][a-z]*)$")
"""A sentence that begins without a space: "see www.our.example.They wrote .." names no host in "they"."""
_FILES = frozenset({"py", "md", "sh", "rs", "pl", "ps", "cc", "ts", "so", "in", "do", "go", "vb", "ai"})
"""Countries whose letters are the endings of files: without a scheme or a path, a file is meant."""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,5}){3,8}(?![A-Za-z0-9])")
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){11,18}(?![\w.])")
_NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:[,'’ ]\d{3})+|\d+)(?:\.\d+)?(?=[%€$£¥]|[^\w]|$|[a-zA-Z]{1,3}\b)")
_CURRENCY = re.compile(r"[€$£¥\s,'’]|USD|EUR|GBP|CHF")
_COMMAND = re.compile(
    r"(?:^|[\s`;&|$(])(?:sudo\s+\S+|rm\s+-\w*[rf]\w*\s|(?:curl|wget)\s+[^\n]{0,200}|(?:ba|z|da)?sh\s+-c\s|powershell\b[^\n]{0,80}"
    r"|chmod\s+[+0-7]|nc\s+-\w|eval\s*\(|base64\s+(?:-d|--decode)|mkfs\b|dd\s+if=)",
    re.IGNORECASE,
)
_WORDS = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
        ]
    )
} | {"twenty": "20", "thirty": "30", "fifty": "50", "hundred": "100", "thousand": "1000", "dozen": "12"}
_WORD = re.compile(r"[a-z]+")
_JOINTS = str.maketrans("", "", "-()/")
_DIGITS_AT_ALL = re.compile(r"\d(?:[ -]?\d){11}")
_IBAN_AT_ALL = re.compile(r"[A-Z]{2}\d{2}")
_COMMANDS = ("sudo", "curl", "wget", "powershell", "chmod", "eval", "base64", "mkfs", "if=")
_OPTION = re.compile(r"\s-")
_TRAILING = ".,;:!?…*~|"


def plain(text: str) -> str:
    """Fold a text so that case, width and spacing do not matter: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def dense(text: str) -> str:
    """.. and without spaces and hyphens, in which people write accounts and numbers of telephones."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).translate(_JOINTS)


def normal(kind: str, value: Any) -> str:
    """Give a value's normal form, or "" where it has none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    text = str(value)
    match kind:
        case "email":
            return _normal_email(text)
        case "url" | "link":
            return _normal_url(text)
        case "path":
            return _normal_path(text)
        case "account" | "phone":
            return dense(text)
        case "number" | "money" | "count":
            return _normal_number(text)
        case "date" | "today":
            return text.strip()[:10]
        case _:
            return plain(text).strip("\"'`“”‘’ ").lstrip("#@")


_ADDRESS = re.compile(r"[^\s,;<>\"'@]+@[^\s,;<>\"'@]+")
_NAMED = re.compile(r"[^<>]*<([^<>\s]+)>")


def _normal_email(text: str) -> str:
    """One address. What holds two is none: "eve@evil.example, bo@our.example" ends like one of ours."""
    folded = plain(text).removeprefix("mailto:").strip("\"' ")
    named = _NAMED.fullmatch(folded)
    address = named[1] if named else folded
    return address if _ADDRESS.fullmatch(address) else ""


def _normal_path(text: str) -> str:
    """A path without detours: "reports/../../etc" is not within "reports"."""
    folded = plain(text).strip("\"'`").replace("\\", "/")
    steps: list[str] = []
    for step in folded.split("/"):
        if step == ".." and steps and steps[-1] != "..":
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return ("/" if folded.startswith("/") else "") + "/".join(steps)


def _normal_url(text: str) -> str:
    stripped = unicodedata.normalize("NFKC", text).strip().strip("<>\"'").rstrip(_TRAILING)
    stripped = re.sub(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", "", stripped.replace("\\", "/"))
    host, slash, rest = stripped.partition("/")
    cut = re.search(r"[?#]", host)
    if cut:
        host, slash, rest = host[: cut.start()], host[cut.start()], host[cut.end() :] + slash + rest
    host = host.rpartition("@")[2]  # who is named before it is no host
    return (host.casefold().removeprefix("www.") + slash + rest).rstrip("/")


def _normal_number(text: str) -> str:
    try:
        number = Decimal(_CURRENCY.sub("", text))
    except InvalidOperation:
        return ""
    if not number.is_finite() or abs(number.adjusted()) > 30:
        return ""
    return format(number.normalize() + 0, "f")


def emails_in(text: str) -> Iterator[tuple[int, int]]:
    """Find where addresses of electronic mail stand."""
    if "@" not in text:
        return
    for start, end in _words_with(text, "@", "@"):
        yield from (found.span() for found in _EMAIL.finditer(text, start, end))


def urls_in(text: str) -> Iterator[tuple[int, int]]:
    """Find where URLs and names of hosts stand."""
    if "." not in text and "://" not in text:
        return
    spans = (
        found.span() for first, last in _words_with(text, ".", "://") for found in _URL.finditer(text, first, last)
    )
    for start, end in spans:
        if text[max(start - 1, 0)] == "\\" and text[start] in "nrt":
            start += 1  # the escape of a line's end, as models write it
        while end > start and text[end - 1] in _TRAILING:
            end -= 1
        if glued := _GLUED.search(text, start, end):
            end = glued.start(1)
        name = text[start:end].casefold()
        if "/" not in name and not name.startswith("www.") and name.rpartition(".")[2] in _FILES:
            continue
        yield start, end


def accounts_in(text: str) -> Iterator[tuple[int, int]]:
    """Find where accounts stand: what is written like an IBAN, and long numbers that pass as those of cards (Luhn)."""
    if _IBAN_AT_ALL.search(text):
        yield from (found.span() for found in _IBAN.finditer(text))
    for found in _DIGITS.finditer(text) if _DIGITS_AT_ALL.search(text) else ():
        if luhn(re.sub(r"\D", "", found[0])):
            yield found.span()


def commands_in(text: str) -> Iterator[tuple[int, int]]:
    """Find where something stands that a shell would run."""
    folded = text.casefold()
    if not (_OPTION.search(folded) or any(word in folded for word in _COMMANDS)):
        return iter(())
    return (found.span() for found in _COMMAND.finditer(text))


def words_of(text: str) -> list[str]:
    """Cut a text at its spaces. A short one is remembered, since it is looked at in many ways: not to be changed."""
    return _words_of(text) if len(text) <= 20_000 else text.split()


_words_of = lru_cache(maxsize=8)(str.split)


@lru_cache(maxsize=1024)
def pattern_of(kind: str, pattern: str) -> str:
    """Give the normal form of a pattern, which an operator wrote and every call is held against."""
    if kind == "email":
        return plain(pattern)
    stem = pattern.rstrip("*")
    if kind not in ("url", "link", "path") or stem == pattern:
        return normal(kind, pattern)
    return normal(kind, stem) + ("/" if stem.endswith("/") else "") + "*"


def _words_with(text: str, one: str, other: str) -> Iterator[tuple[int, int]]:
    """Find the words that have one of two marks: what has a mark and no space in it need not be looked for elsewhere."""
    place = 0
    for word in [word for word in words_of(text) if one in word or other in word]:
        place = text.index(word, place)
        yield place, place + len(word)
        place += len(word)


def numbers_in(text: str) -> set[str]:
    """Give the numbers of a text, those in words included, in normal form."""
    found = {_normal_number(number[0]) for number in _NUMBER.finditer(text)}
    found |= {_WORDS[word] for word in _WORD.findall(text.casefold()) if word in _WORDS}
    return found - {""}


def luhn(digits: str) -> bool:
    """Check the last digit of a card's number (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0
