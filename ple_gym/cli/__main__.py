"""`python -m ple_gym.cli` is `ple-gym`."""

from ple_gym.cli import run

run()
