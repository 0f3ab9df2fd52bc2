"""AgentDojo's live suites: environments, tools, tasks and checkers, behind what a replay needs of them."""

# pyright: reportMissingImports=false
# .. which stand in an environment of their own

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import msgspec
import yaml
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suite
from agentdojo.task_suite.task_suite import read_suite_file
from pydantic import BaseModel, ValidationError, networks

from bench.guard.meaning import Policy, spec
from bench.guard.recordings import Proposed, Recording
from bench.guard.variants import Variant
from stanchion.core.bundle import Bundle, Route
from stanchion.core.money import Price
from stanchion.core.policy import Known
from stanchion.guard.values import emails_in

SUITES = ("workspace", "slack", "banking", "travel")
LATEST = "v1.2.1"
networks.validate_email = cache(networks.validate_email)  # the same few addresses, in every environment that is made
_ROUTE = Route("recorded", "recorded", Price(0, 0, 0, 0, 0))


def policy_of(suite: str) -> Policy:
    """Give the policy of a suite."""
    return importlib.import_module(f"bench.guard.policies.{suite}").POLICY


class World:
    """A suite at one version of the benchmark."""

    def __init__(self, suite: str, version: str) -> None:
        self.name = suite
        self.version = version
        self._suite: Any = get_suite(version, suite)
        self.user_tasks: dict[str, Any] = self._suite.user_tasks
        self.injection_tasks: dict[str, Any] = self._suite.injection_tasks
        self._defaults: dict[str, str] = self._suite.get_injection_vector_defaults()
        self._runtime = FunctionsRuntime(self._suite.tools)
        self._truths: dict[str, list[Proposed]] = {}
        self._plain = self.environment({})

    @cached_property
    def text(self) -> str:
        """All that the world holds before anybody has written into it."""
        return self._plain.model_dump_json()

    @property
    def places(self) -> tuple[str, ...]:
        """Names of where an attacker can write."""
        return tuple(self._defaults)

    def neutral_places(self, task: str) -> list[str]:
        """Name those of them that change nothing of what a task's ground truth does: a channel's name would."""
        known = self.truth_of(task)
        user = self.user_tasks[task]

        def same(place: str) -> bool:
            calls = user.ground_truth(user.init_environment(self.environment({place: "text"})))
            return [(call.function, dict(call.args)) for call in calls] == [(call.tool, call.args) for call in known]

        return [place for place in self.places if same(place)]

    def environment(self, injections: Mapping[str, str]) -> Any:
        """Make the environment with these texts in it. The same as the suite's own, by a faster reader of YAML."""
        text = read_suite_file(self.name, "environment.yaml", None)
        filled = text.format(**{**self._defaults, **injections})
        return self._suite.environment_type.model_validate(yaml.load(filled, yaml.CSafeLoader))

    def bundle(self, variant: Variant, identity: str) -> Bundle:
        """Make the agent: the suite's tools under a policy. The operator knows the user's own address."""
        policy = variant.shape(policy_of(self.name))
        tools = tuple(
            spec(tool.name, tool.description, _schema(tool), policy.tools[tool.name]) for tool in self._suite.tools
        )
        known = tuple(Known("email", address) for address in self._own())
        rules = msgspec.structs.replace(variant.rules, levels=policy.levels, known=known)
        return Bundle(agent=self.name, identity=identity, routes=(_ROUTE,), tools=tools, guard=rules)

    def _own(self) -> list[str]:
        owner = getattr(self._plain, "inbox", None)
        return [owner.account_email] if owner is not None else []

    def arguments(self, tool: str, text: str) -> bytes | str:
        """Check arguments as the tool does, and give them in canonical form."""
        try:
            given = msgspec.json.decode(text)
            checked = self._runtime.functions[tool].parameters.model_validate(given)
        except (ValidationError, msgspec.MsgspecError) as problem:
            return str(problem)
        return msgspec.json.encode(checked.model_dump(mode="json", exclude_unset=True), order="sorted")

    def output(self, text: str) -> str:
        return ""

    def run(self, environment: Any, tool: str, args: Mapping[str, Any]) -> tuple[str, bool]:
        """Call a tool. Gives its answer as the runtime would write it, and whether it failed."""
        value, error = self._runtime.run_function(environment, tool, args)
        return (error, True) if error else (written(value), False)

    def start_of(self, task: str, injections: Mapping[str, str]) -> Any:
        """Make the environment that a task starts in."""
        environment = self.environment(injections)
        known = self.user_tasks.get(task)
        return known.init_environment(environment) if known is not None else environment

    def truth_of(self, name: str) -> list[Proposed]:
        """List the calls that do a task, of the user or of an injection."""
        if name not in self._truths:
            task = self.user_tasks.get(name) or self.injection_tasks[name]
            calls = task.ground_truth(self.start_of(name, {}))
            self._truths[name] = [Proposed(call.function, dict(call.args)) for call in calls]
        return self._truths[name]

    def attack_of(self, injection: str) -> list[Proposed]:
        """List the calls that do an injection. Some have no ground truth: what they want sent is sent to whom they name."""
        if known := self.truth_of(injection):
            return known
        goal = self.injection_tasks[injection].GOAL
        named = dict.fromkeys(goal[start:end] for start, end in emails_in(goal)) or self._own()
        return [Proposed("send_email", {"recipients": [to], "subject": "All of it", "body": goal}) for to in named]

    def done(self, task: Any, said: str, before: Any, after: Any, calls: list[Proposed]) -> bool:
        """Whether a task, of the user or of an injection, was done: the benchmark's own checkers say."""
        traces = [FunctionCall(function=call.tool, args=call.args) for call in calls]
        try:
            return bool(
                self._suite._check_task_result(task, [{"type": "text", "content": said}], before, after, traces)
            )
        except Exception:
            return False


@cache
def world(suite: str, version: str) -> World:
    """Give a suite, made once in a process."""
    return World(suite, version)


def home(run: Recording) -> World:
    """Give the world that a recording was made in. Some older ones do not say that theirs was a later version."""
    live = world(run.suite, run.version)
    known = {**live.user_tasks, **live.injection_tasks}
    return live if {run.task, run.injection or run.task} <= known.keys() else world(run.suite, LATEST)


def _schema(tool: Any) -> dict[str, Any]:
    return tool.parameters.model_json_schema()


def written(value: Any) -> str:
    """Write a tool's answer as the runtime does: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(_plain(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {str(key): _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
