"""The one compiled entry point: it joins simulator, rules and observations, for one lane or thousands.

`Env` (one lane), the vector environment (many) and `simulate` (a compiled rule decides to the end) all call `drive`, so
that they cannot differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ple_gym.observe import HOST_LENGTH, write_mask, write_observation
from ple_gym.policies.rules import EXTERNAL, XEN_45, XEN_48, choose
from ple_gym.sim.jit import called, entry_point, inlined, source_fingerprint
from ple_gym.sim.kernel import advance, carry_out, legal, settle_all, start_world
from ple_gym.sim.memory import grid, records, row_of
from ple_gym.sim.metrics import lost_cycles
from ple_gym.sim.state import (
    ADVANCING,
    DECIDE,
    FLOAT32,
    FLOAT64,
    INT8,
    INT64,
    NOTHING,
    PARAMETERS,
    PARAMETERS_BYTES,
    RESULT_ELAPSED,
    RESULT_ILLEGAL,
    RESULT_REWARD,
    RESULT_STATUS,
    RESULTS,
    open_lane,
)

# commands
RESET = 0  # build the world named by world.seed and world.index, and go on to its first decision or its end
STEP = 1  # take world.action for the decision that is due (an illegal one means defer); on to the next one or the end
OBSERVE = 2  # write mask and observation of the decision that is due; nothing happens

FLOAT = np.float64

MAX_REPLACEMENTS = 1000  # worlds without a decision that a reset skips before it returns an ended one


@called
def show(s, row):
    """Write mask and observation of the decision that is due, if this scenario is observed."""
    par = s.par[0]
    if par.information != NOTHING:
        write_mask(s, grid(row, par.mask_at, INT8, 1, 1, par.vcpus + 1))
        host_at = par.observation_at + 4 * par.vcpus * par.features
        write_observation(
            s,
            grid(row, par.observation_at, FLOAT32, 4, par.features, par.vcpus),
            grid(row, host_at, FLOAT32, 4, 1, HOST_LENGTH),
        )


@called
def report(s, row, illegal):
    """Write what the caller gets: reward, status, time since the previous decision; then mask and observation."""
    world = s.world[0]
    par = s.par[0]
    result = grid(row, par.result_at, FLOAT64, 8, 1, RESULTS)
    lost = lost_cycles(s, par.reward)
    result[0, RESULT_REWARD] = (world.lost_before - lost) * 1000.0 / (FLOAT(par.tsc_hz) * FLOAT(par.pcpus))
    result[0, RESULT_STATUS] = FLOAT(world.status)
    result[0, RESULT_ILLEGAL] = FLOAT(illegal)
    result[0, RESULT_ELAPSED] = FLOAT(world.now - world.decided_at)
    show(s, row)
    world.lost_before = lost
    world.decided_at = world.now


@inlined
def reset_world(s, row, bypass):
    """Clear the lane's state and start the world that world.seed and world.index name."""
    world = s.world[0]
    seed, index = world.seed, world.index
    words = s.par[0].result_at // 8
    state = grid(row, 0, INT64, 8, 1, words)
    for i in range(words):
        state[0, i] = 0
    world.seed, world.index = seed, index
    start_world(s, bypass)


@inlined
def drive_lane(s, row, command, rule, bypass):
    """Run one command on one lane."""
    world = s.world[0]
    illegal = False
    if command == OBSERVE:
        show(s, row)
        return
    if command == RESET:
        reset_world(s, row, bypass)
    elif command == STEP:
        action = world.action
        illegal = not legal(s, world.deciding, action)
        if illegal:
            action = s.par[0].vcpus
            world.illegal_actions += 1
        s.pcpu[world.deciding].decided_at = world.now
        carry_out(s, action, bypass)
    while True:
        if world.status == ADVANCING:
            advance(s, bypass)
        if world.status == DECIDE:
            if rule == EXTERNAL:
                break
            s.pcpu[world.deciding].decided_at = world.now
            carry_out(s, choose(s, rule, world.deciding), bypass)
        elif command == RESET and rule == EXTERNAL and world.index < np.uint64(MAX_REPLACEMENTS):
            world.index += np.uint64(1)
            reset_world(s, row, bypass)
        else:
            break
    if rule == EXTERNAL:
        if world.status == DECIDE:
            settle_all(s, world.now)
        if command == RESET:  # what was lost before the first decision is nobody's fault
            world.decided_at = world.now
            world.lost_before = lost_cycles(s, s.par[0].reward)
        report(s, row, illegal)


def _entry(fingerprint: int) -> Any:
    def drive(description, rows, begin, end, command, rule, trace, trace_rows):
        _ = fingerprint  # part of numba's cache key: see sim/jit.py
        row_bytes = records(description, 0, PARAMETERS_BYTES, PARAMETERS)[0].row_bytes
        for e in range(begin, end):
            row = row_of(rows, e, row_bytes)
            s = open_lane(description, row, trace, trace_rows)
            bypass = s.par[0].yield_bypasses_ratelimit != 0
            if rule == XEN_45:
                bypass = False
            elif rule == XEN_48:
                bypass = True
            drive_lane(s, row, command, rule, bypass)

    return entry_point(drive)


#: drive(description, rows, begin, end, command, rule, trace, trace_rows): run `command` on lanes begin..end-1. Arrays
#: are `memory.handle`s, which `lanes.Lanes` keeps. rule: EXTERNAL (the caller's `world.action`), or the code of a rule
#: that decides to the end of the run.
drive = _entry(source_fingerprint())
