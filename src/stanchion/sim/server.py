"""The simulated model provider: an HTTP server for the three wires, with its admin paths.

    POST /v1/messages  /v1/chat/completions  /v1/responses     the wires     GET /v1/models
    POST /v1/moderations                                       flags what the script says (moderations.py)
    POST /v1/embeddings                                        vectors of words (embeddings.py)
    POST /v1/messages/batches  /v1/files  /v1/batches          the batch APIs (batches.py)
    PUT  /sim/conversations/{id}   load a recorded conversation     GET /sim/conversations
    PUT  /sim/script  /sim/faults  /sim/pacing  /sim/limits         GET /bill  /limits  /health     POST /sim/reset

It keeps a bill, the loaded conversations and the counts of faults in memory, and nothing about a client: the same request
gets the same answer. Every answer says that it is simulated, in its headers and its ids. It binds to loopback by default
and has no authentication of its own: any key is accepted, and the admin paths need none.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from stanchion.core.caching import LONG_TTL, cache_rules
from stanchion.core.errors import InputError, StanchionError
from stanchion.sim import embeddings
from stanchion.sim.batches import Batches, Reply
from stanchion.sim.bill import Bill, Line, Sheet
from stanchion.sim.cache import Found, PrefixCache
from stanchion.sim.conversations import Shelf, load_messages, replay
from stanchion.sim.deliver import HTML, WIRES, Delivery
from stanchion.sim.exchange import (
    Answer,
    Ask,
    Call,
    Refusal,
    Said,
    Usage,
    WireName,
    created_of,
    digest_of,
    output_tokens,
    shorten,
    stop_at,
)
from stanchion.sim.faults import STATUS, UNBILLED, Fault, FaultLog, FaultPlan, Strike, parse_plan, refusal_of, too_long
from stanchion.sim.limits import LimitReached, LimitSettings, RateLimits
from stanchion.sim.moderations import Moderations
from stanchion.sim.pace import Ticker
from stanchion.sim.read_anthropic import COUNT_PATH
from stanchion.sim.read_anthropic import read as read_messages
from stanchion.sim.script import Pacing, Played, Script, check_script, load_script, play
from stanchion.sim.settings import SimSettings

SERVER = "stanchion-sim (simulated model provider)"
MAX_BODY_BYTES = 64 * 1024 * 1024
MODELS = ("simulated-model",)
_RETRIED = (Fault.RATE_LIMITED, Fault.OVERLOADED, Fault.UNAVAILABLE)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SimServer:
    """A simulated provider. `start` binds it, `stop` ends it; `base_url` is without `/v1`."""

    def __init__(self, settings: SimSettings | None = None) -> None:
        self.settings = settings or SimSettings()
        check_script(self.settings.script)
        self.bill = Bill()
        self.shelf = Shelf()
        self.script: Script = self.settings.script
        self.pacing: Pacing | None = self.settings.pacing
        self.faults: tuple[FaultPlan, ...] = self.settings.faults
        self.limits = RateLimits(self.settings.limits)
        self.base_url = ""
        self.cache = PrefixCache()
        self._ahead_s = 0.0
        """By how much the clock of the cache was put forward."""
        self._prices = Sheet(self.settings.prices_on)
        self._log = FaultLog()
        self.moderations = Moderations()
        self._batches = Batches(self._respond, _key, self.settings.batch_s or 0.0)
        self._runner: web.AppRunner | None = None
        self._ticker: Ticker | None = None

    @property
    def openai_base_url(self) -> str:
        """The base URL in the form OpenAI's clients want it."""
        return f"{self.base_url}/v1"

    async def start(self) -> None:
        """Bind and serve; the address is in `base_url` then."""
        self._ticker = Ticker()
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._mark])
        for name, wire in WIRES.items():
            app.router.add_post(wire.PATH, self._wire(name))
        app.router.add_post(COUNT_PATH, self._count_tokens)
        if self.settings.batch_s is not None:
            self._batches.add_to(app.router)
        app.router.add_post("/v1/moderations", self._moderate)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/bill", self._bill)
        app.router.add_get("/limits", self._limits)
        app.router.add_put("/sim/limits", self._put_limits)
        app.router.add_get("/sim/conversations", self._conversations)
        app.router.add_put("/sim/conversations/{id:.+}", self._put_conversation)
        app.router.add_put("/sim/script", self._put_script)
        app.router.add_put("/sim/faults", self._put_faults)
        app.router.add_put("/sim/pacing", self._put_pacing)
        app.router.add_post("/sim/clock", self._put_clock)
        app.router.add_post("/sim/reset", self._reset)
        # A client that goes away cancels its handler, which then bills what had been generated.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port, backlog=4096)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop serving; streams on their way are cut."""
        self._batches.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def advance(self, seconds: float) -> float:
        """Put the clock forward by which prefixes are kept; give by how much it is ahead in all, in seconds."""
        self._ahead_s += seconds
        return self._ahead_s

    @web.middleware
    async def _mark(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer errors in the form of the path's wire, and mark all answers as simulated."""
        try:
            response = await handler(request)
        except Refusal as refusal:
            extra = refusal.headers if isinstance(refusal, LimitReached) else None
            response = self._error(request, refusal, extra)
        except StanchionError as error:
            response = _json({"error": {"type": error.code, "message": str(error), "simulated": True}}, status=400)
        except web.HTTPException as error:
            response = self._error(request, Refusal(_http_message(error, request), status=error.status))
        if not response.prepared:
            response.headers.update(_marks())
        return response

    def _error(self, request: web.Request, refusal: Refusal, extra: dict[str, str] | None = None) -> web.Response:
        wire: WireName = "anthropic" if _speaks_anthropic(request) else "openai_chat"
        seed = digest_of(request.path, refusal.message.encode())
        body = WIRES[wire].error_body(refusal, seed)
        headers = {"content-type": "application/json", **(extra or {})}
        return web.Response(body=body, status=refusal.status, headers=headers)

    def _wire(self, name: WireName) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._answer(name, request)

        return handle

    async def _answer(self, name: WireName, request: web.Request) -> web.StreamResponse:
        key = _key(request)
        body = await request.read()
        try:
            _check_headers(name, request)
            model, in_model = _split_model(body)
            ask = WIRES[name].read(body)
            if in_model:
                ask = msgspec.structs.replace(ask, model=model)
            conversation = self.shelf.identify(ask, request.headers.get("x-sim-conversation", ""), key)
            played = self._play(ask, conversation)
            said = played.usage.input_tokens
            tokens = ask.input_tokens if said is None else said
            if 0 < self.settings.context_tokens < tokens:
                raise too_long(tokens, self.settings.context_tokens, name)
            left = self.limits.arrive(key, tokens, name, asyncio.get_running_loop().time())
        except Refusal:
            self.bill.refuse(self.bill.line(key, "", "(refused)"))
            raise
        plan = self._strike(request, in_model, ask, conversation, played, key)
        line = self.bill.line(key, conversation, ask.model)
        if plan is not None:
            line.faults[plan.kind] = line.faults.get(plan.kind, 0) + 1
            if plan.kind in UNBILLED:
                self.bill.refuse(line)
                return self._unbilled(request, plan, name)
        return await self._deliver(request, line, self._settle(ask, played, plan, key), played, plan, left)

    def _play(self, ask: Ask, conversation: str) -> Played:
        recorded = self.shelf.get(conversation)
        return replay(recorded, conversation, ask) if recorded else play(self.script, ask, conversation)

    def _strike(
        self, request: web.Request, in_model: str, ask: Ask, conversation: str, played: Played, key: str
    ) -> FaultPlan | None:
        header = request.headers.get("x-sim-fault", "")
        plans = [parse_plan(text) for text in (header, in_model) if text]
        plans += [played.fault] if played.fault else []
        # A conversation without a name is told from others by how it begins.
        scope = conversation or digest_of(key, (ask.system + "\0" + (ask.turns[0].text if ask.turns else "")).encode())
        strike = Strike(ask.wire, ask.model, scope, ask.turn, ask.digest)
        return next((plan for plan in (*plans, *self.faults) if self._log.strikes(plan, strike)), None)

    def _settle(self, ask: Ask, played: Played, plan: FaultPlan | None, key: str) -> Answer:
        said = _spoilt(_allowed(played.said, ask), plan)
        said = shorten(stop_at(said, ask.stop), ask.max_tokens)
        output, reasoning = output_tokens(said)
        override = played.usage
        counted = output if override.output_tokens is None else override.output_tokens
        if override.input_tokens is None:
            found = self._input(ask, key)
            usage = Usage(found.plain, counted, reasoning, found.read, found.written, found.written_long)
        else:
            usage = Usage(override.input_tokens, counted, reasoning)
        pacing = self._pacing(played)
        return Answer(ask, said, usage, ask.digest, created_of(ask.digest), pacing.events)

    def _input(self, ask: Ask, key: str) -> Found:
        """Take a request's input to the prefix cache of its key and model."""
        rules = cache_rules("anthropic" if ask.wire == "anthropic" else "openai", ask.model)
        if rules is None:
            return Found(ask.input_tokens)
        owner = f"{key}\0{ask.model}\0{ask.wire}"
        asked: dict[str, Any] = ask.body.get("prompt_cache_options") or {}
        price = self._prices.of(ask.wire, ask.model)
        retained = ask.body.get("prompt_cache_retention") or self.settings.retention
        life = asked.get("ttl") if rules.kind == "breakpoints" else retained
        return self.cache.use(
            owner,
            ask.pieces,
            rules,
            asyncio.get_running_loop().time() + self._ahead_s,
            long=life == (LONG_TTL if rules.kind == "breakpoints" else "24h"),
            writes=price is not None and price.cache_write != price.input,
            end=asked.get("mode") != "explicit",
        )

    def _pacing(self, played: Played) -> Pacing:
        return played.pacing or self.pacing or self.script.pacing

    async def _deliver(
        self,
        request: web.Request,
        line: Line,
        answer: Answer,
        played: Played,
        plan: FaultPlan | None,
        left: dict[str, str],
    ) -> web.StreamResponse:
        assert self._ticker is not None
        marks = {**_marks(), **left, "x-sim-rule": played.rule, "x-sim-turn": str(answer.ask.turn)}
        marks["request-id" if answer.ask.wire == "anthropic" else "x-request-id"] = f"req_sim{answer.seed}"
        delivery = Delivery(request, {k: _header_safe(v) for k, v in marks.items()}, self._ticker)
        self.bill.begin()
        try:
            return await delivery.send(answer, self._pacing(played), plan)
        except ConnectionError:
            return web.Response()
        finally:
            sent = delivery.sent
            price = self._prices.of(answer.ask.wire, answer.ask.model)
            self.bill.settle(line, answer.usage, sent.output_tokens, price, complete=sent.complete)
            self.limits.generated(_key(request), sent.output_tokens, asyncio.get_running_loop().time())

    def _respond(self, name: WireName, body: bytes, key: str) -> Reply:
        """Answer a request of a batch, whole, and bill it as one."""
        wire = WIRES[name]
        try:
            ask = wire.read(body)
            conversation = self.shelf.identify(ask, "", key)
            played = self._play(ask, conversation)
        except Refusal as refusal:
            self.bill.refuse(self.bill.line(key, "", "(refused)"))
            return Reply(refusal.status, wire.error_body(refusal, digest_of(name, body)))
        plan = played.fault
        line = self.bill.line(key, conversation, ask.model)
        if plan is not None and plan.kind in UNBILLED:
            self.bill.refuse(line)
            refusal = refusal_of(plan, name)
            return Reply(refusal.status, wire.error_body(refusal, ask.digest))
        answer = self._settle(ask, played, plan, key)
        self.bill.begin()
        price = self._prices.of(ask.wire, ask.model)
        self.bill.settle(line, answer.usage, answer.usage.output_tokens, price, complete=True, batch=True)
        return Reply(200, wire.whole(answer))

    def _unbilled(self, request: web.Request, plan: FaultPlan, wire: WireName) -> web.StreamResponse:
        if plan.kind in STATUS:
            seconds = f"{plan.retry_after_s:g}"
            extra = {"retry-after": seconds} if plan.kind in _RETRIED else {}
            return self._error(request, refusal_of(plan, wire), extra)
        if plan.kind is Fault.CUT_FIRST_BYTE:
            assert self._ticker is not None
            return Delivery(request, {}, self._ticker).reset()
        status = 504 if plan.kind is Fault.GATEWAY_TIMEOUT else 200
        return web.Response(body=HTML, status=status, headers={"content-type": "text/html"})

    async def _count_tokens(self, request: web.Request) -> web.Response:
        _key(request)
        _check_headers("anthropic", request)
        return _json({"input_tokens": read_messages(await request.read(), counting=True).input_tokens})

    async def _moderate(self, request: web.Request) -> web.Response:
        _key(request)
        return _json(self.moderations.answer(self.script.moderations, await request.read()))

    async def _embed(self, request: web.Request) -> web.Response:
        key = _key(request)
        try:
            answer = embeddings.answer(await request.read())
        except Refusal:
            self.bill.refuse(self.bill.line(key, "", "(refused)"))
            raise
        self.bill.begin()
        price = self._prices.of("openai", answer.model)
        self.bill.settle(self.bill.line(key, "", answer.model), Usage(answer.tokens, 0), 0, price, complete=True)
        return _json(answer.body)

    async def _models(self, request: web.Request) -> web.Response:
        _key(request)
        names = [*MODELS, *(f"sim/{name}" for name in self.shelf.names())]
        if _speaks_anthropic(request):
            date = "2025-06-15T00:00:00Z"
            data = [{"type": "model", "id": n, "display_name": f"{n} (simulated)", "created_at": date} for n in names]
            return _json({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]})
        data = [{"id": n, "object": "model", "created": 1_750_000_000, "owned_by": "stanchion-sim"} for n in names]
        return _json({"object": "list", "data": data})

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "simulated": True, "conversations": len(self.shelf.names())})

    async def _bill(self, _: web.Request) -> web.Response:
        return _json(self.bill.view())

    async def _limits(self, _: web.Request) -> web.Response:
        return _json(self.limits.view(asyncio.get_running_loop().time()))

    async def _put_limits(self, request: web.Request) -> web.Response:
        try:
            settings = msgspec.json.decode(await request.read(), type=LimitSettings)
        except msgspec.DecodeError as error:
            raise InputError(f"these are no limits: {error}", field="limits") from None
        if settings.window_s <= 0:
            raise InputError("must be above 0", field="window_s")
        self.limits.set(settings)
        return _json(settings)

    async def _conversations(self, _: web.Request) -> web.Response:
        return _json({"conversations": self.shelf.names()})

    async def _put_conversation(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        conversation = load_messages(await request.read())
        self.shelf.put(name, conversation)
        return _json({"conversation": name, "turns": len(conversation.turns), "model": f"sim/{name}"})

    async def _put_script(self, request: web.Request) -> web.Response:
        self.script = load_script(await request.read())
        return _json({"rules": len(self.script.rules)})

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults = msgspec.json.decode(await request.read(), type=tuple[FaultPlan, ...])
        except msgspec.DecodeError as error:
            raise InputError(f"this is no list of faults: {error}. Faults are: {', '.join(Fault)}") from None
        self._log.clear()
        return _json({"faults": len(self.faults)})

    async def _put_pacing(self, request: web.Request) -> web.Response:
        try:
            self.pacing = msgspec.json.decode(await request.read(), type=Pacing)
        except msgspec.DecodeError as error:
            raise InputError(f"this is no pacing: {error}", field="pacing") from None
        return _json(self.pacing)

    async def _put_clock(self, request: web.Request) -> web.Response:
        """Put the clock by which prefixes are kept forward: a pause that nobody has to wait for."""
        try:
            asked = msgspec.json.decode(await request.read(), type=dict[str, float])
        except msgspec.DecodeError as error:
            raise InputError(f'this is no {{"advance_s": seconds}}: {error}', field="advance_s") from None
        seconds = asked.get("advance_s", -1.0)
        if set(asked) != {"advance_s"} or not 0 <= seconds < 1e9:
            raise InputError("give just this, in seconds of 0 or more", field="advance_s")
        return _json({"ahead_s": self.advance(seconds)})

    async def _reset(self, _: web.Request) -> web.Response:
        """Forget bill, cache, conversations and counts, and go back to what the server was started with."""
        self.bill.clear()
        self.cache.clear()
        self.shelf.clear()
        self._batches.clear()
        self._log.clear()
        self.moderations.clear()
        self.script, self.pacing, self.faults = self.settings.script, self.settings.pacing, self.settings.faults
        return _json({"reset": True})


async def serve(settings: SimSettings, announce: Callable[[SimServer], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; `announce` is called when it listens."""
    server = SimServer(settings)
    await server.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    announce(server)
    try:
        await stop.wait()
    finally:
        await server.stop()


def _marks() -> dict[str, str]:
    return {"server": SERVER, "x-simulated": "true"}


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, headers={"content-type": "application/json"})


def _header_safe(value: str) -> str:
    return value.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")


def _speaks_anthropic(request: web.Request) -> bool:
    """Say whose form an error takes: the path decides, and where it is both vendors', the version header."""
    if request.path in (WIRES["openai_chat"].PATH, WIRES["openai_responses"].PATH):
        return False
    return request.path.startswith("/v1/messages") or "anthropic-version" in request.headers


def _http_message(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return f"Not found: {request.method} {request.path} (simulated provider)"
    return f"{error.reason}: {request.method} {request.path} (simulated provider)"


def _key(request: web.Request) -> str:
    """Take the API key; any is accepted, none is not."""
    bearer = request.headers.get("authorization", "")
    key = request.headers.get("x-api-key", "") or bearer.removeprefix("Bearer ").strip()
    if not key:
        raise Refusal(
            "no API key: send `x-api-key` or `Authorization: Bearer`; the simulated provider accepts any",
            status=401,
            kind="authentication_error" if _speaks_anthropic(request) else "invalid_request_error",
            code="invalid_api_key",
        )
    return key


def _check_headers(name: WireName, request: web.Request) -> None:
    if name == "anthropic" and "anthropic-version" not in request.headers:
        raise Refusal("anthropic-version: header is required", param="anthropic-version")


def _split_model(body: bytes) -> tuple[str, str]:
    """Take a fault off the model's name: `gpt-5!overloaded;times=2` is the model gpt-5."""
    if b"!" not in body:
        return "", ""
    try:
        model = msgspec.json.decode(body, type=_Model).model
    except msgspec.DecodeError:
        return "", ""
    name, mark, fault = model.partition("!")
    return (name, fault) if mark else ("", "")


class _Model(msgspec.Struct):
    model: str = ""


def _allowed(said: Said, ask: Ask) -> Said:
    """Show thinking where the request lets the model think; Anthropic's enabled thinking always shows some."""
    if not ask.thinking:
        return msgspec.structs.replace(said, thinking="")
    if ask.wire == "anthropic" and not said.thinking:
        return msgspec.structs.replace(said, thinking="(simulated thinking)")
    return said


def _spoilt(said: Said, plan: FaultPlan | None) -> Said:
    """Change what is said as a fault wants it."""
    match plan.kind if plan else None:
        case Fault.EMPTY_ANSWER:
            return Said()
        case Fault.MALFORMED_ARGUMENTS:
            calls = tuple(Call(c.name, c.arguments.rstrip("} ") + ',"', c.id) for c in said.calls)
            return msgspec.structs.replace(said, calls=calls)
        case Fault.TRUNCATED:
            return Said(said.text[: max(1, len(said.text) // 2)], said.thinking, finish="length")
        case Fault.REFUSED:
            return Said(finish="refusal")
        case _:
            return said
