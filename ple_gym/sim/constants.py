"""Numbers that stand for nobody and for never. Nothing compiled is loaded for them (`guest/kinds.py`)."""

from __future__ import annotations

import numpy as np

NONE = np.uint32(0xFFFFFFFF)  # "no such vCPU / pCPU"
# how a waiter of a lock that can be stolen stands (docs/model.md, 7.7); who has the pending bit set is not below ASKING
ASIDE, QUEUEING, PARKED, ASKING, KICKED = range(5)
INF = np.int64(1) << np.int64(62)  # "never", cycles
WINDOWS = 6  # that an action chooses from (docs/model.md, 8.4)
