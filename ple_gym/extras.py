"""Which extra of the package brings a library that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: Module -> extra. What an extra's libraries bring with them is named by the same extra.
EXTRAS = {
    "bokeh": "report",
    "envpool": "peers",
    "h5py": "minari",
    "joblib": "experiments",
    "matplotlib": "viz",
    "minari": "minari",
    "moviepy": "video",
    "optuna": "experiments",
    "pandas": "tables",
    "perfetto": "traces",
    "pyarrow": "parquet",
    "ray": "rllib",
    "sb3_contrib": "agents",
    "simpy": "peers",
    "skrl": "skrl",
    "stable_baselines3": "agents",
    "tensorboard": "agents",
    "tensordict": "torchrl",
    "torch": "agents",
    "torchrl": "torchrl",
    "tqdm": "agents",
}


def advice(error: ModuleNotFoundError, extra: str = "") -> str:
    """One line that says how to install what is missing; empty if it is no library of an extra.

    extra: which one, where several bring the library.
    """
    module = (error.name or "").partition(".")[0]
    extra = extra or EXTRAS.get(module, "")
    if module not in EXTRAS:
        return ""
    return f"{module} is not installed: pip install 'ple-gym[{extra}]'"


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Let imports that fail for want of a library say which extra brings it.

    Raises:
        ModuleNotFoundError: as inside, with advice.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not (told := advice(error, extra)):
            raise
        raise ModuleNotFoundError(told, name=error.name, path=error.path) from None
