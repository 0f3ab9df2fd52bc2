"""Redaction: what the detectors find and leave, registered secrets in every form, and streams that give what the whole gives."""

from __future__ import annotations

import base64
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core import event as ev
from stanchion.core.errors import ConfigError
from stanchion.core.message import MODEL, RUNTIME, USER, Delta, Label, Media, Text, Thinking, ToolCall, ToolResult
from stanchion.guard.redact import DeltaRedactor, Redactor, StreamRedactor, found, holds_redacted, is_redacted
from stanchion.guard.secret import LEAST, MOST_MINTED, Secrets

VALUE = "hunter2-is-My/secret+key=1"
QUOTED = 'line one\n"two" \\ thrée'
VALUES = {
    "A": VALUE,
    "KEY": "sk-ant-api03-AbCdEf0123456789xyzZ",
    "HEX": "0123456789abcdef00ff",
    "QUOTED": QUOTED,
    "PART": "My/secret+k",
}
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1234567890abcdEFGH\nabcdEFGH12345678abcd/+xyz\nab==\n"
    "-----END RSA PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


def secrets_of(values: dict[str, str]) -> Secrets:
    """Register values."""
    made = Secrets()
    for name, value in values.items():
        made.add(name, value)
    return made


FOUND = {
    PEM: "private_key",
    PEM.replace("\n", "\\n"): "private_key",
    "AKIAIOSFODNN7EXAMPLE": "aws_key",
    "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY"[:35]: "google_key",
    "ghp_" + "a1B2" * 9: "github_token",
    "github_pat_" + "11ABCDE0Y0_abcdefgh" * 4: "github_token",
    "glpat-x9Yz8AbCdEfGhIjKlMnO": "gitlab_token",
    "xoxb-123456789012-abcdefABCDEF": "slack_token",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc": "stripe_key",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "webhook_secret",
    "sk-ant-api03-AbCdEf0123456789xyzZ": "anthropic_key",
    "sk-proj-AbCdEf0123456789xyzZ": "api_key",
    JWT: "jwt",
    "jane.doe@mail.example.com": "email",
    "4111 1111 1111 1111": "card",
    "5555555555554444": "card",
    "378282246310005": "card",
    "DE89 3704 0044 0532 0130 00": "iban",
    "GB82WEST12345698765432": "iban",
    "+49 30 901820": "phone",
    "+1 (202) 555-0143": "phone",
    "(202) 555-0143": "phone",
    "123-45-6789": "ssn",
    "8.8.8.8": "ip",
    "2001:4860:4860::8888": "ip",
}
PIECES = {
    "Authorization: Bearer abcdef0123456789ABCdef": ("bearer_token", "abcdef0123456789ABCdef"),
    "Authorization: Basic dXNlcjpwYXNzd29yZDE=": ("basic_credentials", "dXNlcjpwYXNzd29yZDE="),
    "postgresql://app:hunter2x@db.internal/orders": ("url_password", "hunter2x"),
    "DB_PASSWORD=Tr0ub4dor&3xyz": ("password", "Tr0ub4dor&3xyz"),
    '{"api_key": "a8f5f167f44f4964e6c998de"}': ("password", "a8f5f167f44f4964e6c998de"),
    r"{\"token\":\"a8f5f167f44f4964e6c998de\"}": ("password", "a8f5f167f44f4964e6c998de"),
    "https://hooks.slack.com/services/T0000AAA1/B0000BBB2/XXXXYYYYZZZZ11112222": (
        "slack_webhook",
        "T0000AAA1/B0000BBB2/XXXXYYYYZZZZ11112222",
    ),
}
LEFT = (
    "The password is a word that nobody should tell: choose a long one.",
    "password=${DB_PASSWORD} token = os.environ['TOKEN'] secret: <your secret here>",
    "self.token_count = total_tokens + 12345678; api_key=settings.api_key",
    "class sk-circle-fade-dot-animation-delay { }",
    "https://example.com:8443/path?a=b@c and http://localhost:5432/user@host",
    "postgres://user:password@localhost/db",
    "version 1.2.3.4.5, 10.0.0.1, 127.0.0.1 and 192.168.178.1",
    "order 4111111111111112, invoice 1234 5678 9012 3456, run_01jdzz4k3m8q2v5x7y9a0b1c2",
    "at 2026-12-01T02:20:16.123Z it took 123-456-7890 steps (12:30:45, 00:1a:2b:3c:4d:5e)",
    "DE00 3704 0044 0532 0130 00 is none, nor is 000-12-3456 or 123-00-4567",
    "std::vector<int> a::b = f(x)@2; user@localhost",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    "a header -----BEGIN PRIVATE KEY----- with nothing of a key behind it",
)


