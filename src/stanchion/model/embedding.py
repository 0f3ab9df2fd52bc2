"""The port of embedders, and one real adapter: `POST /v1/embeddings` as OpenAI and most servers of models speak it.

What an embedder costs is known before it is asked: that of the adapter by its model, as of any model; one of one's own costs nothing
unless it says a `price`, in dollars per million tokens, and then says with its vectors how many tokens they took.

Sources: OpenAI API reference, "Create embeddings"; the shortening of vectors by `dimensions`: Kusupati et al., "Matryoshka
Representation Learning", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import msgspec

from stanchion.core.embedding import EmbeddingModel
from stanchion.core.errors import ConfigError, InputError
from stanchion.core.message import Usage
from stanchion.core.money import Amount, Price, input_price, parse_usd
from stanchion.core.prices import Prices, find_input_price
from stanchion.model.client import Endpoint, Timeouts
from stanchion.model.failure import garbled, http_failure
from stanchion.model.http import HttpPool, Lease
from stanchion.model.providers import resolve_endpoint, split_model
from stanchion.model.wire import secrets_of, without

MOST_TEXTS: Final = 256
"""In one request."""
MOST_CHARS: Final = 8_000
"""Of a text; what is behind is left out."""
_NAME: Final = "embeddings"


class Embedded(msgspec.Struct, frozen=True):
    """Vectors, in the order of their texts, and what was billed for them."""

    vectors: Sequence[Sequence[float]]
    usage: Usage | None = None
    """None: not said. Then what was reserved counts as spent."""


class Embedder(Protocol):
    """Gives texts their vectors. It may have a `name` and a `price`: dollars per million tokens, without which it costs nothing."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]] | Embedded:
        """Embed texts, in order. Raises `ModelError`."""
        ...

    async def aclose(self) -> None:
        """Give back the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """An embedding model behind `/v1/embeddings`. Key and address are those of the provider (OPENAI_API_KEY, OPENAI_BASE_URL).

    `dimensions` shortens the vectors, where the model can; 0: as long as they come. 256 cost a kilobyte for each fact. `price`, in dollars per
    million tokens, is needed only for models that the price table does not know ("0": it costs nothing).
    """

    name: str = "openai:text-embedding-3-small"
    dimensions: int = 256
    endpoint: Endpoint | None = None
    price: Amount | None = None

    def __post_init__(self) -> None:
        split_model(self.name)
        dimensions = cast("object", self.dimensions)
        if not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 0:
            raise ConfigError(f"embeddings {self.name!r}: dimensions must be a whole number, or 0, not {dimensions!r}")
        _own_price(self.price, self.name)

    def open(self, environment: Mapping[str, str]) -> Embedder:
        """Make the client. Raises `ConfigError` where the key is missing."""
        provider, model = split_model(self.name)
        return EmbeddingClient(model, self.dimensions, self.endpoint or resolve_endpoint(provider, environment), _POOL)


class EmbeddingClient:
    """Asks the endpoint."""

    def __init__(self, model: str, dimensions: int, endpoint: Endpoint, pool: HttpPool) -> None:
        self._asked: dict[str, Any] = {"model": model, "encoding_format": "float"}
        if dimensions:
            self._asked["dimensions"] = dimensions
        self._url = endpoint.base_url.rstrip("/") + "/embeddings"
        self._headers = {"content-type": "application/json", **dict(endpoint.headers)}
        if endpoint.api_key:
            self._headers["authorization"] = f"Bearer {endpoint.api_key}"
        self._secrets = secrets_of(endpoint)
        self._pool = pool
        self._lease: Lease | None = None

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, in order."""
        self._lease = self._lease or self._pool.lease()
        vectors: list[Sequence[float]] = []
        counts: list[Usage | None] = []
        for start in range(0, len(texts), MOST_TEXTS):
            asked = [text[:MOST_CHARS] or " " for text in texts[start : start + MOST_TEXTS]]
            some = await self._ask(self._lease, asked)
            vectors += some.vectors
            counts.append(some.usage)
        known = [usage.input_tokens for usage in counts if usage is not None]
        return Embedded(vectors, Usage(sum(known)) if len(known) == len(counts) else None)

    async def _ask(self, lease: Lease, texts: list[str]) -> Embedded:
        body = msgspec.json.encode({**self._asked, "input": texts})
        async with lease.post(self._url, self._headers, body, Timeouts()) as response:
            said = without(self._secrets, await response.rest())
            if response.status != 200:
                raise http_failure(_NAME, response.status, response.headers, said)
        return _read(said, len(texts))

    async def aclose(self) -> None:
        if self._lease is not None:
            await self._lease.aclose()
            self._lease = None


class _One(msgspec.Struct):
    index: int
    embedding: list[float]


class _Count(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_One]
    usage: _Count | None = None


def _read(body: bytes, texts: int) -> Embedded:
    """Read the vectors in the order of the texts. Raises `ModelError` if there is not one for each."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        found = sorted(answer.data, key=lambda one: one.index)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise garbled(_NAME, f"cannot read {body[:120]!r}") from error
    if [one.index for one in found] != list(range(texts)) or not all(one.embedding for one in found):
        raise garbled(_NAME, f"{len(found)} vectors for {texts} texts")
    said = answer.usage or _Count()
    tokens = said.total_tokens if said.prompt_tokens is None else said.prompt_tokens
    return Embedded([one.embedding for one in found], None if tokens is None else Usage(tokens))


def embedding_model(given: object, prices: Prices, on_date: str) -> EmbeddingModel:
    """Say by which model an agent embeds, and at what price. Raises `ConfigError` where nobody knows it."""
    if not isinstance(given, Embeddings):
        name = str(getattr(given, "name", "") or type(given).__name__)
        return EmbeddingModel(name, _own_price(getattr(given, "price", None), name) or input_price(0))
    provider, model = split_model(given.name)
    price = _own_price(given.price, given.name) or find_input_price(prices, provider, model, on_date)
    if price is None:
        raise ConfigError(
            f'the price of {given.name!r} is not known; give it: Embeddings(name, price=".."), in dollars per million tokens'
        )
    return EmbeddingModel(given.name, price)


def _own_price(said: object, name: str) -> Price | None:
    """Read what an author says that an embedder costs."""
    if said is None:
        return None
    try:
        return input_price(parse_usd(cast("Amount", said), field="price"))
    except InputError as error:
        raise ConfigError(f"embeddings {name!r}: price: {error}") from error


def opened_embedder(given: object, environment: Mapping[str, str]) -> Embedder:
    """Make ready to be asked what an author gave. Raises `ConfigError`."""
    opening: Any = getattr(given, "open", None)
    return cast("Embedder", opening(environment) if callable(opening) else given)


_POOL: Final = HttpPool()
