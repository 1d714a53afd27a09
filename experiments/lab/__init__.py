"""What all experiments share: a task, a table of integers, and a sweep that can be stopped and goes on.

An experiment runs tasks. A task is one simulated run (scenario, overrides, policy, seed) and gives one row of exact
integers, the same on every machine. `sweep` runs the tasks that are missing, keeps each finished batch in a partial
file in the scratch folder, and at the end writes the table whole, in the order of the tasks. So the table is the same
whatever the number of workers, wherever they run, and however often the sweep was interrupted.

What git keeps of a table is the whole of it, in a small form (`Table.pack`): a line per column, compressed, behind a
checksum. The pages need medians, tails and bootstraps over seeds, so that no aggregate could replace the rows; and
compressed by columns the rows are a twelfth of their CSV. The same tables as CSV are written to `runs/`, which git
ignores, for whoever wants to read them by other means.

A module in `paper/`, `answer/` or `learning/` that has an `EXPERIMENT` is an experiment; nothing else names it
(`discovery.py`). This package re-exports what such a module needs.
"""

from experiments.lab.folders import CHECKPOINTS, HERE, RESULTS, SCRATCH, TABLES
from experiments.lab.sweeps import Experiment, Folders, Partial, sweep
from experiments.lab.tables import MAX_TABLE_BYTES, Table, TableError
from experiments.lab.tasks import Measure, Row, Task, overrides_text, rough, run_of, tasks, totals, world

__all__ = [
    "CHECKPOINTS", "HERE", "MAX_TABLE_BYTES", "RESULTS", "SCRATCH", "TABLES", "Experiment", "Folders", "Measure",
    "Partial", "Row", "Table", "TableError", "Task", "overrides_text", "rough", "run_of", "sweep", "tasks",
    "totals", "world",
]  # fmt: skip
