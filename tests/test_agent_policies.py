"""Agents in comparisons: their runs are those of rules, and what they do wrong is told in one line."""

from __future__ import annotations

import json
import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.paper_heuristic import PaperHeuristic
from ple_gym import cli
from ple_gym.envs.env import PleEnv
from ple_gym.errors import PolicyError
from ple_gym.evaluate import Group, compare, compare_all, doubts, simulate, tables
from ple_gym.evaluate.agents import LANES
from ple_gym.evaluate.runs import suiting
from ple_gym.scenario.builtin import SCENARIOS, load
from ple_gym.sim.jit import JIT_ENABLED

SHORT = {"limit.simulated_s": 0.02}


class Agent:
    """Answers what `choose` says of flat observations [N, length] of V vCPUs."""

    def __init__(self, choose: Any, vcpus: int = 32, **attributes: Any) -> None:
        self.choose, self.vcpus = choose, vcpus
        self.__dict__.update(attributes)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        assert deterministic is True
        return self.choose(self, observation), state


def defer(agent: Agent, observation: Any) -> Any:
    return np.full(len(observation), agent.vcpus)


def resume(agent: Agent, observation: Any) -> Any:
    return observation[:, : agent.vcpus].argmax(1)  # the feature `asker`


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize(("rule", "choose"), [("host", defer), ("continue", resume)])
def test_an_agent_that_repeats_a_rule_has_the_runs_of_that_rule(name: str, rule: str, choose: Any) -> None:
    agent = Agent(choose, SCENARIOS[name].vcpus)
    seeds, changes = range(LANES + 5), SHORT
    if name.startswith("Paper"):  # where nothing is decided so early
        changes = {**SHORT, "guest.start": "convoy"}
    expected = simulate(name, rule, seeds, changes)
    assert simulate(name, agent, seeds, changes) == expected
    assert all(run["decisions"] for run in expected)


def test_a_whole_run_with_choices_is_that_of_the_compiled_rule() -> None:
    comparison = compare("TicketOrder", ["paper", PaperHeuristic()], range(30))
    assert comparison.runs["PaperHeuristic"] == comparison.runs["paper"]
    assert comparison.asked["PaperHeuristic"].decisions == sum(run["decisions"] for run in comparison.runs["paper"]) > 0


def test_a_run_without_a_decision_is_the_same_as_under_a_rule() -> None:
    """An environment would go on to another world."""
    rare, seeds = {"limit.simulated_s": 0.1}, range(40)
    expected = simulate("Paper32", "host", seeds, rare)
    assert [run["seed"] for run in expected if run["decisions"]] == [11]
    assert simulate("Paper32", Agent(defer, SCENARIOS["Paper32"].vcpus), seeds, rare) == expected
    never = {"ple.gap": 0, **SHORT}
    assert simulate("Storm", Agent(defer), range(3), never) == simulate("Storm", "kvm", range(3), never)


def test_runs_come_in_the_order_of_the_seeds() -> None:
    seeds = [5, 2**63 - 1, 3, 5, *range(100, 130)]
    assert simulate("Tiny", Agent(defer, SCENARIOS["Tiny"].vcpus), iter(seeds), SHORT) == simulate(
        "Tiny", "host", seeds, SHORT
    )


class AsksFirst:
    """Resumes, whatever the number of vCPUs."""

    observation = "tokens"

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return observation["vcpus"][:, :, 0].argmax(1), state


def test_agents_and_rules_are_compared_in_one_table() -> None:
    told: list[int] = []
    two = compare_all(["Storm", "Tiny"], ["kvm", ("mine", AsksFirst()), "host"], range(3), SHORT, told.append)
    assert told == list(range(1, 19))
    for comparison in two:
        assert list(comparison.runs) == ["kvm", "mine", "host"]
        assert comparison.runs["mine"] == simulate(comparison.scenario, "continue", range(3))
        rows = {row.policy: row for row in comparison.rows()}
        assert rows["mine"].log_ratio is not None
        assert rows["mine"].decision_us is not None and rows["mine"].decision_us > 0
        assert rows["kvm"].decision_us is None
        assert comparison.best_rule in ("kvm", "host")
        heads = [column.head for group in tables.comparison_table(comparison).groups for column in group]
        assert "us/decision" in heads
        assert "us/decision: wall time" in tables.comparison_note(comparison)
        assert json.loads(json.dumps(comparison.to_dict(), allow_nan=False)) == comparison.to_dict()
    compiled = compare("Storm", ["kvm", "host"], range(3), SHORT)
    assert "us/decision" not in tables.comparison_note(compiled)
    assert "us/decision" not in [column.head for column in tables.comparison_table(compiled).groups[0]]


