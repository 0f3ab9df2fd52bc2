"""Streams whose client is cut off again and again: what it missed, and what it saw twice.

Each word of a run's text is another one, so the client's own text tells. Where the stream has numbers, they are counted too.
A client is given what the framework's pages say about reading on: the last number it saw, or nothing but to ask again.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.peers.cells import Figures, Size
from bench.peers.peers import Peer
from bench.peers.work import PROMPT, WORDS, script
from bench.peers.world import World

TURNS = 3
GAP_S = 0.010
AGAIN = 30
"""Connections of one run, after which it is given up."""
_WORD = re.compile(r"t\dw\d{3}")
_DOUBLE = "\n\n"


@dataclass(slots=True)
class Reader:
    """What a client has of a run."""

    name: str
    text: dict[Any, str] = field(default_factory=dict[Any, str])
    last: int = -1
    run: str = ""
    ended: bool = False
    missed: int = 0
    repeated: int = 0
    cuts: int = 0

    def number(self, number: int) -> bool:
        """Note the number of an event; say whether it is new."""
        if number <= self.last:
            self.repeated += 1
            return False
        self.missed += number - self.last - 1
        self.last = number
        return True

    def add(self, text: str) -> None:
        """Take text in at the end."""
        self.text[0] = self.text.get(0, "") + text

    def words(self) -> Counter[str]:
        """Count the words."""
        return Counter(_WORD.findall("".join(self.text.values())))


class Stanchion:
    """`Last-Event-ID`, and deltas that say where they belong."""

    how = "Last-Event-ID"

    def request(self, url: str, reader: Reader) -> dict[str, Any]:
        """Start a run, or attach to it."""
        if not reader.run:
            reader.last = 0
            body = {"agent": "support", "input": PROMPT.format(reader.name), "mode": "stream"}
            headers = {"idempotency-key": reader.name}
            return {"method": "POST", "url": f"{url}/v1/runs", "json": body, "headers": headers}
        headers = {"last-event-id": str(reader.last)} if reader.last else {}
        return {"method": "GET", "url": f"{url}/v1/runs/{reader.run}/events", "headers": headers}

    def take(self, reader: Reader, kind: str, number: str, data: dict[str, Any]) -> None:
        """Take an event in: a delta at its offset, a finished call's text as it is."""
        if number:
            if not reader.number(int(number)):
                return
            reader.run = data.get("run", reader.run) if kind == "run_started" else reader.run
            if kind == "model_call_finished":
                reader.text[data["turn"]] = "".join(p["text"] for p in data["parts"] if p["type"] == "text")
        elif kind == "delta" and data.get("kind", "text") == "text":
            before = reader.text.get(data["turn"], "")
            reader.text[data["turn"]] = before[: data["offset"]] + data["text"]
        elif kind == "end":
            reader.ended = data["reason"] == "finished"


class Agno:
    """`event_index`, handed back to `/resume`."""

    how = "event_index"

    def request(self, url: str, reader: Reader) -> dict[str, Any]:
        """Start a run in the background, or resume its stream."""
        path = f"{url}/agents/support/runs"
        if not reader.run:
            form = {"message": PROMPT.format(reader.name), "background": "true", "stream": "true"}
            return {"method": "POST", "url": path, "data": {**form, "session_id": reader.name}}
        form = {"session_id": reader.name, **({"last_event_index": str(reader.last)} if reader.last >= 0 else {})}
        return {"method": "POST", "url": f"{path}/{reader.run}/resume", "data": form}

    def take(self, reader: Reader, kind: str, number: str, data: dict[str, Any]) -> None:
        """Take an event in."""
        reader.run = data.get("run_id", reader.run)
        if "event_index" not in data or not reader.number(int(data["event_index"])):
            reader.ended = reader.ended or (kind == "replay" and data.get("status") == "COMPLETED")
            return
        if kind == "RunContent" and isinstance(data.get("content"), str):
            reader.add(data["content"])
        reader.ended = reader.ended or kind == "RunCompleted"


class Plain:
    """A plain endpoint: with a durable stream behind it a place to read from, else nothing."""

    def __init__(self, numbered: bool) -> None:
        self.how = "offset" if numbered else "no resumable stream: asked again"

    def request(self, url: str, reader: Reader) -> dict[str, Any]:
        """Ask for the run."""
        place = f"?after={reader.last}" if reader.last > 0 else ""
        return {"method": "POST", "url": f"{url}/runs/{reader.name}{place}"}

    def take(self, reader: Reader, kind: str, number: str, data: dict[str, Any]) -> None:
        """Take an event in."""
        if kind == "end":
            reader.ended = True
            return
        if number:
            reader.last = max(reader.last, 0)
            if not reader.number(int(number)):
                return
        reader.add(data["text"])


async def streams(world: World, peer: Peer, size: Size, seed: int) -> Figures:
    """Cut off clients, so many times in all; count."""
    await world.play(script(TURNS, gap_s=GAP_S))
    numbered = bool(peer.stream_variant)
    kind = {"stanchion": Stanchion, "agno": Agno}.get(peer.name, lambda: Plain(numbered))()
    variant = {"variant": peer.stream_variant} if peer.stream_variant else {}
    dice = random.Random(seed)
    async with world.subject(peer, **variant) as (running, _):
        url = (await running.ask("serve"))["url"]
        cuts = size.disconnects // size.readers
        readers = [Reader(f"s-{number}") for number in range(size.readers)]
        moments = [[dice.uniform(0.3, 1.5) for _ in range(cuts)] for _ in readers]
        pairs = zip(readers, moments, strict=True)
        await asyncio.gather(*(_read(world.http, url, kind, reader, times) for reader, times in pairs))
    return {"how": kind.how, "numbered": numbered or not isinstance(kind, Plain), **_counted(readers)}


def _counted(readers: list[Reader]) -> Figures:
    missing = again = 0
    for reader in readers:
        words = reader.words()
        missing += TURNS * WORDS - len(words)
        again += sum(words.values()) - len(words)
    return {
        "disconnects": sum(reader.cuts for reader in readers), "runs": len(readers),
        "ended": sum(reader.ended for reader in readers), "missed": sum(reader.missed for reader in readers),
        "repeated": sum(reader.repeated for reader in readers), "words": TURNS * WORDS * len(readers),
        "words_missing": missing, "words_again": again,
    }  # fmt: skip


async def _read(http: aiohttp.ClientSession, url: str, kind: Any, reader: Reader, moments: list[float]) -> None:
    for _ in range(AGAIN):
        until = moments.pop(0) if moments else 60.0
        try:
            async with asyncio.timeout(until):
                await _connection(http, kind.request(url, reader), kind, reader)
        except TimeoutError:
            reader.cuts += 1
        except (aiohttp.ClientError, ValueError):
            await asyncio.sleep(0.1)
        if reader.ended:
            return
        await asyncio.sleep(0.05)


async def _connection(http: aiohttp.ClientSession, asked: dict[str, Any], kind: Any, reader: Reader) -> None:
    async with http.request(**asked, timeout=aiohttp.ClientTimeout(total=None)) as response:
        response.raise_for_status()
        rest = ""
        async for chunk in response.content.iter_any():
            *events, rest = (rest + chunk.decode()).split(_DOUBLE)
            for event in events:
                fields = dict(line.split(": ", 1) for line in event.split("\n") if ": " in line and line[0] != ":")
                if "data" in fields:
                    data = json.loads(fields["data"])
                    kind.take(reader, fields.get("event", data.get("event", "")), fields.get("id", ""), data)
                if reader.ended:
                    return
