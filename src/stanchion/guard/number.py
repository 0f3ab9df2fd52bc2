"""What is told from other text by arithmetic: card numbers, IBANs, telephone numbers, addresses; and by how mixed it is.

Each check is given a candidate and says how many characters of it, from its start, are one; 0: it is none.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from collections import Counter

_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d{2})\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|62\d{14,17}"  # UnionPay
)
_GROUPS = re.compile(r"\d+|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}")
_IBAN_LENGTHS = {
    name: length
    for length, names in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for name in names.split()
}  # fmt: skip
"""Characters of an IBAN, by country. Source: the IBAN registry of SWIFT."""
_COUNTRIES = re.compile(
    r"1|7|2[07]|3[0123469]|4[013456789]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2(?:1[1-368]|2\d|3\d|4\d|5[0-8]|6\d|9[01789])|3[578]\d|42[0-13]|5(?:0\d|9\d)|6(?:7[02-9]|8[0-35-9]|9[0-2])"
    r"|8(?:0[08]|5[02356]|7[08]|8[0-38])|9(?:6\d|7[0-79]|9[2-68])"
)
"""Country codes of E.164."""
_LEAST_BITS = 28
"""Of a password's text: eight characters of all kinds have about 24, a word of a language less."""


def card(text: str) -> int:
    """A number of a known issuer and length, grouped as cards are, whose check digit is right (Luhn)."""
    digits = re.sub(r"\D", "", text)
    if not _GROUPS.fullmatch(text) or not _ISSUERS.fullmatch(digits) or len(set(digits)) < 2:
        return 0
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return len(text) if sum(number // 10 + number % 10 for number in doubled) % 10 == 0 else 0


def iban(text: str) -> int:
    """A country's code, so many characters as its IBANs have, and the right remainder (ISO 7064, mod 97-10)."""
    wanted = _IBAN_LENGTHS.get(text[:2], 0)
    places = [place for place, char in enumerate(text) if char != " "]
    if not wanted or len(places) < wanted:
        return 0
    end = places[wanted - 1] + 1
    if text[end : end + 1].isalnum() or text[end : end + 1] == "_":
        return 0
    packed = text[:end].replace(" ", "")
    number = "".join(str(int(char, 36)) for char in packed[4:] + packed[:4])
    return end if int(number) % 97 == 1 else 0


def international(text: str) -> int:
    """A telephone number with its country's code: 8 to 15 digits (E.164)."""
    best = 0
    for group in re.finditer(r"\d+", text):
        digits = re.sub(r"\D", "", text[: group.end()])
        is_whole = len(digits) == 11 if digits[0] == "1" else 8 <= len(digits) <= 15
        if is_whole and _COUNTRIES.match(digits):
            best = group.end()
    return best


def north_american(text: str) -> int:
    """A telephone number of the North American plan, in one of its usual forms."""
    digits = re.sub(r"\D", "", text)[-10:]
    reserved = "11" in (digits[1:3], digits[4:6])
    return 0 if reserved or digits[0] in "01" or digits[3] in "01" else len(text)


def social_security(text: str) -> int:
    """A number that the Social Security Administration may have given out."""
    area, group, serial = text.split("-")
    return 0 if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000" else len(text)


def public_address(text: str) -> int:
    """An IP address that is somebody's: none of a private network, of this machine, or of documentation."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return 0
    if found.version == 6 and (text.count(":") < 3 or not any(map(str.isdigit, text)) or len(text) < 9):
        return 0  # (what programs write is full of "a::b")
    return len(text) if found.is_global else 0


def email(text: str) -> int:
    """An address whose domain could be one."""
    domain = text.rpartition("@")[2].split(".")
    if any(not label or label[0] == "-" or label[-1] == "-" for label in domain):
        return 0
    return len(text) if domain[-1].isalpha() and len(domain[-1]) > 1 else 0


def mixed(text: str) -> int:
    """Text that looks made by chance: letters and digits, and few of them twice."""
    if not any(map(str.isdigit, text)) or not any(map(str.isalpha, text)):
        return 0
    return len(text) if _bits(text) >= _LEAST_BITS else 0


def random(text: str) -> int:
    """Text that looks made by chance, of all kinds of characters or of many digits."""
    kinds = all(any(map(is_kind, text)) for is_kind in (str.islower, str.isupper, str.isdigit))
    return mixed(text) if kinds or sum(map(str.isdigit, text)) > 5 else 0


def password(text: str) -> int:
    """What stands behind "password=" and is no word, name of a variable, template, path or number."""
    if text[0] in "$%{[<*/.~" or "://" in text or "${" in text or "()" in text:
        return 0
    kinds = sum(any(map(is_kind, text)) for is_kind in (str.islower, str.isupper, str.isdigit))
    if not any(map(str.isalnum, text)) or kinds < 2 or not any(map(str.isdigit, text)):
        return 0
    return len(text) if _bits(text) >= _LEAST_BITS and not re.fullmatch(r"[0-9.,:TZ+-]+", text) else 0


def url_password(text: str) -> int:
    """A password within a URL, unless it only says that there is one."""
    if text[0] in "$%{[<" or len(set(text)) < 3:
        return 0
    return 0 if text.lower() in ("password", "passwd", "pass", "secret", "changeme") else len(text)


def basic(text: str) -> int:
    """Name and password, as HTTP's Basic scheme encodes them."""
    try:
        said = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return 0
    return len(text) if ":" in said and said.isprintable() else 0


def _bits(text: str) -> float:
    """Shannon's entropy of a text by its own characters, in bits for the whole of it."""
    size = len(text)
    return -sum(count * math.log2(count / size) for count in Counter(text).values())
