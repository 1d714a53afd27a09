"""The one compiled entry point: it joins simulator, rules and observations, for one lane or thousands.

`Env` (one lane), `VectorEnv` (many) and `simulate` (a policy decides to the end) all call `drive`, so that they cannot
differ. Autoreset is one of its commands too: which world follows which is part of a lane's state.

View and policies are other compile units, which are called by their addresses (sim/units.py).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ple_gym.rules.sight import SIGHT
from ple_gym.sim import rng
from ple_gym.sim.decisions import carry_out, legal, meant
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.kernel import advance, settle_all, start_world
from ple_gym.sim.memory import grid, prefetch, records
from ple_gym.sim.metrics import note
from ple_gym.sim.seam import Host
from ple_gym.sim.soundness import flaw
from ple_gym.sim.state import (
    ADVANCING,
    DECIDE,
    DECIDED,
    FLOAT64,
    HISTOGRAM_BINS,
    HISTOGRAMS,
    INT64,
    PLACE,
    PLACE_BYTES,
    RESULT_ELAPSED,
    RESULT_ILLEGAL,
    RESULT_REWARD,
    RESULT_STATUS,
    RESULTS,
    STORM,
    open_lane,
)
from ple_gym.sim.units import Unit, invoke, sources
from ple_gym.view.record import VIEW, VIEW_BYTES
from ple_gym.view.reward import lost_cycles

# commands
RESET = 0  # build the world named by world.seed and world.index, and go on to where world.start says, or to its end
STEP = 1  # take the lane's action for the decision that is due (an illegal one means defer); on to the next or the end
OBSERVE = 2  # write result, mask and observation of the decision that is due; nothing happens
NEXT = 3  # as RESET, for the world that follows world.seed (12.1)
STEP_OR_NEXT = 4  # STEP, or NEXT where the run is over
GO_ON = 5  # the policy decides from the decision that is due on, to the end
CONTINUE = 6  # go on with the command that ran out of events on this lane
CHECK = 7  # only return what is wrong with the lane's state (sim/soundness.py)
ASK = 8  # only write the policy's answer to the decision that is due into the lane's action; -1 if none is due

#: Events that one call serves before it returns to Python, where Ctrl-C is noticed: a few hundredths of a second.
EVENTS_PER_CALL = np.int64(1 << 17)

#: Lanes within so many bytes the processor fetches fast enough by itself; asking it for each costs 10 ns.
NEAR_BYTES = np.int64(24 << 20)

#: A call that ran out of events returns UNFINISHED + (lane << 32) + remarkable lanes before that one; those after it
#: have not begun.
UNFINISHED = 1 << 62
#: A call returns OUTSIDE if nothing was done, because an action is none; FAULT - lane if a policy's answer is not legal
#: there: that is the lane's action then, and the lane is as it was when the policy was asked.
OUTSIDE, FAULT = -1, -2
_FAULTED = np.int64(-1) << np.int64(62)
UNDECIDED = -1  # no action

# bits of world.interrupted
_RESETS, _SEEKS_STORM, _ILLEGAL = 1, 2, 4

FLOAT = np.float64

MAX_REPLACEMENTS = 1000  # worlds without such a start that a reset skips before it returns an ended one

#: What a call says of who decides; all 0: the caller.
ABOUT_POLICY = (
    "policy", "parameters",  # addresses
    "settles", "observes", "privileged",  # what must be done before it is asked
    "memory_per_vm",  # words
    "events",  # how many events asking it counts for
)  # fmt: skip

#: What a call is about: one word each.
CALL = np.dtype(
    [
        ("command", "i8"), ("begin", "i8"), ("end", "i8"),  # lanes begin..end-1 of
        ("lanes", "i8"),  # so many, whose
        ("places", "i8"),  # address of their PLACEs is here; and those of
        ("actions", "i8"), ("results", "i8"),  # int64 [lanes], float64 [RESULTS, lanes]
        ("masks", "i8"), ("mask_bytes", "i8"), ("observations", "i8"), ("observation_bytes", "i8"),  # a row per lane
        ("defer", "i8"), ("most", "i8"),  # the action that defers, lanes may have fewer vCPUs; the largest action
        ("observer", "i8"),  # address of the view; 0: lanes are not observed
        *((name, "i8") for name in ABOUT_POLICY),
        ("trace_at", "i8"), ("trace_rows", "i8"),
        ("events_per_call", "i8"),
        ("sight", SIGHT),  # room for what a policy sees
    ]
)  # fmt: skip
CALL_BYTES = CALL.itemsize
SIGHT_AT = (CALL.fields or {})["sight"][1]


@called
def show(call, place, mask, observation):
    """Write mask and observation of the decision that is due, if the lanes are observed."""
    if call.observer != 0:
        invoke(call.observer, (place.description, place.row, mask, observation))


@called
def report(call, s, place, results, e, mask, observation, lost, illegal):
    """Write what the caller gets: column e of the results (lost: cycles since the last report), mask, observation."""
    world = s.world[0]
    par = s.par[0]
    results[RESULT_REWARD, e] = (0.0 - lost) * 1000.0 / (FLOAT(par.tsc_hz) * FLOAT(par.pcpus))
    results[RESULT_STATUS, e] = FLOAT(world.status)
    results[RESULT_ELAPSED, e] = FLOAT(world.now - world.decided_at)
    results[RESULT_ILLEGAL, e] = FLOAT(illegal)
    show(call, place, mask, observation)


@inlined
def clear(address, words):
    """Put zeros into so many int64 words."""
    row = grid(address, 0, INT64, 8, 1, words)
    for i in range(words):
        row[0, i] = 0


@called
def reset_world(s, place):
    """Clear the lane's state and start the world that world.seed and world.index name."""
    world = s.world[0]
    seed, index, start = world.seed, world.index, world.start
    clear(place.row, s.par[0].row_bytes // 8)
    clear(place.histogram, np.int64(HISTOGRAMS * HISTOGRAM_BINS // 2))
    world.seed, world.index, world.start = seed, index, start
    start_world(s)


@inlined
def decide(s, action):
    """Carry out a decision, and note when and where it was taken."""
    world = s.world[0]
    world.decided_at = world.now
    s.pcpu[world.deciding].decided_at = world.now
    note(s, world.now, DECIDED, world.deciding, s.pcpu[world.deciding].current, action)
    carry_out(s, action)


@inlined
def storms(s):
    """Whether the exits of this millisecond, the one that is due included, are a storm (docs/model.md, 12.1)."""
    world = s.world[0]
    millisecond = world.now // s.par[0].storm_span
    if world.millisecond != millisecond:
        world.millisecond, world.exits_before = millisecond, world.exits - 1
    return world.exits - world.exits_before >= s.par[0].storm_exits


@called
def prepare(call, s, place, mask, observation):
    """Write into the sight what stays as it is while a call is at this lane."""
    par, see = s.par[0], call.sight
    see.mask, see.observation = mask, observation
    see.defer, see.pcpus, see.vcpus, see.vms, see.sockets = par.vcpus, par.pcpus, par.vcpus, par.vms, par.sockets
    see.tsc_hz, see.window, see.exit_cost, see.actuator = par.tsc_hz, par.window, par.exit, par.actuator
    see.pcpu, see.vcpu, see.queue = place.row + par.pcpu_at, place.row + par.vcpu_at, place.row + par.queue_at
    see.host_vm, see.host_pcpu = place.row + par.host_vm_at, place.row + par.host_pcpu_at
    see.host_vcpu = place.row + par.host_vcpu_at
    see.ipis_seen, see.ipi = par.ipis_seen, place.row + par.ipi_at
    see.vm, see.parameters = place.description + par.vm_parameters_at, call.parameters
    see.vm_memory = place.row + par.memory_at
    see.vcpu_memory = see.vm_memory + 8 * call.memory_per_vm * par.vms
    if call.privileged != 0:
        see.description, see.row = place.description, place.row


@inlined
def ask(call, address, s, place):
    """The action that the policy answers to the exit that is due with; `address` is that of the call.

    The sight must have been prepared for the lane.
    """
    world, see = s.world[0], call.sight
    if call.settles != 0:
        settle_all(s, world.now)
    if call.observes != 0:
        show(call, place, see.mask, see.observation)
    here = world.deciding
    see.now, see.here, see.asker = world.now, here, s.pcpu[here].current
    see.exits, see.random_key = world.exits, world.policy_key
    return meant(s, here, invoke(call.policy, (address + SIGHT_AT,)))


@inlined
def drive_lane(call, address, s, place, actions, results, e, mask, observation, command, events):
    """Run one command on lane e, for at most so many events; returns how many are left, or _FAULTED.

    If the lane's status is ADVANCING then, the command has not ended.
    """
    world = s.world[0]
    par = s.par[0]
    if command == OBSERVE or (command in (STEP, GO_ON) and world.status != DECIDE):  # what is no decision, or no run
        report(call, s, place, results, e, mask, observation, 0.0, False)
        return events
    illegal = False
    action = np.int64(UNDECIDED)
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
            reset_world(s, place)
        elif command != GO_ON:
            illegal = not legal(s, world.deciding, world.action)
            world.illegal_actions += illegal
            action = par.vcpus if illegal else world.action
    if call.policy != 0:
        prepare(call, s, place, mask, observation)
    while True:
        if action != UNDECIDED:
            decide(s, action)
        if world.status == ADVANCING:
            events = advance(s, events)
            if world.status == ADVANCING:
                world.interrupted = _RESETS * resets | _SEEKS_STORM * seeks_storm | _ILLEGAL * illegal
                break
        if world.status != DECIDE:
            if not (resets and call.policy == 0 and world.index < np.uint64(MAX_REPLACEMENTS)):
                break
            world.index += np.uint64(1)
            reset_world(s, place)
            action = np.int64(UNDECIDED)
            continue
        if world.exits == 1:
            world.decided_at = world.now  # nothing was decided before
        if seeks_storm and storms(s):
            seeks_storm = False
        if seeks_storm:
            action = par.vcpus
        elif call.policy == 0:
            break
        else:
            action = ask(call, address, s, place)
            events -= call.events
            if not legal(s, world.deciding, action):
                actions[0, e] = action
                return _FAULTED
    if call.policy == 0 and world.status != ADVANCING:
        if world.status == DECIDE:
            settle_all(s, world.now)
        lost = lost_cycles(s, records(place.description, par.view_at, par.view_at + VIEW_BYTES, VIEW)[0].reward)
        if resets:  # what was lost before the first decision is nobody's fault
            world.decided_at, world.lost_before = world.now, lost
        report(call, s, place, results, e, mask, observation, lost - world.lost_before, illegal)
        world.lost_before = lost
    return events


@inlined
def numbered(action, defer, vcpus):
    """A caller's action as the lane numbers it: one defers, and who would be the next vCPU is none."""
    if action == defer:
        return np.int64(vcpus)
    return action + (action == vcpus)


@inlined
def outside(actions, lanes, most):
    """Whether any of the actions, int64 [1, lanes], is not 0..most."""
    wrong = False
    for e in range(lanes):
        wrong |= (actions[0, e] < 0) | (actions[0, e] > most)
    return wrong


@cache
def simulator(host: Host) -> Unit:
    """The simulator under a host's scheduler."""

    def drive(address):
        """Run the command of the CALL at an address; arrays that it names are kept by `lanes.Lanes`.

        Returns how many lanes have nothing to decide now, or were given an illegal action; OUTSIDE, because an action
        is not 0..most, in whatever lane: so all threads see it; or FAULT - lane. After EVENTS_PER_CALL events it
        returns before it is done, with a number of UNFINISHED and more: `Lanes.drive` then goes on.
        """
        call = records(address, 0, CALL_BYTES, CALL)[0]
        command = call.command
        actions = grid(call.actions, 0, INT64, 8, 1, call.lanes)
        results = grid(call.results, 0, FLOAT64, 8, RESULTS, call.lanes)
        places = records(call.places, 0, PLACE_BYTES * call.lanes, PLACE)
        steps = command in (STEP, STEP_OR_NEXT)
        if steps and outside(actions, call.lanes, call.most):
            return np.int64(OUTSIDE)
        remarkable = np.int64(0)
        events = call.events_per_call
        are_far = places[call.end - 1].row - places[call.begin].row > NEAR_BYTES
        for e in range(call.begin, call.end):
            place = places[e]
            if place.row == 0:  # it is another call's
                continue
            mask = call.masks + e * call.mask_bytes
            observation = call.observations + e * call.observation_bytes
            s = open_lane(host, place.description, place.row, place.histogram, call.trace_at, call.trace_rows)
            if are_far and e + 1 < call.end:  # it will be needed next; all that the view reads lies in front
                prefetch(places[e + 1].row, s.par[0].guest_at)
            if command == CHECK:
                return np.int64(flaw(s))
            if command == ASK:
                actions[0, e] = -1
                if s.world[0].status == DECIDE:
                    prepare(call, s, place, mask, observation)
                    actions[0, e] = ask(call, address, s, place)
                    if not legal(s, s.world[0].deciding, actions[0, e]):
                        return np.int64(FAULT) - e
                continue
            if steps:
                s.world[0].action = numbered(actions[0, e], call.defer, s.par[0].vcpus)
            events = drive_lane(call, address, s, place, actions, results, e, mask, observation, command, events)
            if events == _FAULTED:
                return np.int64(FAULT) - e
            if s.world[0].status == ADVANCING and command != OBSERVE:
                return UNFINISHED + (np.int64(e) << 32) + remarkable
            remarkable += s.world[0].status != DECIDE or results[RESULT_ILLEGAL, e] != 0.0
        return remarkable

    made_of = [
        *sources("drive.py", "rules/sight.py", "view/record.py", "view/reward.py", "sim/*.py", "sim/guest/*.py"),
        *host.sources,
    ]
    return Unit(f"simulator.{host.name}", drive, 1, made_of, boxed=True)
