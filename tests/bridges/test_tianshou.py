"""Tianshou: its DQN trains with masks, stores infos, and does nothing illegal (make test-clients)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import example, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("tianshou"), reason="Tianshou has an environment of its own: make test-clients"),
]

CHECKS = """
import numpy as np
assert len(buffer) >= 800 and result.train_step == 400, (len(buffer), result)
assert np.isfinite(result.best_reward) and result.update_step > 0
assert set(buffer.info.keys()) == {"action_mask", "elapsed_cycles", "env_id", "illegal_action", "index", "seed"}
kept = buffer.sample_indices(0)  # all
masks = buffer.obs.mask[kept]
assert masks[np.arange(len(kept)), buffer.act[kept]].all() and not masks.all()
print("done", len(buffer))
"""
UNMASKED = """
from tianshou.data import Batch
plain = policy.forward
policy.forward = lambda batch, *rest, **named: plain(Batch(obs=batch.obs.obs, info=batch.info), *rest, **named)
"""


def test_the_example_of_the_page_trains_and_does_nothing_illegal(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(example("tianshou.algorithm") + CHECKS)
    assert run(tmp_path, "example.py").splitlines()[-1].startswith("done")


def test_without_masks_something_illegal_is_done(tmp_path: Path) -> None:
    """So that the test above could have failed."""
    script = example("tianshou.algorithm").replace("training.reset()\n", f"{UNMASKED}training.reset()\n")
    (tmp_path / "example.py").write_text(script)
    with pytest.raises(AssertionError, match="is not legal here"):
        run(tmp_path, "example.py")
