"""The one compiled entry point: it joins simulator, rules and observations, for one lane or thousands.

`Env` (one lane), `VectorEnv` (many) and `simulate` (a compiled rule decides to the end) all call `drive`, so that they
cannot differ. Autoreset is one of its commands too: which world follows which is part of a lane's state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ple_gym.learned.network import learned
from ple_gym.rules.compiled import EXTERNAL, LEARNED, XEN_45, XEN_48, choose
from ple_gym.sim import rng
from ple_gym.sim.jit import called, entry_point, inlined, source_fingerprint
from ple_gym.sim.kernel import advance, carry_out, legal, settle_all, start_world
from ple_gym.sim.memory import grid, records, row_of
from ple_gym.sim.metrics import lost_cycles
from ple_gym.sim.soundness import flaw
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
    STORM,
    open_lane,
)
from ple_gym.view.observation import HOST_LENGTH, write_mask, write_observation

# commands
RESET = 0  # build the world named by world.seed and world.index, and go on to where world.start says, or to its end
STEP = 1  # take the lane's action for the decision that is due (an illegal one means defer); on to the next or the end
OBSERVE = 2  # write result, mask and observation of the decision that is due; nothing happens
NEXT = 3  # as RESET, for the world that follows world.seed (12.1)
STEP_OR_NEXT = 4  # STEP, or NEXT where the run is over
GO_ON = 5  # the rule decides from the decision that is due on, to the end
CONTINUE = 6  # go on with the command that ran out of events on this lane
CHECK = 7  # only return what is wrong with the lane's state (sim/soundness.py)

#: Events that one call serves before it returns to Python, where Ctrl-C is noticed: a few hundredths of a second.
EVENTS_PER_CALL = np.int64(1 << 17)
EVENTS_PER_SCORE = 16  # what scoring one vCPU by a learned policy counts for

#: A call that ran out of events returns UNFINISHED + (lane << 32) + remarkable lanes before that one; those after it
#: have not begun.
UNFINISHED = 1 << 62

# bits of world.interrupted
_RESETS, _SEEKS_STORM, _ILLEGAL = 1, 2, 4

FLOAT = np.float64

MAX_REPLACEMENTS = 1000  # worlds without such a start that a reset skips before it returns an ended one


@called
def show(s, mask, observation):
    """Write mask and observation of the decision that is due, if this scenario is observed."""
    par = s.par[0]
    if par.information != NOTHING:
        write_mask(s, grid(mask, 0, INT8, 1, 1, par.vcpus + 1))
        write_observation(
            s,
            grid(observation, 0, FLOAT32, 4, par.features, par.vcpus),
            grid(observation, 4 * par.vcpus * par.features, FLOAT32, 4, 1, HOST_LENGTH),
        )


@called
def report(s, results, e, mask, observation, lost, illegal):
    """Write what the caller gets: column e of the results (lost: cycles since the last report), mask, observation."""
    world = s.world[0]
    par = s.par[0]
    results[RESULT_REWARD, e] = (0.0 - lost) * 1000.0 / (FLOAT(par.tsc_hz) * FLOAT(par.pcpus))
    results[RESULT_STATUS, e] = FLOAT(world.status)
    results[RESULT_ELAPSED, e] = FLOAT(world.now - world.decided_at)
    results[RESULT_ILLEGAL, e] = FLOAT(illegal)
    show(s, mask, observation)


@inlined
def reset_world(s, row, bypass):
    """Clear the lane's state and start the world that world.seed and world.index name."""
    world = s.world[0]
    seed, index, start = world.seed, world.index, world.start
    words = s.par[0].row_bytes // 8
    state = grid(row, 0, INT64, 8, 1, words)
    for i in range(words):
        state[0, i] = 0
    world.seed, world.index, world.start = seed, index, start
    start_world(s, bypass)


@inlined
def decide(s, action, bypass):
    """Carry out a decision, and note when and where it was taken."""
    world = s.world[0]
    world.decided_at = world.now
    s.pcpu[world.deciding].decided_at = world.now
    carry_out(s, action, bypass)


@inlined
def storms(s):
    """Whether the exits of this millisecond, the one that is due included, are a storm (docs/model.md, 12.1)."""
    world = s.world[0]
    millisecond = world.now // s.par[0].storm_span
    if world.millisecond != millisecond:
        world.millisecond, world.exits_before = millisecond, world.exits - 1
    return world.exits - world.exits_before >= s.par[0].storm_exits


