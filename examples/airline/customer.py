"""A simulated customer: holds a conversation with the airline's agent on a running server, and decides what waits.

    stanchion serve examples/airline/agent.py            # in one terminal
    python examples/airline/customer.py                  # in another

The customer (see `persona.py`) speaks over HTTP like any client: one run for each thing it says, all in one session. Where
a call waits for approval, it plays the airline's colleague too and approves or rejects, as the persona says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `examples.airline` is found however this was started

from examples.airline.persona import PERSONAS, Customer, Persona

Json = dict[str, Any]
POLL_S = 0.2


class Unanswered(Exception):
    """The server did not do as it was asked; the message says why and what to do."""


class Server:
    """A running Stanchion server, as a client sees it."""

    def __init__(self, url: str, api_key: str = "", timeout_s: float = 120.0) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s

    def start(self, agent: str, said: str, session: str, user: str) -> Json:
        """Say something: a new run in the session ("" for a new one). Returns what the server tells of it."""
        body = {"agent": agent, "input": said, "user": user, "mode": "submit"}
        return self._call("POST", "/v1/runs", {**body, "session": session} if session else body)

    def settle(self, run: str) -> Json:
        """Wait until a run has ended or needs a person."""
        give_up = time.monotonic() + self._timeout_s
        while time.monotonic() < give_up:
            view = self._call("GET", f"/v1/runs/{run}")
            if view["status"] == "parked":
                raise Unanswered(f"run {run} is parked: {view['parked']}; see `stanchion runs show {run}`")
            if view["status"] == "ended" or view["waiting"]:
                return view
            time.sleep(POLL_S)
        raise Unanswered(f"run {run} neither ended nor asked within {self._timeout_s:g} s")

    def decide(self, run: str, call: Json, decision: str, reason: str) -> None:
        """Approve or reject a call that waits, at the revision that was shown."""
        body = {"call": call["call"], "revision": call["revision"], "decision": decision, "reason": reason}
        self._call("POST", f"/v1/runs/{run}/decisions", {**body, "by": "colleague"})

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return cast(Json, json.loads(response.read() or b"{}"))
        except urllib.error.HTTPError as error:
            with error:
                raise Unanswered(f"{method} {path}: {error.code} {_message(error.read())}") from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Unanswered(
                f"no server at {self._url} ({reason}); start one: stanchion serve examples/airline/agent.py"
            ) from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def converse(server: Server, persona: Persona, *, agent: str = "airline", tell: Callable[[str], None] = print) -> Json:
    """Hold the whole conversation, telling what is said; return the last run as it ended."""
    customer, session, answer = Customer(persona), "", ""
    view: Json = {}
    while (said := customer.next_line(answer)) is not None:
        tell(f"customer   {said}")
        started = server.start(agent, said, session, "nora")
        session = started["session"]
        view = _through(server, persona, started["run"], tell)
        answer = view["text"]
        tell(f"agent      {answer or '(said nothing)'}")
        if view["outcome"] != "done":
            tell(f"           The run ended as {view['outcome']}: {view['reason']}")
            break
    return view


def _through(server: Server, persona: Persona, run: str, tell: Callable[[str], None]) -> Json:
    """See a run to its end, deciding on each call that waits, once for each revision."""
    decided: set[tuple[str, int]] = set()
    while (view := server.settle(run))["status"] != "ended":
        fresh = [call for call in view["waiting"] if (call["call"], call["revision"]) not in decided]
        for call in fresh:
            if call["kind"] != "approval":
                raise Unanswered(f"{call['tool']} is in doubt; decide on it: stanchion decide {run} {call['call']}")
            decision = "approve" if persona.approves else "reject"
            tell(f"colleague  {decision}s {call['tool']}({json.dumps(call['arguments'])})")
            server.decide(run, call, decision, persona.reason)
            decided.add((call["call"], call["revision"]))
        if not fresh:
            time.sleep(POLL_S)  # the decision is durable, the run has not taken it in yet
    return view


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 when the conversation came to its end, 1 when it did not."""
    parser = argparse.ArgumentParser(description="Let a simulated customer talk to the airline's agent.")
    parser.add_argument("--url", default=os.environ.get("STANCHION_URL") or "http://127.0.0.1:8420")
    parser.add_argument("--api-key", default=os.environ.get("STANCHION_API_KEY", ""))
    parser.add_argument("--persona", choices=sorted(PERSONAS), default="cancels")
    options = parser.parse_args(argv)
    persona = PERSONAS[options.persona]
    print(persona.about)
    try:
        last = converse(Server(options.url, options.api_key), persona)
    except Unanswered as error:
        print(f"customer: {error}", file=sys.stderr)
        return 1
    return 0 if last.get("outcome") in ("done", "escalated") else 1


if __name__ == "__main__":
    sys.exit(main())
