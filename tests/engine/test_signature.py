"""Signatures of webhooks, by the vectors of the specification, and what a receiver refuses."""

from __future__ import annotations

import json
import time

import pytest

from stanchion import verify_webhook
from stanchion.core.errors import ConfigError, Unauthorized
from stanchion.engine.signature import new_secret, sign, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type":"run.finished","data":{"run":"run_1"}}'


def test_the_vector_of_the_specification() -> None:
    """The signature of the reference implementations' own example."""
    signed = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_either_secret_verifies_while_one_takes_the_others_place() -> None:
    """Both sign; a receiver with the old or the new one accepts, one with a third does not."""
    old, new = new_secret(), new_secret()
    headers = signed_headers([new, old], "msg_1", int(time.time()), BODY)
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        assert verify_webhook(headers, BODY, secret) == json.loads(BODY)
    with pytest.raises(Unauthorized, match="not of this secret"):
        verify_webhook(headers, BODY, new_secret())


def test_names_of_headers_in_any_case() -> None:
    """HTTP libraries spell header names in different ways."""
    headers = {name.title(): value for name, value in signed_headers([SECRET], "m", int(time.time()), BODY).items()}
    assert verify_webhook(headers, BODY.decode(), SECRET)["type"] == "run.finished"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"webhook-id": "msg_2"}, "not of this secret"),
        ({"webhook-id": ""}, "lacks"),
        ({"webhook-timestamp": "now"}, "no time"),
        ({"webhook-timestamp": -301}, "last 300 s"),
        ({"webhook-timestamp": 400}, "last 300 s"),
        ({"webhook-signature": "v1,"}, "not of this secret"),
        ({"webhook-signature": "v1,ä"}, "not of this secret"),
        ({"webhook-signature": "v1a,MEUCIQ=="}, "not of this secret"),
    ],
)
def test_what_was_changed_is_refused(change: dict[str, str | int], said: str) -> None:
    """Another id, another time, an old time (in seconds from now), no signature or one of another kind."""
    now_s = int(time.time())
    changed = {name: str(now_s + to) if isinstance(to, int) else to for name, to in change.items()}
    headers = signed_headers([SECRET], "msg_1", now_s, BODY) | changed
    with pytest.raises(Unauthorized, match=said):
        verify_webhook(headers, BODY, SECRET)


def test_a_changed_body_is_refused() -> None:
    """Each byte counts."""
    headers = signed_headers([SECRET], "msg_1", int(time.time()), BODY)
    with pytest.raises(Unauthorized):
        verify_webhook(headers, BODY + b" ", SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64", SECRET.removeprefix("whsec_")])
def test_what_is_no_secret(secret: str) -> None:
    """Without its prefix, too short, or not base64."""
    with pytest.raises(ConfigError, match="whsec_"):
        sign(secret, "m", 0, b"")
