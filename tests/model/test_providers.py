"""Providers by name: endpoints from an environment, and clear errors that show no key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stanchion.core.errors import ConfigError
from stanchion.model.failure import retry_after_s
from stanchion.model.providers import resolve_endpoint, split_model


def test_split() -> None:
    """The model's name may hold colons itself."""
    assert split_model("ollama:llama3:8b") == ("ollama", "llama3:8b")
    for wrong in ("gpt-5", "openai:", "nobody:x"):
        with pytest.raises(ConfigError):
            split_model(wrong)


def test_endpoint() -> None:
    """The variable that is missing is named; a base URL of one's own needs no key; a key is never shown."""
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        resolve_endpoint("openai", {})
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        resolve_endpoint("openai", {"OPENAI_BASE_URL": "localhost", "OPENAI_API_KEY": "sk-secret"})
    endpoint = resolve_endpoint("anthropic", {"ANTHROPIC_API_KEY": "sk-secret"})
    assert endpoint.base_url == "https://api.anthropic.com"
    assert "sk-secret" not in repr(endpoint)
    assert resolve_endpoint("openai", {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}).api_key == ""
    assert resolve_endpoint("vllm", {}).base_url == "http://localhost:8000/v1"


def test_retry_after() -> None:
    """Milliseconds, seconds, a date, the reset of an exhausted limit; nonsense is none."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_s({"retry-after": "1.5"}) == 1.5
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, now=now) == 30
    assert retry_after_s({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m2s"}) == 62
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, now=now) == 86_400
    assert retry_after_s({"retry-after": "100000"}) == 86_400
    assert retry_after_s({}) is None
