"""An agent that searches its tools: what it shows, what its settings may be, and which changes a run outlives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion import Agent, ConfigError, tool
from stanchion.catalogue import ToolSearch
from stanchion.core.bundle import CALL_TOOL, FIND_TOOLS, Bundle, digest_of
from stanchion.core.catalogue import Catalogue
from stanchion.core.deeds import weighed
from stanchion.core.prices import load_prices
from stanchion.engine.bound import misfits


def made(name: str, group: str = "", described: str = "Do it.", kind: Any = str) -> Any:
    """Make a tool."""

    async def function(value: Any) -> str:
        return str(value)

    function.__doc__ = described
    function.__annotations__["value"] = kind
    return tool(effect="write", name=name, group=group)(function)


def agent(*tools: Any, search: Any = ToolSearch(("a",)), **more: Any) -> Agent:  # noqa: B008 - it never changes
    """Make an agent with a catalogue."""
    given = tools or (made("a"), made("b", "x/y"), made("c", "z"))
    return Agent(name="desk", tools=given, search=search, model="anthropic:claude-sonnet-4-6", **more)


def bundled(one: Agent) -> Bundle:
    """Make its bundle."""
    return one.bundle(one.registry(), load_prices(), "2026-01-01")


def test_the_bundle_has_all_and_shows_some() -> None:
    """In the order given, the built-in last; without a search it is as it was."""
    bundle = bundled(agent())
    assert [spec.name for spec in bundle.shown] == ["a", "read_result", FIND_TOOLS, CALL_TOOL]
    assert [spec.name for spec in bundle.tools][:3] == ["a", "b", "c"]
    plain = bundled(agent(search=None))
    assert plain.shown == plain.tools
    assert FIND_TOOLS not in plain.by_name
    assert digest_of(msgspec.json.decode(msgspec.json.encode(bundle), type=Bundle)) == digest_of(bundle)


def test_a_tool_that_comes_or_goes_changes_no_byte_of_the_list() -> None:
    """The built-in tools name the widest groups, and nothing else of what there is."""
    one = bundled(agent())
    other = bundled(agent(made("a"), made("d", "x/w"), made("e", "z")))
    assert msgspec.json.encode(one.shown) == msgspec.json.encode(other.shown)
    assert "Groups, to be listed by name: x, z." in one.by_name[FIND_TOOLS].description
    assert "Groups" not in bundled(agent(made("a"), made("b"))).by_name[FIND_TOOLS].description
    many = bundled(agent(made("a"), *(made(f"t{n}", f"group-number-{n:03}") for n in range(100))))
    assert many.by_name[FIND_TOOLS].description.endswith("group-number-032, ...")


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (ToolSearch(("aa",)), "search.shown: the agent has no tool 'aa'; did you mean 'a'?"),
        (ToolSearch(("find_tools",)), "search.shown: 'find_tools' is built in, and always shown; leave it out"),
        (ToolSearch((7,)), "search.shown: 7 is no name of a tool"),  # type: ignore[arg-type]
        (ToolSearch("a"), "search.shown must be names of tools"),  # type: ignore[arg-type]
        (ToolSearch(results=0), "search.results must be a whole number from 1 to 50, not 0"),
        (ToolSearch(results=True), "search.results must be a whole number"),
        (ToolSearch(max_chars=10), "search.max_chars must be a whole number from 500 to 100,000, not 10"),
        ({"shown": ["a"]}, "search must be ToolSearch(..)"),
        (True, "search must be ToolSearch(..)"),
    ],
)
def test_what_cannot_be_is_named(search: Any, said: str) -> None:
    """Where the agent is made, with what it may be."""
    with pytest.raises(ConfigError) as raised:
        bundled(agent(search=search))
    assert said in str(raised.value)
    assert "'desk'" in str(raised.value)


def test_a_list_is_taken_for_the_names() -> None:
    """As people write it."""
    assert bundled(agent(search=ToolSearch(["a", "c"]))).search == ToolSearch(("a", "c"))  # type: ignore[arg-type]


@pytest.mark.parametrize("group", ["/", "a//b", "a/", "x" * 65, "é", "/".join("abcdefghi"), 7])
def test_what_is_no_group_is_named(group: Any) -> None:
    """At the tool."""
    with pytest.raises(ConfigError, match="tool 'a': group="):
        made("a", group)


def test_no_tools_and_a_forced_one_that_is_not_shown() -> None:
    """Neither can work."""
    with pytest.raises(ConfigError, match=r"search\.shown: the agent has no tools to search"):
        bundled(Agent(name="d", model="anthropic:claude-sonnet-4-6", search=ToolSearch(), skills=[]))
    with pytest.raises(ConfigError, match=r"tool_choice 'b' is not shown; add it to search\.shown"):
        bundled(agent(tool_choice="b"))
    for shown in ("a", "find_tools", "required"):
        assert bundled(agent(tool_choice=shown)).tool_choice == shown
    with pytest.raises(ConfigError, match="the built-in tool's"):
        made("call_tool")


def test_a_run_outlives_what_happens_to_a_tool_that_it_does_not_call() -> None:
    """One that is found counts only while a call of it is under way; one that is shown counts always."""
    old = bundled(agent())
    gone = bundled(agent(made("a"), made("b", "x/y")))
    changed = bundled(agent(made("a"), made("b", "x/y"), made("c", "z", kind=int)))
    other = bundled(agent(made("a", kind=int), made("b", "x/y"), made("c", "z")))
    assert (misfits(old, gone), misfits(old, changed)) == ("", "")
    assert misfits(old, gone, {"c"}) == "the tool 'c' is gone"
    assert misfits(old, changed, {"c"}) == "the parameters of 'c' changed"
    assert misfits(old, other) == "the parameters of 'a' changed"
    assert misfits(old, bundled(agent(search=None))) == "the tool 'find_tools' is gone"
    assert misfits(bundled(agent(search=None)), old) == ""


# --- what is found -------------------------------------------------------------------------------------------------------


def names(query: str, *tools: Any, limit: int = 3) -> list[str]:
    """Search, and give the names of what is found."""
    return [spec.name for spec, _ in zip(Catalogue(bundled(agent(*tools))).search(query), range(limit), strict=False)]


SHOP = (
    made("a"),
    made("order_get", "shop", "Returns all fields of one purchase."),
    made("cancelOrder", "shop", "Stops a purchase that was not sent yet."),
    made("order-refund", "shop", "Pay money back."),
    made("invoice_send", "billing", "Send a bill to its recipient."),
)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("cancel an order", "cancelOrder"),
        ("CANCEL_ORDER", "cancelOrder"),
        ("call off the purchase, please", "cancelOrder"),
        ("cancelorder", "cancelOrder"),
        ("look up order 4711", "order_get"),
        ("the customer wants a refund", "order-refund"),
        ("mail the invoice", "invoice_send"),
        ("billing", "invoice_send"),
        ("order-refund", "order-refund"),
        ("a", "a"),
    ],
)
def test_a_tool_is_found_as_people_say_it(query: str, first: str) -> None:
    """By names in any style, by what it does, by its group, and by verbs of the same kind."""
    assert names(query, *SHOP)[0] == first


def test_a_search_gives_each_tool_once_and_the_same_each_time() -> None:
    """Also where more is wanted than the first fifty."""
    many = [made(f"order_{n}", described="Handle an order.") for n in range(120)]
    catalogue = Catalogue(bundled(agent(*many, search=ToolSearch())))
    found = [spec.name for spec in catalogue.search("order_7 of an order")]
    assert len(found) == len(set(found)) == 120
    assert found[0] == "order_7"
    assert found == [
        spec.name for spec in Catalogue(bundled(agent(*many, search=ToolSearch()))).search("order_7 of an order")
    ]


def test_parameters_are_searched_at_every_depth() -> None:
    """Names, descriptions and the values that they may have, of inner objects as well."""
    inner = {"$ref": "#/$defs/Line"}
    schema = {
        "type": "object",
        "properties": {"lines": {"type": "array", "items": inner}, "mode": {"enum": ["express", "slow"]}},
        "$defs": {"Line": {"properties": {"article": {"description": "The stock number."}}}},
    }
    bundle = bundled(agent())
    tools = tuple(msgspec.structs.replace(one, parameters=schema) if one.name == "b" else one for one in bundle.tools)
    catalogue = Catalogue(msgspec.structs.replace(bundle, tools=tools))
    for query in ("article", "stock", "express"):
        assert [one.name for one in catalogue.search(query)] == ["b"]


def test_near_names() -> None:
    """A slip of the pen, another style, or nothing that is near."""
    catalogue = Catalogue(bundled(agent(*SHOP)))
    assert catalogue.near("cancel_order")[0] == "cancelOrder"
    assert catalogue.near("ordr_get")[0] == "order_get"
    assert catalogue.near("zzzzzz") == ()


def test_silent_words_are_left_out_unless_there_are_no_others() -> None:
    """And a phrase counts as the verb that it means."""
    said = weighed("Please get rid of the order")
    assert {word for word, weight in said.items() if weight == 1} == {"get", "rid", "order"}
    assert said["delet"] == 0.5
    assert weighed("to be or not to be") == {"to": 1.0, "be": 1.0, "or": 1.0, "not": 1.0}
    assert weighed("") == {}
