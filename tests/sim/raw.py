"""Speak to the sim without an SDK, to see its bytes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp

from stanchion.sim import SimServer
from stanchion.sim.exchange import WireName

HEADERS = {"x-api-key": "sim-test", "anthropic-version": "2023-06-01"}
PATHS: dict[WireName, str] = {
    "anthropic": "/v1/messages",
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
}
WIRES: tuple[WireName, ...] = ("anthropic", "openai_chat", "openai_responses")


def body_of(wire: WireName, text: str = "hello", *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """Make a small request."""
    message = {"role": "user", "content": text}
    if wire == "anthropic":
        return {"model": "m", "max_tokens": 4096, "messages": [message], "stream": stream, **more}
    if wire == "openai_chat":
        return {"model": "m", "messages": [message], "stream": stream, **more}
    return {"model": "m", "input": [message], "stream": stream, **more}


@contextlib.asynccontextmanager
async def client(sim: SimServer, **headers: str) -> AsyncGenerator[aiohttp.ClientSession]:
    """Open a session on the sim."""
    async with aiohttp.ClientSession(sim.base_url, headers={**HEADERS, **headers}) as session:
        yield session


async def post(sim: SimServer, wire: WireName, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    """Post a request; say status and body."""
    async with client(sim, **headers) as session, session.post(PATHS[wire], json=body) as response:
        return response.status, await response.json(content_type=None)


async def post_bytes(sim: SimServer, wire: WireName, body: dict[str, Any], **headers: str) -> bytes:
    """Post a request; give the body's bytes."""
    async with client(sim, **headers) as session, session.post(PATHS[wire], json=body) as response:
        return await response.read()


def said(wire: WireName, body: dict[str, Any]) -> str:
    """Take the text out of a response."""
    if wire == "anthropic":
        return "".join(b["text"] for b in body["content"] if b["type"] == "text")
    if wire == "openai_chat":
        return body["choices"][0]["message"]["content"] or ""
    return "".join(p["text"] for i in body["output"] if i["type"] == "message" for p in i["content"])
