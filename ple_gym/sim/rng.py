"""Counter-based randomness (docs/model.md, section 3.1): a draw is a hash of its use, never of what came before."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined

STREAM_HOST = np.uint64(1)
STREAM_NOISE = np.uint64(2)
STREAM_POLICY = np.uint64(3)
STREAM_WORK = np.uint64(16)  # + VM

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32, _ONE = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32), np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_DERIVED = np.uint64(1) << np.uint64(62)  # no seed that a person writes down is that large


@inlined
def mix(z):
    """SplitMix64's finaliser: uint64 -> uint64."""
    z = (z ^ (z >> _30)) * _MIX1
    z = (z ^ (z >> _27)) * _MIX2
    return z ^ (z >> _31)


@inlined
def world_key(seed, index):
    """Key of the world that (seed, index) names; all three uint64."""
    return mix(mix(seed) + GOLDEN * (index + _ONE))


@inlined
def next_seed(seed):
    """Seed of the world that follows world `seed` in an environment: 2^62..2^63-1; both uint64."""
    return (mix(seed + GOLDEN) >> np.uint64(2)) | _DERIVED


@inlined
def stream_key(world, stream):
    """Key of one stream of draws of a world; all uint64."""
    return mix(world + GOLDEN * (stream + _ONE))


@inlined
def draw(key, counter):
    """The 64 random bits number `counter` (int64) of a stream."""
    return mix(key + GOLDEN * (np.uint64(counter) + _ONE))


@inlined
def high(bits):
    """Upper 32 bits of a draw, as int64."""
    return np.int64(bits >> _32)


@inlined
def low(bits):
    """Lower 32 bits of a draw, as int64."""
    return np.int64(bits & _LOW)


@inlined
def share(x, whole):
    """The share x / 2^32 of `whole`, rounded down; x of 32 bits, whole below 2^46, both int64.

    Their product may have more than 63 bits, so it is made in two parts; the result is exact.
    """
    return (x * (whole >> 16) + ((x * (whole & 0xFFFF)) >> 16)) >> 16
