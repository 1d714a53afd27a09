"""Turns rows of the table of features into compiled loops.

A writer names the words that it needs as its parameters (`lambda state, waited: ...`), as a fixture is asked for in a
test. Here a loop is made around it that hands over just these: the source text of such a function, which is then
compiled like any other. A word that is not told at a row's level is an error when the module is imported.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ple_gym.sim.jit import inlined, pasted
from ple_gym.view.codes import lows, steps
from ple_gym.view.rows import Feature
from ple_gym.view.scales import FLOAT32, INT32, byte, coded, halved

IN_A_LOOP = 4  # features that one loop writes (observation.py says why)

Words = Mapping[str, str]  # what a writer may ask for -> how it is written in the function that is made

#: How a number is written in an observation of each type (`codes.py`); `low` and `step` are the feature's.
FORMS = {"float32": "{value}", "float16": "halved({value})", "uint8": "coded({value}, low_{place}, step_{place})"}


def columns(features: Sequence[Feature], words: Words, dtype: str, room: int = 0) -> Any:
    """write(flat, vcpus, first, rows, here): columns of all vCPUs, from number `first` on, four in each loop.

    What belongs to the host's scheduler has been kept already, in `rows.own`. room: vCPUs that a column has room for;
    0: as many as there are.
    """
    own = [feature for feature in features if feature.scheduler]
    lines = []
    for place, feature in enumerate(features):
        if place % IN_A_LOOP == 0:
            lines.append("for i in range(vcpus):")
        value = (
            f"rows.own[0, {own.index(feature)} * {room or 'vcpus'} + i]"
            if feature in own
            else _call(feature, place, words)
        )
        value = FORMS[dtype].format(value=value, place=place)
        lines.append(f"    flat[0, (first + {place}) * {room or 'vcpus'} + i] = {value}")
    return pasted(_function("write(flat, vcpus, first, rows, here)", lines, features))


def kept(features: Sequence[Feature], words: Words, look: Callable[..., Any], room: int = 0) -> Any:
    """keep(kept, vcpus, i, see, here): features of the host's scheduler of vCPU i, of which it knows `look(...)`."""
    lines = [
        f"kept[0, {place} * {room or 'vcpus'} + i] = {_call(feature, place, words)}"
        for place, feature in enumerate(features)
    ]
    if lines:
        lines = ["own, host_par = look(see, i, here), see.host_par[0]", *lines]
    return inlined(_function("keep(kept, vcpus, i, see, here)", lines, features, {"look": inlined(look)}))


def numbers(features: Sequence[Feature], words: Words, dtype: str) -> Any:
    """write(flat, at, here, count, asking, see): features of the host, from number `at` on."""
    lines = [
        f"flat[0, at + {place}] = {FORMS[dtype].format(value=_call(feature, place, words), place=place)}"
        for place, feature in enumerate(features)
    ]
    return inlined(_function("write(flat, at, here, count, asking, see)", lines, features))


def _call(feature: Feature, place: int, words: Words) -> str:
    asked = list(inspect.signature(feature.writer).parameters)
    if unknown := [word for word in asked if word not in words]:
        raise ValueError(f"feature {feature.name!r} asks for {unknown[0]!r}: its level has {', '.join(words)}")
    return f"FLOAT32(writer_{place}({', '.join(words[word] for word in asked)}))"


def _function(
    head: str, lines: Sequence[str], features: Sequence[Feature], more: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """The function of that head and body; `writer_0` .. are those of the features."""
    text = "\n    ".join([f"def {head}:", *(lines or ["pass"])]) + "\n"
    scope: dict[str, Any] = {f"writer_{place}": inlined(feature.writer) for place, feature in enumerate(features)}
    scope |= {f"low_{place}": low for place, low in enumerate(lows(features))}
    scope |= {f"step_{place}": step for place, step in enumerate(steps(features))}
    scope |= {"np": np, "FLOAT32": FLOAT32, "INT32": INT32, "byte": byte, "coded": coded, "halved": halved} | more
    file = f"<features {', '.join(feature.name for feature in features)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # for tracebacks
    exec(compile(text, file, "exec"), scope)
    return scope[head.partition("(")[0]]
