"""The wires against recorded exchanges of real providers, where the recordings are at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT.parent / "shared" / "data" / "provider-recordings.jsonl.xz"
SCRIPT = ROOT / "bench" / "wire" / "recordings.py"


def judge(path: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--recordings", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the shared recordings are not here")
def test_recordings() -> None:
    """Decoded as the libraries do but for at most 5; encoded as recorded but for what is explained in design/wires.md."""
    found = judge(RECORDINGS)
    assert found["exchanges"] - found["decoded_equal"] <= 5
    assert found["encoded_different"] <= 3
    assert found["unreadable"] == 0


def test_odd_lines_are_counted(tmp_path: Path) -> None:
    """A line that is no exchange is a finding, not the end."""
    odd = tmp_path / "odd.jsonl"
    odd.write_text('nonsense\n[]\n{}\n{"id": "x", "wire": "novel", "status": 200, "stream": false, "response": {}}\n')
    found = judge(odd)
    assert (found["exchanges"], found["decoded_equal"], found["unreadable"]) == (4, 0, 4)
