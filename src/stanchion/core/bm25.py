"""Full-text search by BM25, in memory: which of some texts answer a query best. Pure: the same texts and query give the same order.

    index = Index(["Refund an order", [("cancel_flight", 3.0), ("Cancel a booked flight", 1.0)]])
    index.search("cancelling flights", 5)  # [(1, 2.117..)]

A text is a string, or fields with weights: BM25F's way, the weighted counts of all fields are added up before they saturate. Sources:
Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); the weight of a rare term is the one that
Lucene uses, log(1 + (N - n + 0.5) / (n + 0.5)), which is never below 0.

What is a term: words without case and accents, with the usual English endings taken off; and whatever hangs together ("HAT271",
"2024-05-03", "$1,234.50", "readFile", "user_id", "a@b.example") as a whole and as its parts. Chinese, Japanese and Korean, which are written
without spaces, count as pairs of characters.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

K1 = 1.2
"""How soon more of the same term stops to count."""
B = 0.75
"""How far a long text is held to be long-winded."""
_LONGEST = 128
"""Of a whole, in characters; longer ones (base64, paths) count by their parts alone."""

_WHOLE = re.compile(r"\w+(?:(?:[-_.:/@'#+]|(?<=\d),(?=\d))\w+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL = re.compile(r"\d+\.\d+")
_PAIRED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_VOWEL = re.compile(r"[aeiouy]")

Document = str | Sequence[tuple[str, float]]
"""A text, or (text, weight) for each of its fields."""


def terms(text: str) -> list[str]:
    """Take a text apart into terms, in the order in which they stand."""
    found: list[str] = []
    for match in _WHOLE.finditer(_plain(text)):
        found += _terms_of(match.group()) if match.end() - match.start() <= _LONGEST else _parts(match.group())
    return found


def _plain(text: str) -> str:
    """Without accents, and with one form for what looks the same."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", "".join(char for char in decomposed if not _is_accent(char)))


def _is_accent(char: str) -> bool:
    return "\u0300" <= char <= "\u036f"


@lru_cache(maxsize=65_536)
def _terms_of(whole: str) -> tuple[str, ...]:
    parts = _parts(whole)
    if len(parts) == 1 and whole.isalpha():
        return tuple(parts)
    if _PAIRED.search(whole):
        return tuple(parts)
    as_one = stem(whole.strip("_").casefold())
    if _GROUPED.fullmatch(as_one):
        as_one = as_one.replace(",", "")
    if _DECIMAL.fullmatch(as_one):
        shortest = as_one.rstrip("0").rstrip(".")
        return tuple(dict.fromkeys((as_one, shortest, *parts)))
    return tuple(dict.fromkeys((as_one, *parts)))


def _parts(whole: str) -> list[str]:
    found: list[str] = []
    for part in _PART.findall(whole):
        if _PAIRED.search(part):
            found += [part[at : at + 2] for at in range(max(len(part) - 1, 1))]
        else:
            found.append(stem(part.casefold()))
    return found


def stem(word: str) -> str:
    """Take the usual English endings off a word in small letters: "cancelled", "cancelling" and "cancels" are "cancel"."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        left = word.removesuffix(ending)
        if left != word and len(left) >= 3 and _VOWEL.search(left):
            word = left[:-1] if left[-1] == left[-2] and left[-1] not in "lsz" else left
            break
    if word.endswith("ll") and len(word) > 5:
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


class Index:
    """Texts, ready to be searched. It is built once and never changes."""

    __slots__ = ("_norms", "_postings")

    def __init__(self, documents: Iterable[Document]) -> None:
        postings: dict[str, list[tuple[int, float]]] = {}
        lengths: list[float] = []
        for number, document in enumerate(documents):
            counts: dict[str, float] = {}
            for text, weight in ((document, 1.0),) if isinstance(document, str) else document:
                for term in terms(text):
                    counts[term] = counts.get(term, 0.0) + weight
            lengths.append(sum(counts.values()))
            for term, count in counts.items():
                postings.setdefault(term, []).append((number, count))
        self._norms = _norms(lengths)
        self._postings = postings

    def __len__(self) -> int:
        return len(self._norms)

    def search(self, query: str | Mapping[str, float], limit: int) -> list[tuple[int, float]]:
        """Give the numbers of the texts that answer a query best, best first, with their scores; of equals the earlier one.

        Texts that have no term of it are left out. A query is a text, or terms (as `terms` gives them) with what each counts for.
        """
        weights = dict.fromkeys(terms(query), 1.0) if isinstance(query, str) else query
        return _best(weights, self._postings, self._norms, limit)


def search_once(texts: Iterable[str], query: str, limit: int) -> list[tuple[int, float]]:
    """Give what `Index(texts).search(query, limit)` gives, for texts that are searched but once: no index is built.

    No term goes over white space, so what stands between is taken apart once, however often it stands there; of it is kept how many
    terms it has, and which of them are asked for.
    """
    asked = dict.fromkeys(terms(query), 1.0)
    words = _Words(asked)
    holding = words.holding
    postings: dict[str, list[tuple[int, float]]] = {term: [] for term in asked}
    lengths: list[int] = []
    for number, text in enumerate(texts):
        found = text.split()
        lengths.append(sum(map(words.__getitem__, found)))
        held = [term for word in filter(holding.__contains__, found) for term in holding[word]]
        if len(held) == 1:
            postings[held[0]].append((number, 1))
        elif held:
            for term in dict.fromkeys(held):
                postings[term].append((number, held.count(term)))
    return _best(asked, postings, _norms(lengths), limit)


class _Words(dict[str, int]):
    """How many terms a word has; and in `holding`, for those that have some of them, which of the terms that are asked for."""

    def __init__(self, asked: Iterable[str]) -> None:
        super().__init__()
        self._asked = frozenset(asked)
        self.holding: dict[str, list[str]] = {}

    def __missing__(self, word: str) -> int:
        plain = word.isascii() and word.isalnum() and len(word) <= _LONGEST
        found = _terms_of(word) if plain else terms(word)
        if not self._asked.isdisjoint(found):
            self.holding[word] = [term for term in found if term in self._asked]
        self[word] = number = len(found)
        return number


def _norms(lengths: Sequence[float]) -> list[float]:
    mean = sum(lengths) / len(lengths) if lengths else 0.0
    return [K1 * (1 - B + B * length / mean) if mean else K1 for length in lengths]


def _best(
    weights: Mapping[str, float],
    postings: Mapping[str, Sequence[tuple[int, float]]],
    norms: Sequence[float],
    limit: int,
) -> list[tuple[int, float]]:
    scores: dict[int, float] = {}
    for term, weight in weights.items():
        having = postings.get(term)
        if not having:
            continue
        rarity = weight * math.log(1 + (len(norms) - len(having) + 0.5) / (len(having) + 0.5)) * (K1 + 1)
        for number, count in having:
            scores[number] = scores.get(number, 0.0) + rarity * count / (count + norms[number])
    best = heapq.nsmallest(limit, ((-score, number) for number, score in scores.items()))
    return [(number, -score) for score, number in best]
