"""Which provider is meant by `provider:model`: its wire, its address, its key.

Keys come from a mapping that is handed in (the environment, at the edge), never from here, and no message shows one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.model.anthropic import Anthropic
from stanchion.model.anthropic_batch import AnthropicBatches
from stanchion.model.batch import BatchClient
from stanchion.model.client import Endpoint, ModelClient
from stanchion.model.http import HttpPool
from stanchion.model.openai_batch import OpenAIBatches
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.model.wire import Wire, WireClient


class Provider(msgspec.Struct, frozen=True):
    """A provider: its wire, and the environment variables that say where and with which key."""

    wire: Callable[[], Wire]
    base_url: str
    """The default address; "" where there is none and the variable must be set."""
    base_url_env: str
    key_env: str
    key_optional: bool = False
    """A server of one's own takes no key."""
    batches: Callable[[Wire, Endpoint, HttpPool], BatchClient] | None = None
    """Its batch API, if it has one."""


def _openai_chat() -> Wire:
    return OpenAIChat(limit_field="max_completion_tokens")


def _chat(base_url: str, name: str, *, key_optional: bool = False) -> Provider:
    return Provider(OpenAIChat, base_url, f"{name}_BASE_URL", f"{name}_API_KEY", key_optional=key_optional)


def _anthropic_batches(_: Wire, endpoint: Endpoint, pool: HttpPool) -> BatchClient:
    return AnthropicBatches(endpoint, pool)


_OPENAI_URL: Final = "https://api.openai.com/v1"

PROVIDERS: Final[Mapping[str, Provider]] = {
    "anthropic": Provider(
        Anthropic, "https://api.anthropic.com", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", batches=_anthropic_batches
    ),
    "openai": Provider(OpenAIResponses, _OPENAI_URL, "OPENAI_BASE_URL", "OPENAI_API_KEY", batches=OpenAIBatches),
    "openai-chat": Provider(_openai_chat, _OPENAI_URL, "OPENAI_BASE_URL", "OPENAI_API_KEY", batches=OpenAIBatches),
    "cerebras": _chat("https://api.cerebras.ai/v1", "CEREBRAS"),
    "deepseek": _chat("https://api.deepseek.com", "DEEPSEEK"),
    "fireworks": _chat("https://api.fireworks.ai/inference/v1", "FIREWORKS"),
    "gemini": _chat("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI"),
    "groq": _chat("https://api.groq.com/openai/v1", "GROQ"),
    "mistral": _chat("https://api.mistral.ai/v1", "MISTRAL"),
    "moonshot": _chat("https://api.moonshot.ai/v1", "MOONSHOT"),
    "openrouter": _chat("https://openrouter.ai/api/v1", "OPENROUTER"),
    "together": _chat("https://api.together.xyz/v1", "TOGETHER"),
    "xai": _chat("https://api.x.ai/v1", "XAI"),
    "zai": _chat("https://api.z.ai/api/paas/v4", "ZAI"),
    "ollama": _chat("http://localhost:11434/v1", "OLLAMA", key_optional=True),
    "sglang": _chat("http://localhost:30000/v1", "SGLANG", key_optional=True),
    "vllm": _chat("http://localhost:8000/v1", "VLLM", key_optional=True),
}


def family(provider: str) -> str:
    """Name the providers that take one key by the first of them: "openai-chat" is "openai"."""
    return next(name for name, known in PROVIDERS.items() if known.key_env == _provider(provider).key_env)


def account(provider: str, endpoint: Endpoint) -> str:
    """Name whose limits a call counts against: the provider, and a fingerprint of the key (64 bits of SHA-256)."""
    print_ = hashlib.sha256((endpoint.api_key or endpoint.base_url).encode()).hexdigest()[:16]
    return f"{family(provider)}#{print_}"


def split_model(model: str) -> tuple[str, str]:
    """Provider and the provider's name of the model, of `provider:model`. Raises `ConfigError`."""
    provider, colon, name = model.partition(":")
    if not colon or not name.strip():
        raise ConfigError(f"model {model!r} is not of the form provider:model (as in anthropic:claude-sonnet-4-6)")
    if provider not in PROVIDERS:
        raise ConfigError(f"model {model!r}: no provider {provider!r}; there are {', '.join(sorted(PROVIDERS))}")
    return provider, name


def resolve_endpoint(provider: str, environment: Mapping[str, str]) -> Endpoint:
    """The provider's endpoint by environment variables. Raises `ConfigError` that names the one that is missing."""
    known = _provider(provider)
    said_url = environment.get(known.base_url_env, "").strip()
    base_url = said_url or known.base_url
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"{known.base_url_env}={base_url!r} is not an http(s) URL")
    key = environment.get(known.key_env, "").strip()
    elsewhere = bool(said_url) and said_url.rstrip("/") != known.base_url
    if not key and not known.key_optional and not elsewhere:
        raise ConfigError(f"provider {provider!r} needs a key: set {known.key_env} in the environment")
    return Endpoint(base_url, key)


def open_client(provider: str, endpoint: Endpoint, *, pool: HttpPool | None = None) -> ModelClient:
    """A client of the provider's wire at the endpoint. Clients share one pool of connections unless given another."""
    return WireClient(_provider(provider).wire(), endpoint, pool or _POOL)


def has_batches(provider: str) -> bool:
    """Whether the provider has a batch API that we speak. A server of the same wire elsewhere may refuse it."""
    return _provider(provider).batches is not None


def open_batches(provider: str, endpoint: Endpoint, *, pool: HttpPool | None = None) -> BatchClient:
    """A client of the provider's batch API at the endpoint. Raises `ConfigError` where it has none."""
    known = _provider(provider)
    if known.batches is None:
        raise ConfigError(f"provider {provider!r} has no batch API that Stanchion speaks")
    return known.batches(known.wire(), endpoint, pool or _POOL)


_POOL: Final = HttpPool()


def _provider(name: str) -> Provider:
    known = PROVIDERS.get(name)
    if known is None:
        raise ConfigError(f"no provider {name!r}; there are {', '.join(sorted(PROVIDERS))}")
    return known
