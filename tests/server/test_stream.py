"""Following a run: gapless from any event on, live text between, slow and dead clients, and an end with a reason."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from stanchion.core.errors import StoreFull
from tests.server.serving import QUIET, Event, HeldModel, Served, refunder, served
from tests.waiting import until


async def collect(server: Served, path: str, **more: object) -> list[Event]:
    async with asyncio.timeout(20):
        return [event async for event in server.events(path, **more)]  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [True, False])
async def test_attaching_again_misses_and_repeats_nothing(tmp_path: Path, header: bool) -> None:
    """From any event on, by Last-Event-ID or `after`, comes exactly what is behind it."""
    async with served(tmp_path) as server:
        run = (await server.start())["run"]
        path = f"/v1/runs/{run}/events"
        whole = [(e.id, e.kind, e.data) for e in await collect(server, path) if e.id]
        assert [name for name, _, _ in whole] == [str(seq) for seq in range(1, 10)]
        for seq in range(10):
            again = (
                await collect(server, f"{path}?after=1", headers={"last-event-id": str(seq)})
                if header
                else await collect(server, f"{path}?after={seq}")
            )
            assert [(e.id, e.kind, e.data) for e in again[:-1]] == whole[seq:]
            assert again[-1].data == {"reason": "finished", "seq": 9}


async def test_a_live_run_is_followed_across_broken_connections(tmp_path: Path) -> None:
    """A client that loses its connection within a model call gets the text so far, and every event once."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        path = f"/v1/runs/{run}/events"
        seen: list[str] = []
        async for event in server.events(path):
            seen += [event.id] if event.id else []
            if event.kind == "delta":
                break  # the connection is gone
        stream = server.events(path, headers={"last-event-id": seen[-1]})
        text = (await anext(stream)).data
        assert (text["text"], text["offset"]) == ("One", 0)
        model.go_on.set()
        deltas, ends = [], []
        async for event in stream:
            seen += [event.id] if event.id else []
            deltas += [event.data] if event.kind == "delta" else []
            ends += [event.data] if event.kind == "end" else []
        assert seen == [str(n) for n in range(1, int(seen[-1]) + 1)]
        assert all((delta["text"], delta["offset"]) == (" two.", 3) for delta in deltas)
        assert [end["reason"] for end in ends] == ["finished"]


async def test_a_client_that_loses_every_connection_still_sees_all(tmp_path: Path) -> None:
    """One event per connection, while the run goes on: gapless and once."""
    async with served(tmp_path, refunder()) as server:
        run = (await server.start())["run"]
        call = (await server.until(run, "waiting"))["waiting"][0]["call"]
        await server.call("POST", f"/v1/runs/{run}/decisions", {"call": call, "decision": "approve"})
        seen, kind = [0], ""
        while kind != "end":
            stream = server.events(f"/v1/runs/{run}/events", headers={"last-event-id": str(seen[-1])})
            async for event in stream:
                kind = event.kind
                if event.id:
                    seen.append(int(event.id))
                    break
            await stream.aclose()
        assert seen == list(range(len(seen)))
        assert len(seen) == 1 + (await server.until(run, "ended"))["seq"]


async def test_without_deltas_only_the_journal_comes(tmp_path: Path) -> None:
    """`deltas=false` leaves the text in the making out."""
    async with served(tmp_path) as server:
        run = (await server.start())["run"]
        kinds = [event.kind for event in await collect(server, f"/v1/runs/{run}/events?deltas=false")]
        assert "delta" not in kinds
        assert kinds[-1] == "end"


async def test_a_page_of_json_is_what_the_stream_is(tmp_path: Path) -> None:
    """By `format` or by Accept, in pages, with the same entries."""
    async with served(tmp_path) as server:
        run = (await server.start())["run"]
        path = f"/v1/runs/{run}/events"
        whole = [e.data for e in await collect(server, path) if e.id]
        pages, after, more = [], 0, True
        while more:
            page = (
                await server.call("GET", f"{path}?limit=4&after={after}", headers={"accept": "application/json"})
            ).json
            pages.append(page["events"])
            after, more = page["after"], page["more"]
        assert [len(page) for page in pages] == [4, 4, 1]
        assert [entry for page in pages for entry in page] == whole
        rest = (await server.call("GET", f"{path}?format=json", headers={"last-event-id": "9"})).json
        assert rest == {"events": [], "after": 9, "more": False}


async def test_a_run_that_waits_keeps_its_stream_with_a_heartbeat(tmp_path: Path) -> None:
    """A quiet stream gets comments, and goes on when the person has decided."""
    settings = msgspec.structs.replace(QUIET, heartbeat_s=0.02)
    async with served(tmp_path, refunder(), settings=settings) as server:
        run = (await server.start())["run"]
        following = asyncio.create_task(collect(server, f"/v1/runs/{run}/events"))
        call = (await server.until(run, "waiting"))["waiting"][0]["call"]
        await until(lambda: len(server.comments) >= 3)
        await server.call("POST", f"/v1/runs/{run}/decisions", {"call": call, "decision": "approve"})
        events = await following
        assert events[-1].data["reason"] == "finished"
        assert "call_decided" in [event.kind for event in events]


