"""The simulated customer over HTTP, against a stand-in for the server that answers as the API says it does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest

from examples.airline.customer import Server, Unanswered, converse, main
from examples.airline.persona import Line, Persona

ASKED = {"call": "4.0", "revision": 0, "kind": "approval", "tool": "cancel_reservation", "arguments": {"a": 1}}
PERSONA = Persona("p", "", (Line("Cancel it."), Line("Thanks.", after="done")))


class StandIn(ThreadingHTTPServer):
    """Each run asks for one approval, and ends when it was decided."""

    daemon_threads = True
    asked: dict[str, Any] = ASKED
    status = "waiting"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.started: list[dict[str, Any]] = []
        self.decided: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def view(self) -> dict[str, Any]:
        ended = len(self.decided) == len(self.started)
        rejected = ended and self.decided[-1]["decision"] == "reject"
        return {
            "status": "ended" if ended else self.status,
            "waiting": [] if ended else [self.asked],
            "text": "Not allowed." if rejected else "It is done.",
            "outcome": "done",
            "reason": "",
            "parked": "no such agent",
        }


class Handler(BaseHTTPRequestHandler):
    @property
    def stand_in(self) -> StandIn:
        return cast(StandIn, self.server)

    def do_GET(self) -> None:
        self.answer(200, self.stand_in.view())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/decisions"):
            self.stand_in.decided.append(body)
            self.answer(202, {"run": "r1"})
        elif body["agent"] != "airline":
            self.answer(404, {"error": {"message": "there is no such agent"}})
        else:
            self.stand_in.started.append(body)
            self.answer(202, {"run": f"r{len(self.stand_in.started)}", "session": "s1", "existing": False})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_customer_goes_on_in_its_session_and_approves(stand_in: StandIn) -> None:
    """Each line is a run of one session; the call that waits is approved at the revision shown, once."""
    told: list[str] = []
    last = converse(Server(stand_in.url), PERSONA, tell=told.append)
    assert last["text"] == "It is done."
    assert [run["input"] for run in stand_in.started] == ["Cancel it.", "Thanks."]
    assert [run.get("session") for run in stand_in.started] == [None, "s1"]
    assert [(d["call"], d["revision"], d["decision"]) for d in stand_in.decided] == [("4.0", 0, "approve")] * 2
    assert told[1] == 'colleague  approves cancel_reservation({"a": 1})'


def test_a_colleague_who_rejects_gives_the_reason(stand_in: StandIn) -> None:
    """The model is told why."""
    persona = Persona("p", "", (Line("Cancel it."), Line("Thanks.", after="done")), approves=False, reason="no")
    assert converse(Server(stand_in.url), persona, tell=lambda _: None)["text"] == "Not allowed."
    assert [(d["decision"], d["reason"]) for d in stand_in.decided] == [("reject", "no")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asked": {**ASKED, "kind": "in_doubt"}}, "is in doubt; decide on it"),
        ({"status": "parked"}, "is parked: no such agent"),
    ],
)
def test_what_needs_a_real_person_is_said(stand_in: StandIn, changes: dict[str, Any], message: str) -> None:
    """The customer does not decide what it cannot know."""
    for name, value in changes.items():
        setattr(stand_in, name, value)
    with pytest.raises(Unanswered, match=message):
        converse(Server(stand_in.url), PERSONA, tell=lambda _: None)


def test_the_servers_error_is_passed_on(stand_in: StandIn) -> None:
    """In its words, with its status."""
    with pytest.raises(Unanswered, match="404 there is no such agent"):
        converse(Server(stand_in.url), PERSONA, agent="other", tell=lambda _: None)


def test_without_a_server_it_says_how_to_start_one(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1."""
    assert main(["--url", f"http://127.0.0.1:{unused_tcp_port}"]) == 1
    assert "stanchion serve examples/airline/agent.py" in capsys.readouterr().err
