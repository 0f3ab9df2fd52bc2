"""Checks of a store: contents and their erasure, verification, tenants, bundles and API keys."""

from __future__ import annotations

from msgspec import structs

from stanchion.core.errors import Conflict, NotFound
from stanchion.core.event import ToolCallFinished
from stanchion.core.message import Erased, Label, Media, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from stanchion.journal.record import Verified, verify
from stanchion.journal.store import ApiKey, Store
from stanchion.testing.store_driver import TENANT, Driver, raises, said, same, true

_LABEL = Label("tool", "search", secrecy="customer")
_PARTS: tuple[Part, ...] = (
    Text("päper ✂ \x00 \U0001f600", _LABEL),
    Text("", _LABEL),
    Thinking("hm", _LABEL, signature="s", wire="anthropic", data='{"a":1}'),
    ToolCall("id", "search", '{"q": "malformed', _LABEL, data="{}"),
    Media("image/png", _LABEL, data="aGVsbG8=" * 2_000),
    Opaque("openai_responses", "web_search_call", '{"x":[1]}', _LABEL),
)


async def _verified(store: Store, run: str, tenant: str = TENANT) -> Verified:
    return verify(tenant, run, await store.raw(tenant, run), {key.id: key.salt for key in await store.keys(tenant)})


async def every_kind_of_part_comes_back(store: Store) -> None:
    """Parts of every kind, any text and any size come back as they went in, labels included."""
    driver = await Driver.driving(store, "r1")
    for part in _PARTS:
        await driver.append(ToolCallFinished(call="1.0", outcome="ok", parts=(part,)))
    big = ToolResult("id", "search", "0123456789" * 300_000, _LABEL, error=True)
    await driver.append(ToolCallFinished(call="1.1", outcome="ok", parts=(*_PARTS, big)))
    entries = await store.read(TENANT, "r1", after=1)
    same(tuple(entry.event.parts[0] for entry in entries[:-1]), _PARTS, "one by one")
    true(entries[-1].event.parts == (*_PARTS, big), "all at once, with 3 MB of text")
    same((await _verified(store, "r1")).erased, 0, "erased")


async def a_chain_verifies(store: Store) -> None:
    """What is stored verifies from the first event to the head that the row names."""
    driver = await Driver.driving(store, "r1")
    await driver.append(said("a"), said("a"), said("b"))
    row = await driver.row()
    same(await _verified(store, "r1"), Verified(4, 0, row.hash), "verified")


async def outlines_say_all_but_the_content(store: Store) -> None:
    """Of many runs at once and of a long one, in order; of a run that is another tenant's or nobody's, nothing."""
    for name in ("r1", "r2"):
        driver = await Driver.driving(store, name)
        await driver.append(said(f"of {name}"), ToolCallFinished(call="1.0", outcome="ok", cost=7, parts=_PARTS[:2]))
    long = await Driver.driving(store, "long")
    for _ in range(3):
        await long.append(*[said("x")] * 900)
    other = await Driver.driving(store, "other", tenant="globex")
    await other.append(said("y"))
    await store.destroy_key(TENANT, "ann")
    found = await store.outlines(TENANT, ["r2", "long", "r1", "other", "nobody"])
    same(sorted(run for run, outlines in found.items() if outlines), ["long", "r1", "r2"], "runs with events")
    for run in ("r1", "r2", "long"):
        entries = await store.read(TENANT, run)
        plain = [(e.seq, e.at_ms, structs.replace(e.event, parts=())) for e in entries]
        same([(each.seq, each.at_ms, each.event) for each in found[run]], plain, f"events of {run}")
        labels = [[part.label for part in e.event.parts] for e in entries]
        same([[ref.label for ref in each.parts] for each in found[run]], labels, f"labels in {run}")
    same([ref.size for ref in found["r1"][1].parts], [len("of r1")], "sizes after an erasure")
    same(dict(await store.outlines(TENANT, [])), {}, "of no run")


async def tenants_are_listed(store: Store) -> None:
    """Each once, those whose runs are over as well."""
    same(list(await store.tenants()), [], "in an empty store")
    for number, tenant in enumerate(("b", "a", "c", "b", "Ä")):
        driver = await Driver.driving(store, f"r{number}", tenant=tenant)
        await driver.end()
    same(sorted(await store.tenants()), ["a", "b", "c", "Ä"], "tenants")


async def equal_content_is_found_by_every_event(store: Store) -> None:
    """The same text said often is read back by each event that said it, in one group and over many."""
    drivers = [await Driver.driving(store, f"r{number}") for number in range(3)]
    for driver in drivers:
        await driver.append(said("same"), said("same"))
        await driver.append(said("same"))
    for driver in drivers:
        texts = [entry.event.parts[0] for entry in await store.read(TENANT, driver.run, after=1)]
        same([getattr(part, "text", None) for part in texts], ["same"] * 3, driver.run)


