"""The port of classifiers and moderation APIs, and one real adapter: OpenAI's moderation endpoint.

A classifier is asked once and never retries: retries and what an error means are the loop's (`loop.check`). It says what asking may cost at
most, so that it can be reserved; it raises `ModelError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.core.policy import Where
from stanchion.model.client import Endpoint, Timeouts
from stanchion.model.failure import garbled, http_failure
from stanchion.model.http import HttpPool, Lease
from stanchion.model.providers import resolve_endpoint
from stanchion.model.wire import secrets_of, without

PIECE: Final = 8_000
"""Characters of a text that are sent as one item: the longer an item, the less a single sentence of it weighs."""
OVERLAP: Final = 400
PIECES: Final = 32
"""Items of one request."""
_NAME: Final = "openai moderations"


class Score(msgspec.Struct, frozen=True):
    """What a classifier says of a text."""

    flagged: bool
    categories: tuple[str, ...] = ()
    """What for, in its own words."""
    cost_nano_usd: int = 0


class Classifier(Protocol):
    """Says over the network what a text is."""

    @property
    def name(self) -> str: ...

    @property
    def max_cost_nano_usd(self) -> int | None:
        """What asking once may cost at most; 0: nothing. None: nobody knows, and so it cannot be used."""
        ...

    async def classify(self, text: str, where: Where) -> Score:
        """Classify a text. Raises `ModelError`."""
        ...

    async def aclose(self) -> None:
        """Give back the connections."""
        ...


class Unopened(Protocol):
    """A classifier as an agent's author writes it, which needs the environment of the process."""

    @property
    def name(self) -> str: ...

    @property
    def max_cost_nano_usd(self) -> int | None: ...

    def open(self, environment: Mapping[str, str]) -> Classifier:
        """Make what is asked. Raises `ConfigError`."""
        ...


@dataclass(frozen=True, slots=True)
class OpenAIModerations:
    """OpenAI's moderation endpoint, which is free of charge. Key and address are those of the provider "openai".

    `categories` names those that count ("violence", "self-harm/intent"); none: whatever the provider flags. `thresholds` are scores
    from 0 to 1 from which a category counts, whatever the provider says: {"violence": 0.4}.
    """

    name: str = "moderation"
    model: str = "omni-moderation-latest"
    categories: Sequence[str] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    endpoint: Endpoint | None = None

    def __post_init__(self) -> None:
        for name, least in self.thresholds.items():
            if not 0 < least <= 1:
                raise ConfigError(f"moderation {self.name!r}: thresholds[{name!r}] must be above 0 and at most 1")

    @property
    def max_cost_nano_usd(self) -> int:
        return 0

    def open(self, environment: Mapping[str, str]) -> Classifier:
        """Make the client. Raises `ConfigError` where the key is missing."""
        return ModerationClient(self, self.endpoint or resolve_endpoint("openai", environment), _POOL)


class ModerationClient:
    """Asks the endpoint."""

    max_cost_nano_usd: int | None = 0

    def __init__(self, how: OpenAIModerations, endpoint: Endpoint, pool: HttpPool) -> None:
        self.name = how.name
        self._how = how
        self._url = endpoint.base_url.rstrip("/") + "/moderations"
        self._headers = {"content-type": "application/json", **dict(endpoint.headers)}
        if endpoint.api_key:
            self._headers["authorization"] = f"Bearer {endpoint.api_key}"
        self._secrets = secrets_of(endpoint)
        self._pool = pool
        self._lease: Lease | None = None

    async def classify(self, text: str, where: Where) -> Score:
        """Classify a text; a long one is sent in overlapping pieces, and one that is flagged flags it."""
        self._lease = self._lease or self._pool.lease()
        flagged: dict[str, None] = {}
        pieces = pieces_of(text)
        for start in range(0, len(pieces), PIECES):
            flagged |= await self._ask(self._lease, pieces[start : start + PIECES])
        return Score(bool(flagged), tuple(flagged))

    async def _ask(self, lease: Lease, pieces: list[str]) -> dict[str, None]:
        body = msgspec.json.encode({"model": self._how.model, "input": pieces})
        async with lease.post(self._url, self._headers, body, Timeouts()) as response:
            said = without(self._secrets, await response.rest())
            if response.status != 200:
                raise http_failure(_NAME, response.status, response.headers, said)
        return _flagged(said, len(pieces), self._how)

    async def aclose(self) -> None:
        if self._lease is not None:
            await self._lease.aclose()
            self._lease = None


def pieces_of(text: str) -> list[str]:
    """Cut a text into pieces that overlap, so that no sentence is only seen in halves."""
    step = PIECE - OVERLAP
    return [text[start : start + PIECE] for start in range(0, max(len(text) - OVERLAP, 1), step)]


class _Result(msgspec.Struct):
    flagged: bool
    categories: Mapping[str, bool | None] = {}
    category_scores: Mapping[str, float | None] = {}


class _Answer(msgspec.Struct):
    results: tuple[_Result, ...]


def _flagged(body: bytes, pieces: int, how: OpenAIModerations) -> dict[str, None]:
    """Read what counts of an answer. Raises `ModelError` if it does not answer for each piece."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise garbled(_NAME, f"cannot read {body[:120]!r}") from error
    if len(answer.results) != pieces:
        raise garbled(_NAME, f"{len(answer.results)} results for {pieces} texts")
    found: dict[str, None] = {}
    for result in answer.results:
        named = {name for name, yes in result.categories.items() if yes}
        named |= {name for name, least in how.thresholds.items() if (result.category_scores.get(name) or 0.0) >= least}
        wanted = named & {*how.categories, *how.thresholds} if how.categories else named
        if result.flagged and not named and not how.categories:
            wanted = {"flagged"}
        found |= dict.fromkeys(sorted(wanted))
    return found


def is_classifier(given: object) -> bool:
    """Whether what an agent's author gave is asked over the network."""
    return callable(getattr(given, "classify", None)) or callable(getattr(given, "open", None))


def opened(given: object, environment: Mapping[str, str]) -> Classifier:
    """Make ready to be asked. Raises `ConfigError`."""
    opening: Any = getattr(given, "open", None)
    return cast("Classifier", opening(environment) if callable(opening) else given)


_POOL: Final = HttpPool()
