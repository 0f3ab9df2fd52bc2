"""A whole deployment in one process, in virtual time, under seeded faults: `python -m tests.simulation --seed N`."""
