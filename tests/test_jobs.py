"""The jobs of new users, with the site and a wheel alone: publish an agent, model a machine, reproduce a figure.

Who tried them on an early version was left with questions; pages answer them now. `make jobs` does the jobs with the
pages' commands, in environments into which only the wheel and its extras are installed.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import python_script, shell_script, split_fences
from test_site import MAP, text_of

from experiments.lab.tables import committed

ROOT = Path(__file__).resolve().parents[1]
MACHINE, AGENT, FIGURE = "howto/describe-your-machine.md", "start/first-agent.md", "howto/reproduce-a-figure.md"
#: Page of the site -> question -> what answers it there, or the heading above that.
ANSWERS = {
    "start/install.md": {
        "Without a checkout?": "A wheel does without a checkout",
        "Which extra?": "## Extras",
        "How long does it compile?": "takes about a minute",
        "Which versions?": "## The same versions again",
    },
    "start/demo.md": {"What is the score?": "*score* is 0 for the first row and 1"},
    "environments/Storm.md": {
        "What is an action?": "defer: the host's scheduler chooses",
        "What are the 621 numbers?": "holds each feature for",
        "What is the reward?": "minus the pCPU time since",
        "What is in info?": '`info["ple_episode"]` holds makespan, exits',
        "Which values have options?": '`information` ("hypervisor", "introspection", "oracle")',
        "Is 0.0123 s good?": "random: `random` | 12.53",
    },
    "howto/train.md": {"Which learner?": "a good policy, soon | our `set-ppo`"},
    AGENT: {"Is 9 % above the ideal good?": "about 8 % above it", "Publish?": "## Publish it"},
    "sb3.md": {"What is (-0.0259, 0.0)?": "the mean return of an episode"},
    "howto/log-a-training.md": {"W&B?": "## Weights & Biases"},
    "bridges.md": {"Video?": "`RecordVideo` needs"},
    "howto/export-a-table.md": {"DataFrame, LaTeX?": "## From Python"},
    "reference/files.md": {"A scenario file?": "## Scenarios"},
    "reference/parameters.md": {"Which parameters?": "everything that `--set NAME=VALUE`"},
    MACHINE: {
        "My machine?": "a machine of 2 x 16 pCPUs",
        "What decides the makespan?": "A run ends when",
        "Is the run long enough?": "as much work as",
        "My measurements?": "## Where the numbers come from",
        "Is a storm likely on my box?": "shows how likely a storm is",
    },
    "howto/add-a-scenario.md": {"Five equal VMs?": "`count` stands for VMs"},
    "howto/compare-machines.md": {"A sweep?": "## A sweep"},
    "howto/write-a-rule.md": {"My own rule?": "## Compare it"},
    "howto/export-a-trace.md": {"A viewer?": "Perfetto, `chrome://tracing`"},
    "howto/read-a-timeline.md": {"A picture's numbers?": "counts the exits"},
    "hosts/fair.md": {"KVM's window, CFS, EEVDF?": "windows that grow and shrink"},
    "hosts/credit2.md": {"Xen's default?": "Credit2 is Xen's default"},
    "model.md": {"What is left out?": "## 14. What is left out"},
    "understand/machine.md": {"What does a level cost?": "Nothing is charged for either"},
    "index.md": {"What holds on machines?": "## What it can and cannot tell you"},
    "leaderboard.md": {"Who won?": "No learner beats the best rule"},
    FIGURE: {"From the package alone?": "An installation has the experiments"},
    "project/citing.md": {"How do I cite it?": "[CITATION.cff]"},
    "project/contributing.md": {"Where do I ask?": "## Ask"},
}

doing = pytest.mark.skipif("PLE_JOBS" not in os.environ, reason="installs three environments: make jobs")


@pytest.mark.parametrize("page", ANSWERS)
def test_a_page_answers_what_users_asked(page: str) -> None:
    assert page in MAP
    text = " ".join(text_of(page).split())
    assert [question for question, answer in ANSWERS[page].items() if answer not in text] == []


class Job:
    """A folder of a new user, who installs the wheel with the extras that the pages name."""

    def __init__(self, folder: Path, wheel: Path, *pages: str) -> None:
        self.folder, self.pages = folder, pages
        shutil.copy(wheel, folder)
        extras = ",".join(re.findall(r"needs the extra\s+`(\w+)`", "".join(map(text_of, pages))))
        (install,) = re.findall(r"(python3 -m venv .*\n.*\n.*\.whl)\)\[viz\]", text_of("start/install.md"))
        self.run(f'{install})[{extras}]"')
        assert str(folder) in self.run("python -c 'import ple_gym; print(ple_gym.__file__)'")

    def run(self, script: str) -> str:
        """What a script prints in the folder, with what is installed and without a checkout."""
        path = [part for part in os.environ["PATH"].split(os.pathsep) if not Path(part).is_relative_to(ROOT)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "PATH": os.pathsep.join([f"{sys.base_prefix}/bin", *path]),
            "PIP_CONSTRAINT": str(ROOT / "constraints" / "ci.txt"),
            "COLUMNS": "160",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"[ ! -e .venv ] || . .venv/bin/activate\n{script}"],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def do(self) -> str:
        """What the examples of the pages print, in their order."""
        told = ""
        for text in map(text_of, self.pages):
            (self.folder / "page.py").write_text(python_script(text), encoding="utf-8")
            told += self.run(f"{shell_script(text)}\npython page.py")
        return told


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory):
    """Begins a job of these pages."""
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, ROOT], check=True)
    (wheel,) = built.glob("*.whl")
    return lambda *pages: Job(tmp_path_factory.mktemp("user"), wheel, *pages)


@pytest.fixture(scope="module")
def engineer(begin) -> Job:
    return begin(MACHINE, "howto/compare-machines.md", "howto/write-a-rule.md")


def makespans(job: Job) -> list[tuple[str, str]]:
    """Of each policy, below the comments of the CSV file."""
    lines = (job.folder / "look.csv").read_text(encoding="utf-8").splitlines()
    return [(row["policy"], row["makespan_s"]) for row in csv.DictReader(line for line in lines if line[0] != "#")]


@doing
def test_an_agent_is_published_and_another_user_gets_the_same_from_it(begin, engineer: Job) -> None:
    trainer = begin("environments/Storm.md", AGENT, "howto/train.md")
    trainer.do()
    shutil.copytree(trainer.folder / "published", engineer.folder / "published")
    engineer.run("! python -c 'import torch' 2> none")
    engineer.run(shell_script(text_of(AGENT)).splitlines()[-1])
    assert len(makespans(engineer)) == 2 and makespans(engineer) == makespans(trainer)


@doing
def test_a_machine_of_two_sockets_is_modelled_and_rules_are_compared_on_it(engineer: Job) -> None:
    assert engineer.do().count("Box: 4 seeds") == 3
    machine = engineer.run("ls; ple-gym show box.toml").splitlines()
    assert {"quick.toml", "windows.csv", "windows.png", "pcpus = 32", "sockets = 2"} <= {*machine}


@doing
def test_a_figure_is_reproduced_to_the_integer(begin, tmp_path: Path) -> None:
    job = begin(FIGURE)
    told = [line.split() for line in job.do().splitlines()]
    shown = [line.split() for line, info in split_fences(text_of(FIGURE)) if info == "text" and "--" not in line]
    assert len(shown) == 8 and [line for line in shown if line not in told] == []
    committed("figure1").write_csv(tmp_path / "figure1.csv")
    assert (job.folder / "again" / "figure1.csv").read_bytes() == (tmp_path / "figure1.csv").read_bytes()