async def erasure_takes_content_and_leaves_the_chain(store: Store) -> None:
    """After a key was destroyed its content is gone for ever, everywhere; chains verify and say so."""
    ann = await Driver.driving(store, "r1", subject="ann")
    bob = await Driver.driving(store, "r2", subject="bob")
    for driver in (ann, bob):
        await driver.append(said("shared text"), said(f"text of {driver.run}"))
    same(await store.destroy_key(TENANT, "ann"), True, "destroyed")
    same(await store.destroy_key(TENANT, "ann"), False, "destroyed twice")
    parts = [part for entry in await store.read(TENANT, "r1") for part in entry.event.parts]
    same({type(part) for part in parts}, {Erased}, "parts")
    same({part.label.source for part in parts}, {"user"}, "labels stay")
    same(((await _verified(store, "r1")).erased, (await _verified(store, "r2")).erased), (3, 0), "erased")
    same(
        len([part for e in await store.read(TENANT, "r2") for part in e.event.parts if isinstance(part, Text)]),
        3,
        "bob's",
    )
    same([key.id for key in await store.keys(TENANT)], [bob.recorder.key.id], "keys")
    fresh = await store.key_for(TENANT, "ann")
    true(fresh.id != ann.recorder.key.id and fresh.salt != ann.recorder.key.salt, "a new key is another")


async def content_under_a_destroyed_key_is_not_kept(store: Store) -> None:
    """A driver that still holds a destroyed key goes on; what it says is erased from the start."""
    driver = await Driver.driving(store, "r1")
    await driver.append(said("before"))
    await store.destroy_key(TENANT, "ann")
    same(await driver.append(said("after")), None, "append")
    parts = [part for entry in await store.read(TENANT, "r1") for part in entry.event.parts]
    same([type(part) for part in parts], [Erased] * 3, "parts")
    same((await _verified(store, "r1")).erased, 3, "erased")


async def keys_are_made_once(store: Store) -> None:
    """A subject has one key in a tenant; keys differ between subjects and tenants."""
    key = await store.key_for(TENANT, "ann")
    same(await store.key_for(TENANT, "ann"), key, "asked again")
    others = [await store.key_for(TENANT, "bob"), await store.key_for("other", "ann")]
    same(len({k.salt for k in (key, *others)}), 3, "salts")
    true(len(key.salt) >= 16, "a salt cannot be guessed")
    same(len(await store.keys(TENANT)), 2, "the tenant's keys")


async def tenants_see_nothing_of_each_other(store: Store) -> None:
    """Every method that names a tenant finds only that tenant's, though all other names are the same."""
    driver = await Driver.driving(store, "r1", session="s1")
    await driver.append(said("secret"), status="waiting", release=True)
    await store.put_bundle(TENANT, "d", b"body")
    await store.set_limit(TENANT, "tenant", 5)
    await store.post(TENANT, "r1", "message", b"x")
    other = "other"
    same((await store.run(other, "r1"), await store.session(other, "s1")), (None, None), "rows")
    same((list(await store.read(other, "r1")), list(await store.raw(other, "r1"))), ([], []), "events")
    same((list(await store.runs(other)), list(await store.sessions(other))), ([], []), "listings")
    same((list(await store.inbox(other, "r1")), list(await store.ledgers(other))), ([], []), "inbox and ledgers")
    same((list(await store.keys(other)), await store.bundle(other, "d")), ([], None), "keys and bundles")
    same(await store.destroy_key(other, "ann"), False, "erasure")
    same(await store.claim(other, "r1", worker="w", lease_ms=1), None, "claim")
    same(await store.renew(other, "r1", epoch=1, lease_ms=1), False, "renewal")
    await raises(NotFound, store.post(other, "r1", "message", b"x"), "post")
    append = driver.of([], 2, 1)
    foreign = type(append)(tenant=other, run="r1", expected_seq=2, epoch=1)
    await raises(NotFound, store.append(foreign), "append")
    twin = await Driver.started(store, "r1", tenant=other, session="s1", text="theirs")
    same((len(await store.read(other, "r1")), len(await store.read(TENANT, "r1"))), (1, 2), "twins")
    true((await twin.row()).hash != (await driver.row()).hash, "chains differ")
    same((await _verified(store, "r1", other)).events, 1, "the twin verifies")


async def bundles_are_kept(store: Store) -> None:
    """A bundle is kept under its digest; putting it again changes nothing."""
    await store.put_bundle(TENANT, "d", b"\x00body")
    await store.put_bundle(TENANT, "d", b"\x00body")
    same(await store.bundle(TENANT, "d"), b"\x00body", "bundle")


async def api_keys_are_kept_and_revoked(store: Store) -> None:
    """API keys of all tenants are listed, with those that were revoked."""
    first = ApiKey("k1", TENANT, b"\x01" * 32, "laptop", 1)
    second = ApiKey("k2", "other", b"\x02" * 32, "server", 2, may_approve='[{"tools":["refund"]}]')
    await store.add_api_key(first)
    await store.add_api_key(second)
    await raises(Conflict, store.add_api_key(first), "the same id again")
    same(list(await store.api_keys()), [first, second], "keys")
    same((await store.revoke_api_key("k1"), await store.revoke_api_key("none")), (True, False), "revoke")
    revoked = ApiKey("k1", TENANT, b"\x01" * 32, "laptop", 1, revoked=True)
    same(list(await store.api_keys()), [revoked, second], "keys after")


CHECKS = (
    every_kind_of_part_comes_back,
    a_chain_verifies,
    outlines_say_all_but_the_content,
    tenants_are_listed,
    equal_content_is_found_by_every_event,
    erasure_takes_content_and_leaves_the_chain,
    content_under_a_destroyed_key_is_not_kept,
    keys_are_made_once,
    tenants_see_nothing_of_each_other,
    bundles_are_kept,
    api_keys_are_kept_and_revoked,
)
