"""Words as types: each is what is checked at run time, and what a run's record holds."""

from __future__ import annotations

import inspect
import types
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from ple_gym.envs import interface, options, vector
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.episode import Episode
from ple_gym.errors import ArgumentError
from ple_gym.evaluate import Run, simulate
from ple_gym.lanes import REWARDS, STARTS

TABLES = {
    options.Information: interface.LEVELS,
    options.ObservationForm: interface.OBSERVATIONS,
    options.Reward: tuple(REWARDS),
    options.Start: tuple(STARTS),
    options.Illegal: interface.ILLEGAL,
    options.InfosForm: interface.INFOS,
    options.RenderMode: tuple(vector.DRAWINGS),
    options.AutoresetWord: tuple(vector.MODES),
}


def test_the_words_that_a_type_checker_knows_are_those_that_are_checked() -> None:
    for words, table in TABLES.items():
        assert sorted(get_args(words)) == sorted(table)
    assert PleEnv.metadata["render_modes"] == list(get_args(options.RenderMode))


@pytest.mark.parametrize("option", ["information", "observation", "reward", "start", "illegal", "infos", "render_mode"])
def test_another_word_is_refused_by_both_environments(option: str) -> None:
    for make in (PleEnv, PleVectorEnv):
        with pytest.raises(ArgumentError, match="'nothing'"):
            make(**{"scenario": "Tiny", option: "nothing"})


def test_the_typed_options_are_those_of_the_vector_environment() -> None:
    taken = set(inspect.signature(PleVectorEnv).parameters) - {"num_envs", "scenario", "autoreset_mode"}
    assert set(get_type_hints(options.LaneOptions)) == taken


def check_type(value: Any, kind: Any, where: str) -> None:
    """The value is of that type, all the way down."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        assert set(value) == set(hints), where
        for name, hint in hints.items():
            check_type(value[name], hint, f"{where}.{name}")
    elif get_origin(kind) is list:
        for one in value:
            check_type(one, get_args(kind)[0], where)
    else:
        assert type(value) in (get_args(kind) if isinstance(kind, types.UnionType) else (kind,)), where


@pytest.mark.parametrize("limit", [60.0, 0.001])
def test_a_run_has_the_fields_of_its_type(limit: float) -> None:
    for run in simulate("Tiny", "kvm", range(2), {"limit.simulated_s": limit}):
        check_type(run, Run, "run")


def test_an_episode_has_the_fields_of_its_type() -> None:
    env = PleEnv("Tiny")
    env.reset(seed=0)
    check_type(env.episode_record(), Episode, "episode")
