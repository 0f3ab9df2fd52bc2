"""The desk over HTTP: a small client of a Stanchion server, with the same methods as over a data file.

An event stream that breaks off is attached again where it was. Errors of the server come as the errors they are.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, cast
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from stanchion.cli.desk import Ask, Decided, Json, TailItem, merged
from stanchion.cli.errors import Unreachable
from stanchion.cli.output import say
from stanchion.core.errors import ConfigError, Conflict, InputError, NotFound, StanchionError, Unauthorized

POLL_S = (0.05, 1.0)
"""How often a run that is waited for is looked at: at first, and at most."""
RECONNECTS = 10
ONCE_TRIES = 4
"""How often a request under a key is made while the server is away."""
AWAY = ("draining", "unreachable")
"""Codes of a server that may be back in a moment."""
MAX_EVENT_BYTES = 64_000_000


class Remote:
    """A server. Use it as an async context manager."""

    def __init__(self, url: str, api_key: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"{url!r} is not an address like http://127.0.0.1:8420", field="--url")
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def __aenter__(self) -> Remote:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, read_bufsize=2**20)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def start(self, ask: Ask) -> str:
        body: dict[str, Any] = {"agent": ask.agent, "input": ask.input, "session": ask.session, "user": ask.user}
        body |= {"dry_run": ask.dry_run} | ({"limits": {"usd": ask.usd}} if ask.usd else {})
        more = {"priority": ask.priority, "task": ask.task, "step": ask.step, "grants": ask.grants}
        body |= {name: value for name, value in more.items() if value not in ("", None)}
        return (await self._call_once("/v1/runs", body))["run"]

    async def view(self, run: str) -> Json:
        return await self._call("GET", f"/v1/runs/{_segment(run)}")

    async def wait(self, run: str, *, timeout_s: float | None = None) -> Json:
        """Look again and again, ever slower, until it ended, needs a person, or the time is over."""
        pause_s, most_s = POLL_S
        until = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        while True:
            view = await self._view_again(run)
            if view["status"] in ("ended", "parked") or view["waiting"]:
                return view
            if until is not None and asyncio.get_running_loop().time() >= until:
                return view
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, most_s)

    async def _view_again(self, run: str) -> Json:
        """Look at a run; a server that is being started again is waited for."""
        for tries in range(1, RECONNECTS):
            try:
                return await self.view(run)
            except StanchionError as error:
                if error.code not in AWAY:
                    raise
            await asyncio.sleep(_pause_s(tries))
        return await self.view(run)

    async def tail(self, run: str, *, after: int = 0, deltas: bool = True) -> AsyncIterator[TailItem]:
        """Stream events, gapless by seq; a broken connection is made again where it was."""
        tries = 0
        while tries < RECONNECTS:
            try:
                async for kind, item in self._stream(run, after, deltas=deltas):
                    if kind == "end":
                        if item["reason"] == "finished":
                            return
                        check_end(item)
                        break  # it drains: another may take its place
                    after, tries = (item["seq"], 0) if kind == "event" else (after, tries)
                    yield kind, item
            except (aiohttp.ClientError, TimeoutError):
                pass
            except StanchionError as error:
                if error.code not in AWAY:
                    raise
            tries += 1
            if tries == 1:
                say(f"the stream of {run} broke off at event {after}; attaching again")
            await asyncio.sleep(_pause_s(tries))
        raise Unreachable(f"the stream of {run} broke off at event {after} and {self._url} does not answer")

    async def _stream(
        self, run: str, after: int, *, deltas: bool
    ) -> AsyncIterator[tuple[Literal["event", "delta", "end"], Json]]:
        query = {"after": str(after), "deltas": "true" if deltas else "false"}
        path = f"/v1/runs/{_segment(run)}/events"
        headers = {"accept": "text/event-stream"}
        async with self._session.get(self._url + path, params=query, headers=headers) as response:
            if response.status != 200:
                raise error_of(response.status, await response.read())
            kind, buffer = "", b""
            async for chunk in response.content.iter_any():
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                if len(buffer) > MAX_EVENT_BYTES:
                    raise StanchionError("the server sent an event without an end")
                for line in lines:
                    if line.startswith(b"event: "):
                        kind = line[7:].decode()
                    elif line.startswith(b"data: "):
                        name: Literal["event", "delta", "end"] = "event"
                        if kind == "delta" or kind == "end":
                            name = kind
                        yield name, msgspec.json.decode(line[6:])

    async def shares(self) -> Sequence[Json]:
        return (await self._call("GET", "/v1/shares"))["shares"]

    async def set_share(self, scope: str, changes: Mapping[str, int | None], *, every: bool) -> Json:
        tenant = "" if every else "default"  # without keys, which this needs, there is one tenant
        values = merged(await self.shares(), tenant, scope, changes)
        return await self._call("PUT", "/v1/shares", {"tenant": tenant, "scope": scope, **values})

    async def workers(self) -> Sequence[Json]:
        return (await self._call("GET", "/v1/workers"))["workers"]

    async def send(self, run: str, text: str, *, by: str) -> None:
        await self._call_once(f"/v1/runs/{_segment(run)}/messages", {"input": text, "by": by})

    async def cancel(self, run: str, *, by: str, reason: str) -> None:
        await self._call("POST", f"/v1/runs/{_segment(run)}/cancel", {"by": by, "reason": reason})

    async def decide(self, run: str, decided: Decided) -> None:
        await self._call("POST", f"/v1/runs/{_segment(run)}/decisions", _body(decided))

    async def decide_all(self, run: str, decided: Sequence[Decided]) -> None:
        await self._call("POST", f"/v1/runs/{_segment(run)}/decisions", {"decisions": [_body(one) for one in decided]})

    async def grants(self, session: str) -> Sequence[Json]:
        return (await self._call("GET", f"/v1/sessions/{_segment(session)}/grants"))["grants"]

    async def revoke_grant(self, session: str, grant: str, *, by: str) -> None:
        await self._call("DELETE", f"/v1/sessions/{_segment(session)}/grants/{_segment(grant)}")

    async def judged(self, run: str) -> Sequence[str]:
        found: dict[str, None] = {}
        page: Json = {"more": True, "after": 0}
        while page["more"]:
            query = {"format": "json", "after": str(page["after"])}
            page = await self._call("GET", f"/v1/runs/{_segment(run)}/events", query=query)
            found |= {event["call"]: None for event in page["events"] if event["type"] == "tool_call_judged"}
        return list(found)

    async def explain(self, run: str, call: str) -> Json:
        return await self._call("GET", f"/v1/runs/{_segment(run)}/calls/{_segment(call)}/explanation")

    async def revive(self, run: str, *, by: str) -> None:
        await self._call("POST", f"/v1/runs/{_segment(run)}/revive", {"by": by})

    async def runs(
        self,
        *,
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[Json]:
        asked = {"session": session, "agent": agent, "user": user, "status": status, "before": before}
        asked |= {"outcome": outcome}
        query = {name: value for name, value in asked.items() if value} | {"limit": str(min(limit, 200))}
        return (await self._call("GET", "/v1/runs", query=query))["runs"]

    async def letters(
        self, *, agent: str, reason: str, before: tuple[str, str], limit: int, all_tenants: bool = False
    ) -> Sequence[Json]:
        query = {"agent": agent, "reason": reason or "all", "before": before[1], "limit": str(limit)}
        return (await self._call("GET", "/v1/dlq", query=query))["letters"]

    async def letter(self, run: str) -> Json:
        return await self._call("GET", f"/v1/dlq/{_segment(run)}")

    def at(self, tenant: str) -> Remote:
        """Its API key says whose data is meant."""
        return self

    async def verify(self, run: str = "") -> AsyncIterator[Json]:
        raise ConfigError(
            "a server is not asked whether its own journal is in order: give the data file with --data, "
            "on its machine (beside the server that runs) or from a copy"
        )
        yield {}

    async def budgets(self) -> Sequence[Json]:
        return (await self._call("GET", "/v1/budgets"))["budgets"]

    async def set_budget(self, ledger: str, usd: str | None) -> Json:
        return await self._call("PUT", f"/v1/budgets/{quote(ledger, safe='/:')}", {"usd": usd})

    async def costs(
        self, question: Mapping[str, Any], *, all_tenants: bool = False, progress: Callable[[int], None]
    ) -> Json:
        said = {name: str(value).lower() if value is True else str(value) for name, value in question.items() if value}
        query = said | {"by": ",".join(question["by"])}
        if question["route"]:
            query |= {"route": ",".join(question["route"])}
        return await self._call("GET", "/v1/costs", query=query)

    async def forecast(self, question: Mapping[str, Any]) -> Json:
        return await self._call("GET", "/v1/forecast", query={n: str(value) for n, value in question.items() if value})

    async def quotas(self) -> Json:
        return await self._call("GET", "/v1/quotas")

    async def set_quota(self, name: str, counts: Mapping[str, float]) -> Json:
        return await self._call("PUT", f"/v1/quotas/{quote(name, safe=':')}", dict(counts))

    async def drop_quota(self, name: str) -> None:
        await self._call("DELETE", f"/v1/quotas/{quote(name, safe=':')}")

    async def add_key(self, name: str, may_approve: str | None = None) -> tuple[Json, str]:
        raise _keys_are_local()

    async def keys(self) -> Sequence[Json]:
        raise _keys_are_local()

    async def revoke_key(self, id: str) -> bool:
        raise _keys_are_local()

    async def _call_once(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post under a key of its own: a request whose answer was lost is asked again and is done once."""
        key = {"idempotency-key": f"cli-{secrets.token_urlsafe(18)}"}
        for tries in range(1, ONCE_TRIES):
            try:
                return await self._call("POST", path, body, more=key)
            except StanchionError as error:
                if error.code not in AWAY:
                    raise
                if tries == 1 and await self._never_reached():
                    raise
            await asyncio.sleep(_pause_s(tries))
        return await self._call("POST", path, body, more=key)

    async def _never_reached(self) -> bool:
        """Say whether nothing listens at the address: then there is nothing to try again."""
        try:
            async with self._session.get(f"{self._url}/health"):
                return False
        except aiohttp.ClientConnectorError:
            return True
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, str] | None = None
    ) -> Any:
        """Call the server; give the JSON that it answers."""
        return await self._call(method, path, body, query=query)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Any:
        data = None if body is None else msgspec.json.encode(body)
        headers = {**({} if data is None else {"content-type": "application/json"}), **(more or {})}
        try:
            async with self._session.request(
                method, self._url + path, data=data, headers=headers, params=query
            ) as response:
                raw = await response.read()
        except TimeoutError:
            raise Unreachable(
                f"{self._url} does not answer in time; is it busy, or something else than Stanchion?"
            ) from None
        except (aiohttp.ClientError, ValueError) as error:
            why = getattr(getattr(error, "os_error", None), "strerror", "") or type(error).__name__
            raise Unreachable(f"{self._url} cannot be reached ({why}); does `stanchion serve` run there?") from None
        if response.status >= 400:
            raise error_of(response.status, raw)
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError:
            raise Unreachable(f"{self._url} answers, and not as a Stanchion server does; check --url") from None


