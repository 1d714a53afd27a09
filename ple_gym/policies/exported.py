"""Learned policies as files: plain arrays (`.npz`, no pickles), which `agents export` writes and the kernel runs.

A file holds one JSON text, `card`, and the float32 weights of one of three kinds of network, named and shaped as in
`SHAPES`. F is the number of features of a vCPU at the card's information level, R that with its ranks, G of the host,
V of vCPUs, H of hidden units, S = 3 H + G. What the numbers mean is in `network.py`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym import observe
from ple_gym.files import write_whole
from ple_gym.parameters import ScenarioError, unknown
from ple_gym.policies import network

PREFIX = "learned:"
FOLDER = Path(__file__).parent / "learned"
FORMAT = 1
MAX_BYTES = 2**20
MAX_HIDDEN = 1024
MAX_TEMPERATURE = 1000

HEAD = ("kind", "information", "vcpus", "hidden", "temperature")  # of a `Network`, in the file's card
KINDS = {"linear": network.LINEAR, "mlp": network.MLP, "set": network.SET}
LEVELS = {"hypervisor": 1, "introspection": 2, "oracle": 3}  # codes in `sim/state.py`
#: Weights by kind, in the order in which the kernel reads them.
SHAPES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "linear": {"vcpu": ("1", "R"), "vcpu_bias": ("1", "1"), "defer": ("G", "1"), "defer_bias": ("1", "1")},
    "mlp": {
        "layer1": ("L", "H"), "bias1": ("1", "H"), "layer2": ("H", "H"), "bias2": ("1", "H"),
        "action": ("H", "A"), "action_bias": ("1", "A"),
    },
    "set": {
        "vcpu1": ("H", "R"), "host1": ("G", "H"), "bias1": ("1", "H"),
        "vcpu2": ("H", "H"), "context2": ("S", "H"), "bias2": ("1", "H"),
        "vcpu3": ("1", "H"), "bias3": ("1", "1"),
        "defer1": ("S", "H"), "defer_bias1": ("1", "H"), "defer2": ("H", "1"), "defer_bias2": ("1", "1"),
    },
}  # fmt: skip


class PolicyError(ScenarioError):
    """A file is no learned policy, is damaged, or does not fit the scenario. The message is one line."""


@dataclass(frozen=True, eq=False)
class Network:
    """A learned policy.

    Attributes:
        kind: `linear`, `mlp` or `set`.
        information: level of the observations it reads.
        vcpus: number of vCPUs it is for; 0: any.
        hidden: hidden units.
        weights: name -> float32 [rows, columns], as in `SHAPES`.
        card: where it comes from: scenario, seeds, steps, scores, versions, command, ...
        temperature: 0: the action with the highest score; else a draw from the softmax of scores / temperature, as a
            policy that was trained to draw needs it: the best action of a near-tie, taken always, may let all spin.

    Raises:
        PolicyError: a number out of its range; weights that are missing, unknown, of another shape, or not finite.
    """

    kind: str
    information: str
    vcpus: int
    hidden: int
    weights: Mapping[str, npt.NDArray[np.float32]]
    card: Mapping[str, Any]
    temperature: float = 0.0

    def __post_init__(self) -> None:
        for what, value, allowed in (("kind", self.kind, KINDS), ("information level", self.information, LEVELS)):
            if value not in allowed:
                raise PolicyError(f"{what} = {value!r}: must be one of {', '.join(allowed)}")
        for what, number, least, most in (
            ("vcpus", self.vcpus, int(self.kind == "mlp"), 1024),
            ("hidden", self.hidden, 0, MAX_HIDDEN),
        ):
            if not isinstance(number, int) or not least <= number <= most:
                raise PolicyError(f"{what} = {number!r}: must be {least}..{most}")
        check_temperature(self.temperature)
        check_weights(self.weights, shapes_of(self.kind, self.information, self.vcpus, self.hidden))

    @property
    def code(self) -> int:
        """Number of its kind in the kernel."""
        return KINDS[self.kind]

    def flat(self) -> npt.NDArray[np.float32]:
        """All weights, one after the other."""
        return np.concatenate([self.weights[name].ravel() for name in SHAPES[self.kind]])

    def room(self, vcpus: int) -> int:
        """Numbers that the kernel needs behind an observation of so many vCPUs: scores, then what they come from."""
        hidden = self.hidden
        scratch = {
            "linear": 1 + network.RANKS * vcpus,
            "mlp": 2 * hidden,
            "set": (2 * hidden + network.RANKS) * vcpus + 4 * hidden + observe.HOST_LENGTH + 1,
        }
        return vcpus + 1 + scratch[self.kind]

    def check_fits(self, vcpus: int) -> None:
        """Raise PolicyError unless it is for so many vCPUs."""
        if self.vcpus not in (0, vcpus):
            raise PolicyError(f"the learned policy is for {self.vcpus} vCPUs, the scenario has {vcpus}")


def shapes_of(kind: str, information: str, vcpus: int, hidden: int) -> dict[str, tuple[int, int]]:
    """Shape of each array of such a network."""
    features = observe.vcpu_features(LEVELS[information])
    sizes = {"1": 1, "F": features, "R": features + network.RANKS, "G": observe.HOST_LENGTH, "H": hidden}
    sizes |= {"S": 3 * hidden + observe.HOST_LENGTH, "L": vcpus * features + observe.HOST_LENGTH, "A": vcpus + 1}
    return {name: (sizes[rows], sizes[columns]) for name, (rows, columns) in SHAPES[kind].items()}


def check_weights(weights: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise PolicyError unless these are float32 arrays of these shapes, all finite."""
    if weights.keys() != shapes.keys():
        raise PolicyError(f"weights {sorted(weights)}: must be {sorted(shapes)}")
    for name, shape in shapes.items():
        array = weights[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise PolicyError(f"weights {name}: must be float32 {shape}, not {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise PolicyError(f"weights {name}: must be finite")


def check_temperature(temperature: object) -> None:
    """Raise PolicyError unless it is a number 0..`MAX_TEMPERATURE`."""
    if not isinstance(temperature, int | float) or not 0 <= temperature <= MAX_TEMPERATURE:
        raise PolicyError(f"temperature = {temperature!r}: must be 0..{MAX_TEMPERATURE}")


def write_network(path: Path, policy: Any) -> None:
    """Write a file, whole or not at all: one that `read_network` reads if the policy is a `Network`.

    policy: whatever has the attributes `HEAD`, `card` and `weights`.
    """
    head = {"format": FORMAT, **{name: getattr(policy, name) for name in HEAD}}
    card = json.dumps({**head, "card": dict(policy.card)}, allow_nan=False)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"card": np.frombuffer(card.encode(), np.uint8), **policy.weights}
    np.savez(buffer, **arrays)
    write_whole(path, buffer.getvalue())


def read_network(path: Path) -> Network:
    """Read a learned policy from a file. Nothing in it is executed.

    Raises:
        PolicyError: not such a file, or a damaged one.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{path.name}: {len(data)} bytes are more than a learned policy may have, {MAX_BYTES}")
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):  # of which NumPy says how to unpickle it
            raise ValueError("no .npz archive")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        head = json.loads(content.pop("card").tobytes())
        if head["format"] != FORMAT:
            raise PolicyError(f"format {head['format']!r}: must be {FORMAT}")
        return Network(**{name: head[name] for name in HEAD}, weights=content, card=head["card"])
    except PolicyError as error:
        raise PolicyError(f"{path.name}: {error}") from None
    except (KeyError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise PolicyError(f"{path.name}: not a learned policy, or damaged ({error})") from None


def learned_names() -> list[str]:
    """The learned policies that are shipped, as they are named to `--policies`."""
    return [PREFIX + path.stem for path in sorted(FOLDER.glob("*.npz"))]


def load_network(name: str) -> Network:
    """A learned policy by name: `learned:NAME` of those that are shipped, or `learned:` and the path of a `.npz` file.

    Raises:
        PolicyError: a file that cannot be read, or is no learned policy.
        ScenarioError: no such policy.
    """
    path = Path(name.removeprefix(PREFIX))
    if path.suffix != ".npz":
        if name not in learned_names():
            raise unknown("learned policy", name, learned_names() or ["learned:FILE.npz"], list_all=True)
        path = FOLDER / f"{path}.npz"
    try:
        return read_network(path)
    except OSError as error:
        raise PolicyError(f"{name}: {error.strerror}") from None
