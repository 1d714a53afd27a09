"""Numbers that stand for nobody and for never. Nothing compiled is loaded for them (`guest/kinds.py`)."""

from __future__ import annotations

import numpy as np

NONE = np.uint32(0xFFFFFFFF)  # "no such vCPU / pCPU"
INF = np.int64(1) << np.int64(62)  # "never", cycles
