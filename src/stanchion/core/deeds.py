"""How people and tools say what is to be done: a query's words, without those that say nothing, and with those that mean the same.

Tools are named by few verbs (create, get, list, update, delete and some more), people use many. A word of the same kind is looked for as well,
and counts half: a tool that is named as it was asked for goes first. English only; words of other languages are taken as they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stanchion.core.bm25 import terms

KIN = 0.5
"""What a word of the same kind counts for."""
_LONGEST = 3
"""Words of a phrase."""

_SILENT = frozenset(
    terms(
        "a about all am an and any are at be been but by can could did do does each for from had has have he her here his how i if in into is it "
        "its me my need no not of on or our please she should so some than that the their then there these they this those to us want was we were "
        "what when where which who will with would you your"
    )
)

_KINDS = (
    "create, add, make, new, set up, register, open, insert, enter",
    "get, read, show, look up, fetch, retrieve, view, see, display, check, pull up, details",
    "list, show all, overview, enumerate, browse",
    "search, find, look for, query, locate, filter",
    "update, change, edit, modify, correct, adjust, amend, fix, rename",
    "delete, remove, erase, get rid of, drop, destroy, throw away, purge",
    "cancel, call off, stop, withdraw, abort, terminate, revoke",
    "send, deliver, mail, email, post, forward, pass on, dispatch",
    "export, download, save, extract, dump",
    "approve, sign off, accept, confirm, okay, authorize, authorise, green light",
    "reject, decline, deny, refuse",
    "assign, delegate, hand over, allocate, put in charge, give to",
    "archive, put away, file away, hide",
    "restore, recover, bring back, get back, reinstate, undelete, undo",
    "copy, duplicate, clone",
    "share, give access, grant, invite, let see",
    "schedule, plan, book, reserve, set a date",
    "pay, settle, charge",
    "refund, reimburse, pay back, give back",
    "start, begin, launch, run, execute, trigger",
    "merge, combine, join",
    "count, how many, number of, total",
)


def _spoken(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _SILENT)


def _kin() -> Mapping[tuple[str, ...], frozenset[str]]:
    found: dict[tuple[str, ...], frozenset[str]] = {}
    for kind in _KINDS:
        phrases = [_spoken(terms(phrase)) for phrase in kind.split(", ")]
        single = frozenset(phrase[0] for phrase in phrases if len(phrase) == 1)
        for phrase in phrases:
            found[phrase] = found.get(phrase, frozenset()) | single.difference(phrase)
    found.pop((), None)
    return found


_KIN = _kin()


def weighed(query: str) -> dict[str, float]:
    """Give the terms of a query, each with what it counts for. One of silent words alone is taken as it stands."""
    said = tuple(dict.fromkeys(terms(query)))
    spoken = _spoken(said) or said
    found = dict.fromkeys(spoken, 1.0)
    for size in range(1, _LONGEST + 1):
        for at in range(len(spoken) - size + 1):
            for word in sorted(_KIN.get(spoken[at : at + size], ())):
                found.setdefault(word, KIN)
    return found
