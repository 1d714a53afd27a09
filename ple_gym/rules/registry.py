"""Rules: one function each, with what it reads, how it acts, its parameters and what it remembers.

    from ple_gym.rules import rule, siblings, whole

    @rule("patient", reads="exits, kernel mode", actuator="pull", source="mine",
          patience=whole(0, 10_000, default=64, help="exits before somebody else is run"))
    def patient(see, asker, k):
        "The sibling that lost its pCPU in kernel mode, after so many exits."
        ...

A rule is called at every pause-loop exit and answers with a vCPU (its asker: resume), or with `see.defer`. It takes
`see` and `asker` and, where it names them, `memory`, `k` (its parameters) and `scheduler`. It is compiled on its own
and called by its address; what it sees is in `sight.py`, and `helpers.py` has what most rules need.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.errors import PolicyError
from ple_gym.messages import plain
from ple_gym.rules.compiling import entry_of, parameter_dtype, rule_unit
from ple_gym.rules.sight import HIDDEN_FIELDS
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import Kind, check, unknown
from ple_gym.scenario.parameters import choice as choice_kind
from ple_gym.scenario.parameters import number as number_kind
from ple_gym.scenario.parameters import whole as whole_kind
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.description import Memory
from ple_gym.sim.units import Unit

#: What a rule is made for, and how tables write it.
ACTUATORS = {"yield": "yield", "resume": "resume", "hint": "hint", "local": "local", "pull": "pull (hypothetical)"}
_NAME = re.compile(r"[a-z][a-z0-9]*([.-][a-z0-9]+)*")
_TAKES = ("see", "asker", "memory", "k", "scheduler")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a rule: what is allowed, its default, and a line of help."""

    kind: Kind
    default: Any
    help: str
    words: tuple[str, ...] = ()  # of a choice; the rule reads the place of the word in this list
    bounds: tuple[float, float] = (0, 0)  # of a number, the least and the most


def whole(low: int, high: int, *, default: int, help: str) -> Parameter:
    """A whole number low..high."""
    return Parameter(whole_kind(low, high), default, help, bounds=(low, high))


def number(low: float, high: float, *, default: float, help: str) -> Parameter:
    """A number low..high."""
    return Parameter(number_kind(low, high), default, help, bounds=(low, high))