class Remembers:
    """Notes what it is told, and hands a count of each row's decisions back to itself."""

    information, observation = "oracle", "tokens"

    def __init__(self) -> None:
        self.begun, self.seen, self.shapes = 0, [], set()

    def predict(self, observation, state=None, episode_start=None, deterministic=True, action_masks=None):
        rows = len(episode_start)
        count = np.zeros(rows, np.int64) if state is None else state
        count = np.where(episode_start, 0, count) + 1
        self.begun += int(episode_start.sum())
        self.shapes.add((observation["vcpus"].shape, observation["host"].shape, action_masks.shape))
        self.seen.append(count.max())
        return np.where(action_masks[:, :-1].any(1), action_masks.argmax(1), action_masks.shape[1] - 1), count


def test_an_agent_is_given_its_state_the_begins_of_runs_and_the_masks() -> None:
    agent, seeds = Remembers(), range(LANES + 9)
    runs = simulate("TicketOrder", agent, seeds, SHORT)
    env = PleEnv("TicketOrder", information="oracle", observation="tokens")
    parts = env.observation_space
    assert agent.begun == sum(run["decisions"] > 0 for run in runs) > LANES
    assert max(agent.seen) >= max(run["decisions"] for run in runs)
    vcpus = env.scenario.vcpus
    assert agent.shapes == {((LANES, *parts["vcpus"].shape), (LANES, *parts["host"].shape), (LANES, vcpus + 1))}


def test_an_agent_sees_what_an_environment_shows() -> None:
    """At the same decisions of the same world, row by row."""
    seen: list[Any] = []

    def note(agent: Agent, observation: Any) -> Any:
        seen.append(observation[0])
        return defer(agent, observation)

    run = simulate("Storm", Agent(note, information="introspection"), [3], SHORT)[0]
    env = PleEnv("Storm", information="introspection", overrides=SHORT)
    observation, _ = env.reset(seed=3)
    for shown in seen:
        assert (shown == observation).all()
        observation, _, terminated, truncated, _ = env.step(32)
    assert (terminated or truncated) and len(seen) == run["decisions"]


def test_illegal_actions_may_defer_and_are_counted() -> None:
    agent = Agent(lambda agent, observation: np.zeros(len(observation), np.int64), illegal="defer")
    comparison = compare("Storm", [("zero", agent), "host"], range(2), SHORT)
    asked = comparison.asked["zero"]
    assert 0 < asked.illegal < asked.decisions
    assert doubts(comparison)[0].startswith(f"Storm: {asked.illegal:,} of the {asked.decisions:,} actions of zero were")


@pytest.mark.slow
def test_a_trained_model_is_an_agent() -> None:
    pytest.importorskip("sb3_contrib")
    import sb3_contrib
    import stable_baselines3

    import ple_gym

    envs = ple_gym.make_sb3("TicketOrder", num_envs=2)
    masked = sb3_contrib.MaskablePPO("MlpPolicy", envs, n_steps=8, batch_size=8, seed=0)
    recurrent = sb3_contrib.RecurrentPPO("MlpLstmPolicy", envs, n_steps=8, batch_size=8, seed=0)
    plain = stable_baselines3.PPO("MlpPolicy", envs, n_steps=8, batch_size=8, seed=0)
    for model in (recurrent, plain):
        model.illegal = "defer"
    short = {"limit.simulated_s": 0.0005}
    comparison = compare("TicketOrder", [masked, recurrent, plain, "host"], range(3), short)
    assert list(comparison.runs) == ["MaskablePPO", "RecurrentPPO", "PPO", "host"]
    assert all(comparison.asked[name].decisions > 0 for name in ("MaskablePPO", "RecurrentPPO", "PPO"))
    assert comparison.asked["MaskablePPO"].illegal == 0
    assert comparison.runs["MaskablePPO"][1] == simulate("TicketOrder", masked.policy, range(3), short)[1]
    with pytest.raises(PolicyError, match=r"^agent MaskablePPO: its observation_space is Box .* Storm at level hyp"):
        simulate("Storm", masked)
    masked.information = "oracle"
    with pytest.raises(PolicyError, match=r"observation_space is Box .*; TicketOrder at level oracle, flat, has Box"):
        simulate("TicketOrder", masked)


# --- names ------------------------------------------------------------------------------------------------------------


def test_an_agent_s_name_is_the_pair_s_or_its_own_or_its_class_s() -> None:
    named = Agent(defer, name="patient")
    once = compare("Storm", [("mine", named), named, Agent(defer)], [0], SHORT)
    assert list(once.runs) == ["mine", "patient", "Agent"]
    assert list(compare("Storm", named, [0], SHORT).runs) == ["patient"]
    assert simulate("Storm", ("mine", named), [0], SHORT) == simulate("Storm", "host", [0], SHORT)
    assert list(compare("Storm", ["kvm", ("k", "kvm")], [0], SHORT).runs) == ["kvm", "k"]
    assert list(compare("Storm", ("kvm", named), [0], SHORT).runs) == ["kvm", "patient"]  # two policies, not a pair


