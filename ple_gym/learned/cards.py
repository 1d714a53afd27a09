"""Cards: what a learned policy's file says about where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ple_gym.errors import ScenarioError
from ple_gym.messages import show
from ple_gym.scenario.parameters import MAX_SEED, Kind, check, number, text, whole

MAX_TEXT = 2**16
"""Characters of a card's texts, which may have a scenario's distributions in them."""
MAX_ITEMS = 1000
"""Of a card's lists and tables."""


def list_of(kind: Kind, least: int, most: int) -> Kind:
    """Accept a list of values of one kind."""
    count = f"{least}" if least == most else f"at most {most}"

    def check_list(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            raise ValueError(f"must be a list of {count}")
        return [check(f"item {place}", kind, item) for place, item in enumerate(value)]

    return Kind(f"a list of {count}, each {kind.allowed}", check_list)


def table_of(kind: Kind) -> Kind:
    """Accept a table whose names are text, and whose values are of one kind."""

    def check_table(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > MAX_ITEMS:
            raise ValueError(f"must be a table of at most {MAX_ITEMS}")
        return {check("a name", TEXT, name): check(str(name), kind, item) for name, item in value.items()}

    return Kind("a table", check_table)


def record(fields: Mapping[str, Kind]) -> Kind:
    """Accept a table of some of these fields."""

    def check_record(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError("must be a table")
        for name in value:
            if name not in fields:
                raise ValueError(f"must not have a field {show(name)}; there are {', '.join(fields)}")
        return {name: check(name, fields[name], item) for name, item in value.items()}

    return Kind("a table", check_record)


def any_of(*kinds: Kind) -> Kind:
    """Accept what one of some kinds does."""
    allowed = " or ".join(kind.allowed for kind in kinds)

    def check_any(value: Any) -> Any:
        for kind in kinds:
            try:
                return kind.check(value)
            except ValueError:
                continue
        raise ValueError(f"must be {allowed}")

    return Kind(allowed, check_any)


def _check_nothing(value: Any) -> None:
    if value is not None:
        raise ValueError("must be nothing")


def _check_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


TEXT = text(MAX_TEXT)
NOTHING = Kind("nothing", _check_nothing)
_COUNT = whole(0, MAX_SEED)
_SECONDS = number(0, 1e12)
_RANGE = list_of(_COUNT, 2, 2)
_TEXTS = list_of(TEXT, 0, MAX_ITEMS)
_OPTION = any_of(Kind("true or false", _check_flag), number(-1e18, 1e18), TEXT, NOTHING, _TEXTS)

#: The fields of a card; each may be missing.
CARD: Mapping[str, Kind] = {
    "learner": TEXT,
    "scenario": TEXT,
    "overrides": _TEXTS,
    "information": TEXT,
    "seed": _COUNT,
    "train_worlds": _RANGE,  # the first lane's first world, and that after the last lane's
    "steps": _COUNT,  # decisions before these weights
    "simulated_s": _SECONDS,
    "wall_s": _SECONDS,
    "validation": record({"seeds": _RANGE, "above_ideal_percent": any_of(number(-100, 1e12), NOTHING)}),
    "options": table_of(_OPTION),  # what the training was asked for
    "versions": table_of(TEXT),
    "command": TEXT,
}


def check_card(card: object, error: type[Exception] = ScenarioError) -> None:
    """Raise an error unless a card is a table of `CARD`'s fields, each of its kind and range."""
    try:
        record(CARD).check(card)
    except ValueError as wrong:
        raise error(f"card: {wrong}") from None