def choice(*words: str, default: str, help: str) -> Parameter:
    """One of some words; the rule reads its place in the list."""
    return Parameter(choice_kind(*words), default, help, words)


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule, with values for its parameters.

    Attributes:
        name: what users type, parameters that are not the default included.
        reads: what it decides by.
        actuator: `yield` (the host's own scheduler picks), `resume` (never switches), `hint` (made to favour a vCPU
            where it is queued), `local` (own queue, and work from elsewhere only where the host itself would bring it)
            or `pull` (any vCPU, here and now: hypothetical). What becomes of an answer `decision.actuator` says.
        source: where the rule was published.
        summary: what it does, in a line.
        hypothetical: nobody ships it.
        privileged: it is told the guest's state, which no hypervisor sees: for comparison only.
        settings: what it is about the host rather than a rule: scenario parameters that it changes.
        parameters: name -> what is allowed; `values`: name -> what was chosen.
        memory: names of the int64 words that it remembers for each VM (`vm`) and each vCPU (`vcpu`), at first 0.
        scheduler: the host's scheduler whose records it reads (`scheduler`): it decides on no other.
        settled: whether it reads how long vCPUs have run that are still running. Then their accounts are brought up to
            date before it is asked.
    """

    name: str
    function: Callable[..., int]
    reads: str
    actuator: str
    source: str
    summary: str
    hypothetical: bool = False
    privileged: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scheduler: str = ""
    settled: bool = True
    make_unit: Callable[[], Unit] | None = None

    network = None  # of a learned policy

    @property
    def information(self) -> str:
        """The level that it needs: `hypervisor`, `introspection` or `oracle`, as of an environment's observations."""
        return "oracle" if self.privileged else "hypervisor"

    @property
    def unit(self) -> Unit:
        """The compile unit that it shares with those that differ from it in values alone. It is made when it is first
        asked for: that takes longer than to import a family, and most of the rules are never asked."""
        assert self.make_unit is not None
        return self.make_unit()

    @property
    def address(self) -> int:
        """What the simulator calls. It is compiled when it is first asked for."""
        return self.unit.address

    @property
    def words(self) -> Memory:
        """How much it remembers in each lane."""
        return Memory(len(self.memory.get("vm", ())), len(self.memory.get("vcpu", ())))

    @cached_property
    def block(self) -> npt.NDArray[np.uint8]:
        """The values of its parameters as the compiled rule reads them."""
        record = np.zeros(1, parameter_dtype(self.parameters))
        for name, parameter in self.parameters.items():
            value = self.values.get(name, parameter.default)
            record[name] = parameter.words.index(value) if parameter.words else value
        return record.view(np.uint8) if record.dtype.itemsize else np.zeros(8, np.uint8)

    @property
    def where(self) -> str:
        """File and line of its function."""
        return where(self.function)

    def suits(self, scenario: Scenario) -> bool:
        """Whether it can decide there: it reads no other scheduler's records."""
        return self.scheduler in ("", scenario.host.scheduler)

    def world(self, scenario: Scenario) -> Scenario:
        """The scenario that it runs in: with its settings of the host.

        Raises:
            PolicyError: it reads another scheduler's records.
        """
        if not self.suits(scenario):
            raise PolicyError(
                f"policy {self.name}: it reads what host.scheduler = {self.scheduler} keeps, "
                f"and {scenario.name} has host.scheduler = {scenario.host.scheduler}"
            )
        return scenario.with_overrides(self.settings)

    def why(self, error: Exception, sight: int) -> str:
        """What went wrong when the rule was asked with the sight at this address, in a line, with file and line.

        Compiled code does not know its lines, so the rule is asked once more, not compiled.
        """
        at, problem = self.where, error
        try:
            entry_of(self, plain=True)(sight)
        except Exception as again:  # the same one, most likely
            file = self.function.__code__.co_filename
            lines = [frame.lineno for frame in traceback.extract_tb(again.__traceback__) if frame.filename == file]
            at, problem = f"{Path(file).name}:{lines[-1]}" if lines else at, again
        return f"{at}: rule {self.name}: {type(problem).__name__}: {plain(str(problem))}"

    def with_values(self, values: Mapping[str, Any]) -> Rule:
        """The same rule with other values of its parameters.

        Raises:
            PolicyError: it has no such parameter, or the value is not allowed.
        """
        chosen = dict(self.values)
        for name, value in values.items():
            if name not in self.parameters:
                if not self.parameters:
                    raise PolicyError(f"{self.base}: {name}: it has no parameters")
                raise unknown(f"parameter of {self.base}", name, self.parameters, error=PolicyError)
            kind = self.parameters[name].kind
            chosen[name] = check(f"{self.base}: {name}", kind, kind.read(value), PolicyError)
        given = {name: chosen[name] for name in self.parameters if chosen.get(name, _of(self, name)) != _of(self, name)}
        text = ",".join(f"{name}={value}" for name, value in given.items())
        # Values, not code: the unit is shared.
        return replace(self, name=f"{self.base}:{text}" if text else self.base, values=given)

    @property
    def base(self) -> str:
        """Its name without parameters."""
        return self.name if not self.values else self.name.rpartition(":")[0]


def _of(rule: Rule, name: str) -> Any:
    return rule.parameters[name].default


