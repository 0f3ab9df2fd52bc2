"""The providers' batch APIs, simulated: many requests handed in at once, answered later, billed apart (at half the price).

    POST /v1/messages/batches    GET ../batches  ../batches/{id}  ../batches/{id}/results    POST ../batches/{id}/cancel
    POST /v1/files               GET /v1/files/{id}/content
    POST /v1/batches             GET /v1/batches  /v1/batches/{id}                           POST /v1/batches/{id}/cancel

A batch ends `batch_s` seconds after it was made (a setting); what it was asked is answered in that moment, by the same
script as a direct request. Everything is in memory. Paths that both vendors have (none here) are told by their headers.
Sources: Anthropic API reference, "Message Batches"; OpenAI API reference, "Batch" and "Files".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec
from aiohttp import web

from stanchion.sim.exchange import Refusal, WireName, digest_of

ENDPOINTS: dict[str, WireName] = {"/v1/chat/completions": "openai_chat", "/v1/responses": "openai_responses"}
MOST_ANTHROPIC = 100_000
MOST_OPENAI = 50_000
LIFE_S = 24 * 3600
_MESSAGES = "/v1/messages/batches"


class Reply(NamedTuple):
    """The answer to one request of a batch."""

    status: int
    body: bytes


Respond = Callable[[WireName, bytes, str], Reply]
"""Answers a request (wire, body, API key) whole, and bills it as one of a batch."""


class _Item(msgspec.Struct):
    id: str
    body: bytes
    reply: Reply | None = None


class _Batch(msgspec.Struct):
    id: str
    key: str
    wire: WireName
    items: list[_Item]
    made: datetime
    state: Literal["running", "ended", "cancelled"] = "running"
    endpoint: str = ""
    file: str = ""
    metadata: dict[str, str] | None = None
    ended: datetime | None = None
    output: str = ""
    errors: str = ""


class _Asked(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Create(msgspec.Struct):
    requests: list[_Asked]


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _CreateOpenAI(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class Batches:
    """The batches and files of one simulated provider."""

    def __init__(self, respond: Respond, key_of: Callable[[web.Request], str], batch_s: float) -> None:
        self._respond = respond
        self._key_of = key_of
        self._batch_s = batch_s
        self._batches: dict[str, _Batch] = {}
        self._files: dict[str, tuple[str, bytes]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the paths."""
        router.add_post(_MESSAGES, self._create_messages)
        router.add_get(_MESSAGES, self._list_messages)
        router.add_get(_MESSAGES + "/{id}", self._show_messages)
        router.add_post(_MESSAGES + "/{id}/cancel", self._cancel_messages)
        router.add_get(_MESSAGES + "/{id}/results", self._results)
        router.add_post("/v1/files", self._upload)
        router.add_get("/v1/files/{id}/content", self._content)
        router.add_post("/v1/batches", self._create)
        router.add_get("/v1/batches", self._list)
        router.add_get("/v1/batches/{id}", self._show)
        router.add_post("/v1/batches/{id}/cancel", self._cancel)

    def clear(self) -> None:
        """Forget everything; what runs is cancelled."""
        for task in self._running:
            task.cancel()
        self._batches.clear()
        self._files.clear()

    # --- what both vendors have in common ------------------------------------------------------------------------------

    def _begin(self, batch: _Batch) -> None:
        self._batches[batch.id] = batch
        task = asyncio.create_task(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: _Batch) -> None:
        await asyncio.sleep(self._batch_s)
        if batch.state == "running":
            for item in batch.items:
                item.reply = self._respond(batch.wire, item.body, batch.key)
                await asyncio.sleep(0)
        self._end(batch, "ended" if batch.state == "running" else "cancelled")

    def _end(self, batch: _Batch, state: Literal["ended", "cancelled"]) -> None:
        batch.state, batch.ended = state, datetime.now(UTC)
        if batch.wire != "anthropic":
            batch.output = self._keep(batch, [item for item in batch.items if item.reply and item.reply.status == 200])
            batch.errors = self._keep(batch, [item for item in batch.items if item.reply and item.reply.status != 200])

    def _keep(self, batch: _Batch, items: Sequence[_Item]) -> str:
        """Write a result file; "": there is nothing for it."""
        if not items:
            return ""
        data = b"".join(_openai_line(batch, item) for item in items)
        name = f"file-sim{digest_of(batch.id, data)}"
        self._files[name] = (batch.key, data)
        return name

    def _find(self, request: web.Request, *, anthropic: bool) -> _Batch:
        found = self._batches.get(request.match_info["id"])
        if found is None or found.key != self._key_of(request) or (found.wire == "anthropic") != anthropic:
            raise Refusal(f"No such batch: {request.match_info['id']}", status=404, kind="not_found_error")
        return found

    def _mine(self, request: web.Request, *, anthropic: bool) -> list[_Batch]:
        key = self._key_of(request)
        mine = [b for b in self._batches.values() if b.key == key and (b.wire == "anthropic") == anthropic]
        return mine[::-1]

    # --- Anthropic -----------------------------------------------------------------------------------------------------

    async def _create_messages(self, request: web.Request) -> web.Response:
        key = self._key_of(request)
        if "anthropic-version" not in request.headers:
            raise Refusal("anthropic-version: header is required", param="anthropic-version")
        body = await request.read()
        try:
            asked = msgspec.json.decode(body, type=_Create).requests
        except msgspec.DecodeError as error:
            raise Refusal(f"requests: {error}", param="requests") from None
        _check_ids("requests", [item.custom_id for item in asked], MOST_ANTHROPIC)
        items = [_Item(item.custom_id, bytes(item.params)) for item in asked]
        batch = _Batch(f"msgbatch_sim{digest_of(str(len(self._batches)), body)}", key, "anthropic", items, _now())
        self._begin(batch)
        return _json(_message_batch(batch, request))

    async def _show_messages(self, request: web.Request) -> web.Response:
        return _json(_message_batch(self._find(request, anthropic=True), request))

    async def _list_messages(self, request: web.Request) -> web.Response:
        data = [_message_batch(batch, request) for batch in self._mine(request, anthropic=True)]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return _json({"data": data, "has_more": False, "first_id": first, "last_id": last})

    async def _cancel_messages(self, request: web.Request) -> web.Response:
        batch = self._find(request, anthropic=True)
        if batch.state == "running":
            batch.state = "cancelled"
        return _json(_message_batch(batch, request))

    async def _results(self, request: web.Request) -> web.Response:
        batch = self._find(request, anthropic=True)
        if batch.ended is None:
            raise Refusal("the batch has not ended; its results are not available yet", status=404)
        lines = b"".join(_result_line(item) for item in batch.items)
        return web.Response(body=lines, headers={"content-type": "application/x-jsonl"})

    # --- OpenAI --------------------------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.Response:
        key = self._key_of(request)
        form = await request.post()
        sent = form.get("file")
        if form.get("purpose") != "batch" or not isinstance(sent, web.FileField):
            raise Refusal("send multipart fields: purpose=batch, and file", param="purpose")
        data = await asyncio.to_thread(sent.file.read)
        name = f"file-sim{digest_of(str(len(self._files)), data)}"
        self._files[name] = (key, data)
        said = {"id": name, "object": "file", "bytes": len(data), "created_at": int(_now().timestamp())}
        return _json({**said, "filename": sent.filename, "purpose": "batch", "status": "processed"})

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(body=self._file(request, request.match_info["id"]), content_type="application/jsonl")

    def _file(self, request: web.Request, name: str) -> bytes:
        key, data = self._files.get(name, ("", b""))
        if not key or key != self._key_of(request):
            raise Refusal(f"No such File object: {name}", status=404, param="id")
        return data

    async def _create(self, request: web.Request) -> web.Response:
        key = self._key_of(request)
        try:
            asked = msgspec.json.decode(await request.read(), type=_CreateOpenAI)
        except msgspec.DecodeError as error:
            raise Refusal(str(error)) from None
        if asked.endpoint not in ENDPOINTS:
            raise Refusal(f"endpoint must be one of {', '.join(ENDPOINTS)}", param="endpoint")
        if asked.completion_window != "24h":
            raise Refusal("completion_window must be 24h", param="completion_window")
        items = _read_lines(self._file(request, asked.input_file_id), asked.endpoint)
        name = f"batch_sim{digest_of(str(len(self._batches)), asked.input_file_id.encode())}"
        wire = ENDPOINTS[asked.endpoint]
        batch = _Batch(name, key, wire, items, _now(), endpoint=asked.endpoint, file=asked.input_file_id)
        batch.metadata = asked.metadata
        self._begin(batch)
        return _json(_openai_batch(batch))

    async def _show(self, request: web.Request) -> web.Response:
        return _json(_openai_batch(self._find(request, anthropic=False)))

    async def _list(self, request: web.Request) -> web.Response:
        data = [_openai_batch(batch) for batch in self._mine(request, anthropic=False)]
        return _json({"object": "list", "data": data, "has_more": False})

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._find(request, anthropic=False)
        if batch.state == "running":
            batch.state = "cancelled"
        return _json(_openai_batch(batch))