async def test_a_client_that_goes_is_noticed(tmp_path: Path) -> None:
    """A stream whose client is gone is closed on our side at once, in the middle of a silent run."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        edge = server.edge
        stream = server.events(f"/v1/runs/{run}/events")
        await anext(stream)
        assert edge.streams == 1
        await stream.aclose()
        await until(lambda: not edge.streams)
        model.go_on.set()
        await server.until(run, "ended")


async def attach_and_never_read(server: Served, run: str) -> socket.socket:
    """Open a stream with the smallest window there is, and read nothing of it."""
    address = urlsplit(server.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (address.hostname, address.port))
    request = f"GET /v1/runs/{run}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client, request.encode())
    return client


async def test_a_client_that_does_not_read_costs_the_run_nothing(tmp_path: Path) -> None:
    """20 MB of text flow by a client that takes none: the run ends, what is kept for the client stays small."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        await model.began.wait()
        client = await attach_and_never_read(server, run)
        edge = server.edge
        await until(lambda: edge.streams == 1)
        for _ in range(1000):
            model.say("x" * 20_000)
            await asyncio.sleep(0)
        model.go_on.set()
        view = await server.until(run, "ended")
        assert view["outcome"] == "done"
        client.setblocking(True)
        client.settimeout(10)
        got = await asyncio.to_thread(_read_all, client)
        events = got.count(b"\nevent: delta\n")
        assert b'"reason":"finished"' in got
        assert events < 200, "deltas that were not taken in time must come joined"


def _read_all(client: socket.socket) -> bytes:
    data = bytearray()
    with client:
        while b"event: end\n" not in data[-400:] and (chunk := client.recv(65536)):
            data += chunk
    return bytes(data)


async def test_a_client_that_takes_nothing_for_too_long_is_cut_off(tmp_path: Path) -> None:
    """After `send_timeout_s` the stream is closed on our side."""
    settings = msgspec.structs.replace(QUIET, heartbeat_s=0.02, send_timeout_s=0.2)
    model = HeldModel()
    async with served(tmp_path, model, settings=settings) as server:
        run = (await server.start())["run"]
        await model.began.wait()
        client = await attach_and_never_read(server, run)
        edge = server.edge
        with client:
            await until(lambda: edge.streams == 1)
            for _ in range(200):
                model.say("x" * 20_000)
                await asyncio.sleep(0)
            await until(lambda: not edge.streams)
        model.go_on.set()
        await server.until(run, "ended")


async def test_fifty_runs_at_once_each_with_a_stream(tmp_path: Path) -> None:
    """Every client sees its own run whole."""
    async with served(tmp_path) as server:

        async def one(n: int) -> tuple[list[str], str]:
            body = {"agent": "support", "input": f"Where is {n}?", "mode": "stream"}
            events = [event async for event in server.events("/v1/runs", method="POST", body=body)]
            return [event.id for event in events if event.id], events[0].data["parts"][0]["text"]

        async with asyncio.timeout(60):
            seen = await asyncio.gather(*(one(n) for n in range(50)))
        assert [text for _, text in seen] == [f"Where is {n}?" for n in range(50)]
        assert all(ids == [str(seq) for seq in range(1, 10)] for ids, _ in seen)


async def test_fifty_clients_follow_one_run(tmp_path: Path) -> None:
    """All see the same."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        following = [asyncio.create_task(collect(server, f"/v1/runs/{run}/events")) for _ in range(50)]
        edge = server.edge
        await until(lambda: edge.streams == 50)
        model.go_on.set()
        seen = await asyncio.gather(*following)
        journals = {msgspec.json.encode([e.data for e in events if e.id]) for events in seen}
        assert len(journals) == 1
        assert {events[-1].data["reason"] for events in seen} == {"finished"}


async def test_one_stream_too_many_is_told_to_come_again(tmp_path: Path) -> None:
    """429 with Retry-After; the streams that are open go on; a start is refused before it begins."""
    settings = msgspec.structs.replace(QUIET, max_streams=1)
    model = HeldModel()
    async with served(tmp_path, model, settings=settings) as server:
        run = (await server.start())["run"]
        stream = server.events(f"/v1/runs/{run}/events")
        await anext(stream)
        said = await server.call("GET", f"/v1/runs/{run}/events")
        assert (said.status, said.error["code"], said.error["retryable"]) == (429, "too_many_streams", True)
        assert said.headers["retry-after"]
        started = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Hi", "mode": "stream"})
        assert started.status == 429
        assert len((await server.call("GET", "/v1/runs")).json["runs"]) == 1
        model.go_on.set()
        assert [event.kind async for event in stream][-1] == "end"


async def test_a_stream_that_fails_says_so_with_an_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The store fails in mid-stream: the client gets an end with a code and an id, the log has the rest."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        real = server.runtime.tail

        async def failing(*args: object, **more: object):
            async for item in real(*args, **more):  # type: ignore[arg-type]
                yield item
                raise StoreFull

        server.runtime.tail = failing  # type: ignore[method-assign]
        events = await collect(server, f"/v1/runs/{run}/events")
        end = events[-1].data
        assert (end["reason"], end["code"], end["seq"]) == ("error", "store_full", 1)
        assert end["id"] in [getattr(record, "id", "") for record in caplog.records]
        model.go_on.set()
