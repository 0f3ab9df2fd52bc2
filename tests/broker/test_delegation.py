"""User delegation with PKCE, end to end over real sockets: connecting, using, renewing, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from stanchion.broker.delegation import BEGUN_S, Redirect, read_state
from stanchion.broker.port import Ask, Means
from stanchion.core.errors import ConfigError, Conflict, CredentialError, InputError
from stanchion.credentials import Environment, UserDelegation
from tests.broker.auth_server import CLIENT, browse
from tests.broker.conftest import Bench
from tests.waiting import until

SCOPES = ("contacts.read", "contacts.write")
ANN = Ask(name="crm", scopes=SCOPES, tenant="acme", user="ann")
READ = replace(ANN, scopes=("contacts.read",))


def source(bench: Bench, **how: Any) -> UserDelegation:
    """Make a source of the bench's server."""
    asked: dict[str, Any] = {
        "issuer": bench.server.url, "client_id": CLIENT, "client_secret": Environment("CRM_SECRET"), "scopes": SCOPES,
        "redirect_uri": "https://app.example/connected",
    }  # fmt: skip
    return UserDelegation(**(asked | how))


async def connect(crm: UserDelegation, means: Means, user: str = "ann") -> tuple[str, ...]:
    """Go the whole way."""
    back = await browse(await crm.begin("crm", "acme", user, means))
    return await crm.complete(read_state(back["state"], means), Redirect(**back), means)


async def test_the_whole_way(bench: Bench) -> None:
    """A person says yes, and a tool gets a token of theirs; another process of the store gets it as well."""
    crm = source(bench)
    assert await connect(crm, bench.means()) == SCOPES
    made = await crm.mint(ANN, bench.means())
    grant = bench.server.tokens[made.value].grant
    assert grant is not None
    assert made.scopes == SCOPES
    assert len(bench.server.asked) == 1  # the token that came with the code is still good
    assert bench.server.asked[0]["redirect_uri"] == "https://app.example/connected"


async def test_a_public_client(bench: Bench) -> None:
    """Without a secret the client names itself, and PKCE is what proves it."""
    crm = source(bench, client_secret=None)
    await connect(crm, bench.means())
    assert bench.server.asked[0]["client_id"] == CLIENT
    assert "client_secret" not in bench.server.asked[0]


