"""OpenAI's batches: a file of requests, a batch over it, a file of answers and one of errors.

Source: OpenAI API reference, "Batch" and "Files". The batch carries our name in its metadata, so that one whose hand-in
was cut is found again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, cast

import aiohttp
import msgspec

from stanchion.core.errors import ModelError
from stanchion.model.batch import BatchApi, BatchItem, BatchOutcome, State, unanswered
from stanchion.model.client import Endpoint
from stanchion.model.http import HttpPool
from stanchion.model.wire import Wire

_NAME: Final = "stanchion"
_RUNNING: Final = frozenset(("validating", "in_progress", "finalizing", "cancelling"))
_LOOKED: Final = 100
"""Newest batches that are looked through for a name: the hand-in was a moment ago."""


class OpenAIBatches(BatchApi):
    """A `BatchClient` for OpenAI, over Chat Completions or Responses as the wire says."""

    most_items: int = 50_000
    most_bytes: int = 180_000_000
    finds: bool = True

    def __init__(self, wire: Wire, endpoint: Endpoint, pool: HttpPool) -> None:
        super().__init__(wire, endpoint, pool)
        self._url = "/v1" + wire.path

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> str:
        lines = (
            msgspec.json.encode(
                {"custom_id": item.id, "method": "POST", "url": self._url, "body": msgspec.Raw(item.body)}
            )
            for item in items
        )
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", b"\n".join(lines), filename=f"{name}.jsonl", content_type="application/jsonl")
        sent = await self.ask("POST", "/files", data=form)
        asked = {
            "input_file_id": sent["id"],
            "endpoint": self._url,
            "completion_window": "24h",
            "metadata": {_NAME: name},
        }
        headers = {"content-type": "application/json"}
        made = await self.ask("POST", "/batches", data=msgspec.json.encode(asked), headers=headers)
        return str(made["id"])

    async def find(self, name: str) -> str | None:
        listed = await self.ask("GET", f"/batches?limit={_LOOKED}")
        found = (batch for batch in listed["data"] if _said(batch, "metadata", _NAME) == name)
        return next((str(batch["id"]) for batch in found), None)

    async def state(self, batch: str) -> State:
        try:
            said = await self.ask("GET", f"/batches/{batch}")
        except ModelError as error:
            if error.status == 404:
                return "gone"
            raise
        return "running" if said["status"] in _RUNNING else "ended"

    async def outcomes(self, batch: str) -> AsyncGenerator[BatchOutcome]:
        said = await self.ask("GET", f"/batches/{batch}")
        for file in (said.get("output_file_id"), said.get("error_file_id")):
            if not file:
                continue
            async for line in self.lines(f"/files/{file}/content"):
                name, response = str(line["custom_id"]), line.get("response")
                if response:
                    yield self.outcome(name, int(response["status_code"]), response["body"])
                else:
                    yield unanswered(name, f"said {_said(line, 'error', 'code') or 'nothing'}")


def _said(fields: Mapping[str, Any], name: str, key: str) -> str:
    """Read a member of a member that may be null."""
    inner = fields.get(name)
    return str(cast("dict[str, Any]", inner).get(key) or "") if isinstance(inner, dict) else ""
