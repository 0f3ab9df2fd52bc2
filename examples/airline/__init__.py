"""A support agent of an airline: tools on a database of its own, a policy, approvals, a simulated customer.

`agent.py` is the agent, `tools.py` its tools, `domain.py` the rules of the airline's booking system, `store.py` the
database. `data.py` makes a small airline up; `check.py` and `replay.py` prove the tools on recorded conversations.
"""