@inlined
def drive_lane(s, description, row, results, e, mask, observation, command, rule, bypass, events):
    """Run one command on lane e, for at most so many events; returns how many are left.

    If the lane's status is ADVANCING then, the command has not ended.
    """
    world = s.world[0]
    par = s.par[0]
    if command == OBSERVE or (command in (STEP, GO_ON) and world.status != DECIDE):  # what is no decision, or no run
        report(s, results, e, mask, observation, 0.0, False)
        return events
    illegal = False
    if command == CONTINUE:
        resets = world.interrupted & _RESETS != 0
        seeks_storm = world.interrupted & _SEEKS_STORM != 0
        illegal = world.interrupted & _ILLEGAL != 0
        world.interrupted = 0
    else:
        resets = command in (RESET, NEXT) or (command == STEP_OR_NEXT and world.status != DECIDE)
        seeks_storm = resets and world.start == STORM
        if resets:
            if command != RESET:
                world.seed, world.index = rng.next_seed(world.seed), np.uint64(0)
            reset_world(s, row, bypass)
        elif command != GO_ON:
            illegal = not legal(s, world.deciding, world.action)
            world.illegal_actions += illegal
            decide(s, par.vcpus if illegal else world.action, bypass)
    while True:
        if world.status == ADVANCING:
            events = advance(s, bypass, events)
            if world.status == ADVANCING:
                world.interrupted = _RESETS * resets | _SEEKS_STORM * seeks_storm | _ILLEGAL * illegal
                break
        if world.status != DECIDE:
            if not (resets and rule == EXTERNAL and world.index < np.uint64(MAX_REPLACEMENTS)):
                break
            world.index += np.uint64(1)
            reset_world(s, row, bypass)
            continue
        if world.exits == 1:
            world.decided_at = world.now  # nothing was decided before
        if seeks_storm and storms(s):
            seeks_storm = False
        if seeks_storm:
            action = par.vcpus
        elif rule == EXTERNAL:
            break
        elif rule == LEARNED:
            settle_all(s, world.now)  # as below: who seems to spin depends on how long it has run by now
            show(s, mask, observation)
            action = learned(s, description, grid(mask, 0, INT8, 1, 1, par.vcpus + 1), observation)
            events -= EVENTS_PER_SCORE * par.vcpus
        else:
            action = choose(s, rule, world.deciding)
        decide(s, action, bypass)
    if rule == EXTERNAL and world.status != ADVANCING:
        if world.status == DECIDE:
            settle_all(s, world.now)
        lost = lost_cycles(s, par.reward)
        if resets:  # what was lost before the first decision is nobody's fault
            world.decided_at, world.lost_before = world.now, lost
        report(s, results, e, mask, observation, lost - world.lost_before, illegal)
        world.lost_before = lost
    return events


@inlined
def outside(actions, lanes, most):
    """Whether any of the actions, int64 [1, lanes], is not 0..most."""
    wrong = False
    for e in range(lanes):
        wrong |= (actions[0, e] < 0) | (actions[0, e] > most)
    return wrong


def _entry(fingerprint: int) -> Any:
    def drive(
        description, rows, actions, results, masks, observations, lanes, begin, end, command, rule, trace, trace_rows
    ):
        _ = fingerprint  # part of numba's cache key: see sim/jit.py
        par = records(description, 0, PARAMETERS_BYTES, PARAMETERS)[0]
        actions = grid(actions, 0, INT64, 8, 1, lanes)
        results = grid(results, 0, FLOAT64, 8, RESULTS, lanes)
        steps = command in (STEP, STEP_OR_NEXT)
        if steps and outside(actions, lanes, par.vcpus):
            return -1
        remarkable = np.int64(0)
        events = EVENTS_PER_CALL
        for e in range(begin, end):
            row = row_of(rows, e, par.row_bytes)
            mask = row_of(masks, e, par.vcpus + 1)
            observation = row_of(observations, e, par.observation_bytes)
            s = open_lane(description, row, trace, trace_rows)
            bypass = par.yield_bypasses_ratelimit != 0
            if rule == XEN_45:
                bypass = False
            elif rule == XEN_48:
                bypass = True
            if command == CHECK:
                return np.int64(flaw(s))
            if steps:
                s.world[0].action = actions[0, e]
            events = drive_lane(s, description, row, results, e, mask, observation, command, rule, bypass, events)
            if s.world[0].status == ADVANCING and command != OBSERVE:
                return UNFINISHED + (np.int64(e) << 32) + remarkable
            remarkable += s.world[0].status != DECIDE or results[RESULT_ILLEGAL, e] != 0.0
        return remarkable

    return entry_point(drive)


#: drive(description, rows, actions, results, masks, observations, lanes, begin, end, command, rule, trace, trace_rows):
#: run `command` on lanes begin..end-1 of 0..lanes-1. Arrays are `memory.handle`s, which `lanes.Lanes` keeps. rule:
#: EXTERNAL (the caller's actions), or the code of a rule that decides to the end of the run. Returns how many lanes
#: have nothing to decide now, or were given an illegal action; -1 if nothing was done, because an action is not
#: 0..vCPUs, in whatever lane: so all threads see it. After EVENTS_PER_CALL events it returns before it is done, with a
#: number of UNFINISHED and more: `lanes.Lanes.drive` then goes on.
drive = _entry(source_fingerprint())
