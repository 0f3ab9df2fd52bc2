"""The credentials of the attempts of one run: made when the tool is about to run, told in the journal, taken out of what it says.

An attempt's `CredentialUsed` stands in front of its outcome. Of one that was lost with its worker, the bundle says what its tool
would have been given (`ToolSpec.needs`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from stanchion.broker.port import Ask
from stanchion.core import event as ev
from stanchion.core.credential import Credential, Needs
from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.loop.effect import CallTool
from stanchion.toolbox.answer import Answer, Failure
from stanchion.toolbox.call import Mint

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
"""A scope as it may stand in an event (RFC 6749, 3.3): servers choose the words."""
_SCOPES = 32
_LEAST = 4
"""Characters of the shortest value that is taken out: a shorter one is in any text."""
_CUT = 8
"""So many characters of a secret at the end of a text that was cut are taken out as well."""


class Minting:
    """Makes credentials for attempts, and remembers what must not be said."""

    def __init__(self, agent: BoundAgent, state: State) -> None:
        self._agent = agent
        self._tenant, self._user, self._run = state.tenant, state.user, state.run
        self._touched: dict[tuple[str, int], list[ev.CredentialUsed]] = {}
        self._secrets: dict[str, str] = {}
        """Secret -> the credential's name."""

    def of(self, effect: CallTool) -> Mint:
        """Give what makes the credentials of an attempt."""
        operation = f"{self._run}/{effect.call}/{effect.attempt}"

        async def mint(needs: Needs) -> Credential:
            broker = self._agent.broker
            ask = Ask(name=needs.name, scopes=needs.scopes, tenant=self._tenant, user=self._user, operation=operation)
            try:
                made = await broker.mint(ask, self._agent.bundle.credentials)
            except BaseException:
                self._touch(effect, needs, None)
                raise
            if len(made.value) >= _LEAST:
                self._secrets[made.value] = needs.name
            self._agent.redactor.secrets.add(needs.name, made.value, minted=True)
            self._touch(effect, needs, made)
            return made

        return mint

    def _touch(self, effect: CallTool, needs: Needs, made: Credential | None) -> None:
        scopes = needs.scopes if made is None else made.scopes
        used = ev.CredentialUsed(
            call=effect.call,
            attempt=effect.attempt,
            name=needs.name,
            adapter=self._agent.broker.adapter(needs.name),
            scopes=tuple(filter(_SCOPE.fullmatch, scopes))[:_SCOPES],
            expires_ms=made.expires_ms if made else 0,
            outcome="minted" if made else "refused",
        )
        self._touched.setdefault((effect.call, effect.attempt), []).append(used)

    def told(self, effect: CallTool, events: Sequence[ev.Event]) -> list[ev.Event]:
        """Put what an attempt was given in front of what came of it."""
        return [*self._touched.pop((effect.call, effect.attempt), ()), *events]

    def cleaned(self, said: Answer | Failure) -> Answer | Failure:
        """Take the secrets out of what a tool said."""
        return replace(said, text=self.clean(said.text)) if self._secrets else said

    def clean(self, text: str) -> str:
        """Take the secrets of this run out of a text: as they are, and where a text was cut in one.

        In other forms, and in what others say, the redactor finds them, which knows each before the tool has it.
        """
        for secret, name in self._secrets.items():
            text = text.replace(secret, f"[secret:{name}]")
        body = text.removesuffix("..")  # a long error was cut, maybe in the middle of one
        for secret, name in self._secrets.items():
            for length in range(len(secret) - 1, _CUT - 1, -1):
                if body.endswith(secret[:length]):
                    return f"{body[:-length]}[secret:{name}].."
        return text