def rule(
    name: str,
    *,
    reads: str,
    actuator: str,
    source: str,
    hypothetical: bool = False,
    memory: Mapping[str, tuple[str, ...]] | None = None,
    scheduler: str = "",
    settled: bool = True,
    **parameters: Parameter,
) -> Callable[[Callable[..., int]], Rule]:
    """Make a rule of a function; its docstring says in a line what it does.

    Args:
        name: what users type: lower-case words with hyphens.
        reads, actuator, source, hypothetical, memory, scheduler, settled: as in `Rule`.
        parameters: made by `whole`, `number` or `choice`.

    Raises:
        PolicyError: something of this is not as described; the message names file and line.
    """

    def make(function: Callable[..., int]) -> Rule:
        at = where(function)
        if not _NAME.fullmatch(name):
            raise PolicyError(f"{at}: rule {name!r}: its name must be lower-case words with hyphens")
        if actuator not in ACTUATORS:
            raise PolicyError(f"{at}: rule {name}: actuator = {actuator!r}: must be {', '.join(ACTUATORS)}")
        if not (function.__doc__ or "").strip():
            raise PolicyError(f"{at}: rule {name}: its function must have a docstring that says what it does")
        for wrong, parameter in parameters.items():
            if not isinstance(parameter, Parameter):
                raise PolicyError(f"{at}: rule {name}: {wrong} must be made by whole(), number() or choice()")
            _check_name(f"{at}: rule {name}: parameter {wrong}", wrong)
            check(f"{at}: rule {name}: default of {wrong}", parameter.kind, parameter.default, PolicyError)
        if scheduler and scheduler not in SCHEDULERS:
            raise PolicyError(f"{at}: rule {name}: scheduler = {scheduler!r}: must be {', '.join(SCHEDULERS)}")
        made = Rule(
            name=name,
            function=function,
            reads=reads,
            actuator=actuator,
            source=source,
            summary=inspect.cleandoc(function.__doc__ or "").splitlines()[0].rstrip("."),
            hypothetical=hypothetical,
            parameters=parameters,
            memory=_memory(f"{at}: rule {name}: memory", memory or {}),
            scheduler=scheduler,
            settled=settled,
        )
        return _compilable(made, at)

    return make


def _check_name(what: str, name: str) -> None:
    if name in HIDDEN_FIELDS:
        raise PolicyError(f"{what}: must have another name: {', '.join(HIDDEN_FIELDS)} are taken")


def _memory(what: str, memory: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(memory, Mapping) or not set(memory) <= {"vm", "vcpu"}:
        raise PolicyError(f'{what} must be a dict of "vm", "vcpu" or both')
    for key, words in memory.items():
        names = list(words) if isinstance(words, tuple | list) else [""]
        if len(set(names)) < len(names) or not all(isinstance(word, str) and word.isidentifier() for word in names):
            raise PolicyError(f"{what}: of {key} it must be a tuple of different names")
        for word in names:
            _check_name(f"{what}: {word}", word)
    return {key: tuple(words) for key, words in memory.items()}


def privileged(name: str, *, reads: str, source: str) -> Callable[[Callable[..., int]], Rule]:
    """Make a rule that is told everything, of a function that takes (see, asker, lane): for comparison only."""

    def make(function: Callable[..., int]) -> Rule:
        summary = inspect.cleandoc(function.__doc__ or "").splitlines()[0].rstrip(".")
        made = Rule(name, function, reads, "pull", source, summary, hypothetical=True, privileged=True, settled=False)
        return _compilable(made, where(function))

    return make


def _compilable(made: Rule, at: str) -> Rule:
    takes = tuple(inspect.signature(made.function).parameters)
    allowed = ("see", "asker", "lane") if made.privileged else _TAKES
    if takes[:2] != ("see", "asker") or not set(takes) <= set(allowed):
        raise PolicyError(
            f"{at}: rule {made.name}: its function must take (see, asker), and may take {', '.join(allowed[2:])} "
            f"after them, not ({', '.join(takes)})"
        )
    return replace(made, make_unit=cache(partial(rule_unit, made)))


def where(function: Callable[..., Any]) -> str:
    """File and line of a function, for messages."""
    return f"{Path(function.__code__.co_filename).name}:{function.__code__.co_firstlineno}"


def settings(name: str, of: Rule, source: str, summary: str, changes: Mapping[str, Any]) -> Rule:
    """A name for a rule in a world of which it changes a few settings of the host."""
    return replace(of, name=name, source=source, summary=summary, settings=changes, hypothetical=False)


class Registry(Mapping[str, Rule]):
    """The built-in rules by name, in the order in which they are listed."""

    def __init__(self, *rules: Rule) -> None:
        self._rules = {one.name: one for one in rules}
        if len(self._rules) < len(rules):
            raise PolicyError("two rules have one name")

    def __getitem__(self, name: str) -> Rule:
        return self._rules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)
