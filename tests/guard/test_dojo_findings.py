"""What replays of recorded runs taught the guard's reading of values: links with marks behind them, sentences without a space."""

from __future__ import annotations

import pytest

from stanchion.core.bundle import Bundle, Route, ToolSpec
from stanchion.core.message import USER, Label, Message, Text
from stanchion.core.money import Price
from stanchion.core.policy import Destination, GuardRules, Level, ResultField
from stanchion.core.state import Seen, State
from stanchion.guard.evidence import Evidence
from stanchion.guard.flow import leaks
from stanchion.guard.ground import Finding
from stanchion.guard.judge import judge
from stanchion.guard.shape import shapes_in
from stanchion.guard.standing import Standing
from stanchion.guard.values import normal, urls_in

ROUTE = Route("p", "m", Price(0, 0, 0, 0, 0))
READ = ToolSpec("fetch", "", {}, "read", params={"url": Destination("url")})
POST = ToolSpec("post", "", {}, "irreversible", params={"url": Destination("url")})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("post it to our website www.our.example.They sent it", ["www.our.example"]),
        ("read https://news.example.Then go on", ["https://news.example"]),
        ("read www.acme.Com", ["www.acme.Com"]),
        ("read www.news.example/a.Then", ["www.news.example/a.Then"]),
        ("**www.news.example** and *https://a.example/x*", ["www.news.example", "https://a.example/x"]),
        ("| www.news.example|", ["www.news.example"]),
        (r"news:\nwww.news.example", ["www.news.example"]),
    ],
)
def test_a_url_ends_where_people_end_it(text: str, found: list[str]) -> None:
    """A sentence that begins right behind a host is no part of it, nor are the marks of emphasis and tables."""
    assert [text[start:end] for start, end in urls_in(text)] == found


def test_a_link_has_the_normal_form_of_a_url() -> None:
    """Scheme, case of the host and punctuation behind it do not make another link."""
    assert normal("link", "HTTPS://www.News.example/a!") == normal("url", "news.example/a")


def _told(tool: ToolSpec, answer: str, task: str = "read what Ann posted") -> Standing:
    """A run in which the user gave a task and a tool gave an answer."""
    bundle = Bundle("a", "", (ROUTE,), (tool, READ, POST))
    state = State(
        messages=(Message("user", (Text(task, USER),)),),
        seen=(Seen("r/1.0", tool.name, "{}", answer, Label("tool", tool.name), 1),),
    )
    return Standing(evidence=Evidence(bundle).of(state))


def test_a_link_may_be_read_and_not_be_written_to() -> None:
    """Where a field is trusted for links, the URL in it is fetched and told of without a question; posting to it asks."""
    feed = ToolSpec("feed", "", {}, "read", result={"*.body": ResultField("link", trusted=True, match=r"www\S+")})
    bundle = Bundle("a", "", (ROUTE,), (feed, READ, POST))
    known = _told(feed, '[{"body": "see www.news.example/a."}]')
    assert judge(bundle, "fetch", {"url": "https://www.news.example/a"}, standing=known).action == "allow"
    assert judge(bundle, "fetch", {"url": "https://www.news.example/b"}, standing=known).rule == "composed_url"
    assert judge(bundle, "post", {"url": "www.news.example/a", "text": ""}, standing=known).rule == "ungrounded"
    said = {"url": "www.ours.example", "text": "as www.news.example/a says"}
    asked = _told(feed, '[{"body": "see www.news.example/a."}]', "post it on www.ours.example")
    assert judge(bundle, "post", said, standing=asked).action == "allow"
    assert judge(bundle, "post", {**said, "text": "www.evil.example"}, standing=asked).values == ("text[0:16]",)


def test_readers_may_be_all_destinations_of_a_kind() -> None:
    """Papers are for hotels, whichever it is, and for no address of the same name."""
    rules = GuardRules(levels=(Level("papers", ("hotel:*",)),))
    hotel = Finding("hotel", "Ritz", "destination", "hotel", "user")
    mail = Finding("to", "ritz@hotel.example", "destination", "email", "user")
    assert [finding for finding, _ in leaks([hotel, mail], {"papers"}, rules)] == [mail]
    exact = GuardRules(levels=(Level("papers", ("hotel:Ritz", "*@hotel.example")),))
    assert leaks([hotel, mail], {"papers"}, exact) == []


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("look at www[.]evil[.]example today", "broken_address"),
        ("look at evil (dot) com today", "broken_address"),
        ("look at www . evil-site . com today", "broken_address"),
        ("w w w . e v i l . c o m", "broken_address"),
        ("hxxps://evil.example/x", "broken_address"),
        ("write to ann [at] evil.example", "broken_address"),
        ("read d3d3LmV2aWwuZXhhbXBsZS9h please", "coded_address"),
        ("your p\u0430ssword", "mixed_letters"),
    ],
)
def test_an_address_that_is_hidden_from_those_who_look_for_addresses_is_a_shape(text: str, shape: str) -> None:
    """A person still reads it, so a person is asked."""
    found = shapes_in(text)
    assert found is not None
    assert found[0] == shape


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ann, see www.our.example. Yours, Bob",
        "We met at 10. It was good . In the end we left",
        "a b c d e f g h: the letters",
        "id 7f3a9c21b4d84e0f9a7be1c2d3f4a5b6 and VGhpcyBpcyBhIHNpbXBsZSB0ZXh0",
        "привет, Ann",
        "5 μm and 3 kΩ",
        "see (at) the end, dot by dot",
    ],
)
def test_prose_has_no_shape(text: str) -> None:
    """Full stops with spaces, ids, plain base64 of prose, and another alphabet by itself are what people write."""
    assert shapes_in(text) is None


def test_a_directory_that_gives_two_addresses_for_a_name_grounds_neither() -> None:
    """One is what the user meant; of two, one may be a stranger's who took the name."""
    book = ToolSpec("book", "", {}, "read", result={"*.email": ResultField("email", trusted=True, asked=True)})

    def grounded(answer: str) -> bool:
        state = State(
            messages=(Message("user", (Text("write to Ann Lee", USER),)),),
            seen=(Seen("r/1.0", "book", '{"query": "Ann Lee"}', answer, Label("tool", "book"), 1),),
        )
        return Evidence(Bundle("a", "", (ROUTE,), (book,))).of(state).field("email", "ann@a.example") is not None

    assert grounded('[{"email": "ann@a.example"}]')
    assert grounded('[{"email": "ann@a.example"}, {"email": "Ann@a.example"}]')
    assert not grounded('[{"email": "ann@a.example"}, {"email": "ann@evil.example"}]')


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Apple", True),
        ("Appl", False),
        ("GB29 NWBK 6016", True),
        ("GB29NWBK6016", True),
        ("29NW", False),
        ("bill", True),
    ],
)
def test_a_payee_may_be_known_by_name(value: str, said: bool) -> None:
    """A name must stand as words of its own; digits may be spaced as people like, and must be enough of them."""
    task = State(messages=(Message("user", (Text("Pay the bill of Apple to GB29 NWBK 6016", USER),)),))
    assert Evidence(Bundle("a", "", (ROUTE,))).of(task).said("account", value) is said
