"""Send an answer to the client, whole or broken in the way a fault wants it.

`deliver` returns what to bill: the output tokens generated, and whether the answer reached its end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Protocol, cast

import msgspec
from aiohttp import web

from stanchion.sim import wire_anthropic, wire_chat, wire_responses
from stanchion.sim.exchange import Answer, Ask, Refusal, Stream, WireName
from stanchion.sim.faults import Fault, FaultPlan
from stanchion.sim.pace import Ticker
from stanchion.sim.script import Pacing


class Wire(Protocol):
    """What a wire's module offers."""

    @property
    def PATH(self) -> str:  # noqa: N802 - a module's constant
        """The wire's path."""
        ...

    def read(self, body: bytes, /) -> Ask:
        """Read and check a request."""
        ...

    def whole(self, answer: Answer, /) -> bytes:
        """Encode a response that is not streamed."""
        ...

    def stream(self, answer: Answer, /) -> Stream:
        """Encode a response as a stream."""
        ...

    def error_body(self, refusal: Refusal, seed: str, /) -> bytes:
        """Encode an error response."""
        ...

    def error_event(self) -> bytes:
        """Encode the error that may come inside a stream."""
        ...

    def unknown_event(self) -> bytes:
        """Encode something nobody knows yet."""
        ...


WIRES: Mapping[WireName, Wire] = {
    "anthropic": wire_anthropic,
    "openai_chat": wire_chat,
    "openai_responses": wire_responses,
}
SLOW_S = 5.0
STALL_S = 3600.0
HTML = b"<html><body><h1>Simulated gateway page</h1><p>This is no answer of a model.</p></body></html>\n"
GARBAGE = b'\xff\xfe\x00data: {"\n\ndata: }}}not json\n\n\x80garbage (simulated)\n\n'
_BROKEN = {
    Fault.STALL_MID_STREAM,
    Fault.CUT,
    Fault.CUT_CLOSE,
    Fault.EARLY_END,
    Fault.ERROR_EVENT,
    Fault.GARBAGE,
}
"""Faults that end an answer in its middle."""


class Sent(msgspec.Struct):
    """How far an answer got."""

    output_tokens: int = 0
    complete: bool = False


class Delivery:
    """Sends one answer. `sent` is kept up to date, so that it is right whenever the handler is cancelled."""

    def __init__(self, request: web.Request, headers: Mapping[str, str], ticker: Ticker) -> None:
        self.sent = Sent()
        self._request = request
        self._headers = headers
        self._ticker = ticker

    async def send(self, answer: Answer, pacing: Pacing, plan: FaultPlan | None) -> web.StreamResponse:
        """Send an answer by its wire, streamed or whole."""
        if plan is not None and plan.kind is Fault.STALL_FIRST_BYTE:
            return await self._stall(plan)
        if plan is not None and plan.kind is Fault.SLOW_FIRST_BYTE:
            await asyncio.sleep(SLOW_S if plan.stall_s is None else plan.stall_s)
        if answer.ask.stream:
            return await self._stream(answer, pacing, plan)
        return await self._whole(answer, pacing, plan)

    async def _stall(self, plan: FaultPlan) -> web.StreamResponse:
        await asyncio.sleep(STALL_S if plan.stall_s is None else plan.stall_s)
        return self.reset()

    async def _stream(self, answer: Answer, pacing: Pacing, plan: FaultPlan | None) -> web.StreamResponse:
        wire = WIRES[answer.ask.wire]
        stream = wire.stream(answer)
        kind = plan.kind if plan else None
        beats, ends = [data for data, _ in stream.beats], [tokens for _, tokens in stream.beats]
        if kind is Fault.UNKNOWN_EVENTS:
            beats = [wire.unknown_event() + beat if i % 3 == 0 else beat for i, beat in enumerate(beats)]
        if plan is not None and kind in _BROKEN:
            # At least one beat is held back, so that a broken answer is never a whole one by chance.
            beats = beats[: max(0, min(round(len(beats) * plan.at), len(beats) - 1))]
        await asyncio.sleep(pacing.first_s)
        response = web.StreamResponse(headers={**self._headers, "content-type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        if not await self._send_beats(response, stream.head, beats, ends, pacing, answer.seed):
            return response
        if plan is not None and kind in _BROKEN:
            return await self._break(response, plan, wire)
        self.sent.output_tokens = answer.usage.output_tokens
        await response.write(stream.tail)
        self.sent.complete = True
        await response.write_eof()
        return response

    async def _send_beats(
        self, response: web.StreamResponse, head: bytes, beats: list[bytes], ends: list[int], pacing: Pacing, seed: str
    ) -> bool:
        """Send what a stream says, at its speed; say whether the client took it all.

        The first write goes through aiohttp and takes the header along; the ticker then writes past it.
        """
        at_once = len(beats) if pacing.interval_s == 0 else min(1, len(beats))
        self.sent.output_tokens = ends[at_once - 1] if at_once else 0
        await response.write(head + b"".join(beats[:at_once]))
        if at_once == len(beats):
            return True
        playing = self._ticker.start(self._transport(), beats[at_once:], pacing, seed)
        try:
            await self._ticker.play(playing)
        finally:
            self.sent.output_tokens = ends[at_once + playing.sent - 1]
        return at_once + playing.sent == len(beats)

    async def _whole(self, answer: Answer, pacing: Pacing, plan: FaultPlan | None) -> web.StreamResponse:
        wire = WIRES[answer.ask.wire]
        body = wire.whole(answer)
        kind = plan.kind if plan else None
        if kind is Fault.UNKNOWN_EVENTS:
            body = body[:-1] + b',"sim_future_field":{"a":1}}'
        delay = pacing.first_s + pacing.interval_s * (pacing.events or answer.usage.output_tokens)
        await asyncio.sleep(delay)
        headers = {**self._headers, "content-type": "application/json"}
        self.sent.output_tokens = answer.usage.output_tokens
        if plan is None or kind not in _BROKEN:
            self.sent.complete = True
            return web.Response(body=body, headers=headers)
        if kind is Fault.ERROR_EVENT:
            error = Refusal("The server had an error (simulated)", status=500)
            return web.Response(body=wire.error_body(error, answer.seed), headers=headers)
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        await response.write(body[: max(1, min(int(len(body) * plan.at), len(body) - 2))])
        return await self._break(response, plan, wire)

    async def _break(self, response: web.StreamResponse, plan: FaultPlan, wire: Wire) -> web.StreamResponse:
        """End an answer in its middle."""
        match plan.kind:
            case Fault.EARLY_END:
                await response.write_eof()
            case Fault.ERROR_EVENT:
                await response.write(wire.error_event())
                await response.write_eof()
            case Fault.GARBAGE:
                await response.write(GARBAGE)
                await response.write_eof()
            case Fault.STALL_MID_STREAM:
                await asyncio.sleep(STALL_S if plan.stall_s is None else plan.stall_s)
                self._transport().close()
            case Fault.CUT_CLOSE:
                self._transport().close()
            case _:
                # What was written goes out before the reset throws away what is still in the socket.
                await asyncio.sleep(0.02)
                self.reset()
        return response

    def reset(self) -> web.StreamResponse:
        """Reset the connection, so that the client sees a TCP RST and not an orderly end."""
        transport = self._transport()
        sock = cast("socket.socket | None", transport.get_extra_info("socket"))
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return web.Response()

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return transport
