"""Learned policies as files: plain arrays (`.npz`, no pickles), which `agents export` writes and the kernel runs.

A file holds one JSON text, `card`, and the weights of one of three kinds of network, named and shaped as in `SHAPES`:
float32, or float16, which is read as float32. R is the number of features of a vCPU that the file names, ranks
included, G of the host, V of vCPUs, H of hidden units, S = 3 H + G, L the length of a flat observation of these
features. What the numbers mean is in `network.py`; that a file means the same whatever the kernel's order of features
is, in `inputs.py`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.errors import PolicyError
from ple_gym.files import parse_json, parse_table, read_packed, reading, unpack, write_whole
from ple_gym.learned import network
from ple_gym.learned.cards import check_card
from ple_gym.learned.inputs import Inputs, rearranged
from ple_gym.messages import show
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import FLAG, check, choice, number, unknown, whole
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.view import credit
from ple_gym.view.features import table_of

PREFIX = "learned:"
FOLDER = Path(__file__).parent / "shipped"
FORMAT = 2
CONVERT = "python -m agents convert"  # what makes files of this format of those of format 1
MAX_BYTES = 2**24  # of the file, and of what is in it
MAX_CARD_BYTES = 2**20
MAX_ARRAYS = 32
MAX_VCPUS = 1024
MAX_HIDDEN = 1024
MAX_TEMPERATURE = 1000
WHAT = "a learned policy"

#: What the head of a file tells of a `Network`.
HEAD = ("kind", "information", "vcpus", "hidden", "temperature", "scheduler", "interrupts")
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
        scheduler: of the hosts it is for: what it reads, some of which only that scheduler has. A file that names none
            is from the time when there was no other than `credit`.
        interrupts: whether it reads features of interrupts, which only hosts that see them show.

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
    scheduler: str = credit.NAME
    interrupts: bool = False

    def __post_init__(self) -> None:
        check_head(self, KINDS, least_vcpus=int(self.kind == "mlp"), least_hidden=0)
        check_weights(self.weights, shapes_of(self.kind, self.vcpus, self.hidden, self.inputs))

    @property
    def inputs(self) -> Inputs:
        """Names of what it reads, in the order of its weights: all that is shown at its level."""
        return inputs_of(self.kind, self.information, self.scheduler, self.interrupts)

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
            "set": (2 * hidden + network.RANKS) * vcpus + 4 * hidden + len(self.inputs.host) + 1,
        }
        return vcpus + 1 + scratch[self.kind]

    def check_fits(self, scenario: Scenario) -> None:
        """Raise PolicyError unless it is for a scenario's number of vCPUs and its host's scheduler."""
        check_fits(self, scenario)


def for_hosts_like(scenario: Scenario) -> dict[str, Any]:
    """The attributes of a policy that say for which hosts it is, if it was made on this scenario."""
    return {"scheduler": scenario.host.scheduler, "interrupts": scenario.sees_interrupts}


def check_fits(policy: Any, scenario: Scenario) -> None:
    """Raise PolicyError unless a policy is for a scenario's number of vCPUs and its host's scheduler."""
    if policy.vcpus not in (0, scenario.vcpus):
        raise PolicyError(f"the learned policy is for {policy.vcpus} vCPUs, the scenario has {scenario.vcpus}")
    if policy.scheduler != scenario.host.scheduler:
        raise PolicyError(
            f"the learned policy is for host.scheduler = {policy.scheduler}, the scenario's is "
            f"{scenario.host.scheduler}: it reads what that host does not have"
        )
    if policy.interrupts and not scenario.sees_interrupts:
        raise PolicyError("the learned policy reads interrupts, and the scenario's host sees none (host.ipi_visible)")


def check_head(policy: Any, kinds: Iterable[str], least_vcpus: int, least_hidden: int) -> None:
    """Raise PolicyError unless the attributes `HEAD` and `card` of a policy are of their kinds and ranges."""
    check("kind", choice(*kinds), policy.kind, PolicyError)
    check("information level", choice(*LEVELS), policy.information, PolicyError)
    check("vcpus", whole(least_vcpus, MAX_VCPUS), policy.vcpus, PolicyError)
    check("hidden", whole(least_hidden, MAX_HIDDEN), policy.hidden, PolicyError)
    check("scheduler", choice(*SCHEDULERS), policy.scheduler, PolicyError)
    check("interrupts", FLAG, policy.interrupts, PolicyError)
    check_temperature(policy.temperature)
    check_card(policy.card, PolicyError)


def inputs_of(kind: str, information: str, scheduler: str = credit.NAME, interrupts: bool = False) -> Inputs:
    """Names of what such a network reads, in the kernel's order."""
    return Inputs.shown(table_of(scheduler, interrupts), LEVELS[information], ranks=kind != "mlp")


