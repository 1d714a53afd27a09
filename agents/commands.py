"""`ple-gym agents list | train | evaluate | curves | export | convert`, with `pip install 'ple-gym[agents]'`.

From a checkout `python -m agents` is the same.

Exit codes: 0, 2 for whatever the user can put right (one line says what), 130 after Ctrl-C.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import ple_gym
from agents import curves, evaluation
from agents.common import TEST, AgentError
from agents.convert import convert
from agents.ranges import check_ranges
from agents.torch_policy import TorchPolicy, read_policy
from ple_gym import compilation, evaluate
from ple_gym.cli.outputs import console_for
from ple_gym.cli.parsing import parse
from ple_gym.cli.process import discard_stdout, mistake
from ple_gym.errors import PleError
from ple_gym.evaluate import tables
from ple_gym.files import make_folder, writing
from ple_gym.learned.file import FOLDER, PREFIX, Network, read_network, write_network
from ple_gym.messages import plain, show, shown_path
from ple_gym.provenance import told

#: Each is a module with `Options` and `train(options)`.
LEARNERS = ("maskable-ppo", "set-ppo", "dqn", "ppo-unmasked", "recurrent-ppo", "bc", "cem")
USAGE = """usage: ple-gym agents COMMAND

  list                         the learners and the policies that are shipped
  train LEARNER [OPTIONS]      train one; its options: ple-gym agents train LEARNER --help
  evaluate SCENARIO [AGENTS]   agents and rules in one table, on test seeds
  curves RUNS --out PICTURE    learning curves over seeds, with the rules' lines
  export FILE --name NAME      ship a trained policy in ple_gym, as learned:NAME
  convert FILE ...             give names to the features of policies of an older version, in place
