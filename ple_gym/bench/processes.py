"""What a fresh process waits for: the import, the compiler, the first step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import gymnasium

from ple_gym.bench.report import Measurement, at_most
from ple_gym.envs.registration import environment_id

ENV_ID = environment_id("Storm")

_FIRST_STEP = f"""
import time
started = time.perf_counter()
import gymnasium, ple_gym
env = gymnasium.make("{ENV_ID}")
env.reset(seed=0)
env.step(int(env.action_space.n) - 1)
print(time.perf_counter() - started)
"""
_FIRST_RUN = """
import time
started = time.perf_counter()
from ple_gym import compilation
compilation.warm_up()
print(time.perf_counter() - started)
"""
_IMPORT = """
import time
started = time.perf_counter()
import ple_gym
print(time.perf_counter() - started)
"""


def process_rows(quick: bool) -> list[Measurement]:
    """Seconds to import and to the first step; cold only if not `quick`."""
    registered = ENV_ID in gymnasium.registry
    script, note = (_FIRST_STEP, "") if registered else (_FIRST_RUN, f"first run; {ENV_ID} is not registered")
    if quick:
        cold, warm, imported = None, _seconds(script), _seconds(_IMPORT)
    else:
        with tempfile.TemporaryDirectory() as cache:
            cold = _seconds(script, NUMBA_CACHE_DIR=cache)
            warm = median(_seconds(script, NUMBA_CACHE_DIR=cache) for _ in range(5))
            imported = median(_seconds(_IMPORT, NUMBA_CACHE_DIR=cache) for _ in range(5))
    return [
        at_most("import ple_gym, warm", imported, "s", 1),
        at_most("import to first step, warm", warm, "s", 1.5, note),
        at_most("import to first step, cold", cold, "s", 45, "left out by --quick" if quick else note),
    ]


def _seconds(script: str, **variables: str) -> float:
    """What the script prints, run in a fresh process that imports this very package."""
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode beside it
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr}")
    return float(done.stdout)
