"""`python -m bench.catalogue [--quick]`: many tools, shown or found: tokens, money, CPU, and whether the right tool is among the first five.

Catalogues are made (`bench.catalogue_words`): names in the styles of several authors, descriptions with and without their domain, near
duplicates across domains. A question is asked in four forms: in the tool's own words; with the deed, the thing, or both said
otherwise. The money is what `stanchion sim` bills for a task of 15 turns that needs four of the tools.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import Field

from bench.catalogue_words import DEEDS, DOMAINS, Deed
from stanchion import Agent, Limits, Model, Runtime, tool
from stanchion.catalogue import ToolSearch
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, Route, ToolSpec
from stanchion.core.catalogue import Catalogue
from stanchion.core.loading import loads_tools
from stanchion.core.money import Price
from stanchion.core.policy import GuardRules
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When

SIZES = (50, 500, 5_000)
RECALL_AT = (1, 3, 5, 10)
QUESTIONS = 1_000
TURNS = 15
NEEDED = 4
"""How many different tools the task needs."""
FORMS = ("close", "deed", "thing", "far")
"""How a question says what is to be done: as the tool says it; the deed, the thing, or both said otherwise."""
IDENTITY = "You see to what the staff of a large company ask for. " * 20
ASKED = {"first": "Do it all.", "next": "Do it now."}
"""By session, so that the next one does not find the first one's whole conversation in the cache: the simulated provider's call ids depend on
what it is sent, a real one's do not."""
FILLER = "It is as it was left last. " * 8
DONE = "That is all. "
_FREE = Price(input=0, output=0, cache_read=0, cache_write=0, cache_write_long=0)


class Thing(msgspec.Struct, frozen=True):
    """Something that a domain has."""

    domain: str
    titles: tuple[str, str]
    """What the domain is called: by its tools, and by people."""
    name: str
    other: str
    """What people call it."""


class Question(msgspec.Struct, frozen=True):
    """What somebody wants, in four forms, and the tool that does it."""

    tool: str
    close: str
    deed: str
    thing: str
    far: str


def things() -> list[Thing]:
    """Read the words."""
    found: list[Thing] = []
    for line in DOMAINS:
        domain, titles, listed = line.split(": ", 2)
        title, _, other = titles.partition(", ")
        for pair in listed.split(", "):
            name, _, called = pair.partition("=")
            found.append(Thing(domain, (title, other), name, called))
    return found