"""
PROGRAM = "ple-gym agents"


@dataclass(frozen=True)
class Evaluate:
    """Compare agents and rules on test seeds, inside the kernel where it can run them.

    Example: ple-gym agents evaluate Storm runs/set-ppo-Storm-* --policies xen-4.8 kvm oracle
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
class Curves:
    """Draw learning curves: mean and range over the seeds of trainings, with lines for rules on their validation seeds.

    Example: ple-gym agents curves runs/set-ppo-Storm-* --out curves.png
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN ...")]
    """folders of finished trainings on one scenario; those that differ in nothing but the seed are one curve"""
    out: str = "curves.png"
    """.png, .svg or .pdf file"""
    policies: tuple[str, ...] = ("xen-4.8", "kvm", "spin-age-self", "oracle")
    """rules that get a line"""


@dataclass(frozen=True)
class Export:
    """Ship a trained policy in ple_gym, where it runs as `--policies learned:NAME` without torch.

    Example: ple-gym agents export runs/set-ppo-Storm-0 --name storm-set
    """

    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")]
    """folder of a training, or .npz file"""
    name: str
    """letters, digits and -"""
    to: str = str(FOLDER)
    """folder that it is written to"""


@dataclass(frozen=True)
class Convert:
    """Give names to the features that policies of an older version (format 1) read, in place. Scores stay the same.

    Example: ple-gym agents convert runs/*/policy.npz
    """

    files: Annotated[Positional[tuple[str, ...]], arg(metavar="FILE ...")]
    """.npz files, or folders of them"""


def execute(argv: Sequence[str]) -> int:
    """Run a command; the exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ModuleNotFoundError: a library of an extra is not installed.
    """
    command, *rest = argv or ["--help"]
    try:
        if command == "list":
            refuse(rest)
            show_list()
        elif command == "train":
            train(rest)
        elif command == "evaluate":
            if evaluation_asked := parse(Evaluate, rest, f"{PROGRAM} evaluate"):
                run_evaluate(evaluation_asked)
        elif command == "curves":
            if curves_asked := parse(Curves, rest, f"{PROGRAM} curves"):
                run_curves(curves_asked, told(["agents", *argv]))
        elif command == "export":
            if export_asked := parse(Export, rest, f"{PROGRAM} export"):
                run_export(export_asked)
        elif command == "convert":
            if convert_asked := parse(Convert, rest, f"{PROGRAM} convert"):
                run_convert(convert_asked)
        elif command in ("-h", "--help"):
            print(USAGE, end="")
        elif command == "--version":
            print(f"ple-gym {ple_gym.__version__}")
        else:
            raise AgentError(
                f"unknown command {show(command)}: must be list, train, evaluate, curves, export or convert"
            )
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        discard_stdout()
    except (PleError, RuntimeError) as error:
        return mistake("agents", str(error))
    except MemoryError:
        return mistake("agents", "out of memory")
    except OSError as error:
        return mistake("agents", f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return 0


def refuse(arguments: Sequence[str]) -> None:
    """Raise AgentError if there are any."""
    if arguments:
        raise AgentError(f"{show(arguments[0])}: there is no such option")


def learner(name: str) -> Any:
    """The module of a learner."""
    if name not in LEARNERS:
        raise AgentError(f"unknown learner {show(name)}: must be one of {', '.join(LEARNERS)}")
    return importlib.import_module(f"agents.{name.replace('-', '_')}")


def show_list() -> None:
    """Print learners and shipped policies."""
    for name in LEARNERS:
        source = Path(__file__).with_name(f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
        purpose = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
        print(f"{name:27} {purpose}")
    for path in sorted(FOLDER.glob("*.npz")):
        card = read_network(path).card
        steps = f", {card['steps']:,} decisions" if "steps" in card else ""
        print(f"{PREFIX + path.stem:27} {card.get('learner')} on {card.get('scenario')}{steps}")


def train(arguments: Sequence[str]) -> None:
    """Train a learner, and show how it does on test seeds."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: ple-gym agents train LEARNER [OPTIONS]; learners: {', '.join(LEARNERS)}")
        return
    module = learner(name)
    options = parse(module.Options, rest, f"{PROGRAM} train {name}")
    if options is None:
        return
    scheduler = options.load_scenario().host.scheduler
    check_ranges(options)
    compilation.warm_up_and_say(scheduler)
    path = module.train(options)
    print(f"{shown_path(path)}: {describe(read_policy(path))}")
    if not options.quiet:
        print(f"compare it: {shlex.join(['ple-gym', 'agents', 'evaluate', options.scenario, str(path.parent)])}")


def describe(policy: Network | TorchPolicy) -> str:
    """A card in a line."""
    card = policy.card
    score = (card.get("validation") or {}).get("above_ideal_percent")
    result = "" if score is None else f", {score:+.1f} % above the ideal on validation seeds"
    return f"{policy.kind} network of {card.get('learner')}, best after {card.get('steps', 0):,} decisions{result}"


def run_evaluate(command: Evaluate) -> None:
    """Print the table."""
    rows = [*command.policies, *evaluation.agent_rows(command.agents, command.each)]
    comparison = evaluation.compare(
        command.scenario, rows, evaluate.parse_seeds(command.seeds),
        lambda name: print(f"running {name} in torch", file=sys.stderr), progress=True,
    )  # fmt: skip
    console = console_for()
    console.print(tables.comparison_table(comparison))
    console.print(tables.comparison_note(comparison))


def run_curves(command: Curves, about: str) -> None:
    """Draw, and say how the rules did."""
    curves.check_suffix(command.out)
    world = curves.read_world(command.runs)
    compilation.warm_up_and_say(world.options.load_scenario().host.scheduler)
    rules = {name: world.rule(name) for name in command.policies}
    with writing(command.out, AgentError):
        curves.draw(world, rules, command.out, about)
    results = [
        f"{name} {value:+.1f} %" if isfinite(value) else f"{name} does not finish" for name, value in rules.items()
    ]
    print(f"{shown_path(command.out)}: above the ideal {', '.join(results)}" if results else shown_path(command.out))


def run_export(command: Export) -> None:
    """Write the file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}", command.name):
        raise AgentError(f"--name {plain(command.name)}: must be letters, digits, - and .")
    source = evaluation.checkpoint(command.checkpoint)
    policy = read_policy(source)
    if isinstance(policy, TorchPolicy):
        raise AgentError(f"{shown_path(source)}: the kernel cannot run a {policy.kind}, so it cannot be shipped")
    path = Path(command.to) / f"{command.name}.npz"
    with writing(path, AgentError):
        make_folder(path.parent)
        write_network(path, policy)
    name = command.name if path.parent == FOLDER else shlex.quote(shown_path(path))
    run_it = f"ple-gym compare Storm --policies xen-4.8 {PREFIX}{name}"
    print(f"{shown_path(path)}: {describe(policy)}; run it: {run_it}")


def run_convert(command: Convert) -> None:
    """Convert, and say what was."""
    done = convert(command.files)
    for path in done:
        print(shown_path(path))
    print(f"{len(done)} converted")
