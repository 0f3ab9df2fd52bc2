"""The check of the code in the documentation: it runs what it must, and it fails where it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_docs import check_page


def check(tmp_path: Path, text: str) -> tuple[int, list[str]]:
    page = tmp_path / "page.md"
    page.write_text(text)
    return check_page(page)


@pytest.mark.parametrize(
    ("text", "ran"),
    [
        ("```python\nprint('a')\n```\n\n<!-- output -->\n```text\na\n```\n", 1),
        ("<!-- file: a.py -->\n```python\nx = 1\n```\n```python\nimport a\nassert a.x == 1\n```\n", 2),
        ("```python\nx = 1\n```\n<!-- continues -->\n```python\nassert x == 1\n```\n", 2),
        ("```bash\ncd /\ntest -d .\n```\n", 1),
        ("```console\n$ echo a; echo b; echo c\na\n...\n$ echo \\\n  d\nd\n$ true\n```\n", 1),
        ("```json\n{\"a\": 1}\n```\n```toml\na = 1\n```\n```mermaid\nnot ours\n```\n", 2),
        ("<!-- file: d/a.txt -->\n```text\nhi\n```\n```console\n$ cat d/a.txt\nhi\n```\n", 1),
        ("- in a list:\n\n    ```python\n    assert True\n    ```\n", 1),
        ("<!-- skip: needs a key -->\n```python\nraise SystemExit(1)\n```\n", 0),
    ],
)  # fmt: skip
def test_what_is_right_passes(tmp_path: Path, text: str, ran: int) -> None:
    """Programs, scripts, sessions, data, files of a page, and what is skipped for a reason."""
    assert check(tmp_path, text) == (ran, [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n```python\nraise ValueError('no')\n```\n", "page.md:2 (python): exit code 1"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "UserWarning: old"),
        ("```python\nprint('a')\n```\n<!-- output -->\n```text\nb\n```\n", "expected output:\nb\nprinted:\na"),
        ("```bash\nfalse\ntrue\n```\n", "exit code 1"),
        ("```console\n$ echo a\nb\n```\n", "printed:\na"),
        ("```console\n$ exit 3\n```\n", "exit code 3"),
        ("```console\n$ false &\n```\n", "said nothing"),
        ("```json\n{a: 1}\n```\n", "(json)"),
        ("<!-- skip: -->\n```python\npass\n```\n", "must give its reason"),
        ("<!-- file: ../a.py -->\n```python\npass\n```\n", "outside of the page's directory"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    """A block that fails, warns, prints something else, or is skipped without a reason."""
    _, failures = check(tmp_path, text)
    assert len(failures) == 1
    assert why in failures[0]


def test_a_command_that_goes_on_is_there_for_the_next_and_ended_after(tmp_path: Path) -> None:
    """`&` starts it and waits for its first line; the page's end stops it."""
    serve = "python -c 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'"
    pid_file = tmp_path / "pid"
    ran, failures = check(
        tmp_path, f"```console\n$ {serve} &\n$ cp .running-0 {pid_file}; kill -0 $(cat .running-0)\n```\n"
    )
    assert (ran, failures) == (1, [])
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_no_model_key_reaches_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documentation shows works without a key, and must not spend somebody's money."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    assert check(tmp_path, '```bash\ntest -z "${OPENAI_API_KEY-}"\n```\n') == (1, [])
