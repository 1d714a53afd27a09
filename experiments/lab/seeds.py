"""Which seeds are used for what. The ranges never overlap, so that nothing is fitted to what is then reported."""

from __future__ import annotations

CALIBRATION = range(1_000_000, 1_500_000)  # the fit sees these
VALIDATION = range(1_500_000, 2_000_000)  # its report is made on these
FIGURE2 = range(2_000_000, 2_010_000)
ANSWER = range(2_100_000, 2_200_000)  # policies, rate limit, overcommit, when it hurts
FIGURES = range(2_200_000, 2_300_000)  # figures 1 and 3 to 6
PAUSE_LOOP = range(2_300_000, 2_400_000)  # gap and window, locks, rival explanations
LEADERBOARD = range(2_400_000, 2_500_000)  # of `agents.common.TEST`: no learner trains or validates there
COVERAGE = range(2_500_000, 2_600_000)  # populations of runs, from which intervals are drawn
HOSTS = range(2_600_000, 2_700_000)  # field cases, and rules on other hosts
REMEDIES = range(2_700_000, 2_800_000)  # remedies of guest and host
SUITE = range(2_800_000, 2_900_000)  # every rule on every suite
FLEET = range(2_900_000, 3_000_000)  # rules in the fleet's worlds
HEADROOM = range(3_000_000, 3_100_000)  # where deciding is hard
LEARNABLE = range(3_100_000, 3_200_000)  # where a policy was searched
CORE = range(3_200_000, 3_300_000)  # where something can be learned

RANGES = {
    "calibration": CALIBRATION,
    "validation": VALIDATION,
    "figure 2": FIGURE2,
    "answer": ANSWER,
    "figures": FIGURES,
    "pause loop": PAUSE_LOOP,
    "leaderboard": LEADERBOARD,
    "coverage": COVERAGE,
    "hosts": HOSTS,
    "remedies": REMEDIES,
    "suite": SUITE,
    "fleet": FLEET,
    "headroom": HEADROOM,
    "learnable": LEARNABLE,
    "core": CORE,
}