def shapes_of(kind: str, vcpus: int, hidden: int, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Shape of each array of such a network that reads these inputs."""
    sizes = {"1": 1, "H": hidden, "A": vcpus + 1} | inputs.sizes(hidden, vcpus)
    return {name: tuple(sizes[letter] for letter in letters) for name, letters in SHAPES[kind].items()}


def check_weights(weights: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise PolicyError unless these are float32 arrays of these shapes, all finite."""
    if weights.keys() != shapes.keys():
        raise PolicyError(f"weights {show(sorted(weights))}: must be {', '.join(shapes)}")
    for name, shape in shapes.items():
        array = weights[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise PolicyError(f"weights {name}: must be float32 {shape}, not {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise PolicyError(f"weights {name}: must be finite")


def check_temperature(temperature: object) -> None:
    """Raise PolicyError unless it is a number 0..`MAX_TEMPERATURE`."""
    check("temperature", number(0, MAX_TEMPERATURE), temperature, PolicyError)


def write_network(path: Path, policy: Any) -> None:
    """Write a file, whole or not at all: one that `read_network` reads if the policy is a `Network`.

    policy: whatever has the attributes `HEAD`, `card`, `inputs` and `weights`.

    Raises:
        PolicyError: it would be too large to be read.
        OSError: it cannot be written.
    """
    write_whole(path, encode(policy))


def encode(policy: Any) -> bytes:
    """The bytes of a policy's file.

    Raises:
        PolicyError: there would be more than `MAX_BYTES`.
    """
    head = {name: getattr(policy, name) for name in HEAD} | {"features": asdict(policy.inputs)}
    return pack({"format": FORMAT, **head, "card": dict(policy.card)}, policy.weights)


def pack(head: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The bytes of a file with this text and these weights.

    Raises:
        PolicyError: there would be more than `MAX_BYTES`.
    """
    card = json.dumps(head, allow_nan=False).encode()
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"card": np.frombuffer(card, np.uint8), **weights}
    np.savez(buffer, **arrays)
    size = len(buffer.getbuffer())
    if size > MAX_BYTES or len(card) > MAX_CARD_BYTES:
        raise PolicyError(
            f"a policy of {size:,} bytes ({len(card):,} of its card) is too large: at most {MAX_BYTES:,} "
            f"({MAX_CARD_BYTES:,}) can be kept"
        )
    return buffer.getvalue()


def decode(data: bytes, wanted: int = FORMAT) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The card's text, parsed, and the weights in the bytes of a policy's file of the wanted format.

    Raises:
        PolicyError: another format.
        Exception: whatever goes wrong with a file that is none; to be called within `files.reading`.
    """
    members = unpack(data, MAX_ARRAYS, MAX_BYTES)
    arrays = {name.removesuffix(".npy"): _array(content) for name, content in members.items()}
    card = arrays.pop("card").tobytes()
    if len(card) > MAX_CARD_BYTES:
        raise ValueError("its card is too large")
    head = parse_table(card.decode())
    if head["format"] != wanted or head["format"] is True:
        older = head["format"] == 1 and head["format"] is not True
        how = f"; convert it, which names its features: {CONVERT} FILE" if older else ""
        raise PolicyError(f"format {show(head['format'])}: must be {wanted}{how}")
    return head, arrays


#: How NumPy writes the types that we have; its own reader evaluates any Python literal.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f[24]|\|u1)', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9]{1,8}),(?: ([0-9]{1,8}))?\), \} *\n",
    re.DOTALL,
)


def _array(content: bytes) -> npt.NDArray[Any]:
    """The array of one or two dimensions in the bytes of a `.npy` file; ValueError if they are no such."""
    match = _NPY.match(content)
    if match is None or match.end() != 10 + int.from_bytes(content[8:10], "little"):
        raise ValueError("an array is not of float32, float16 or uint8 in one or two dimensions")
    dtype, fortran, *sizes = match.groups()
    shape = tuple(int(size) for size in sizes if size is not None)
    flat = np.frombuffer(content, np.dtype(dtype.decode()), offset=match.end())
    array = flat.reshape(shape, order="F" if fortran == b"True" else "C")
    return array.astype(np.float32 if array.dtype == np.float16 else array.dtype, order="C")


def read_network(path: Path) -> Network:
    """Read a learned policy from a file. Nothing in it is executed.

    Raises:
        PolicyError: it cannot be read, is no such file, or a damaged one.
    """
    with reading(path, PolicyError, WHAT):
        head, weights = decode(read_packed(path, MAX_BYTES))
        return network_of(head, weights)


def network_of(head: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]]) -> Network:
    """The policy that a file tells, with its weights in the kernel's order.

    Raises:
        PolicyError: it is damaged, or reads what is not shown.
    """
    told = told_in(head)
    check_head(told, KINDS, least_vcpus=int(told.kind == "mlp"), least_hidden=0)
    shown = inputs_of(told.kind, told.information, told.scheduler, told.interrupts)
    weights = fitted(head, weights, SHAPES[told.kind], shown, shapes_of)
    return Network(**vars(told), weights=weights)


def told_in(head: Mapping[str, Any]) -> SimpleNamespace:
    """What the head of a file tells, unchecked."""
    told = {"scheduler": credit.NAME, "interrupts": False, **head}
    return SimpleNamespace(**{name: told[name] for name in (*HEAD, "card")})


def fitted(
    head: Mapping[str, Any],
    weights: Mapping[str, npt.NDArray[Any]],
    letters: Mapping[str, tuple[str, ...]],
    shown: Inputs,
    shapes_of: Callable[[str, int, int, Inputs], dict[str, tuple[int, ...]]],
) -> Mapping[str, npt.NDArray[Any]]:
    """Weights over the features that a file names as weights over those that the kernel shows, in its order; its head
    has been checked.

    Raises:
        PolicyError: names that do not fit, or weights that do not fit the names.
    """
    kind, vcpus, hidden = (head[name] for name in ("kind", "vcpus", "hidden"))
    own = Inputs.of(head["features"], shown, PolicyError)
    check_weights(weights, shapes_of(kind, vcpus, hidden, own))
    return rearranged(weights, letters, own, shown, hidden, vcpus)


def read_card(path: Path) -> dict[str, Any]:
    """Read the card alone of a policy that was not kept.

    Raises:
        PolicyError: it cannot be read, is no card, or a damaged one.
    """
    with reading(path, PolicyError, "a policy's card"):
        card: dict[str, Any] = parse_json(read_packed(path, MAX_CARD_BYTES).decode())
        check_card(card, PolicyError)
        return card


def learned_names() -> list[str]:
    """The learned policies that are shipped, as they are named to `--policies`."""
    return [PREFIX + path.stem for path in sorted(FOLDER.glob("*.npz"))]


def load_network(name: str) -> Network:
    """A learned policy by name: `learned:NAME` of those that are shipped, or `learned:` and the path of a `.npz` file,
    which may lead into an archive: `agents/checkpoints.tar.xz/NAME.npz`.

    Raises:
        PolicyError: no such policy, a file that cannot be read, or is no learned policy.
    """
    if not name.isprintable():  # it stands in tables
        raise PolicyError(f"{show(name)}: the name of a learned policy must be printable")
    path = Path(name.removeprefix(PREFIX))
    if path.suffix != ".npz":
        if name not in learned_names():
            raise unknown("learned policy", name, learned_names() or ["learned:FILE.npz"], True, PolicyError)
        path = FOLDER / f"{path}.npz"
    return read_network(path)
