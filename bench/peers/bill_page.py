"""Bills as Markdown."""

from pathlib import Path

COMMITTED = Path(__file__).parent / "bill.json"


def publish(found): ...
