"""The words that environments take as options, as types: a type checker refuses what `PleEnv` would refuse.

`PleEnv` and `PleVectorEnv` say what the words mean. A test compares each list with the one that is checked when an
environment is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypedDict

Information: TypeAlias = Literal["hypervisor", "introspection", "oracle"]
ObservationForm: TypeAlias = Literal["flat", "tokens"]
ObservationType: TypeAlias = Literal["float32", "float16", "uint8"]
Reward: TypeAlias = Literal["waste", "time", "fair", "response"]
Start: TypeAlias = Literal["first", "storm"]
Illegal: TypeAlias = Literal["defer", "raise"]
InfosForm: TypeAlias = Literal["sparse", "uniform"]
RenderMode: TypeAlias = Literal["ansi", "rgb_array"]
AutoresetWord: TypeAlias = Literal["NextStep", "SameStep", "Disabled"]


class AgentOptions(TypedDict, total=False):
    """How a scenario is offered to an agent: what all environments have in common."""

    information: Information
    observation: ObservationForm
    observation_dtype: ObservationType
    reward: Reward
    start: Start
    illegal: Illegal
    infos: InfosForm


class LaneOptions(AgentOptions, total=False):
    """The options of `PleVectorEnv` without its autoreset mode."""

    overrides: Mapping[str, object] | None
    max_episode_steps: int | None
    threads: int
    render_mode: RenderMode | None
