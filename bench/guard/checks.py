"""How often the check of injections cries wolf, how often it sees one, and what it costs.

    python -m bench.guard.checks --runs agentdojo-runs.jsonl.xz

Prints one JSON line for honest results of tools (of runs without an attack) and one for each kind of attack: how many different
texts, how many hits, milliseconds of CPU per KB. An attack in plain words has no phrase to be found by; the figures say so.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stanchion.core.check import About
from stanchion.guard.check import BUILT_IN

HONEST = "honest"


def main() -> None:
    """Read recorded runs and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--score", type=float, default=1.0)
    asked = parser.parse_args()
    texts: dict[str, set[str]] = defaultdict(set)
    for kind, text in results(asked.runs):
        texts[kind].add(text)
    for kind in sorted(texts, key=lambda kind: (kind != HONEST, kind)):
        print(json.dumps(counted(kind, sorted(texts[kind]), asked.score)))


def counted(kind: str, texts: list[str], score: float) -> dict[str, Any]:
    """Look at texts of a kind."""
    about = About("result", settings={"score": score})
    began = time.process_time()
    hits = sum(BUILT_IN["injection"](text, about) is not None for text in texts)
    spent_s = time.process_time() - began
    kb = sum(map(len, texts)) / 1024
    return {"texts": kind, "different": len(texts), "hits": hits, "ms_per_kb": round(spent_s * 1000 / kb, 3)}


def results(runs: Path) -> Iterator[tuple[str, str]]:
    """List results of tools: of honest runs all, of attacked runs those that hold what was planted."""
    with lzma.open(runs, "rt") as lines:
        for line in lines:
            run = json.loads(line)
            planted = [text for text in (run.get("injections") or {}).values() if isinstance(text, str) and text]
            honest = run["injection_task_id"] is None
            for message in run["messages"]:
                text = _text(message["content"]) if message["role"] == "tool" else ""
                if text and (honest or any(_holds(text, one) for one in planted)):
                    yield HONEST if honest else str(run["attack_type"]), text


def _text(content: Any) -> str:
    blocks = content if isinstance(content, list) else [content or ""]
    return "".join(block if isinstance(block, str) else str(block.get("content", "")) for block in blocks)


def _holds(text: str, planted: str) -> bool:
    return planted[:60] in text or planted.replace("\n", " ")[:40] in text


if __name__ == "__main__":
    main()