def _a(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _several(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


def _name(deed: Deed, thing: Thing, style: int) -> str:
    """Name a tool as one of four authors would: each domain has one."""
    words = thing.name.split("_")
    match style:
        case 0:
            return f"{thing.domain}_{deed.name}_{thing.name}"
        case 1:
            return f"{deed.name}_{thing.domain}_{thing.name}"
        case 2:
            return f"{thing.domain}-{thing.name}-{deed.name}".replace("_", "-")
        case _:
            camel = "".join(word.capitalize() for word in words)
            return f"{thing.domain}_{deed.name}{camel}"


def _spec(deed: Deed, thing: Thing, style: int, said: int) -> ToolSpec:
    word = thing.name.replace("_", " ")
    fill = {"o": word, "s": _several(word), "a": _a(word), "d": thing.titles[0]}
    id_name = f"{thing.name}_id"
    fields = {id_name: {"type": "string", "description": f"Id of the {word}."}} if deed.by_id else {}
    for name, kind, description in deed.parameters:
        fields[name] = {"type": kind, "description": description.format(**fill)}
    schema = {
        "type": "object", "properties": fields, "required": [next(iter(fields))] if fields else [],
        "additionalProperties": False,
    }  # fmt: skip
    description = deed.says[said % len(deed.says)].format(**fill)
    return ToolSpec(_name(deed, thing, style), description, schema, deed.effect, group=thing.domain)  # type: ignore[arg-type]


def made(size: int, seed: int = 1) -> tuple[list[ToolSpec], list[tuple[Deed, Thing]]]:
    """Make a catalogue of a size, out of all domains, and what each tool is of."""
    chance = random.Random(seed)
    pairs = [(deed, thing) for thing in things() for deed in DEEDS]
    chance.shuffle(pairs)
    chosen = pairs[:size]
    styles = {thing.domain: number % 4 for number, thing in enumerate(things())}
    specs = [_spec(deed, thing, styles[thing.domain], chance.randrange(3)) for deed, thing in chosen]
    return specs, chosen


_ABOUT = ("number {n}", "for Mrs Okafor", "from last week", "that Jan asked about", "by tomorrow", "{n}")
_FRAMES = (
    "Please {v} the {o} {x} in {d}.", "I need to {v} {a} {o} ({d}).", "Can you {v} the {o} {x}? It is about {d}.",
    "The customer wants us to {v} {a} {o} {x}, {d}.", "{d}: {v} the {o} {x}, and tell me when it is done.",
)  # fmt: skip


def asked(specs: Sequence[ToolSpec], of: Sequence[tuple[Deed, Thing]], count: int, seed: int = 2) -> list[Question]:
    """Make questions of which each means one tool."""
    chance = random.Random(seed)
    found: list[Question] = []
    for number in chance.sample(range(len(specs)), min(count, len(specs))):
        deed, thing = of[number]
        own, other = thing.name.replace("_", " "), thing.other
        said = chance.choice(deed.others)
        frame, about = chance.choice(_FRAMES), chance.choice(_ABOUT).format(n=chance.randrange(100, 99_999))
        forms = ((deed.name, own), (said, own), (deed.name, other), (said, other))
        texts = [
            frame.format(
                v=verb, o=word, a=_a(word), x=about, d=chance.choice(thing.titles) if place else thing.titles[0]
            )
            for place, (verb, word) in enumerate(forms)
        ]
        found.append(Question(specs[number].name, *texts))
    return found


def bundled(specs: Sequence[ToolSpec]) -> Bundle:
    """Make a bundle of tools."""
    return Bundle("desk", "", (Route("p", "m", _FREE),), tuple(specs))


def recall(catalogue: Catalogue, questions: Sequence[Question]) -> dict[str, dict[int, float]]:
    """How often the tool is among the first, by the form of the question."""
    table: dict[str, dict[int, float]] = {}
    for form in FORMS:
        places: list[int] = []
        for question in questions:
            hits = catalogue.search(getattr(question, form))
            first = [spec.name for _, spec in zip(range(max(RECALL_AT)), hits, strict=False)]
            places.append(first.index(question.tool) if question.tool in first else 10**6)
        table[form] = {at: sum(place < at for place in places) / len(places) for at in RECALL_AT}
    return table


def cpu_s(work: Callable[[], object], times: int) -> float:
    """CPU seconds of a piece of work, the mean of some."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) / times


_TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict[str, Any]}


def as_tool(spec: ToolSpec) -> Any:
    """Make a function with the signature of a tool, and a tool of it."""

    async def run(**values: Any) -> str:
        return f"{spec.name}: {msgspec.json.encode(values).decode()} {FILLER}"

    required = spec.parameters["required"]
    annotations: dict[str, Any] = {"return": str}
    run.__name__, run.__doc__, run.__annotations__ = spec.name, spec.description, annotations
    parameters: list[inspect.Parameter] = []
    for name, field in spec.parameters["properties"].items():
        kind = _TYPES[field["type"]] if name in required else _TYPES[field["type"]] | None
        annotation = Annotated[kind, Field(description=field["description"])]
        annotations[name] = annotation
        default = inspect.Parameter.empty if name in required else None
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    run.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
    return tool(effect=spec.effect, name=spec.name, group=spec.group)(run)


def deeds(specs: Sequence[ToolSpec]) -> list[tuple[ToolSpec, dict[str, Any]]]:
    """Choose four reads that a task needs, and its fourteen calls of them."""
    needed = [spec for spec in specs if spec.effect == "read"][:NEEDED]
    calls: list[tuple[ToolSpec, dict[str, Any]]] = []
    for number in range(TURNS - 1):
        spec = needed[number * NEEDED // (TURNS - 1)]
        values = dict.fromkeys(spec.parameters["required"], f"A-{number}")
        calls.append((spec, {name: 5 if name == "limit" else value for name, value in values.items()}))
    return calls


def script(specs: Sequence[ToolSpec], *, found: bool, model: str = "") -> Script:
    """Play a model that makes the task's calls: by their names, or once it has found them; by `call_tool` where it cannot load tools."""
    provider, _, name = model.partition(":")
    formed = found and not loads_tools(provider, name)
    replies: list[Reply] = []
    known: set[str] = set()
    for spec, values in deeds(specs):
        if found and spec.name not in known:
            known.add(spec.name)
            replies.append(reply("find_tools", {"query": f"{spec.description} {spec.group}"}))
        named = reply("call_tool", {"name": spec.name, "arguments": values}) if formed else reply(spec.name, values)
        replies.append(named)
    return in_turn(replies)


def in_turn(replies: Sequence[Reply], *before: Rule) -> Script:
    """Play replies one after the other, and say then that it is done."""
    rules = [Rule(when=When(turn=turn), reply=each) for turn, each in enumerate(replies)]
    return Script(rules=(*before, *rules), default=Reply(text=DONE * 20))


def reply(name: str, arguments: dict[str, Any]) -> Reply:
    """Call a tool."""
    return Reply(text="I see. ", calls=(ReplyCall(name=name, arguments=arguments),))


async def billed(size: int, *, how: str, model: str, mark: bool = True, longer: int = 0) -> dict[str, Any]:
    """Run the task twice against the simulated provider: its first session, and one that finds the beginning in the cache.

    `how`: all tools are "shown"; they are "found"; or there are just those that are "needed", as if somebody knew them beforehand.
    `mark`: what tools return is marked as written by others, as is the default. `longer`: by how many tokens the identity is longer.
    """
    specs, _ = made(size)
    plays = script(specs, found=how == "found", model=model)
    if how == "needed":
        specs = list({spec.name: spec for spec, _ in deeds(specs)}.values())
    began = time.process_time()
    search = ToolSearch() if how == "found" else None
    agent = Agent(
        name="desk",
        identity=(IDENTITY + "x" * 4 * longer)[: len(IDENTITY) + 4 * longer],
        tools=[as_tool(spec) for spec in specs],
        search=search,
        model=Model(model, context_tokens=1_000_000),
        limits=Limits(turns=40),
        guard=GuardRules(mark=mark),
    )
    server = SimServer(SimSettings(script=plays))
    await server.start()
    environment = {
        "ANTHROPIC_BASE_URL": server.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": server.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    row: dict[str, Any] = {"tools": size, "how": how, "model": model}
    with tempfile.TemporaryDirectory() as folder:
        runtime = await Runtime.open(agent, data=str(Path(folder) / "c.db"), environment=environment)
        row["open_cpu_s"] = time.process_time() - began
        try:
            for session, text in ASKED.items():
                before, begin = server.bill.view().total.nano_usd, time.process_time()
                run = (await runtime.start("desk", text, session=session)).run
                view = await runtime.wait(run, timeout_s=300)
                if view.outcome != "done":
                    raise RuntimeError(f"{run} ended as {view.outcome}: {view.reason}")
                entries = await runtime.store.read("default", run)
                row[session] = _session(entries, server.bill.view().total.nano_usd - before)
                row[session]["cpu_s"] = time.process_time() - begin
        finally:
            await runtime.aclose(grace_s=1.0)
            await server.stop()
    return row


def _session(entries: Sequence[ev.Entry], nano_usd: int) -> dict[str, Any]:
    calls = [entry.event for entry in entries if isinstance(entry.event, ev.ModelCallFinished)]
    done = [entry.event for entry in entries if isinstance(entry.event, ev.ToolCallFinished)]
    inputs = [call.usage.total_input_tokens for call in calls if call.usage is not None]
    if any(event.outcome != "ok" for event in done) or sum(call.cost for call in calls) != nano_usd:
        raise RuntimeError("a call failed, or our bill is not the provider's")
    return {"calls": len(calls), "tokens_first": inputs[0], "tokens_last": inputs[-1], "usd": nano_usd / 1e9}


def search_rows(size: int, questions: int) -> dict[str, Any]:
    """Measure a catalogue's index and searches, and whether they find what was meant."""
    specs, of = made(size)
    asks = asked(specs, of, questions)
    build = cpu_s(lambda: Catalogue(bundled(specs)).index, 3)
    catalogue = Catalogue(bundled(specs))
    catalogue.search("warm it up")
    forms = [getattr(question, form) for question in asks[:100] for form in FORMS]
    once = cpu_s(lambda: [next(catalogue.search(text), None) for text in forms], 1) / len(forms)
    return {"tools": size, "build_ms": build * 1e3, "search_ms": once * 1e3, "recall": recall(catalogue, asks)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Leave out the money of 5,000 tools.")
    parser.add_argument("--model", default="anthropic:claude-sonnet-4-6")
    parser.add_argument("--longer", type=int, default=0, metavar="TOKENS", help="Make the identity longer, or shorter.")
    parser.add_argument("--json", metavar="FILE", help="Write the figures there as well.")
    given = parser.parse_args()
    rows: dict[str, Any] = {"search": [search_rows(size, QUESTIONS) for size in SIZES], "bill": []}
    for row in rows["search"]:
        print(f"{row['tools']:>5} tools: index {row['build_ms']:.0f} ms CPU, a search {row['search_ms']:.2f} ms")
        for form, at in row["recall"].items():
            print(f"      {form:<8}" + "  ".join(f"@{place} {part:6.1%}" for place, part in at.items()))
    for size in SIZES[:2] if given.quick else SIZES:
        for how in ("shown", "found", "needed"):
            row = asyncio.run(billed(size, how=how, model=given.model, longer=given.longer))
            rows["bill"].append(row)
            first, after = row["first"], row["next"]
            print(
                f"{size:>5} tools {how}: {first['calls']} calls, {first['tokens_first']:,} tokens in the first, "
                f"{first['tokens_last']:,} in the last; ${first['usd']:.4f}, the next session ${after['usd']:.4f}; "
                f"CPU {after['cpu_s']:.2f} s a session with the provider's, {row['open_cpu_s']:.1f} s to open"
            )  # fmt: skip
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
