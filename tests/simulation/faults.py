"""What goes wrong, and how often: drawn from the seed, switched off when the faults are to stop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random


@dataclass(slots=True)
class Plan:
    """One simulation's size and faults. Every number is drawn from the seed; flags of the command line override it."""

    seed: int
    machines: int = 2
    requests: int = 4
    sessions: int = 3
    fault_s: float = 15.0
    lease_s: float = 5.0
    sweep_s: float = 2.0
    reorder: float = 0.0
    budget: int = 0
    """Nano-dollars on the tenant's ledger; 0: none."""
    kills: float = 0.0
    """Per virtual second, as the three below."""
    freezes: float = 0.0
    drains: float = 0.0
    jumps: float = 0.0
    crashes: float = 0.0
    write_fault: float = 0.0
    """Chance per write, read, hint, model call and tool call."""
    read_fault: float = 0.0
    hint_fault: float = 0.0
    model_fault: float = 0.0
    tool_fault: float = 0.0
    slow_s: float = 0.02
    """Mean time of a message to or from the database."""
    people: float = 0.1
    """Chance per second that somebody sends or cancels something, of each request."""
    aim: float = 0.0
    """Chance per write that its process is killed or frozen before it learns that the write was made."""
    listens: bool = False
    """The database tells workers what others wrote, as PostgreSQL does."""
    skewed: bool = False
    """Machines go by clocks of their own; else by the database's, as they do on PostgreSQL."""
    batches: float = 0.0
    """Share of the requests whose model calls may wait for a batch."""
    queue: float = 0.0
    """Share of the requests of the class that waits its turn."""
    slots: int = 0
    """Runs that a machine drives at once; 0: as many as it likes."""
    cap: int = 0
    """Runs of a tenant that are driven at once; 0: as many as there are."""
    rpm: int = 0
    """Model calls of all machines in any 20 s; 0: any number."""
    long: bool = False
    """Sessions are compacted: the context has room for a few turns. Never drawn: what seeds play stays as it was."""
    mutation: str = ""

    @classmethod
    def of(cls, seed: int, **fixed: object) -> Plan:
        """Draw a plan."""
        rng = Random(f"plan {seed}")
        some = lambda *values: rng.choice(values)  # noqa: E731
        plan = cls(
            seed,
            machines=some(1, 2, 2, 3),
            requests=some(1, 2, 3, 4, 5),
            sessions=some(1, 2, 4),
            fault_s=some(5.0, 10.0, 20.0),
            lease_s=some(3.0, 6.0, 15.0),
            sweep_s=some(1.0, 3.0, 6.0),
            reorder=some(0.0, 0.0, 0.2),
            budget=some(0, 0, 30_000_000, 60_000_000, 200_000_000),
            kills=some(0.0, 0.05, 0.2),
            freezes=some(0.0, 0.05, 0.2),
            drains=some(0.0, 0.0, 0.1),
            jumps=some(0.0, 0.1),
            crashes=some(0.0, 0.0, 0.05),
            write_fault=some(0.0, 0.02, 0.1),
            read_fault=some(0.0, 0.0, 0.05),
            hint_fault=some(0.0, 0.3),
            model_fault=some(0.0, 0.1, 0.3),
            tool_fault=some(0.0, 0.2, 0.6),
            slow_s=some(0.001, 0.02, 0.3),
            people=some(0.0, 0.1, 0.3),
            aim=some(0.0, 0.0, 0.03, 0.1),
            listens=some(False, True),
            skewed=some(False, False, True),
        )
        plan.batches = some(0.0, 0.0, 0.5, 1.0)
        plan.queue = some(0.0, 0.0, 0.5, 1.0)
        plan.slots = some(0, 0, 2)
        plan.cap = some(0, 0, 1, 2)
        plan.rpm = some(0, 0, 4, 8)
        for name, value in fixed.items():
            setattr(plan, name, value)
        return plan

    def lines(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items() if value)


class Faults:
    """The dice of the database, the network and the providers."""

    def __init__(self, plan: Plan, rng: Random) -> None:
        self.on = True
        self.plan = plan
        self.rng = rng

    def stop(self) -> None:
        """From now on nothing goes wrong."""
        self.on = False

    def strikes(self, chance: float) -> bool:
        """Whether a fault of that chance happens now."""
        return self.on and chance > 0.0 and self.rng.random() < chance

    def latency(self) -> float:
        mean = self.plan.slow_s if self.on else 0.002
        return mean * (0.2 + self.rng.random() * (8.0 if self.on and self.rng.random() < 0.05 else 1.6))

    def sync(self) -> float:
        return 0.001 + self.latency() * 0.5

    def of_write(self) -> str:
        if not self.strikes(self.plan.write_fault):
            return ""
        return self.rng.choice(("error", "full", "unknown_lost", "unknown_made", "unknown_made"))

    def of_read(self) -> bool:
        return self.strikes(self.plan.read_fault)
