"""What the guard leaves out to be quick changes nothing: each quick way finds what the plain pattern finds."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.bundle import Bundle
from stanchion.core.message import MODEL, USER, Label, Message, Part, Text, ToolResult
from stanchion.core.state import State
from stanchion.guard import shape, values, veiled
from stanchion.guard.evidence import Evidence

PIECES = ["a@b.example", "www.x.example/y?z", "http://localhost/x", "ftp://h", "a.b", "x.Y", "..", "://", "@", ".", "dot", "DOT",
          "[.]", "(dot)", "{ . }", "hxxp://e.example", "hXXps", "sudo ls", "rm -rf /", "RM  -r x", "sh -c x", "nc -l", "dd if=a", "base64 -d",
          "eval (", "chmod +x", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "4111-1111-1111-1111", "12", "é", "\u0430",
          "a\u0430", "\u200b\u200b\u200b\u200b", "%41" * 12, "0f" * 32, "aB3" * 20, "d3d3LmV2aWwuZXhhbXBsZQ==", "w w w . s i t e . c o m", "x y z q r s t u",
          " ", "  ", "\n", "\t", "\u00a0", "\u2003", "\x1c", "`", ";", "(", ",", "-", "word", "I", "s"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_values_are_found_as_the_patterns_find_them(text: str) -> None:
    """Addresses, URLs, accounts and commands, wherever they stand."""
    assert list(values.emails_in(text)) == [found.span() for found in values._EMAIL.finditer(text)]
    assert list(values.commands_in(text)) == [found.span() for found in values._COMMAND.finditer(text)]
    assert list(values.accounts_in(text)) == [
        *(found.span() for found in values._IBAN.finditer(text)),
        *(found.span() for found in values._DIGITS.finditer(text) if values.luhn(re.sub(r"\D", "", found[0]))),
    ]
    whole = {found.start() for found in values._URL.finditer(text)}
    assert {start for start, _ in values.urls_in(text)} <= whole
    in_words = {
        found.start()
        for start, end in values._words_with(text, ".", "://")
        for found in values._URL.finditer(text, start, end)
    }
    assert in_words == whole


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_shapes_are_found_as_the_patterns_find_them(text: str) -> None:
    """And a text that is read otherwise than it is written is never passed over."""
    words = text.split()
    for pattern, least in ((shape._PERCENT, 36), (shape._HEX, 36), (shape._BASE64, 36), (veiled._TOKEN, 16)):
        in_words = [found[0] for word in words if len(word) >= least for found in pattern.finditer(word)]
        assert in_words == [found[0] for found in pattern.finditer(text)]
    assert veiled._as_read(text) == text or veiled._may_be_broken(text, words)
    assert not (text.isascii() and (veiled._MIXED.search(text) or shape._HIDDEN.search(text)))
    folded = unicodedata.normalize("NFKC", text).casefold()
    assert values.dense(text) == re.sub(r"[\s\-()/]", "", folded)
    assert values.plain(text) == re.sub(r"\s+", " ", folded).strip()


PARTS = st.lists(
    st.sampled_from(["to a@b.example", "see www.x.example", "pay 12 by 2026-05-01", ""]).flatmap(
        lambda text: st.sampled_from(
            [
                Text(text, USER),
                Text(text, MODEL),
                Text(text, Label("document")),
                ToolResult("c", "t", text, Label("tool", "t", secrecy="internal")),
            ]
        )
    ),
    max_size=3,
)
BUNDLE = Bundle("a", "Help.", ())


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=6), PARTS, st.lists(PARTS, max_size=3))
def test_evidence_that_reads_on_is_as_one_that_reads_all(
    before: list[list[Part]], more: list[Part], after: list[list[Part]]
) -> None:
    """Where the last message grew, messages came, some are empty; and from another state it begins anew."""
    first = [Message("user", tuple(parts)) for parts in before]
    grown = [*first[:-1], Message("user", (*first[-1].parts, *more))] if first else []
    later = [*grown, *(Message("user", tuple(parts)) for parts in after)]
    memo = Evidence(BUNDLE)
    for messages in (first, grown, later, first, [Message("user", (Text("else", USER),)), *first]):
        state = State(messages=tuple(messages))
        whole, read = Evidence(BUNDLE).of(state), memo.of(state)
        for name in ("spoken", "numbers", "urls", "emails", "read_urls", "secrecy", "untrusted"):
            assert getattr(read, name) == getattr(whole, name), name