def _check_ids(where: str, ids: Sequence[str], most: int) -> None:
    if not 1 <= len(ids) <= most:
        raise Refusal(f"{where}: must hold 1 to {most:,} requests", param=where)
    if len(set(ids)) < len(ids):
        raise Refusal(f"{where}: each custom_id must be unique within the batch", param=where)
    if bad := next((name for name in ids if not 1 <= len(name) <= 64), None):
        raise Refusal(f"{where}: custom_id {bad!r} must have 1 to 64 characters", param=where)


def _read_lines(data: bytes, endpoint: str) -> list[_Item]:
    items: list[_Item] = []
    for number, line in enumerate(filter(None, data.splitlines()), start=1):
        try:
            asked = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise Refusal(f"line {number} of the input file: {error}", param="input_file_id") from None
        if asked.url != endpoint or asked.method != "POST":
            raise Refusal(f"line {number} of the input file: must be POST {endpoint}", param="input_file_id")
        items.append(_Item(asked.custom_id, bytes(asked.body)))
    _check_ids("input_file_id", [item.id for item in items], MOST_OPENAI)
    return items


def _message_batch(batch: _Batch, request: web.Request) -> dict[str, Any]:
    done = [item.reply.status for item in batch.items if item.reply]
    lost = len(batch.items) - len(done)
    over = batch.ended is not None
    counts = {
        "processing": 0 if over else lost,
        "succeeded": done.count(200),
        "errored": len(done) - done.count(200),
        "canceled": lost if over else 0,
        "expired": 0,
    }
    running = {"running": "in_progress", "cancelled": "canceling"}
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if over else running[batch.state],
        "request_counts": counts,
        "created_at": _iso(batch.made),
        "expires_at": _iso(batch.made + timedelta(seconds=LIFE_S)),
        "ended_at": _iso(batch.ended),
        "cancel_initiated_at": None,
        "archived_at": None,
        "results_url": f"{request.url.origin()}{_MESSAGES}/{batch.id}/results" if over else None,
    }


