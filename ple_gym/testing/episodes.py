"""Checks of what happens in the lanes of a vector environment: seeds, independence, episode ends, partial resets.

They are of the same form as those in `form.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode

from ple_gym.testing.walk import (
    Bools,
    Moment,
    NotApplicable,
    Subject,
    Walk,
    demand_same,
    demand_same_stories,
    demand_same_story,
    difference,
    fail,
    other_players,
    player,
)

# -------------------------------------------------------------------------------------------------- seeds and lanes


def same_seed(subject: Subject) -> None:
    """Equal seeds and equal actions give equal results: in two environments, and again in one that has been used."""
    walk, twin = (subject.walk().run(subject.steps) for _ in range(2))
    demand_same_stories("two environments with the same seed", walk, twin)
    again = Walk(twin.env, subject.seed)
    again.reset(seed=subject.seed)
    again.run(subject.steps)
    demand_same_stories("a used environment, reset with the same seed", walk, again)


def seed_of_lanes(subject: Subject) -> None:
    """The seed n is the list [n, n + 1, ...], so that each lane can be had alone, and a run of lanes be continued.

    Lane i of a reset with seed n + 1 is lane i + 1 of a reset with seed n.
    """
    walk = subject.walk().run(subject.steps)
    listed = Walk(subject.env(), subject.seed)
    listed.reset(seed=[subject.seed + lane for lane in walk.lanes])
    demand_same_stories("a list of seeds, one higher for each lane", walk, listed.run(subject.steps))
    shifted = subject.walk(subject.seed + 1).run(subject.steps).stories()
    for lane, story in enumerate(walk.stories()[1:]):
        demand_same_story("lane i with seed n + 1, which is lane i + 1 with seed n", story, shifted[lane], lane)


def independent_lanes(subject: Subject) -> None:
    """What a lane returns depends on its own seed and actions alone, not on what happens in other lanes."""
    walk, twin = subject.walk(), subject.walk()
    if len(walk.lanes) < 2:
        raise NotApplicable("there is only one lane")
    for lane in walk.lanes[1::2]:
        twin.players[lane] = other_players(walk)[lane]
    stories, others = walk.run(subject.steps).stories(), twin.run(subject.steps).stories()
    for lane in walk.lanes[::2]:
        what = "other actions in other lanes should not matter"
        demand_same_story(what, stories[lane], others[lane], lane)


def lanes_are_singles(subject: Subject) -> None:
    """Lane i is the single environment of seed n + i, bit for bit, through all episode ends.

    Observations, rewards, flags and infos; `reset` without a seed starts an episode where the lane starts one.
    """
    if subject.single is None:
        raise NotApplicable("no single environment was given")
    walk = subject.walk().run(subject.steps)
    moments = [walk.moments(turn) for turn in walk.turns]
    for lane in walk.lanes:
        env = subject.single_env()
        over = False
        for turn, seen in zip(walk.turns, (one[lane] for one in moments), strict=True):
            if turn.started is not None:
                if turn.started[lane]:
                    begun = env.reset(seed=subject.seed + lane if turn is walk.turns[0] else None)
                    _demand_alike(Moment(turn.number, *begun), seen, lane)
            elif over and walk.mode is AutoresetMode.NEXT_STEP:
                over = False
                _demand_alike(Moment(turn.number, *env.reset(), 0.0, False, False), seen, lane)
            else:
                observation, reward, terminated, truncated, info = env.step(walk.played[turn.number - 1][lane])
                over = bool(terminated or truncated)
                if over and walk.mode is AutoresetMode.SAME_STEP:
                    final = {"final_obs": observation, "final_info": info}
                    observation, info = env.reset()
                    info = {**info, **final}
                result = float(reward), bool(terminated), bool(truncated)
                _demand_alike(Moment(turn.number, observation, info, *result), seen, lane)


def _demand_alike(alone: Moment, seen: Moment, lane: int) -> None:
    demand_same_story("the lane, as the single environment", [alone], [seen], lane)


# --------------------------------------------------------------------------------------------------- episode ends


def autoreset_next_step(subject: Subject) -> None:
    """Mode NEXT_STEP: the step after an end ignores that lane's action and resets it: reward 0, both flags false.

    It returns the first observation of the new episode. (That is taken as broken if every episode starts with the last
    observation of the one before, though observations do change; `autoreset_start` and `lanes_are_singles` know more.)
    """
    _demand_mode(subject, AutoresetMode.NEXT_STEP)
    walk, twin = subject.walk(), subject.walk()
    others = other_players(walk)
    starts = []
    for _ in range(subject.steps):
        over = walk.over.copy()
        actions = twin.draw()
        for lane in np.flatnonzero(over).tolist():
            actions[lane] = others[lane].sample()
        before, after = walk.moments(walk.turns[-1]), walk.moments(walk.step())
        twin.step(twin.batch(actions))
        for lane in np.flatnonzero(over).tolist():
            for name, expected in (("reward", 0.0), ("terminated", False), ("truncated", False)):
                if getattr(after[lane], name) != expected:
                    what = f"{name} of the step after an end"
                    fail(what, expected, getattr(after[lane], name), lane, walk.number)
            starts.append(_Start(lane, walk.number, before[lane].observation, after[lane].observation))
    demand_same_stories("the action of the step after an end should not matter", walk, twin)
    _demand_new_observations(walk, starts)


def autoreset_same_step(subject: Subject) -> None:
    """Mode SAME_STEP: the step that ends an episode returns the next one's first observation.

    The last observation and info of the old one are in `infos["final_obs"]` (an array of objects) and
    `infos["final_info"]`; `_final_obs` and `_final_info` are set for these lanes only. Whoever bootstraps at a time
    limit needs them.
    """
    _demand_mode(subject, AutoresetMode.SAME_STEP)
    walk = subject.walk()
    starts = []
    for turn in walk.go(subject.steps):
        for key in ("final_obs", "final_info") if walk.over.any() else ():
            if key not in turn.infos:
                fail("infos", f"{key!r}, for an episode has ended", sorted(turn.infos), step=turn.number)
        for key in ("_final_obs", "_final_info"):
            known = turn.infos.get(key, np.zeros(len(walk.lanes), np.bool_))
            for lane in np.flatnonzero(known != walk.over).tolist():
                fail(f"infos[{key!r}]", walk.over[lane], known[lane], lane, turn.number)
        for lane in np.flatnonzero(walk.over).tolist():
            final = turn.infos["final_obs"][lane]
            if not walk.env.single_observation_space.contains(final):
                fail("final_obs", f"in {walk.env.single_observation_space}", final, lane, turn.number)
            starts.append(_Start(lane, turn.number, final, walk.split(turn.observation)[lane]))
    _demand_new_observations(walk, starts)


def autoreset_disabled(subject: Subject) -> None:
    """Mode DISABLED: a lane that has ended stays over until it is reset by `options["reset_mask"]`.

    A step before that raises, or leaves the lane's flags set; no `final_obs`, for nothing replaces the last one.
    """
    _demand_mode(subject, AutoresetMode.DISABLED)
    walk = subject.walk()
    while not walk.over.any() and walk.number < subject.steps:
        if "final_obs" in walk.step().infos:
            fail("infos", "no 'final_obs'", "one", step=walk.number)
    over = walk.over.copy()
    if not over.any():
        raise _no_ends(walk)
    try:
        turn = walk.step()
    except Exception:  # it refuses: good, but which exception is nobody's business
        turn = None
    for lane in np.flatnonzero(over & ~walk.over).tolist() if turn else ():
        fail("a step of a lane that is over", "an exception, or flags that stay set", "none", lane, walk.number)
    walk.reset(mask=np.ones_like(over))  # all, for a step that is refused may have been carried out in some lanes
    walk.step()


def autoreset_start(subject: Subject) -> None:
    """Mode NEXT_STEP: an autoreset starts what a reset of that lane by mask would have started in its place."""
    _demand_mode(subject, AutoresetMode.NEXT_STEP)
    walk = subject.walk().run(subject.steps)
    ends = [turn for turn in walk.turns[1:-1] if (turn.terminations | turn.truncations).any()]
    if not ends:
        raise _no_ends(walk)
    for end in (ends[0], ends[len(ends) // 2], ends[-1]):
        twin = subject.walk().run(end.number)
        expected = twin.moments(twin.reset(mask=twin.over))
        found = walk.moments(walk.turns[end.number + 1])
        for lane in np.flatnonzero(end.terminations | end.truncations).tolist():
            for name in ("observation", "info"):
                one, two = getattr(expected[lane], name), getattr(found[lane], name)
                demand_same(f"{name} of the autoreset, as a partial reset gives it", one, two, lane, end.number + 1)


def _demand_mode(subject: Subject, mode: AutoresetMode) -> None:
    found = Walk(subject.env(), 0).mode
    if found is not mode:
        raise NotApplicable(f"the autoreset mode is {found.name}")


def _no_ends(walk: Walk) -> NotApplicable:
    return NotApplicable(f"no episode ended within {walk.number} steps")


class _Start(NamedTuple):
    """Where an episode follows another: the last observation of the one, the first of the other."""

    lane: int
    number: int
    last: Any
    first: Any


def _demand_new_observations(walk: Walk, starts: list[_Start]) -> None:
    if not starts:
        raise _no_ends(walk)
    changes = any(difference(walk.turns[0].observation, turn.observation) for turn in walk.turns)
    if changes and all(difference(start.last, start.first) is None for start in starts):
        what = "observation after an end"
        fail(what, "the first one of the new episode", "the last one of the old", starts[0].lane, starts[0].number)


# --------------------------------------------------------------------------------------------------- partial resets


def reset_mask_kept(subject: Subject) -> None:
    """`reset` only reads `options`: neither the dict nor the mask in it changes.

    A wrapper above reads it after the environment has; if the mask is gone, it takes the reset for one of all lanes.
    """
    walk = subject.walk()
    mask = np.zeros(len(walk.lanes), np.bool_)
    mask[0] = True
    options = {"reset_mask": mask}
    walk.env.reset(options=options)
    if list(options) != ["reset_mask"] or options["reset_mask"] is not mask:
        fail("the caller's options after the reset", "{'reset_mask': ...}, as before", options)
    demand_same("the caller's reset_mask after the reset", [True] + [False] * (len(walk.lanes) - 1), mask.tolist())


def partial_reset(subject: Subject) -> None:
    """`options["reset_mask"]` resets these lanes; the others are observed again and go on as if nothing happened.

    With a seed, a lane that is reset is what it is in a fresh environment: step counters, pending autoresets and all.
    """
    walk = subject.walk().run(subject.steps)
    if len(walk.lanes) < 2:
        raise NotApplicable("there is only one lane")
    even = np.arange(len(walk.lanes)) % 2 == 0
    _partial_reset(subject, subject.steps // 4, even)
    if walk.mode is not AutoresetMode.DISABLED:
        for turn in walk.turns[1:]:
            over = turn.terminations | turn.truncations
            if over.any() and not over.all():
                _partial_reset(subject, turn.number, over)
                _partial_reset(subject, turn.number, ~over)
                break


def _partial_reset(subject: Subject, steps: int, chosen: Bools) -> None:
    """Play, reset the chosen lanes, play on; beside an environment without the reset, and one that begins with it."""
    seed = subject.seed + 1000
    walk, twin, fresh = subject.walk().run(steps), subject.walk().run(steps), subject.walk(seed)
    before = walk.split(walk.turns[-1].observation)
    masks, since = list(walk.masks), len(walk.turns)
    again = walk.split(walk.reset(seed=seed, mask=chosen).observation)
    for lane in np.flatnonzero(~chosen).tolist():
        demand_same("observation of a lane that was not reset", before[lane], again[lane], lane, steps)
        demand_same("action_mask of a lane that was not reset", masks[lane], walk.masks[lane], lane, steps)
    for lane in np.flatnonzero(chosen).tolist():
        walk.players[lane] = player(walk.env.single_action_space, seed + lane)
    for one in (walk, twin, fresh):
        one.run(subject.steps - steps)
    found, untouched, new = walk.stories(since), twin.stories(since), fresh.stories()
    for lane in walk.lanes:
        if chosen[lane]:
            demand_same_story("a lane that was reset is as in a fresh environment", new[lane], found[lane], lane)
        else:
            demand_same_story("a lane that was not reset goes on", untouched[lane], found[lane], lane)


def wrong_reset_mask(subject: Subject) -> None:
    """A mask of another shape or dtype, or one that names no lane, raises and changes nothing."""
    walk, twin = subject.walk().run(subject.steps // 4), subject.walk().run(subject.steps // 4)
    lanes = len(walk.lanes)
    for wrong in (np.ones(lanes + 1, np.bool_), np.ones(lanes, np.int64), np.zeros(lanes, np.bool_)):
        try:
            walk.env.reset(options={"reset_mask": wrong})
        except Exception:
            continue
        what = "that names no lane" if not wrong.any() else f"{wrong.dtype} {wrong.shape}"
        fail(f"reset with a mask {what}", "an exception", "none", step=walk.number)
    walk.run(subject.steps // 4)
    demand_same_stories("after a refused reset", twin.run(subject.steps // 4), walk)