def raises(agent: Any, observation: Any) -> Any:
    raise KeyError("no such row")


def answers(value: Any) -> Any:
    return Agent(lambda agent, observation: value)


class NoPair:
    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return np.zeros(len(observation), np.int64)


class NeedsArguments:
    def __init__(self, size: int) -> None: ...


WHOLE = "agent Agent: predict must return 2 whole numbers, one for each row of the observation, not"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (object(), "policy <object object at "),
        (None, "policy None: must be the name of a rule, learned:NAME or learned:FILE.npz, or an object with predict("),
        (Agent(raises), "agent Agent: predict raised KeyError: 'no such row' ("),
        (NoPair(), "agent NoPair: predict must return a pair, actions and state, not array("),
        (NeedsArguments, "agent NeedsArguments: calling it without arguments raised TypeError: "),
        (answers(3), f"{WHOLE} int64 ()"),
        (answers([1, 2, 3]), f"{WHOLE} int64 (3,)"),
        (answers([1.0, 2.0]), f"{WHOLE} float64 (2,)"),
        (answers([True, True]), f"{WHOLE} bool (2,)"),
        (answers([[1], [2, 3]]), "agent Agent: predict must return 2 whole numbers, not [[1], [2, 3]]"),
        (answers([32, 33]), "agent Agent: its action 33, on seed 1, must be 0..32"),
        (answers([32, -1]), "agent Agent: its action -1, on seed 1, must be 0..32"),
        (Agent(lambda a, o: resume(a, o) * 0), "agent Agent: its action 0, on seed 0, is not legal there; legal are "),
        (Agent(defer, information="all"), "agent Agent: information = 'all': must be hypervisor, introspection or"),
        (Agent(defer, observation="pixels"), "agent Agent: observation = 'pixels': must be flat or tokens"),
        (Agent(defer, illegal="skip"), "agent Agent: illegal = 'skip': must be defer or raise"),
        (("kvm", Agent(defer)), "policy 'kvm': the name must not be empty, a rule's or a learned policy's"),
        (("", Agent(defer)), "policy '': the name must not be empty"),
        (Agent(defer, name="host"), "agent 'host': the name must not be empty"),
        (Agent(defer, name="a\nb"), "agent 'a\\nb': the name must not be empty"),
        (("mine", 5), "policy 5: must be"),
    ],
)  # fmt: skip
def test_what_an_agent_does_wrong_is_told_in_one_line(policy: Any, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        simulate("Storm", policy, range(2), SHORT)
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_where_an_agent_failed_is_told() -> None:
    line = raises.__code__.co_firstlineno + 1
    with pytest.raises(PolicyError, match=rf"test_agent_policies\.py, line {line}\)$") as caught:
        simulate("Storm", Agent(raises), 0)
    assert isinstance(caught.value.__cause__, KeyError)


def test_two_agents_of_one_name_are_refused() -> None:
    with pytest.raises(PolicyError, match="policies: 'Agent' is named 2 times"):
        compare("Storm", [Agent(defer), Agent(defer)])
    with pytest.raises(PolicyError, match="group g: 3 must be learned:NAME"):
        Group("g", [3])  # type: ignore[list-item]


# --- the command line -------------------------------------------------------------------------------------------------

MINE = """
import helper_of_mine
import numpy as np

class Patient:
    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return np.full(len(observation), helper_of_mine.V), state

class Needs:
    def __init__(self, size):
        pass

class Inner:
    agent = Patient()

def make():
    return Patient()

def fails():
    raise RuntimeError("no weights")

agent = Patient()
number = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    Path("mine.py").write_text(MINE)
    Path("helper_of_mine.py").write_text("V = 32\n")
    Path("package_of_mine").mkdir()
    Path("package_of_mine/agents.py").write_text(MINE)
    Path("syntax.py").write_text("x = 1\ndef f(:\n")
    Path("raises.py").write_text("import numpy\n\nnumpy.zeros(-1)\n")
    Path("model.zip").write_bytes(b"PK")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "./mine.py:Patient", "mine.py:agent", "mine.py:make", "mine.py:Inner.agent", "package_of_mine.agents:Patient",
        "package_of_mine.agents:make", "mine:agent",
    ],
)  # fmt: skip
def test_agents_by_name(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--policies", name, "host", "--seeds", "0:3", "--set", "limit.simulated_s=0.02", "--json", "-")
    assert cli.main(["compare", "Storm", *argv]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["runs"][name] == document["runs"]["host"]
    assert "us/decision" in printed.err
    assert simulate("Storm", name, range(3), SHORT) == document["runs"]["host"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no.py:Agent", "./no.py: No such file or directory"),
        ("./mine.py:Nobody", "./mine.py: has no Nobody"),
        ("./mine.py:number", "policy ./mine.py:number: 5 is neither a rule nor an object with predict"),
        ("./mine.py:Needs", "agent ./mine.py:Needs: calling it without arguments raised TypeError: "),
        ("./mine.py:fails", "agent ./mine.py:fails: calling it without arguments raised RuntimeError: no weights ("),
        ("./syntax.py:Agent", "./syntax.py: cannot be imported: SyntaxError: "),
        ("./raises.py:Agent", "./raises.py: cannot be imported: ValueError: negative dimensions are not allowed ("),
        ("nowhere.agents:Agent", "nowhere.agents: cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("package_of_mine:Agent", "package_of_mine: has no Agent"),
        ("./model.zip", "./model.zip: a saved model is not loaded by itself, as that may run what is hidden in it."),
        ("./mine.py", "unknown policy './mine.py'"),
    ],
)
def test_wrong_names_of_agents_are_told(
    name: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", "Storm", "--policy", name, "--seeds", "0"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"ple-gym: error: {message}")
    assert told.count("\n") == 1 and len(told) < 600


def test_the_line_of_a_mistake_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, place in (("syntax", "line 2"), ("raises", "line 3")):
        assert cli.main(["simulate", "Storm", "--policy", f"./{name}.py:Agent"]) == 2
        assert f"{folder}/{name}.py, {place})" in capsys.readouterr().err


def test_a_file_that_has_changed_is_run_again(folder: Path) -> None:
    path = folder / "mine.py"
    assert simulate("Storm", f"{path}:agent", 0, SHORT) == simulate("Storm", "host", 0, SHORT)
    path.write_text(MINE.replace("np.full(len(observation), helper_of_mine.V)", "observation[:, :32].argmax(1)"))
    assert simulate("Storm", f"{path}:agent", 0, SHORT) == simulate("Storm", "continue", 0, SHORT)


def test_a_timeline_is_of_a_compiled_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    short = ("--seeds", "0", "--set", "limit.simulated_s=0.02", "--timeline", "x.png")
    assert cli.main(["simulate", "Storm", "--policy", "./mine.py:agent", *short]) == 2
    assert "--timeline: one policy must be a rule or a learned one" in capsys.readouterr().err
    assert cli.main(["compare", "Storm", "--policies", "./mine.py:agent", "kvm", *short]) == 0
    assert "Timeline of seed 0 under kvm: x.png" in capsys.readouterr().out
    assert (folder / "x.png").exists()


PAGE = Path(__file__).resolve().parents[1] / "docs/howto/bring-an-agent.md"


def test_the_page_shows_what_its_command_prints(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the agent that the page shows; all but the two columns of wall time is the same."""
    monkeypatch.setenv("COLUMNS", "100")
    page = PAGE.read_text(encoding="utf-8")
    (folder / "mine.py").write_text(page.split("```python\n")[1].split("```")[0])
    command = next(line for line in page.splitlines() if line.startswith("ple-gym compare "))
    assert cli.main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out
    shown = page.split("```text\n")[1].split("```")[0]
    assert without_times(shown) == without_times(printed[: printed.index("vs host, vs best:")])


def without_times(tables: str) -> list[list[str]]:
    first, *others = [[line.split() for line in table.splitlines()] for table in tables.strip().split("\n\n")]
    title, heads, _, *rows = first
    assert heads[-3:] == ["wall", "s", "us/decision"]
    return [title, heads, *(row[:-2] for row in rows), *(line for table in others for line in table if len(line) > 1)]


# --- long work --------------------------------------------------------------------------------------------------------


def interrupt_after(seconds: float) -> None:
    threading.Timer(seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()


def never_returns(agent: Agent, observation: Any) -> Any:
    while True:
        pass


@pytest.mark.skipif(not JIT_ENABLED, reason="a part of a run takes seconds")
@pytest.mark.parametrize("choose", [resume, never_returns])
def test_ctrl_c_ends_an_agent_s_runs_at_once(choose: Any) -> None:
    endless = {"limit.simulated_s": 3600, "guest.transactions": 10**9}
    interrupt_after(0.5)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        simulate("Storm", Agent(choose), range(4), endless)
    assert time.monotonic() - began < 1.5


def test_a_long_run_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ple_gym.evaluate.agents.LONG_S", 0.0)
    monkeypatch.setattr("ple_gym.progress.QUIET_S", 0.0)
    compare("Storm", ["host", ("mine", Agent(defer))], range(2), SHORT, progress=True)
    told = capsys.readouterr().err
    assert "runs: 2 of 4, seed 0 under mine: 0.00 of at most 0.02 s simulated" in told
    assert "runs: 4 of 4" in told


def test_every_rule_is_still_a_policy() -> None:
    assert list(compare(load("HolderPreempted"), seeds=[0]).runs) == suiting(load("HolderPreempted"))
