"""The sight as a C header, for rules in C: `ple-gym header > ple_gym.h`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ple_gym.rules.documented import MEANINGS
from ple_gym.rules.sight import FACTS, PRIVATE, TABLES, visible_fields
from ple_gym.sim import state
from ple_gym.sim.host.credit import VCPU as CREDIT_VCPU

_TYPES = {"i1": "int8_t", "u1": "uint8_t", "u2": "uint16_t", "i4": "int32_t", "u4": "int32_t", "i8": "int64_t"}
_CODES = {
    "vCPU states": ("RUNNING", "QUEUED", "BLOCKED", "DONE"),
    "why a vCPU left its pCPU": ("NEVER_RAN", "PREEMPTED", "PLE_YIELD", "WENT_TO_SLEEP"),
    "what the last hint at a vCPU did": ("NEVER_HINTED", "HINT_FAILED", "HINT_PENDING", "HINT_IGNORED", "HINT_WON"),
    "what is on a pCPU": ("IDLE", "GUEST", "NOISE", "POLLING"),
    "actuators": ("PULL", "LOCAL", "HINT", "YIELD_ONLY"),
}
_POINTERS = {"queue": "uint16_t", "parameters": "void", "memory": "int64_t", "host": "void"}


def c_header() -> str:
    """Declarations of all that a rule in C is given."""
    parts = [_HEAD]
    for what, names in _CODES.items():
        codes = ", ".join(f"PLE_{name.removeprefix('PLE_')} = {int(getattr(state, name))}" for name in names)
        parts.append(f"/* {what} */\nenum {{ {codes} }};\n")
    for name, dtype in {**TABLES, "credit_vcpu": CREDIT_VCPU}.items():
        parts.append(_struct(name, dtype))
    return "\n".join([*parts, _sight(), "#endif\n"])


def _struct(name: str, dtype: np.dtype[Any]) -> str:
    """A record; what is between its visible fields is padding."""
    lines, at = [], 0
    places: Any = dtype.fields
    fields = sorted((places[field][1], field) for field in visible_fields(dtype))
    for number, (offset, field) in enumerate([*fields, (dtype.itemsize, "")]):
        if offset > at:
            lines.append(f"    uint8_t reserved{number}[{offset - at}];")
        if field:
            kind = dtype[field]
            comment = f"  /* {MEANINGS[name][field]} */" if name in MEANINGS else ""
            lines.append(f"    {_TYPES[kind.str[1:]]} {field};{comment}")
            at = offset + kind.itemsize
    return "\n".join([f"struct ple_{name} {{", *lines, "};\n"])


def _sight() -> str:
    lines = []
    for fact in FACTS:
        if fact.name in PRIVATE:
            lines.append(f"    int64_t reserved_{fact.name};")
        elif fact.points_to:
            kind = f"struct ple_{fact.points_to}" if fact.points_to in TABLES else _POINTERS[fact.points_to]
            constant = "" if fact.points_to == "memory" else "const "
            lines.append(f"    {constant}{kind} *{fact.name};  /* {fact.meaning} */")
        else:
            kind = "uint64_t" if fact.name == "random_key" else "int64_t"
            lines.append(f"    {kind} {fact.name};  /* {fact.meaning} */")
    return "\n".join(["struct ple_sight {", *lines, "};\n"])


_HEAD = """\
/* What a rule in C sees at a pause-loop exit. A rule is
 *
 *     int64_t name(const struct ple_sight *see)
 *
 * and answers with a vCPU to run (see->asker: resume), or with see->defer. Times are in cycles; no vCPU and no pCPU
 * are -1. What it must remember it declares: const int64_t name_vm_words = 1, name_vcpu_words = 2; and finds, at first
 * zero, in see->vm_memory[m * words + i] and see->vcpu_memory[v * words + i]. Nothing checks what it does with memory.
 *
 * Made by ple-gym header. To compile: gcc -O2 -shared -fPIC -o mine.so mine.c
 */
#ifndef PLE_GYM_H
#define PLE_GYM_H

#include <stdint.h>
"""
