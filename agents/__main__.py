"""`python -m agents list | train | evaluate | export`: from a checkout, with `pip install 'ple-gym[agents]'`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from agents import evaluation
from agents.common import TEST, AgentError
from agents.torch_policy import TorchPolicy, read_policy
from ple_gym import evaluate, tables
from ple_gym.policies.exported import FOLDER, PREFIX, Network, read_network, write_network
from ple_gym.scenario import ScenarioError

#: Each is a module with `Options` and `train(options)`.
LEARNERS = ("maskable-ppo", "set-ppo", "dqn", "ppo-unmasked", "recurrent-ppo", "bc", "cem")
USAGE = """usage: python -m agents COMMAND

  list                         the learners and the policies that are shipped
  train LEARNER [OPTIONS]      train one; its options: python -m agents train LEARNER --help
  evaluate SCENARIO [AGENTS]   agents and rules in one table, on test seeds
  export FILE --name NAME      ship a trained policy in ple_gym, as learned:NAME
"""
STYLE = (OmitArgPrefixes, FlagCreatePairsOff)


@dataclass(frozen=True)
class Evaluate:
    """Compare agents and rules on test seeds, inside the kernel where it can run them.

    Example: python -m agents evaluate Storm runs/set-ppo-Storm-* --policies xen-4.8 kvm oracle
    """

    scenario: Annotated[Positional[str], arg(metavar="SCENARIO")]
    """name, id, or .toml or .json file"""
    agents: Annotated[Positional[tuple[str, ...]], arg(metavar="AGENT ...")] = ()
    """folders of trainings, .npz files, or names of policies that are shipped; trainings that differ in nothing but the
    seed are one row"""
    each: bool = False
    """one row per training"""
    policies: tuple[str, ...] = ("host", "xen-4.8", "paper", "kvm", "spin-age-self", "two-patience", "oracle")
    """rules to compare with; everything is compared to host, or else to the first"""
    seeds: str = f"{TEST[0]}:{TEST[0] + 100}"
    """START:STOP; tune on validation seeds, 1000000:1001000, never on these"""


@dataclass(frozen=True)
class Export:
    """Ship a trained policy in ple_gym, where it runs as `--policies learned:NAME` without torch.

    Example: python -m agents export runs/set-ppo-Storm-0 --name storm-set
    """

    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")]
    """folder of a training, or .npz file"""
    name: str
    """letters, digits and -"""
    to: str = str(FOLDER)
    """folder that it is written to"""


def main(argv: Sequence[str]) -> int:
    """Run a command; the exit code: 2 for what the user can put right."""
    command, *rest = argv or ["--help"]
    try:
        if command == "list":
            show_list()
        elif command == "train":
            train(rest)
        elif command == "evaluate":
            run_evaluate(tyro.cli(Evaluate, args=rest, prog="python -m agents evaluate", config=STYLE))
        elif command == "export":
            run_export(tyro.cli(Export, args=rest, prog="python -m agents export", config=STYLE))
        elif command in ("-h", "--help"):
            print(USAGE, end="")
        else:
            raise AgentError(f"unknown command {command!r}: must be list, train, evaluate or export")
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    except (AgentError, ScenarioError, OSError, ModuleNotFoundError) as error:
        print(f"agents: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def learner(name: str) -> Any:
    """The module of a learner."""
    if name not in LEARNERS:
        raise AgentError(f"unknown learner {name!r}: must be one of {', '.join(LEARNERS)}")
    return importlib.import_module(f"agents.{name.replace('-', '_')}")


def show_list() -> None:
    """Print learners and shipped policies."""
    for name in LEARNERS:
        source = Path(__file__).with_name(f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
        purpose = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
        print(f"{name:15} {purpose}")
    for path in sorted(FOLDER.glob("*.npz")):
        card = read_network(path).card
        origin = f"{card.get('learner')} on {card.get('scenario')}"
        print(f"{PREFIX + path.stem:15} {origin}, {card.get('steps', 0):,} decisions")


def train(arguments: Sequence[str]) -> None:
    """Train a learner, and show how it does on test seeds."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: python -m agents train LEARNER [OPTIONS]; learners: {', '.join(LEARNERS)}")
        return
    module = learner(name)
    options = tyro.cli(module.Options, args=rest, prog=f"python -m agents train {name}", config=STYLE)
    path = module.train(options)
    print(f"{path}: {describe(read_policy(path))}")
    if not options.quiet:
        print(f"compare it: python -m agents evaluate {options.scenario} {path.parent}")


def describe(policy: Network | TorchPolicy) -> str:
    """A card in a line."""
    card = policy.card
    score = (card.get("validation") or {}).get("above_ideal_percent")
    told = "" if score is None else f", {score:+.1f} % above the ideal on validation seeds"
    return f"{policy.kind} network of {card.get('learner')}, best after {card.get('steps', 0):,} decisions{told}"


def run_evaluate(command: Evaluate) -> None:
    """Print the table."""
    rows = [*command.policies, *evaluation.agent_rows(command.agents, command.each)]
    comparison = evaluation.compare(
        command.scenario, rows, evaluate.parse_seeds(command.seeds),
        lambda name: print(f"running {name} in torch", file=sys.stderr),
    )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
    console.print(tables.ComparisonTable(comparison))
    console.print(tables.comparison_note(comparison))


def run_export(command: Export) -> None:
    """Write the file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}", command.name):
        raise AgentError(f"--name {command.name}: must be letters, digits, - and .")
    source = evaluation.checkpoint(command.checkpoint)
    policy = read_policy(source)
    if isinstance(policy, TorchPolicy):
        raise AgentError(f"{source}: the kernel cannot run a {policy.kind}, so it cannot be shipped")
    path = Path(command.to) / f"{command.name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_network(path, policy)
    print(f"{path}: {describe(policy)}; run it: ple-gym compare Storm --policies xen-4.8 {PREFIX}{command.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
