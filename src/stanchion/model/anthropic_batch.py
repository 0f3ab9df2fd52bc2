"""Anthropic's Message Batches. Source: Anthropic API reference, "Message Batches".

A batch carries no name of ours, so one whose hand-in was cut cannot be found again: its calls are billed at their
reservations and made anew.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from stanchion.core.errors import ModelError
from stanchion.model.anthropic import Anthropic
from stanchion.model.batch import BatchApi, BatchItem, BatchOutcome, State, unanswered
from stanchion.model.client import Endpoint
from stanchion.model.http import HttpPool

_PATH: Final = "/v1/messages/batches"


class AnthropicBatches(BatchApi):
    """A `BatchClient` for Anthropic."""

    most_items: int = 100_000
    most_bytes: int = 200_000_000
    finds: bool = False

    def __init__(self, endpoint: Endpoint, pool: HttpPool) -> None:
        super().__init__(Anthropic(), endpoint, pool)

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> str:
        asked = [{"custom_id": item.id, "params": msgspec.Raw(item.body)} for item in items]
        body = msgspec.json.encode({"requests": asked})
        made = await self.ask("POST", _PATH, data=body, headers={"content-type": "application/json"})
        return str(made["id"])

    async def find(self, name: str) -> str | None:
        return None

    async def state(self, batch: str) -> State:
        try:
            said = await self.ask("GET", f"{_PATH}/{batch}")
        except ModelError as error:
            if error.status == 404:
                return "gone"
            raise
        return "ended" if said["processing_status"] == "ended" else "running"

    async def outcomes(self, batch: str) -> AsyncGenerator[BatchOutcome]:
        async for line in self.lines(f"{_PATH}/{batch}/results"):
            name, result = str(line["custom_id"]), line["result"]
            match result["type"]:
                case "succeeded":
                    yield self.outcome(name, 200, result["message"])
                case "errored":
                    yield self.outcome(name, _status(result["error"]), result["error"])
                case other:
                    yield unanswered(name, f"was {other}")


def _status(error: Mapping[str, Any]) -> int:
    """Errors in a result have a type and no status: what the provider's own refusal of this type would have."""
    said = error.get("error")
    kind = str(cast("dict[str, Any]", said).get("type")) if isinstance(said, dict) else ""
    return {"overloaded_error": 529, "rate_limit_error": 429, "api_error": 500}.get(kind, 400)