def error_of(status: int, raw: bytes) -> StanchionError:
    """Make the error that a server's answer says."""
    try:
        said = cast("dict[str, Any]", msgspec.json.decode(raw))["error"]
        message, code, field = str(said["message"]), str(said["code"]), str(said.get("field", ""))
    except (msgspec.DecodeError, KeyError, TypeError):
        return Unreachable(f"the answer was HTTP {status}, and not as a Stanchion server's; check --url")
    message = message.removeprefix(f"{field}: ") if field else message
    match status:
        case 403:
            return Unauthorized(message, code=code)
        case 401:
            return Unauthorized(f"{message} (--api-key or STANCHION_API_KEY)", code=code)
        case 404:
            return NotFound(message, code=code)
        case 409:
            return Conflict(message, code=code)
        case _ if status < 500 and code != "rate_limited":
            return InputError(message, field=field, code=code)
        case _:
            return StanchionError(message, code=code)


def check_end(item: Json) -> None:
    """Raise what ended a stream, if that was a fault."""
    if item["reason"] == "error":
        raise StanchionError(f"the server broke the stream off; its log says why, under {item.get('id', '-')}")


def _pause_s(tries: int) -> float:
    """How long to wait before the next try: ever longer, 36 s in all."""
    return min(0.2 * 2**tries, 5.0)


def _body(decided: Decided) -> dict[str, Any]:
    """Write a decision; what was not said is left out, for older servers do not know it."""
    said = msgspec.structs.asdict(decided).items()
    return {name: value for name, value in said if value is not None and (name != "allow" or value)}


def _segment(name: str) -> str:
    """Write a name as one segment of a path."""
    return quote(name, safe="")


def _keys_are_local() -> ConfigError:
    return ConfigError("API keys are made on the server's own machine; use --data with its data file")