async def test_what_the_link_holds(bench: Bench) -> None:
    """Challenge and sealed state, and neither the verifier nor who it is for in plain."""
    url = await source(bench, params=(("prompt", "consent"),), resource=("https://crm.example",)).begin(
        "crm", "acme", "ann-of-acme", bench.means()
    )
    query = parse_qs(urlsplit(url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["scope"] == ["contacts.read contacts.write"]
    assert (query["prompt"], query["resource"]) == (["consent"], ["https://crm.example"])
    begun = read_state(query["state"][0], bench.means())
    assert len(begun.verifier) >= 43
    for secret in (begun.verifier, "ann-of-acme"):
        assert secret not in url


@pytest.mark.parametrize(
    "spoil", [lambda s: "", lambda s: "x", lambda s: s[:-2] + "AA", lambda s: "é", lambda s: s[4:]]
)
async def test_a_state_that_is_not_ours(bench: Bench, spoil: Any) -> None:
    """What was changed or made up is refused, and the code is not spent."""
    means = bench.means()
    back = await browse(await source(bench).begin("crm", "acme", "ann", means))
    with pytest.raises(InputError, match="state: is not one that was given out here"):
        read_state(spoil(back["state"]), means)
    assert bench.server.asked == []


async def test_a_state_of_another_key(bench: Bench) -> None:
    """A server with another vault key does not read it; one that has both keys does."""
    back = await browse(await source(bench).begin("crm", "acme", "ann", bench.means()))
    other = bench.means("A" * 43 + "=")
    with pytest.raises(InputError, match="not one that was given out here"):
        read_state(back["state"], other)
    both = bench.means("A" * 43 + "=," + bench.key)
    assert read_state(back["state"], both).user == "ann"


async def test_a_state_that_is_too_old(bench: Bench) -> None:
    """A link is good for ten minutes."""
    means = bench.means()
    back = await browse(await source(bench).begin("crm", "acme", "ann", means))
    bench.now.pass_s(BEGUN_S - 1)
    read_state(back["state"], means)
    bench.now.pass_s(1)
    with pytest.raises(InputError, match="more than 10 minutes ago"):
        read_state(back["state"], means)


async def test_an_answer_is_taken_once(bench: Bench) -> None:
    """The same answer a second time changes nothing, and its code is not sent again."""
    crm, means = source(bench), bench.means()
    back = await browse(await crm.begin("crm", "acme", "ann", means))
    begun = read_state(back["state"], means)
    await crm.complete(begun, Redirect(**back), means)
    with pytest.raises(Conflict, match="was connected meanwhile"):
        await crm.complete(begun, Redirect(**back), means)
    assert len(bench.server.asked) == 1
    assert (await crm.mint(ANN, means)).value in bench.server.tokens


async def test_of_two_links_one_is_taken(bench: Bench) -> None:
    """Of two links that were open at once, the second answer does not take the place of the first."""
    crm, means = source(bench), bench.means()
    backs = [await browse(await crm.begin("crm", "acme", "ann", means)) for _ in range(2)]
    done = await asyncio.gather(
        *(crm.complete(read_state(back["state"], means), Redirect(**back), means) for back in backs),
        return_exceptions=True,
    )
    assert sorted(type(found).__name__ for found in done) == ["Conflict", "tuple"]


async def test_a_replayed_code(bench: Bench) -> None:
    """A code that somebody used before us gives nothing; nor does one with another verifier (PKCE)."""
    crm, means = source(bench), bench.means()
    first = await browse(await crm.begin("crm", "acme", "ann", means))
    thief = await browse(await crm.begin("crm", "acme", "eve", means))
    with pytest.raises(Conflict, match="code is not taken"):  # ann's code in eve's flow: the challenge is another
        await crm.complete(
            read_state(thief["state"], means), Redirect(thief["state"], first["code"], iss=first["iss"]), means
        )
    await crm.complete(read_state(first["state"], means), Redirect(**first), means)
    again = await browse(await crm.begin("crm", "acme", "bob", means))
    with pytest.raises(Conflict, match="code is not taken"):
        await crm.complete(
            read_state(again["state"], means), Redirect(again["state"], first["code"], iss=first["iss"]), means
        )
    assert await bench.store.connections.get("acme", "eve", "crm") is None


@pytest.mark.parametrize("iss", ["https://evil.example", ""])
async def test_an_answer_of_another_server(bench: Bench, iss: str) -> None:
    """An answer that names another issuer, or none though this one always does, is a mix-up (RFC 9207)."""
    crm, means = source(bench), bench.means()
    back = await browse(await crm.begin("crm", "acme", "ann", means)) | {"iss": iss}
    with pytest.raises(InputError, match="iss: the answer is not of"):
        await crm.complete(read_state(back["state"], means), Redirect(**back), means)
    assert bench.server.asked == []


async def test_a_person_who_says_no(bench: Bench) -> None:
    """It is said, with the server's code alone, and the link may be used again."""
    crm, means = source(bench), bench.means()
    bench.server.denies = True
    back = await browse(await crm.begin("crm", "acme", "ann", means))
    assert back["error"] == "access_denied"
    with pytest.raises(Conflict, match="crm was not connected: access_denied"):
        await crm.complete(read_state(back["state"], means), Redirect(**back), means)
    bad = Redirect(back["state"], error="<script>", iss=back["iss"])
    with pytest.raises(Conflict, match="not connected: script"):
        await crm.complete(read_state(back["state"], means), bad, means)


async def test_a_server_without_pkce(bench: Bench) -> None:
    """One that says what it knows, and not S256, is not used."""
    bench.server.facts = {"code_challenge_methods_supported": ["plain"]}
    with pytest.raises(CredentialError, match="S256"):
        await source(bench).begin("crm", "acme", "ann", bench.means())


async def test_not_connected(bench: Bench) -> None:
    """The error says for whom what is missing, and what to do; a run for nobody has no connections."""
    crm, means = source(bench), bench.means()
    with pytest.raises(CredentialError, match="`stanchion connect crm`") as caught:
        await crm.mint(ANN, means)
    assert (caught.value.code, caught.value.retryable) == ("credential_unconnected", False)
    with pytest.raises(CredentialError, match="start runs with user="):
        await crm.mint(replace(ANN, user=""), means)
    await connect(crm, means)
    for other in (replace(ANN, user="bob"), replace(ANN, tenant="globex"), replace(ANN, name="mail")):
        with pytest.raises(CredentialError, match="is not connected"):
            await crm.mint(other, means)


async def test_less_than_was_asked_for(bench: Bench) -> None:
    """A person may allow less; what needs no more than that works."""
    crm, means = source(bench), bench.means()
    bench.server.allowed = ("contacts.read",)
    assert await connect(crm, means) == ("contacts.read",)
    assert (await crm.mint(READ, means)).scopes == ("contacts.read",)
    with pytest.raises(CredentialError, match=r"connected without contacts\.write"):
        await crm.mint(ANN, means)


async def test_renewing(bench: Bench) -> None:
    """A token near its end is renewed; the refresh token is rotated and the new one kept."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    made = [await crm.mint(ANN, means)]
    for _ in range(3):
        bench.now.pass_s(3_540)
        made.append(await crm.mint(ANN, bench.means()))
    assert len({one.value for one in made}) == 4
    assert not any(grant.void for grant in bench.server.grants.values())


async def test_a_token_for_less(bench: Bench) -> None:
    """A tool that needs less gets less (RFC 6749, 6), and neither set of scopes costs the other its token."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    less, whole = await crm.mint(READ, means), await crm.mint(ANN, means)
    assert bench.server.tokens[less.value].scopes == ("contacts.read",)
    assert whole.scopes == SCOPES
    for _ in range(3):
        assert (await crm.mint(READ, means), await crm.mint(ANN, means)) == (less, whole)
    assert len(bench.server.asked) == 2


async def test_two_workers_renew_at_once(bench: Bench) -> None:
    """Ten calls in each of three processes renew once: a refresh token that is used twice is a thief's."""
    crm = source(bench)
    await connect(crm, bench.means())
    bench.now.pass_s(3_600)
    workers = [bench.means() for _ in range(3)]
    made = await asyncio.gather(*(crm.mint(ANN, means) for means in workers for _ in range(10)))
    assert len({one.value for one in made}) == 1
    assert [form["grant_type"] for form in bench.server.asked[1:]] == ["refresh_token"]


async def test_renewing_that_fails_for_the_moment(bench: Bench) -> None:
    """After a 503 the next attempt renews, at once and in any process: the connection stands, and is not held."""
    crm = source(bench)
    await connect(crm, bench.means())
    bench.now.pass_s(3_600)
    bench.server.fail_next.append(web.Response(status=503))
    with pytest.raises(CredentialError) as caught:
        await crm.mint(ANN, bench.means())
    assert caught.value.retryable
    assert (await crm.mint(ANN, bench.means())).value in bench.server.tokens


async def test_a_worker_that_died_while_renewing(bench: Bench) -> None:
    """Its claim ends by itself; until then others wait, and do not renew."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    held = await bench.store.connections.get("acme", "ann", "crm")
    assert held is not None
    assert await bench.store.connections.claim("acme", "ann", "crm", version=held.version, for_ms=20_000)
    bench.now.pass_s(3_600)
    await bench.store.connections.claim("acme", "ann", "crm", version=held.version, for_ms=20_000)
    waiting = asyncio.create_task(crm.mint(ANN, means))
    await asyncio.wait({waiting}, timeout=0.2)
    assert not waiting.done()
    bench.now.pass_s(20)
    assert (await waiting).value in bench.server.tokens


async def test_a_run_that_is_stopped_while_renewing(bench: Bench) -> None:
    """What the server gave in place of the old token is kept, though nobody waits for it any more."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    bench.now.pass_s(3_600)
    before = await bench.store.connections.get("acme", "ann", "crm")
    assert before is not None
    stopped = asyncio.create_task(crm.mint(ANN, means))
    kept, old = partial(bench.store.connections.get, "acme", "ann", "crm"), before.version
    async with asyncio.timeout(5):
        while not (await kept() or before).busy_until_ms:  # noqa: ASYNC110  (and no longer: it is stopped in the midst)
            await asyncio.sleep(0)
    stopped.cancel()
    await until(kept, lambda row: row is not None and row.version != old)
    assert stopped.cancelled()
    assert not any(grant.void for grant in bench.server.grants.values())
    bench.now.pass_s(3_600)
    assert (await crm.mint(ANN, bench.means())).value in bench.server.tokens


async def test_an_answer_that_is_lost(bench: Bench) -> None:
    """A rotation whose answer was lost cannot be told from theft: the server voids it, and the person is asked again."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    bench.now.pass_s(3_600)
    bench.server.fail_next.append("lost")
    with pytest.raises(CredentialError) as caught:
        await crm.mint(ANN, means)
    assert caught.value.retryable
    with pytest.raises(CredentialError, match="has run out, or was taken back"):
        await crm.mint(ANN, means)
    with pytest.raises(CredentialError, match="is not connected"):
        await crm.mint(ANN, means)
    await connect(crm, means)
    assert (await crm.mint(ANN, means)).value in bench.server.tokens


async def test_no_refresh_token(bench: Bench) -> None:
    """A server that gives none has the person asked again when the token ends."""
    crm, means = source(bench), bench.means()
    bench.server.no_refresh = True
    await connect(crm, means)
    await crm.mint(ANN, means)
    bench.now.pass_s(3_600)
    with pytest.raises(CredentialError, match="crm has run out"):
        await crm.mint(ANN, means)


async def test_connecting_again(bench: Bench) -> None:
    """A second connection takes the place of the first."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    first = await crm.mint(ANN, means)
    await connect(crm, means)
    assert await crm.mint(ANN, means) != first


async def test_erasure_takes_it(bench: Bench) -> None:
    """After a user's content is erased the tokens are gone, and a copy of the row that was kept opens no more."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    held = await bench.store.connections.get("acme", "ann", "crm")
    assert held is not None
    assert await bench.store.destroy_key("acme", "ann")
    with pytest.raises(CredentialError, match="is not connected"):
        await crm.mint(ANN, means)
    await bench.store.connections.put("acme", "ann", "crm", held.body, over=0)  # from a backup
    with pytest.raises(CredentialError, match="is not connected"):
        await crm.mint(ANN, means)
    await connect(crm, means)
    assert (await crm.mint(ANN, means)).value in bench.server.tokens


async def test_a_row_in_another_place(bench: Bench) -> None:
    """Sealed text of one user, put in another's place in the table, opens nothing."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    held = await bench.store.connections.get("acme", "ann", "crm")
    assert held is not None
    await bench.store.connections.put("acme", "eve", "crm", held.body, over=0)
    with pytest.raises(CredentialError, match="is not connected"):
        await crm.mint(replace(ANN, user="eve"), means)


async def test_nothing_is_kept_in_plain(bench: Bench) -> None:
    """The sealed body holds no token, and is another each time."""
    crm, means = source(bench), bench.means()
    await connect(crm, means)
    held = await bench.store.connections.get("acme", "ann", "crm")
    assert held is not None
    for secret in bench.server.secrets:
        assert secret.encode() not in held.body
    assert {value for _, value in bench.minted} >= {*bench.server.tokens, *bench.server.grants}


@pytest.mark.parametrize(("key", "says"), [(" ", "openssl rand"), ("short", "key 1 is not 32 bytes"), ("é", "key 1")])
async def test_without_a_vault_key(bench: Bench, key: str, says: str) -> None:
    """Nothing is connected, and nothing is kept in plain instead."""
    with pytest.raises(ConfigError, match=says):
        await source(bench).begin("crm", "acme", "ann", bench.means(key))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"redirect_uri": ""}, "say redirect_uri="),
        ({"redirect_uri": "http://app.example/x"}, "must begin with https://"),
        ({"issuer": ""}, "say issuer="),
        ({"client_secret": "s3cret"}, "must say where the secret is"),
    ],
)
def test_sources_that_cannot_be_right(how: dict[str, Any], says: str) -> None:
    """They are refused where they are written."""
    asked: dict[str, Any] = {"issuer": "https://a.example", "client_id": "b", "redirect_uri": "https://c.example/d"}
    with pytest.raises(ConfigError, match=says) as caught:
        UserDelegation(**(asked | how))
    assert "s3cret" not in str(caught.value)
