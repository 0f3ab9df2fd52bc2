"""Accept a request to start a run: check it, have secrets taken out, and make the run's first event of it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stanchion.agent import Agent, Limits, narrow
from stanchion.core import event as ev
from stanchion.core.errors import InputError, NotFound
from stanchion.core.message import RUNTIME, USER, Media, Part, Text, text_of
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.guard.check import gravest, rules_at
from stanchion.guard.secret import Secrets
from stanchion.journal.outbox import Endpoint
from stanchion.loop.effect import View
from stanchion.runtime.capabilities import read_grants, written
from stanchion.runtime.name import checked, checked_step, new_id
from stanchion.runtime.opening.secrecy import check_names
from stanchion.runtime.runs.admission import class_of
from stanchion.runtime.runs.starting import IfBusy, Starter
from stanchion.runtime.shape import Started

_MAX_INPUT_BYTES = 4_000_000


class Callback(msgspec.Struct, frozen=True):
    """Who is to be told of one run. It is signed with the tenant's secret."""

    url: str
    events: tuple[str, ...] = ("run.finished",)


MakeEndpoint = Callable[[Callback, str, str], Awaitable[Endpoint]]
"""Makes the endpoint of a run: callback, run, tenant. Raises `InputError`."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What `Runtime.start` is asked for; its docstring says what each means."""

    agent: str
    input: str | Sequence[Part]
    tenant: str = "default"
    session: str = ""
    user: str = ""
    limits: Limits | None = None
    idempotency_key: str = ""
    idempotency_digest: str = ""
    if_busy: IfBusy = "reject"
    dry_run: bool = False
    deadline_ms: int = 0
    batch_api: bool = False
    priority: str = ""
    webhook: Callback | None = None
    grants: Any = None
    task: str = ""
    step: str = ""


class Accepting:
    """Accepts requests for the agents of a process, and has a `Starter` start them."""

    def __init__(
        self,
        agents: Mapping[str, BoundAgent],
        named: Mapping[str, Agent],
        clock: Clock,
        secrets: Secrets,
        starter: Starter,
        endpoint: MakeEndpoint,
    ) -> None:
        self._agents = agents
        self._named = named
        self._clock = clock
        self._secrets = secrets
        self._endpoint = endpoint
        self.starter = starter
        self.refreshed_ms: Callable[[str, str], int] = lambda _tenant, _session: 0
        """Says when a session's cache was last refreshed; 0: never."""

    async def start(self, asked: StartRequest) -> Started:
        """Start a run. Raises as `Runtime.start` says."""
        if asked.if_busy not in ("reject", "queue"):
            raise InputError(f'must be "reject" or "queue", not {asked.if_busy!r}', field="if_busy")
        bound = self._agent(asked.agent)
        rank = class_of(asked.priority or self._named[asked.agent].priority)
        parts = input_parts(asked.input)
        check_input(bound.view, parts)
        digest = asked.idempotency_digest
        if asked.idempotency_key and not digest:
            digest = _digest(asked, parts)
        first = await self._first(asked, bound, parts)
        callback = await self._endpoint(asked.webhook, first.run, asked.tenant) if asked.webhook else None
        how = (asked.idempotency_key, digest, asked.if_busy)
        return await self.starter.start(first, bound, *how, fresh=not asked.session, priority=rank, callback=callback)

    async def _first(self, asked: StartRequest, bound: BoundAgent, parts: tuple[Part, ...]) -> ev.RunStarted:
        tenant, user, rules = asked.tenant, asked.user, bound.bundle
        session = checked(asked.session, "session")
        narrowed = () if asked.grants is None else (Text(written(read_grants(asked.grants, field="grants")), RUNTIME),)
        names = {"session": session, "user": user, "task": asked.task, "step": asked.step, "grants": text_of(narrowed)}
        check_names(self._secrets, **names, idempotency_key=asked.idempotency_key)
        session = session or new_id("ses_")
        return ev.RunStarted(
            run=new_id("run_"),
            tenant=tenant,
            session=session,
            agent=asked.agent,
            bundle=bound.digest,
            user=checked(user, "user"),
            caps=narrow(rules.caps, asked.limits.caps()) if asked.limits else rules.caps,
            ledgers=await self.starter.ledgers(tenant, user, session),
            dry_run=asked.dry_run,
            deadline_ms=self._deadline(asked.deadline_ms),
            batch_api=asked.batch_api,
            task=checked(asked.task, "task"),
            step=checked_step(asked.step, rules.routing.table),
            narrowed=bool(narrowed),
            mark=rules.guard.mark,
            checked=bound.view.checked,
            quarantine=rules.guard.quarantine,
            recalls=bool(user) and rules.memory is not None,
            refreshed_ms=self.refreshed_ms(tenant, session),
            parts=(*bound.redactor.parts(parts), *narrowed),
        )

    def _agent(self, name: str) -> BoundAgent:
        bound = self._agents.get(name)
        if bound is None:
            known = ", ".join(self._agents) or "none"
            raise NotFound(f"there is no agent {name!r}; there are: {known}", field="agent")
        return bound

    def _deadline(self, deadline_ms: int) -> int:
        if deadline_ms and deadline_ms <= self._clock.now_ms():
            raise InputError("must lie in the future (milliseconds since 1970 UTC)", field="deadline_ms")
        return deadline_ms


def _digest(asked: StartRequest, parts: tuple[Part, ...]) -> str:
    limits = asked.limits and asked.limits.caps()
    same = (asked.agent, parts, asked.session, asked.user, limits, asked.dry_run, asked.deadline_ms)
    step = asked.step and f"step:{asked.step}"
    more = (each for each in ("batch_api" * asked.batch_api, asked.priority, asked.webhook, step) if each)
    narrowing = ("narrowed", asked.grants, asked.task) if asked.grants is not None or asked.task else ()
    return digest_of_request(*same, *more, *narrowing)


def digest_of_request(*asked: object) -> str:
    """Hash what was asked for, to tell whether a second request under the same key is the same."""
    return hashlib.sha256(msgspec.json.encode(asked, enc_hook=repr)).hexdigest()


def check_input(view: View, parts: Sequence[Part]) -> None:
    """Refuse what a pure check of the agent blocks, before anything is written or spent. Raises `InputError`.

    What else is found (flags, pieces to be taken out, what a classifier says) is the loop's, and stands in the journal.
    """
    rules = rules_at(view.bundle.guard.checks, "input")
    if not rules:
        return
    worst = gravest(view.checks.of_text(rules, text_of(parts)))
    if worst is not None and worst.action == "block":
        raise InputError(f"was refused by the check {worst.check!r}: {worst.reason}", field="input")


def input_parts(said: str | Sequence[Part]) -> tuple[Part, ...]:
    """Read what a user says: text and media, not empty. Raises `InputError`."""
    parts: tuple[Part, ...] = (Text(said, USER),) if isinstance(said, str) else tuple(said)
    spoken = [part for part in parts if isinstance(part, Text | Media)]
    if len(spoken) < len(parts):
        raise InputError("may hold text and media only", field="input")
    if not any(isinstance(part, Media) or part.text.strip() for part in spoken):
        raise InputError("is empty; say something", field="input")
    if sum(len(part.text if isinstance(part, Text) else part.data) for part in spoken) > _MAX_INPUT_BYTES:
        raise InputError(f"is longer than {_MAX_INPUT_BYTES:,} characters", field="input")
    try:
        msgspec.json.encode(parts)
    except UnicodeEncodeError:
        raise InputError("holds half of a surrogate pair, which is no character", field="input") from None
    return parts
