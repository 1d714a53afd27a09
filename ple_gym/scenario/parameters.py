"""What a parameter accepts: the kinds of values a scenario is made of, and the error they raise.

A parameter is a dataclass field annotated `Annotated[type, kind, "one line of help"]`. Checking, reading of typed text,
error messages and documentation all come from that annotation.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from numbers import Integral, Real
from typing import Any, get_type_hints

from ple_gym.errors import ArgumentError, PleError, ScenarioError
from ple_gym.messages import plain, show
from ple_gym.scenario import affinity, distributions, program

MAX_SEED = 2**63 - 1
MAX_TEXT = 1000
"""Characters of a name or a description."""
MAX_LISTED = 470
"""Characters of the names that an error for an unknown one lists."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value."""

    allowed: str
    """Completes the sentence "must be ..."."""
    check: Callable[[Any], Any]
    """Returns the value in its plain form, or raises ValueError with "must ..."."""
    parse: Callable[[str], Any] = str
    """Returns what a text typed in a shell stands for, or raises ValueError."""

    def read(self, value: Any) -> Any:
        """Return what a value stands for: of a text its meaning; itself if it has none or is no text."""
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError:
            return value


def whole(low: int, high: int, zero: str = "") -> Kind:
    """Accept a whole number low..high, and 0 if `zero` says what that means."""
    allowed = f"0 ({zero}) or {low}..{high}" if zero else f"{low}..{high}"

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"must be a whole number, {allowed}")
        number = int(value)
        if not (low <= number <= high or (zero and number == 0)):
            raise ValueError(f"must be {allowed}")
        return number

    return Kind(allowed, check, int)


def number(low: float, high: float, above_low: bool = False) -> Kind:
    """Accept a number from `low` (or only from above it) to `high`."""
    allowed = f"above {low:g} and at most {high:g}" if above_low else f"{low:g}..{high:g}"

    def check(value: Any) -> float:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number:
            raise ValueError(f"must be a number, {allowed}")
        # The range first: it refuses NaN, and whole numbers too long for a float.
        if not low <= value <= high or (above_low and value == low):
            raise ValueError(f"must be {allowed}")
        return float(value)

    return Kind(allowed, check, float)


def choice(*words: str) -> Kind:
    """Accept one of some words."""
    return one_of(words)


def one_of(words: Collection[str]) -> Kind:
    """Accept one of some words, which may become more later."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be {_either(words)}")
        return str(value)

    return Kind(_either(words), check)


def version(*words: str) -> Kind:
    """Accept a version, written as text or as a number (4.5)."""
    kind = one_of(words)

    def check(value: Any) -> str:
        return str(kind.check(str(value) if isinstance(value, int | float) else value))

    return Kind(kind.allowed, check)


def flag_or(word: str) -> Kind:
    """Accept true, false, or a word that stands for one of them."""

    def check(value: Any) -> bool | str:
        if isinstance(value, bool) or value == word:
            return bool(value) if isinstance(value, bool) else word
        raise ValueError(f"must be {word}, true or false")

    return Kind(f"{word}, true or false", check, _parse_flag)


def _either(words: Collection[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def text(most: int) -> Kind:
    """Accept one line of text of at most so many characters."""

    def check(value: Any) -> str:
        if isinstance(value, str) and len(value) > most:
            raise ValueError(f"must be at most {most} characters, not {len(value)}")
        # Control characters would break one-line messages, lone surrogates the writing of files.
        if not isinstance(value, str) or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
            raise ValueError("must be one line of text")
        return str(value)

    return Kind("one line of text", check)


def _check_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _parse_flag(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text.lower(), text)


def _check_distribution(value: Any) -> str:
    return str(distributions.parse(value if isinstance(value, str) else ""))


FLAG = Kind("true or false", _check_flag, _parse_flag)
#: Kept as its canonical text, so that equal distributions are equal values.
DISTRIBUTION = Kind(distributions.GRAMMAR, _check_distribution)
TEXT = text(MAX_TEXT)
AFFINITY = Kind(affinity.ALLOWED, affinity.checked)
PROGRAM = Kind(program.ALLOWED, program.checked)


def parameters_of(group: type) -> Mapping[str, tuple[Kind, str]]:
    """Return kind and help of each parameter of a dataclass, in order."""
    key: Any = group  # mypy takes a class for unhashable if its instances may be
    return _parameters_of(key)


@lru_cache
def _parameters_of(group: type) -> Mapping[str, tuple[Kind, str]]:
    hints = get_type_hints(group, include_extras=True)
    return {name: hint.__metadata__ for name, hint in hints.items() if hasattr(hint, "__metadata__")}


class Group:
    """Base of frozen dataclasses of parameters, which are checked when an instance is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_fields(self, f"{type(self).__name__.lower()}.")


def check_fields(instance: object, prefix: str) -> None:
    """Put every parameter of a frozen dataclass into its plain form.

    Raises:
        ScenarioError: a value is not allowed; the message calls it by `prefix` and its name.
    """
    for name, (kind, _) in parameters_of(type(instance)).items():
        object.__setattr__(instance, name, check(f"{prefix}{name}", kind, getattr(instance, name)))


def check(name: str, kind: Kind, value: object, error: type[Exception] = ScenarioError) -> Any:
    """Return a value in its plain form.

    Raises:
        ScenarioError: the value is not allowed; the message calls it `name`. Or another `error`.
    """
    try:
        return kind.check(value)
    except ValueError as wrong:
        raise error(f"{plain(name)} = {show(value)}: {wrong}") from None


def checked_seed(seed: object) -> int:
    """The seed of a world.

    Raises:
        ArgumentError: not a whole number 0..2^63-1.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= MAX_SEED:
        raise ArgumentError(f"seed = {show(seed)}: must be a whole number, 0..{MAX_SEED}")
    return int(seed)


def unknown(
    what: str, name: object, known: Iterable[str], list_all: bool = False, error: type[PleError] = ScenarioError
) -> PleError:
    """Return the error for a name that does not exist: it suggests the nearest one, lists those there are, or both."""
    known = list(known)
    # A bare last part (`pcpus`) is a better hint than the distance between words; of a group, all it holds.
    inside = [one for one in known if one.startswith(f"{name}.")]
    near = [one for one in known if one.rpartition(".")[2] == name]
    if not near and len(str(name)) <= 2 * max(map(len, known), default=0):  # of a longer one nothing is near
        near = difflib.get_close_matches(str(name), known, n=1)
    hints = []
    if near and not inside:
        hints.append(f"did you mean {near[0]!r}?")
    if list_all or not hints:
        hints.append(f"known: {_listed(inside or known)}")
    return error(f"unknown {what} {show(name)}; {' '.join(hints)}")


def _listed(names: Sequence[str]) -> str:
    """Names in a line; of many the first."""
    lengths = accumulate(len(name) + 2 for name in names)
    shown = max(1, sum(length <= MAX_LISTED for length in lengths))
    return ", ".join([*names[:shown], *([f"... ({len(names)} in all)"] if shown < len(names) else [])])