@pytest.mark.parametrize("text", list(FOUND))
def test_a_form_is_found_where_it_stands(text: str) -> None:
    """Between words, in brackets and at the ends; nothing of it is left."""
    redacted = f"[redacted:{FOUND[text]}]"
    for around in ("{}", "use {} now", "({}), then", '"{}"'):
        assert Redactor(pii=True).text(around.format(text)) == around.format(redacted)


@pytest.mark.parametrize("text", list(PIECES))
def test_of_what_is_named_only_the_value_goes(text: str) -> None:
    """Who reads the rest still sees what it was for."""
    kind, value = PIECES[text]
    assert Redactor().text(text) == text.replace(value, f"[redacted:{kind}]")


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    """Prose, code, templates, numbers whose check digit is wrong, addresses that are nobody's."""
    assert Redactor(pii=True).text(text) == text


def test_personal_data_stays_unless_it_is_wanted_otherwise() -> None:
    """A booking needs the name; a log line does not."""
    text = "write to jane@example.com or call +49 30 901820"
    assert Redactor().text(text) == text
    assert Redactor().line(text) == "write to [redacted:email] or call [redacted:phone]"
    assert [item.kind for item in found(text)] == ["email", "phone"]
    assert found(text, pii=False) == ()


def forms_of(value: str) -> Iterator[str]:
    """Write a value as programs do."""
    data = value.encode()
    yield value
    yield from (data.hex(), data.hex().upper(), data.hex()[:8].upper() + data.hex()[8:])
    yield from (
        quote(value, safe=""),
        quote_plus(value),
        re.sub("%..", lambda found: found[0].lower(), quote(value, safe="")),
    )
    yield from (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(json.dumps({"a": value})))
    for before in (b"", b"x", b"xy"):
        yield base64.b64encode(before + data + b"tail").decode()
        yield base64.urlsafe_b64encode(before + data + b"tail").decode()
    wrapped = base64.encodebytes(b"in front of it " * 5 + data + b" and behind it" * 5).decode()
    yield from (wrapped, wrapped.replace("\n", "\r\n"), json.dumps(wrapped))
    yield from (
        " ".join(value.replace(" ", "")),
        "\n".join(value.split()),
        "\u200b".join(value),
        value[:9] + "\n\n  " + value[9:],
    )


@pytest.mark.parametrize("value", [VALUE, QUOTED, VALUES["HEX"], "päßwörd-€-0123456789"])
def test_a_registered_secret_is_found_in_every_form(value: str) -> None:
    """Plain, JSON, URL, hexadecimal, base64 at each alignment, and split: the name stands there, and no form is left."""
    redactor = Redactor(secrets_of({"NAME": value}))
    for form in forms_of(value):
        text = redactor.text(f"before {form} after")
        assert "[secret:NAME]" in text, form
        assert text.startswith("before ")
        assert text.endswith(" after")
        assert redactor.secrets.spans(text) == []


def test_secrets_that_overlap_go_whole() -> None:
    """One that is part of another, or begins within it, leaves nothing behind."""
    redactor = Redactor(secrets_of({"LONG": "abcdefgh-ijklmnop", "SHORT": "abcdefgh", "NEXT": "mnopqrstuv"}))
    assert redactor.text("x abcdefgh-ijklmnopqrstuv y abcdefgh z") == "x [secret:LONG] y [secret:SHORT] z"