def _result_line(item: _Item) -> bytes:
    result: dict[str, Any] = {"type": "canceled"}
    if item.reply is not None:
        kind, field = ("succeeded", "message") if item.reply.status == 200 else ("errored", "error")
        result = {"type": kind, field: msgspec.Raw(item.reply.body)}
    return msgspec.json.encode({"custom_id": item.id, "result": result}) + b"\n"


def _openai_batch(batch: _Batch) -> dict[str, Any]:
    done = [item.reply.status for item in batch.items if item.reply]
    over = batch.ended is not None
    status = {"running": "in_progress", "ended": "completed", "cancelled": "cancelled" if over else "cancelling"}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": None,
        "input_file_id": batch.file,
        "completion_window": "24h",
        "status": status[batch.state],
        "output_file_id": batch.output or None,
        "error_file_id": batch.errors or None,
        "created_at": int(batch.made.timestamp()),
        "expires_at": int(batch.made.timestamp()) + LIFE_S,
        "completed_at": int(batch.ended.timestamp()) if batch.ended else None,
        "request_counts": {
            "total": len(batch.items),
            "completed": done.count(200),
            "failed": len(done) - done.count(200),
        },
        "metadata": batch.metadata,
    }


def _openai_line(batch: _Batch, item: _Item) -> bytes:
    if item.reply is None:
        raise AssertionError("only answered requests stand in a result file")
    digits = digest_of(batch.id, item.id.encode())
    response = {
        "status_code": item.reply.status,
        "request_id": f"req_sim{digits}",
        "body": msgspec.Raw(item.reply.body),
    }
    line = {"id": f"batch_req_sim{digits}", "custom_id": item.id, "response": response, "error": None}
    return msgspec.json.encode(line) + b"\n"


def _now() -> datetime:
    return datetime.now(UTC)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), headers={"content-type": "application/json"})
