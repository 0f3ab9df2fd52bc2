"""The check against recorded conversations: it agrees with what was recorded, and it can fail."""

from __future__ import annotations

import hashlib
import json
import lzma
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from examples.airline import check, recordings
from examples.airline.recordings import BadFile, read_conversations, read_database


def call(name: str, arguments: dict[str, Any], result: str, number: int = 0) -> list[dict[str, Any]]:
    """The two messages of a tool call and its answer."""
    made = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": f"c{number}", "name": name, "content": result},
    ]


def conversation(*messages: dict[str, Any], reward: float = 1.0, **task: Any) -> dict[str, Any]:
    """A recorded conversation that ends as the customer stops."""
    stop = {"role": "user", "content": "Thanks. ###STOP###"}
    info = {"task": {"actions": [], "outputs": [], **task}}
    return {"task_id": 0, "trial": 0, "reward": reward, "info": info, "traj": [*messages, stop]}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def database(tmp_path: Path, airline_document: dict[str, Any]) -> Path:
    return write(tmp_path / "db.json", airline_document)


def run(database: Path, trajectories: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    code = check.main(["--db", str(database), "--trajectories", str(trajectories), "--verbose"])
    shown = capsys.readouterr()
    return code, json.loads(shown.out or "{}"), shown.err


GIVE = {"user_id": "ada_moss", "amount": 50}
GIVEN = "Certificate certificate_3221322 added to user ada_moss with amount 50."


def test_a_conversation_that_agrees(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal results, an error for an error, and the database of the reference actions: all agree."""
    row = conversation(
        *call("calculate", {"expression": "1 + 1"}, "2.0"),
        *call("get_user_details", {"user_id": "nobody"}, "Error: user not found"),
        *call("send_certificate", GIVE, GIVEN),
        {"role": "assistant", "content": "That makes $1,786."},
        actions=[{"name": "send_certificate", "kwargs": GIVE}],
        outputs=["1786"],
    )
    code, figures, _ = run(database, write(tmp_path / "t.jsonl", row), capsys)
    assert code == 0
    assert {name: figures[name] for name in figures if name != "seconds"} == {
        "conversations": 1,
        "tool_calls": 3,
        "tool_results_equal": 3,
        "rewards_agree": 1,
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (conversation(*call("calculate", {"expression": "1"}, "3.0")), "recorded '3.0', answered '1.0'"),
        (conversation(*call("calculate", {"expression": "1"}, "Error: no")), "recorded 'Error: no', answered '1.0'"),
        (conversation(*call("fly", {}, "{}")), "There is no tool 'fly'"),
        (conversation(*call("calculate", {}, "1.0")), "expression"),
        (conversation(*call("send_certificate", GIVE, GIVEN)), "another as after the reference actions"),
        (conversation(outputs=["42"]), "recorded reward 1.0, ours 0.0"),
        (conversation(reward=0.0), "recorded reward 0.0, ours 1.0"),
    ],
)
def test_each_difference_is_found_and_said(
    row: dict[str, Any], reason: str, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong result and a wrong reward are counted and named."""
    code, figures, errors = run(database, write(tmp_path / "t.jsonl", row), capsys)
    assert code == 1
    assert figures["tool_results_equal"] + figures["rewards_agree"] < figures["tool_calls"] + 1
    assert reason in errors


def test_what_was_said_beside_a_call_does_not_count(tmp_path: Path) -> None:
    """The customer hears only messages without a tool call."""
    row = conversation(*call("think", {"thought": ""}, ""))
    row["traj"][0]["content"] = "42"
    assert read_conversations(write(tmp_path / "t.jsonl", row))[0].said == ""


def test_a_conversation_cut_off_earns_nothing(tmp_path: Path) -> None:
    """Neither stopped nor handed over: it did not end."""
    row = conversation()
    row["traj"] = [{"role": "user", "content": "Hello"}]
    handed = conversation()
    handed["traj"] = call("transfer_to_human_agents", {"summary": "s"}, "Transfer successful")
    ended = [c.ended for c in read_conversations(write(tmp_path / "t.jsonl", row, handed, conversation()))]
    assert ended == [False, True, True]


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.json.xz", "t.jsonl.xz"])
def test_every_form_of_file_is_read(tmp_path: Path, name: str) -> None:
    """A list or lines, packed or not."""
    rows = [conversation(), conversation()]
    text = "\n".join(map(json.dumps, rows)) if "jsonl" in name else json.dumps(rows)
    path = tmp_path / name
    path.write_bytes(lzma.compress(text.encode()) if name.endswith(".xz") else text.encode())
    assert len(read_conversations(path)) == 2


def test_a_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small packed file must not take all memory."""
    monkeypatch.setattr(recordings, "MAX_UNPACKED_BYTES", 100_000)
    path = tmp_path / "t.jsonl.xz"
    path.write_bytes(lzma.compress(b" " * 100_001))
    with pytest.raises(BadFile, match="unpacks to more than 100,000 bytes"):
        read_conversations(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b"", "holds no conversation"),
        ("t.jsonl", json.dumps(conversation()).encode() + b"\n{", "line 2 is not JSON"),
        ("t.jsonl", b"\xff\xfe", "not UTF-8"),
        ("t.jsonl.xz", b"not packed", r"not a whole \.xz file"),
        ("t.jsonl.xz", lzma.compress(b"[]" * 1000)[:-30], r"not a whole \.xz file"),
        ("t.jsonl", b"[1]", "item 0 is not a recorded conversation"),
        ("t.jsonl", b'{"traj": []}', "no 'info'"),
        ("t.jsonl", json.dumps({**conversation(), "traj": []}).encode(), "`traj` is empty"),
        ("t.jsonl", json.dumps({**conversation(), "traj": [3]}).encode(), "is not a recorded conversation"),
        ("t.jsonl", json.dumps({**conversation(), "reward": "?"}).encode(), "is not a recorded conversation"),
        ("t.jsonl", json.dumps(conversation(actions=[{"name": "think"}])).encode(), "no 'kwargs'"),
    ],
)
def test_a_bad_file_is_refused_in_words(
    name: str,
    content: bytes,
    message: str,
    database: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error names the file, the place and the reason; the exit code is 2."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadFile, match=message):
        read_conversations(path)
    code, _, errors = run(database, path, capsys)
    assert code == 2
    assert errors.startswith("check: ")


def test_arguments_that_are_no_json_are_refused(tmp_path: Path) -> None:
    """A damaged recording is named by its message."""
    row = conversation(*call("think", {}, ""))
    row["traj"][0]["tool_calls"][0]["function"]["arguments"] = "{"
    with pytest.raises(BadFile, match="message 0: the arguments of think are not JSON"):
        read_conversations(write(tmp_path / "t.jsonl", row))


@pytest.mark.parametrize(("content", "message"), [("[]", "holds list"), ("{", "is not JSON")])
def test_a_bad_database_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """What is not an object is no database; a missing file is said so."""
    (tmp_path / "db.json").write_text(content)
    with pytest.raises(BadFile, match=message):
        read_database(tmp_path / "db.json")
    with pytest.raises(BadFile, match="cannot read"):
        read_database(tmp_path / "none.json")


async def test_the_recorded_conversations_agree(shared_data: Path) -> None:
    """All results and rewards of one trial of every task are as recorded (`check.py` by hand runs all four)."""
    conversations = read_conversations(shared_data / "tau-airline-trajectories.jsonl.xz")
    one_trial = [c for c in conversations if c.label.endswith("trial 1")]
    report = await check.check(read_database(shared_data / "tau-airline-db.json.xz"), one_trial)
    assert report.mismatches == []
    assert (report.conversations, report.rewards_agree) == (25, 25)
    assert report.tool_results_equal == report.tool_calls > 100


async def test_the_reference_actions_leave_the_recorded_state(shared_data: Path, tmp_path: Path) -> None:
    """The recordings hold a hash of the whole database after the reference actions: ours is the same, to the byte."""
    document = read_database(shared_data / "tau-airline-db.json.xz")
    databases = check.FreshDatabases(tmp_path, document)
    rows = lzma.decompress((shared_data / "tau-airline-trajectories.jsonl.xz").read_bytes()).decode().splitlines()
    recorded = {
        row["task_id"]: row["info"]["reward_info"]["info"]["gt_data_hash"]
        for row in map(json.loads, rows)
        if "gt_data_hash" in ((row["info"].get("reward_info") or {}).get("info") or {})
    }
    conversations = {
        int(c.label.split()[1]): c for c in read_conversations(shared_data / "tau-airline-trajectories.jsonl.xz")
    }
    for task, wanted in recorded.items():
        db = databases.take()
        bench = check.Bench(db)
        for action in conversations[task].reference:
            await bench.call(action.name, action.arguments)
        with closing(sqlite3.connect(db.path)) as connection:
            for table in ("users", "reservations"):
                rows_now = connection.execute(f"SELECT * FROM {table}")
                document[table] = {name: json.loads(text) for name, text in rows_now}
        assert hashlib.sha256(str(sorted_pairs(document)).encode()).hexdigest() == wanted, f"task {task}"
        db.path.unlink()


def sorted_pairs(value: Any) -> Any:
    """Write objects as sorted pairs and lists as tuples: the form whose text the recorded hash is of."""
    if isinstance(value, dict):
        return tuple((name, sorted_pairs(inner)) for name, inner in sorted(value.items()))
    return tuple(map(sorted_pairs, value)) if isinstance(value, list) else value
