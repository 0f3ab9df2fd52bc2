"""Credentials that lie somewhere: in the environment, in the keyring; and what a credential shows of itself."""

from __future__ import annotations

import asyncio
import pickle
import sys
from typing import Any

import keyring
import keyring.backend
import keyring.errors
import pytest

from stanchion.broker import port
from stanchion.broker.broker import Broker
from stanchion.broker.port import Ask, Means, Source
from stanchion.core.errors import ConfigError
from stanchion.credentials import Credential, CredentialError, Environment, Keyring
from tests.broker.conftest import Bench

ASK = Ask(name="crm")


class Held(keyring.backend.KeyringBackend):
    """A keyring in memory, locked or broken on demand."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.passwords: dict[tuple[str, str], str] = {}
        self.wrong: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.wrong is not None:
            raise self.wrong
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.passwords[service, username]


@pytest.fixture
def held() -> Any:
    """Put a keyring in the place of the system's."""
    before, made = keyring.get_keyring(), Held()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_a_credential_does_not_show_its_value() -> None:
    """Printed, formatted, in an error or a container: who made it is said, and never the value. It is not pickled."""
    made = Credential("tok-1", ("contacts.read",), 5)
    for text in (repr(made), str(made), f"{made}", f"{[made]}", str(ValueError(made))):
        assert "tok-1" not in text
        assert "contacts.read" in text
    assert made.bearer == "Bearer tok-1"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(made)


async def test_the_environment(bench: Bench) -> None:
    """A variable is read anew each time, without the white space around it."""
    means = bench.means()
    made = await Environment("CRM_TOKEN", ("contacts.read",)).mint(ASK, means)
    assert (made.value, made.scopes) == ("tok-1", ("contacts.read",))
    for variable in ("EMPTY", "NOT_THERE"):
        with pytest.raises(CredentialError, match=f"export {variable}=..") as caught:
            await Environment(variable).mint(ASK, means)
        assert (caught.value.code, caught.value.retryable) == ("credential_missing", False)


async def test_the_keyring(bench: Bench, held: Held) -> None:
    """A password is found by service and account; where it is not, the error says how to set it."""
    source = Keyring("crm", "bot", ("contacts.read",))
    with pytest.raises(CredentialError, match="keyring set crm bot"):
        await source.mint(ASK, bench.means())
    held.set_password("crm", "bot", "tok-2")
    assert (await source.mint(ASK, bench.means())).value == "tok-2"


async def test_a_keyring_that_fails(bench: Bench, held: Held) -> None:
    """What a keyring says of its troubles is not repeated: it may hold what it keeps."""
    held.wrong = keyring.errors.KeyringLocked("tok-2 is locked")
    with pytest.raises(CredentialError, match=r"cannot be read \(KeyringLocked\)") as caught:
        await Keyring("crm", "bot").mint(ASK, bench.means())
    assert "tok-2" not in str(caught.value)


async def test_a_keyring_that_waits_for_a_person(bench: Bench, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer is given up in time, and may be asked again."""
    loop, unlocked = asyncio.get_running_loop(), asyncio.Event()

    def locked(*_: str) -> str:
        asyncio.run_coroutine_threadsafe(unlocked.wait(), loop).result()
        return "late"

    monkeypatch.setattr(held, "get_password", locked)
    monkeypatch.setattr("stanchion.broker.keyring.TIMEOUT_S", 0.05)
    with pytest.raises(CredentialError, match="did not answer") as caught:
        await Keyring("crm", "bot").mint(ASK, bench.means())
    unlocked.set()
    assert caught.value.retryable


async def test_without_the_extra(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where keyring is not installed, the error says what to install."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(CredentialError, match=r'pip install "stanchion\[credentials\]"'):
        await Keyring("crm", "bot").mint(ASK, bench.means())


@pytest.mark.parametrize("make", [lambda: Environment(""), lambda: Environment("A=b"), lambda: Keyring("crm", "")])
def test_what_names_nothing(make: Any) -> None:
    """A source that names nothing is refused where it is written."""
    with pytest.raises(ConfigError):
        make()


class Odd:
    """Somebody's own source, which breaks its contract."""

    adapter, scopes = "odd", ("a",)

    async def mint(self, ask: Ask, means: Means) -> Credential:
        raise RuntimeError("the secret is tok-3")


async def test_the_broker(bench: Bench) -> None:
    """It gives what the agent may have, no more, and nothing before it was told what must not be written."""
    sources: dict[str, Source] = {"crm": Environment("CRM_TOKEN", ("a", "b")), "odd": Odd()}
    broker = Broker(sources)
    allowed = {"crm": ("a",), "odd": ("a",)}
    with pytest.raises(CredentialError, match="no credential 'crm'"):  # not open
        await broker.mint(Ask(name="crm"), allowed)
    broker.open(bench.means())
    assert (await broker.mint(Ask(name="crm", scopes=("a",)), allowed)).value == "tok-1"
    assert bench.minted == [("crm", "tok-1")]
    with pytest.raises(CredentialError, match="may not have b"):
        await broker.mint(Ask(name="crm", scopes=("a", "b")), allowed)
    for name in ("mail", "odd2"):
        with pytest.raises(CredentialError, match="no credential"):
            await broker.mint(Ask(name=name), allowed)
    with pytest.raises(CredentialError, match=r"\(RuntimeError\)") as caught:
        await broker.mint(Ask(name="odd"), allowed)
    assert "tok-3" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_time_a_token_is_handed_out() -> None:
    """Until a minute before its end; a fifth of its life, if that is less."""
    assert port.good_until_ms(3_600_000, 0) == 3_540_000
    assert port.good_until_ms(10_000, 0) == 8_000
    assert port.good_until_ms(0, 10_000) == 0
