"""Policies of an older version: their features get names, and everything else stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import __main__ as command
from agents import convert, torch_policy
from agents.torch_policy import read_policy
from ple_gym.learned.file import KINDS, LEVELS, Network, decode, encode, fitted, inputs_of, learned_names, load_network
from ple_gym.learned.file import shapes_of as network_shapes
from ple_gym.view.features import HOST_FEATURES, names_at


def older(kind: str, level: str) -> tuple[bytes, Any, dict[str, np.ndarray]]:
    """A file of format 1, the policy that it is of, and its weights."""
    rng, torch = np.random.default_rng(0), kind in torch_policy.KINDS
    vcpus = 5 if torch or kind == "mlp" else 0
    inputs = torch_policy.inputs_of(level) if torch else inputs_of(kind, level)
    shapes = (torch_policy.shapes_of if torch else network_shapes)(kind, vcpus, 8, inputs)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    make: Any = torch_policy.TorchPolicy if torch else Network
    policy = make(kind, level, vcpus, 8, weights, {"scenario": "none", "steps": 7}, 0.5)
    head, _ = decode(encode(policy))
    del head["features"]
    return convert.pack({**head, "format": 1}, weights), policy, weights


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", [*KINDS, *torch_policy.KINDS])
def test_converting_names_the_features_and_changes_nothing_else(
    kind: str, level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, policy, weights = older(kind, level)
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    file = folder / "policy.npz"
    file.write_bytes(data)
    assert command.main(["evaluate", "Tiny", str(file)]) == 2
    assert "convert it, which names its features: python -m agents convert FILE" in capsys.readouterr().err
    assert command.main(["convert", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 converted"
    again = read_policy(file)
    assert again.weights.keys() == weights.keys()
    assert all(again.weights[name].tobytes() == weights[name].tobytes() for name in weights)
    heads = [(p.kind, p.information, p.vcpus, p.hidden, p.temperature, dict(p.card)) for p in (policy, again)]
    assert heads[0] == heads[1]
    before = file.read_bytes()
    assert command.main(["convert", str(file)]) == 0 and file.read_bytes() == before
    assert capsys.readouterr().out == "0 converted\n"


def test_the_names_of_the_older_format_are_a_policy_s_of_today() -> None:
    """As long as no feature was added, moved or dropped: then this test goes, and `convert` stays as it is."""
    for kind in KINDS:
        for level in LEVELS:
            read = inputs_of(kind, level)
            assert convert.names_of(kind, level) == {"vcpu": list(read.vcpu), "host": list(read.host)}
    assert convert.names_of("torch-mlp", "oracle") == {"vcpu": list(names_at("oracle")), "host": list(HOST_FEATURES)}


@pytest.mark.parametrize("kind", torch_policy.KINDS)
def test_torch_policies_are_rearranged_by_name_too(kind: str) -> None:
    data, policy, weights = older(kind, "hypervisor")
    head, _ = decode(convert.converted(data))
    vcpu, host = head["features"]["vcpu"], head["features"]["host"]
    turned = {"vcpu": vcpu[::-1], "host": host[::-1]}
    name = next(name for name, letters in torch_policy.letters_of(kind).items() if "L" in letters)
    columns, rest = weights[name][:, : 5 * len(vcpu)], weights[name][:, 5 * len(vcpu) :]
    blocks = columns.reshape(len(columns), len(vcpu), 5)[:, ::-1].reshape(len(columns), -1)
    moved = {**weights, name: np.ascontiguousarray(np.hstack([blocks, rest[:, ::-1]]))}
    letters = torch_policy.letters_of(kind)
    found = fitted({**head, "features": turned}, moved, letters, policy.inputs, torch_policy.shapes_of)
    assert moved[name].tobytes() != weights[name].tobytes()
    assert all(found[one].tobytes() == weights[one].tobytes() for one in weights) and policy.inputs.host == tuple(host)


def test_what_is_no_policy_of_the_older_format_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["convert", str(tmp_path)]) == 2
    assert "there is no .npz file in it" in capsys.readouterr().err
    for content, why in (
        (b"nothing", "not a learned policy"),
        (convert.pack({"format": 9}, {}), "format 9: must be 1"),
        (convert.pack({"format": 1, "kind": "set", "information": "all", "card": {}}, {}), "information level = 'all'"),
    ):
        file = tmp_path / "x.npz"
        file.write_bytes(content)
        assert command.main(["convert", str(file)]) == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1 and file.read_bytes() == content
    assert command.main(["convert", str(tmp_path / "none.npz")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_shipped_policies_name_their_features() -> None:
    assert learned_names()
    for name in learned_names():
        load_network(name)
