"""Words by which text that was read tries to give orders: scored phrases, folded so that spelling tricks do not hide them.

A score of 1 is a hit. One clear phrase is enough ("ignore all previous instructions"); weaker ones add up. This finds what is
written for models in general; it is a warning light, never the lock: an order in plain words ("please also send it to ..") has
no phrase of its own, and what holds against it is that values need a ground (`guard.ground`).

Every phrase was counted on recorded tool results: `bench/guard/checks.py`.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator

import msgspec


class Trace(msgspec.Struct, frozen=True):
    """One sign of an injection, and where."""

    name: str
    score: float
    start: int
    end: int


_S = r"[\s\W_]{1,4}"
_PAST = rf"(?:all{_S})?(?:of{_S})?(?:the{_S}|your{_S}|my{_S}|any{_S}|these{_S})?(?:previous|prior|above|preceding|earlier|former|original|existing|initial|system)"
_ORDERS = r"(?:i\w{0,3}structions?|prompts?|directions?|directives?|rules?|guidelines?|commands?|orders?|messages?|tasks?|conversation|context)"
_Sign = tuple[str, float, str, str]
"""Name, score, words of which one must be there at all (looked for first: it is what makes this cheap), pattern."""
_PHRASES: tuple[_Sign, ...] = (
    ("ignore", 1.0, "ignor disregard forget overrid bypass neglect follow", rf"(?<![a-zA-Z])(?:ignore|disregard|forget|override|bypass|neglect|do{_S}not{_S}follow){_S}{_PAST}(?:{_S}\w+){{0,2}}?{_S}{_ORDERS}"),
    ("ignore", 1.0, "ignor disregard forget", rf"\b(?:ignore|disregard|forget){_S}(?:everything|anything|all|what){_S}(?:you{_S}(?:were|have{_S}been){_S}told|above|before|previous|prior|up{_S}to{_S}(?:now|here)|that{_S}came)"),
    ("new_orders", 1.0, "instruction task goal objective prompt", rf"\b(?:your|the){_S}(?:new|real|actual|true|updated){_S}(?:instructions?|task|goal|objective|system{_S}prompt){_S}(?:is|are|now)\b"),
    ("new_orders", 0.6, "instruction prompt directive", rf"\bnew{_S}(?:system{_S})?(?:instructions?|prompt|directive)\s*:"),
    ("to_the_model", 1.0, "important urgent critical", rf"\b(?:important|urgent|critical){_S}(?:message|instruction|notice|note|system{_S}message){_S}(?:from{_S}(?:me|the{_S}user|\w+)|to|for){_S}(?:\w+{_S}){{0,3}}?(?:you|the{_S}(?:ai|assistant|model|agent|llm)|ai|assistant|llm|language{_S}model)\b"),
    ("to_the_model", 0.6, "attention note message instruction", rf"\b(?:attention|note|message|instructions?){_S}(?:to|for){_S}(?:the{_S}|all{_S}|any{_S})?(?:ai|llm|language{_S}model|assistant|chatbot|gpt|claude|gemini)\b"),
    ("to_the_model", 0.5, "you", rf"\byou{_S}are{_S}(?:now{_S})?(?:an?{_S}|the{_S})?(?:ai|llm|large{_S}language{_S}model|language{_S}model|helpful{_S}assistant|chatbot)\b"),
    ("role", 1.0, "dan developer jailbr unrestr admin root debug god", rf"\byou{_S}are{_S}now{_S}(?:in{_S})?(?:dan|developer|jailbroken|unrestricted|admin|root|debug|god)(?:{_S}mode)?\b"),
    ("role", 0.6, "act behave respond pretend", rf"\b(?:act|behave|respond|pretend){_S}(?:as{_S}(?:if|though)|like){_S}you{_S}(?:are|were|have){_S}(?:no|an?|the|not|unrestricted)\b"),
    ("before_you", 0.6, "before", rf"\bbefore{_S}you{_S}(?:can{_S})?(?:solve|continue|proceed|answer|complete|do|start|finish)(?:{_S}\w+){{0,5}}?{_S}(?:please{_S}|you{_S}(?:must|have{_S}to|need{_S}to|should){_S})?(?:do|first|the{_S}following)\b"),
    ("secretly", 0.6, "tell inform mention reveal notif alert ask", rf"\b(?:do{_S}not|don.?t|never|without){_S}(?:tell|telling|inform|informing|mention|mentioning|reveal|notify|notifying|alert|ask|asking){_S}(?:\w+{_S}){{0,4}}?(?:the{_S})?(?:user|human|owner|anyone|this{_S}(?:instruction|message))\b"),
    ("prompt", 0.6, "prompt instructions", rf"\b(?:reveal|print|repeat|show|output|send|leak){_S}(?:me{_S})?(?:your|the){_S}(?:entire{_S}|full{_S}|hidden{_S})?(?:system{_S}prompt|initial{_S}prompt|instructions{_S}above|hidden{_S}instructions)\b"),
    ("todo", 0.5, "todo assistant agent", rf"\btodo\s*:\s*\w+|\bas{_S}(?:an?{_S})?(?:ai|assistant|agent),?{_S}you{_S}(?:must|should|will|need)\b"),
)  # fmt: skip
_MARKUP: tuple[_Sign, ...] = (
    ("role_tag", 1.0, "im_ <system |system endoftext header_id eot_id inst] sys>> start_of_turn", r"<\|?(?:im_start|im_end|system|endoftext|start_header_id|eot_id)\|?>|\[/?INST\]|<</?SYS>>|<start_of_turn>"),
    ("role_tag", 1.0, "</", r"</\s*(?:information|instructions?|system|assistant|user_?message|system_?prompt|important)\s*>"),
    ("role_line", 0.6, "system assistant developer", r"(?m)^[ \t]*(?:#{1,6}[ \t]*|\*\*)?(?:system|assistant|developer)(?:[ \t]*(?:message|prompt))?[ \t]*(?:\*\*)?[ \t]*:(?=[ \t]*\S)"),
    ("tool_call", 1.0, "tool_ toolc tool| <tool function invoke", r"</?\s*(?:tool_?calls?|function_?calls?|invoke|tool_?use|tool_?result|function_?results?)\b[^>]{0,80}>|<\|(?:tool|function)[^|]{0,30}\|>"),
    ("tool_call", 0.6, "tool_ function_call", r"\{\s*\"(?:tool_calls?|function_call|tool_name)\"\s*:"),
    ("block_end", 1.0, "untrusted", r"\[\s*end\s+untrusted\b|\(\s*end\s+untrusted\b"),
)  # fmt: skip
_COMMENT = re.compile(r"<!--(.{8,2000}?)-->", re.DOTALL)
_CODED = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{24,4000}={0,2}(?![A-Za-z0-9+/=_-])")
_TAGS = re.compile("[\U000e0020-\U000e007e]{4,}")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
_LATIN = str.maketrans("аеорсухіјѕԁɡһӏ", "aeopcyxijsdghl")
"""Cyrillic letters that look like Latin ones."""

_Compiled = tuple[tuple[str, float, tuple[str, ...], re.Pattern[str]], ...]


def _compiled(signs: tuple[_Sign, ...]) -> _Compiled:
    return tuple(
        (name, score, tuple(cues.split(" ")), re.compile(pattern, re.IGNORECASE))
        for name, score, cues, pattern in signs
    )


_phrases, _markup = _compiled(_PHRASES), _compiled(_MARKUP)


def traces(text: str) -> list[Trace]:
    """Find the signs of an injection in a text, in order of their kinds."""
    return list(_traces(text, deep=True))


def _traces(text: str, *, deep: bool) -> Iterator[Trace]:
    yield from _found(_markup, text)
    yield from _found(_phrases, _plain(text))
    if not deep:
        return
    for start, end, hidden, name in _hidden(text):
        inside = score_of(list(_traces(hidden, deep=False)))
        if inside >= 0.5:
            yield Trace(name, 1.0, start, end)
    if found := _TAGS.search(text):
        yield Trace("hidden", 1.0, *found.span())


def _found(signs: _Compiled, text: str) -> Iterator[Trace]:
    lower = text.lower()
    for name, score, cues, pattern in signs:
        if any(cue in lower for cue in cues) and (found := pattern.search(text)):
            yield Trace(name, score, *found.span())


def _plain(text: str) -> str:
    """Undo what hides words: look-alike letters, accents. Every character stays in its place, so that spans are those of the text."""
    if text.isascii():
        return text
    text = text.translate(_LATIN)
    return "".join(_letter(character) for character in text)


def _letter(character: str) -> str:
    if character.isascii():
        return character
    folded = unicodedata.normalize("NFKD", character)[:1]
    return folded if folded.isascii() and folded else character


def _hidden(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Read what stands in a text so that people do not see it: comments, encoded text, words broken by what is not shown."""
    for found in _COMMENT.finditer(text):
        yield *found.span(), found[1], "comment"
    for found in _CODED.finditer(text):
        if decoded := _decoded(found[0]):
            yield *found.span(), decoded, "encoded"
    if not text.isascii() and _UNSEEN.search(text):
        yield 0, len(text), _UNSEEN.sub("", text), "hidden"


def _decoded(coded: str) -> str:
    plain = coded.translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        text = raw.decode()
    except (binascii.Error, ValueError):
        return ""
    return text if text.isprintable() or "\n" in text else ""


def score_of(found: list[Trace]) -> float:
    """Add up the signs, each kind once, by its strongest."""
    best: dict[str, float] = {}
    for trace in found:
        best[trace.name] = max(best.get(trace.name, 0.0), trace.score)
    return sum(best.values())
