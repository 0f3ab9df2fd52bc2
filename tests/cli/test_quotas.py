"""`stanchion quotas`: limits of providers in a data file and on a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stanchion.cli.main import call


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    """Run a command; give its code, its JSON and what it said beside."""
    code = call(["quotas", *arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else None, err


def test_set_list_and_take_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is set is listed, by the name that is counted; what is taken away is gone."""
    where = ("--data", str(tmp_path / "t.db"), "-o", "json")
    code, done, _ = said(capsys, "set", "openai-chat:gpt-5", "--rpm", "500", "--otpm", "8000", *where)
    assert (code, done["name"], done["rpm"], done["tpm"], done["otpm"]) == (0, "openai:gpt-5", 500, None, 8000)
    _, found, _ = said(capsys, "ls", *where)
    assert [quota["name"] for quota in found["quotas"]] == ["openai:gpt-5"]
    assert (found["usage"], found["closed"], found["breakers"]) == ([], [], [])
    assert said(capsys, "rm", "openai-chat:gpt-5", *where)[0] == 0
    assert said(capsys, "ls", *where)[1]["quotas"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", "anthropic"), "--rpm"),
        (("set", "nobody", "--rpm", "5"), "no provider 'nobody'"),
        (("set", "anthropic", "--rpm", "0"), "--rpm"),
        (("set", "anthropic", "--rpm", "99999999999999999999"), "--rpm"),
        (("set", "", "--rpm", "5"), "NAME: must be a provider"),
        (("rm", "anthropic"), "stanchion quotas ls"),
    ],
)
def test_what_cannot_be_done(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says what is wrong and what to do."""
    assert call(["quotas", "set", "openai", "--rpm", "1", "--data", str(tmp_path / "t.db")]) == 0
    capsys.readouterr()
    code, _, err = said(capsys, *arguments, "--data", str(tmp_path / "t.db"))
    assert code == 2
    assert says in err