def test_what_cannot_be_registered_is_said() -> None:
    """A value that would be found in any text, a name that could not stand in its place; a value keeps its first name."""
    secrets = Secrets()
    with pytest.raises(ConfigError, match=f"shorter than {LEAST}"):
        secrets.add("PIN", "1234567")
    with pytest.raises(ConfigError, match="'a b'"):
        secrets.add("a b", "12345678")
    secrets.add("PIN", "1 2 3", minted=True)
    secrets.add("ONE", VALUE)
    secrets.add("TWO", VALUE + "\n")
    assert secrets.names() == {"ONE"}


def test_minted_tokens_are_forgotten_in_order() -> None:
    """A process that mints for ever keeps the last ones, and those that were registered by hand."""
    secrets = secrets_of({"A": VALUE})
    for number in range(MOST_MINTED + 2):
        secrets.add("token", f"minted-token-{number:08}", minted=True)
    redactor = Redactor(secrets)
    assert len(secrets) == MOST_MINTED + 1
    assert redactor.text("minted-token-00000001") == "minted-token-00000001"
    assert redactor.text("minted-token-00000002") == "[secret:token]"
    secrets.drop("minted-token-00000002")
    assert redactor.text("minted-token-00000002") == "minted-token-00000002"
    assert redactor.text(VALUE) == "[secret:A]"


# --- streams ------------------------------------------------------------------------------------------------------------

PARTS = [
    *(*FOUND, *PIECES, *LEFT[:6]),
    *("password=", "Bearer ", "://", "-----BEGIN ", "[secret:A]", "[redacted:email]", "[secret:MY_TOKEN_2x99]"),
    *(" ", "\n", "\\n", "\\", "the token is ", "sk-", "word", "1", "—", "\u200b", ",", "+", "n", '"', "(", "-", "."),
]
for each in VALUES.values():
    PARTS += [*forms_of(each), each[:7], each[7:], each[:-1], "\\n".join(each)]
TEXTS = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=6)), max_size=8).map("".join)
SECRETS = secrets_of(VALUES)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 60), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_a_stream_gives_what_the_whole_gives(text: str, sizes: list[int], pii: bool, arguments: bool) -> None:
    """However it is cut. Nothing of a registered secret gets out before it is known to be none."""
    redactor = Redactor(SECRETS, pii=pii)
    stream = StreamRedactor(redactor, arguments=arguments)
    made, at, turn = "", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        made += stream.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    whole = redactor.arguments(text) if arguments else redactor.text(text)
    assert made + stream.end() == whole
    assert whole.startswith(made)
    assert not any(value in whole for value in VALUES.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=6).map(" ; ".join))
def test_redacting_again_changes_nothing(text: str) -> None:
    """What was put in place of something is not found by any rule."""
    redactor = Redactor(SECRETS, pii=True)
    once = redactor.text(text)
    assert redactor.text(once) == once


def test_prose_is_not_held_up() -> None:
    """Of a sentence that holds nothing, a word at most is held back at any time."""
    stream = StreamRedactor(Redactor(SECRETS))
    text = "Your order was shipped on Tuesday, and it should be with you before the weekend; tell me if it is not. " * 3
    given_on = 0
    for at, char in enumerate(text):
        given_on += len(stream.feed(char))
        assert at + 1 - given_on <= 8, text[given_on : at + 1]


def test_deltas_keep_to_their_parts() -> None:
    """Two parts that come mixed are two streams, a call is named at once, and the tails come at the end."""
    deltas = DeltaRedactor(Redactor(SECRETS))
    said = deltas.feed(
        [Delta("text", 0, VALUE[:9]), Delta("tool_call", 1, "", "look_up"), Delta("text", 0, VALUE[9:] + " ok")]
    )
    said += deltas.feed([Delta("tool_call", 1, '{"key": "' + VALUE)])
    said += deltas.end()
    text = {index: "".join(delta.text for delta in said if delta.index == index) for index in (0, 1)}
    assert text == {0: "[secret:A] ok", 1: '{"key": "[secret:A]'}
    assert next(delta.name for delta in said if delta.index == 1) == "look_up"


