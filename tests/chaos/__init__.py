"""Kill it, and count what happened: `python -m tests.chaos [--short]`."""