# --- parts and events ---------------------------------------------------------------------------------------------------


def test_parts_without_anything_are_the_same_parts() -> None:
    """Nothing is copied for nothing."""
    event = ev.ModelCallFinished(turn=1, attempt=1, finish="stop", cost=0, parts=(Text("hello there", MODEL),))
    assert Redactor(SECRETS).event(event) is event


def test_every_field_of_a_part_is_looked_at() -> None:
    """Text, a provider's own data, names, ids, arguments: nothing of an event holds the value, whatever it says."""
    label = Label("tool", "t")
    parts = (
        Text(VALUE, MODEL, data=f'{{"a": "{VALUE}"}}'),
        ToolCall(VALUE, VALUE, f'{{"a": "{VALUE}"}}', MODEL, data=VALUE),
        ToolResult(
            VALUE,
            VALUE,
            VALUE,
            label,
            media=(Media("text/plain", label, data=VALUE), Media("image/png", label, url=VALUE)),
        ),
        Media("text/plain", USER, data=base64.b64encode(b"it is " + VALUE.encode()).decode(), name="a.txt"),
        Media("image/png", USER, file_id=VALUE, name=VALUE),
    )
    event = Redactor(SECRETS).event(ev.MessageAdded(by=VALUE, parts=parts))
    assert VALUE.encode() not in msgspec.json.encode(event)
    assert SECRETS.spans(msgspec.json.encode(event).decode()) == []
    assert event.by == "[secret:A]"
    assert event.parts[3] == Text("[a.txt held a secret and was left out]", RUNTIME)


def test_reasoning_that_was_changed_is_not_sent_back() -> None:
    """Its signature is of other words, and its provider would refuse it."""
    before = Thinking(f"the key is {VALUE}", MODEL, signature="c2lnbmVk", data="{}")
    assert Redactor(SECRETS).part(before) == Thinking("the key is [secret:A]", MODEL)


def test_a_result_stays_json() -> None:
    """A number that is replaced becomes a string, so that the guard still reads its fields."""
    text = json.dumps({"card": 4111111111111111, "cards": [4111111111111111], "name": "Ann"})
    part = Redactor(pii=True).part(ToolResult("1", "t", text, Label("tool", "t")))
    assert isinstance(part, ToolResult)
    assert json.loads(part.text) == {"card": "[redacted:card]", "cards": ["[redacted:card]"], "name": "Ann"}


def test_arguments_keep_what_a_tool_takes() -> None:
    """A parameter that is called password is no leak; a token of a known form is."""
    arguments = '{"password": "Tr0ub4dor&3xyz", "note": "AKIAIOSFODNN7EXAMPLE"}'
    assert Redactor().arguments(arguments) == '{"password": "Tr0ub4dor&3xyz", "note": "[redacted:aws_key]"}'


def test_placeholders_are_known() -> None:
    """What stands in place of something can be told from other text."""
    assert is_redacted(" [secret:A] ")
    assert not is_redacted("the [secret:A]")
    assert holds_redacted("the [redacted:aws_key] here")
    assert not holds_redacted("[secret]: none")


# --- the recordings -----------------------------------------------------------------------------------------------------


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, str):
            yield content
        else:
            yield from (item.get("content") or "" for item in content if isinstance(item, dict))
        for call in message.get("tool_calls") or []:
            yield json.dumps(call)


def test_few_false_alarms_on_recorded_conversations(shared_data: Path) -> None:
    """In hundreds of conversations with an airline's desk: no credential, no number of a kind that nobody wrote."""
    counted: Counter[str] = Counter()
    seen: set[str] = set()
    with lzma.open(shared_data / "tau-airline-trajectories.jsonl.xz", "rt") as lines:
        for line in lines:
            for text in _texts(json.loads(line)["traj"]):
                if text not in seen:
                    seen.add(text)
                    counted.update(item.kind for item in found(text))
    assert sum(map(len, seen)) > 100_000
    assert set(counted) <= {"email"}, counted
