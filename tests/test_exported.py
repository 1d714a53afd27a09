"""Learned policies in files and in the kernel: the same scores as NumPy, and nothing but arrays is read."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator.draws import A, mix
from worlds import contended_scenarios

from ple_gym import evaluate
from ple_gym.drive import MAX_REPLACEMENTS, RESET, STEP
from ple_gym.lanes import Lanes
from ple_gym.learned.file import (
    KINDS,
    LEVELS,
    MAX_BYTES,
    SHAPES,
    Network,
    PolicyError,
    decode,
    encode,
    inputs_of,
    learned_names,
    load_network,
    pack,
    read_network,
    shapes_of,
    write_network,
)
from ple_gym.learned.inputs import RANK_NAMES
from ple_gym.learned.network import RANKED
from ple_gym.policies import load_compiled
from ple_gym.scenario import Scenario, load
from ple_gym.sim import state
from ple_gym.view import features as observe


def random_network(
    kind: str,
    vcpus: int,
    hidden: int = 8,
    level: str = "hypervisor",
    seed: int = 0,
    interrupts: bool = False,
    scheduler: str = "credit",
) -> Network:
    """Weights that nobody trained."""
    rng = np.random.default_rng(seed)
    vcpus = vcpus if kind == "mlp" else 0
    weights = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes_of(kind, vcpus, hidden, inputs_of(kind, level, scheduler, interrupts)).items()
    }
    return Network(kind, level, vcpus, hidden, weights, {"scenario": "none"}, 0.0, scheduler, interrupts)


def scores(policy: Network, flat: np.ndarray, asker: int) -> np.ndarray:
    """What the kernel computes, in NumPy: float64 [V + 1]."""
    w = {name: array.astype(np.float64) for name, array in policy.weights.items()}
    flat = flat.astype(np.float64)
    names = observe.names_at(policy.information, interrupts=policy.interrupts)
    x, host = flat[: -len(observe.HOST_FEATURES)].reshape(len(names), -1).T, flat[-len(observe.HOST_FEATURES) :]
    if policy.kind != "mlp":  # waited and spin_age also come as ranks
        more = x[np.newaxis] > x[:, np.newaxis]
        x = np.hstack([x, 1 / (1 + more.sum(axis=1)[:, [names.index(name) for name in RANKED]])])
    if policy.kind == "linear":
        return np.append(x @ w["vcpu"].T + w["vcpu_bias"], host @ w["defer"] + w["defer_bias"])
    if policy.kind == "mlp":
        y = np.maximum(flat @ w["layer1"] + w["bias1"], 0)
        y = np.maximum(y @ w["layer2"] + w["bias2"], 0)
        return (y @ w["action"] + w["action_bias"])[0]
    y = np.maximum(x @ w["vcpu1"].T + host @ w["host1"] + w["bias1"], 0)
    context = np.concatenate([y.mean(axis=0), y.max(axis=0), y[asker], host])
    z = np.maximum(y @ w["vcpu2"].T + context @ w["context2"] + w["bias2"], 0)
    defer = np.maximum(context @ w["defer1"] + w["defer_bias1"], 0) @ w["defer2"] + w["defer_bias2"]
    return np.append(z @ w["vcpu3"].T + w["bias3"], defer)


@pytest.mark.kernel
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(contended_scenarios(), st.sampled_from(sorted(LEVELS)), st.integers(0, 2**32), st.sampled_from([0.0, 2.0]))
def test_the_kernel_takes_the_legal_action_with_the_highest_score(
    kind: str, scenario: Scenario, level: str, seed: int, temperature: float
) -> None:
    """In NumPy's double precision; the kernel's choice may differ only where the best two are a hair apart. Above a
    temperature of 0 scores have Gumbel noise.
    """
    vcpus = scenario.vcpus
    policy = random_network(kind, vcpus, level=level, seed=seed, interrupts=scenario.sees_interrupts)
    policy = replace(policy, temperature=temperature)
    outside, inside = Lanes(scenario, 1, information=level), Lanes(scenario, 1, policy=policy)
    for lanes in (outside, inside):
        lanes.world["seed"], lanes.world["index"] = seed, MAX_REPLACEMENTS
    outside.drive(0, 1, RESET)
    decisions = 0
    while outside.world["status"][0] == state.DECIDE and decisions < 200:
        asker = int(outside.pcpu["current"][0, outside.world["deciding"][0]])
        noise = temperature * gumbel(int(outside.world["policy_key"][0]), decisions, vcpus + 1)
        values = np.where(outside.mask[0, : vcpus + 1], scores(policy, outside.observation[0], asker) + noise, -np.inf)
        best, second = np.sort(values)[[-1, -2]]
        if best - second < 1e-4 * max(1, abs(best)):
            return  # too close to tell
        outside.action[0] = values.argmax()
        outside.drive(0, 1, STEP)
        decisions += 1
    if decisions < 200:
        inside.drive(0, 1, RESET, decides=True)
        assert inside.totals(0) == outside.totals(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_reads_interrupts_needs_a_host_that_sees_them(kind: str, tmp_path: Path) -> None:
    """And one that does not read them sees the same on any host."""
    seeing = load("KvmEbizzy").with_overrides({"host.scheduler": "credit", "host.pcpus": 4, "guest.vcpus": 4})
    blind = seeing.with_overrides({"host.ipi_visible": False})
    reads, does_not = (random_network(kind, 8, interrupts=interrupts) for interrupts in (True, False))
    write_network(tmp_path / "reads.npz", reads)
    assert read_network(tmp_path / "reads.npz").inputs == reads.inputs
    assert set(reads.inputs.vcpu) - set(does_not.inputs.vcpu) == {one.name for one in observe.INTERRUPTS}
    with pytest.raises(PolicyError, match=r"reads interrupts, and the scenario's host sees none \(host.ipi_visible\)"):
        Lanes(blind, 1, policy=reads)
    Lanes(seeing, 1, policy=reads).run(0, 3)
    runs = [Lanes(scenario, 1, policy=does_not) for scenario in (seeing, blind)]
    for lanes in runs:
        lanes.run(0, 3)
    assert runs[0].totals(0) == runs[1].totals(0) and runs[0].totals(0)["exits"] > 100


def gumbel(key: int, decision: int, actions: int) -> np.ndarray:
    """Standard Gumbel noise for each action, from the upper 12 bits of its draw: float64 [V + 1]."""
    bits = [mix(key + A * (2048 * decision + i + 1)) >> 52 for i in range(actions)]
    return np.round(-np.log(-np.log((np.array(bits) + 0.5) / 4096)) * 1024) / 1024


def test_noise_draws_from_the_softmax() -> None:
    """200,000 draws: every probability within five standard deviations, and what the table's steps cost."""
    values = np.array([1.0, 0.0, -1.5, 0.5])
    picks = np.array([(values + gumbel(12345, decision, 4)).argmax() for decision in range(200_000)])
    wanted = np.exp(values) / np.exp(values).sum()
    found = np.bincount(picks, minlength=4) / len(picks)
    assert np.all(np.abs(found - wanted) < 5 * np.sqrt(wanted / len(picks)) + 1 / 1024)


def test_a_set_network_does_not_care_about_the_order_or_the_number_of_vcpus() -> None:
    policy = random_network("set", 0)
    rng = np.random.default_rng(1)
    rows, host = rng.random((9, len(observe.VCPU_FEATURES))), rng.random(len(observe.HOST_FEATURES))
    order = rng.permutation(9)
    one = scores(policy, np.concatenate([rows.T.ravel(), host]), 4)
    two = scores(policy, np.concatenate([rows[order].T.ravel(), host]), int(np.flatnonzero(order == 4)[0]))
    assert two[:-1] == pytest.approx(one[:-1][order]) and two[-1] == pytest.approx(one[-1])
    for name in ("TicketOrder", "Storm"):
        assert len(Lanes(load(name), 1, policy=policy).observation) == 1


def test_files_hold_what_was_written(tmp_path: Path) -> None:
    for kind in KINDS:
        policy = replace(random_network(kind, 6), temperature=0.25)
        write_network(tmp_path / "x.npz", policy)
        again = read_network(tmp_path / "x.npz")
        assert (again.kind, again.information, again.vcpus, again.hidden) == (kind, "hypervisor", policy.vcpus, 8)
        assert again.temperature == 0.25
        assert again.card == {"scenario": "none"}
        assert all(np.array_equal(again.weights[name], policy.weights[name]) for name in policy.weights)


def test_a_learned_policy_is_named_like_a_rule(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    write_network(path, random_network("set", 0))
    table = evaluate.compare("TicketOrder", ["xen-4.8", f"learned:{path}"], seeds=range(3))
    assert [row.policy for row in table.rows()] == ["xen-4.8", f"learned:{path}"]
    assert load_compiled(f"learned:{path}").information == "hypervisor"
    for name in learned_names():
        assert load_network(name).card["scenario"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a learned policy"),
        (b"# A text\n", r"not a learned policy, or damaged \(no \.npz archive\)$"),
        (b"PK\x03\x04 nonsense", "not a learned policy"),
        (b"x" * (MAX_BYTES + 1), "16,777,217 bytes are more than 16,777,216"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=rf"^\S*/x\.npz: .*{why}"):
        read_network(path)
    with pytest.raises(PolicyError, match=why):
        evaluate.simulate("Tiny", f"learned:{path}")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Wherever they are cut off or a bit has turned, or whatever is in them."""
    path = tmp_path / "x.npz"
    write_network(path, random_network("linear", 0))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(50):
        path.write_bytes(data[: rng.integers(len(data))])
        with pytest.raises(PolicyError):
            read_network(path)
    good = random_network("linear", 0)
    for name, value in (
        ("vcpu", good.weights["vcpu"][:, 1:]),
        ("vcpu", good.weights["vcpu"].astype(np.float64)),
        ("vcpu", np.full_like(good.weights["vcpu"], np.nan)),
        ("more", np.zeros(1, np.float32)),
    ):
        with pytest.raises(PolicyError, match="weights"):
            Network("linear", "hypervisor", 0, 8, {**good.weights, name: value}, {})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.npy", json.dumps({"format": 1}))
    with pytest.raises(PolicyError, match="not a learned policy"):
        read_network(path)
    for told, message in (
        (b"3", r"format 3: must be 2$"),
        (b"true", r"format True: must be 2$"),
        (b"1", r"format 1: must be 2; convert it, which names its features: python -m agents convert FILE$"),
    ):
        np.savez(path, card=np.frombuffer(b'{"format": %s}' % told, np.uint8))
        with pytest.raises(PolicyError, match=rf"^\S*/x\.npz: {message}"):
            read_network(path)
    np.savez(path, card=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PolicyError, match="not a learned policy"):
        read_network(path)


def test_a_network_for_another_number_of_vcpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_network(path, random_network("mlp", 7))
    with pytest.raises(PolicyError, match="for 7 vCPUs, the scenario has 32"):
        evaluate.simulate("Storm", f"learned:{path}")
    with pytest.raises(PolicyError, match="unknown learned policy 'learned:nobody'"):
        evaluate.simulate("Storm", "learned:nobody")
    with pytest.raises(PolicyError, match="No such file"):
        evaluate.simulate("Storm", f"learned:{tmp_path}/none.npz")


def rewritten(path: Path, policy: Network, vcpu: list[str], host: list[str]) -> None:
    """Write a policy as one whose file has other features, or the same in another order; one that the policy lacks has
    weights of 5.
    """
    head, weights = decode(encode(policy))
    shown, hidden = policy.inputs, policy.hidden
    flat = [(name, v) for name in vcpu for v in range(policy.vcpus)] + [(name, -1) for name in host]
    was = [(name, v) for name in shown.vcpu for v in range(policy.vcpus)] + [(name, -1) for name in shown.host]
    every = {
        "R": (list(shown.vcpu), vcpu),
        "G": (list(shown.host), host),
        "S": ([*range(3 * hidden), *shown.host], [*range(3 * hidden), *host]),
        "L": (was, flat),
    }
    for name, letters in SHAPES[policy.kind].items():
        for axis, letter in enumerate(letters):
            if letter in every:
                before, after = every[letter]
                parts = np.moveaxis(weights[name], axis, 0)
                moved = [parts[before.index(one)] if one in before else np.full_like(parts[0], 5) for one in after]
                weights[name] = np.ascontiguousarray(np.moveaxis(np.array(moved), 0, axis))
    path.write_bytes(pack({**head, "features": {"vcpu": vcpu, "host": host}}, weights))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_s_own_order_of_features_means_the_same(tmp_path: Path, kind: str, level: str) -> None:
    policy, rng = random_network(kind, 6, level=level), np.random.default_rng(1)
    vcpu, host = (rng.permutation(names).tolist() for names in (policy.inputs.vcpu, policy.inputs.host))
    rewritten(tmp_path / "x.npz", policy, vcpu, host)
    again = read_network(tmp_path / "x.npz")
    assert all(again.weights[name].tobytes() == policy.weights[name].tobytes() for name in policy.weights)
    stored = decode((tmp_path / "x.npz").read_bytes())[1]
    assert any(stored[name].tobytes() != policy.weights[name].tobytes() for name in policy.weights)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_does_not_name_it_does_not_look_at(tmp_path: Path, kind: str) -> None:
    """As if the weights of that feature were zero: here those of one of the vCPUs' and one of the host's."""
    policy = random_network(kind, 6)
    vcpu, host = ([name for name in names if name != "pcpu"] for names in (policy.inputs.vcpu, policy.inputs.host))
    rewritten(tmp_path / "x.npz", policy, vcpu, host)
    again, rng = read_network(tmp_path / "x.npz"), np.random.default_rng(2)
    flat = rng.random(6 * len(observe.VCPU_FEATURES) + len(observe.HOST_FEATURES))
    one = scores(again, flat, 2)
    columns = flat[: -len(observe.HOST_FEATURES)].reshape(-1, 6)
    columns[observe.VCPU_FEATURES.index("pcpu")] = rng.random(6)
    flat[len(flat) - len(observe.HOST_FEATURES) + observe.HOST_FEATURES.index("pcpu")] = 0.1
    assert (scores(again, flat, 2) == one).all() and not np.allclose(scores(policy, flat, 2), one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_for_linux_from_before_hints_were_counted_is_read(tmp_path: Path, kind: str) -> None:
    new = load("TicketOrder").with_overrides({"host.scheduler": "fair"})
    policy = random_network(kind, new.vcpus, scheduler="fair")
    host = [name for name in policy.inputs.host if name not in state.HINTS]
    assert len(host) == len(policy.inputs.host) - 3
    rewritten(tmp_path / "x.npz", policy, list(policy.inputs.vcpu), host)
    again = read_network(tmp_path / "x.npz")
    assert again.inputs == policy.inputs
    for name, axis in {"linear": [("defer", 0)], "mlp": [("layer1", 0)], "set": [("host1", 0), ("defer1", 0)]}[kind]:
        blind = ~again.weights[name].any(axis=1 - axis)
        assert blind.sum() == 3 and (again.weights[name][~blind] == policy.weights[name][~blind]).all()
    assert len(evaluate.simulate(new, f"learned:{tmp_path}/x.npz", range(2))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vcpu, host: (["holdr", *vcpu[1:]], host), "feature 'holdr' of a vCPU: this version shows none"),
        (lambda vcpu, host: (["holder", *vcpu[1:]], host), "feature 'holder' of a vCPU: .* at that level$"),
        (lambda vcpu, host: (vcpu, [*host[1:], "ran"]), "feature 'ran' of the host: it is named twice"),
        (lambda vcpu, host: (vcpu[:-1], host), f"features of vcpu: '{RANK_NAMES[-1]}' is missing, which"),
        (lambda vcpu, host: ([], host), "features of vcpu = .*: must be a list of at most 1000|items"),
        (lambda vcpu, host: (7, host), "features of vcpu = 7: must be a list"),
    ],
)  # fmt: skip
def test_features_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    head, weights = decode(encode(random_network("linear", 0)))
    vcpu, host = change(head["features"]["vcpu"], head["features"]["host"])
    (tmp_path / "x.npz").write_bytes(pack({**head, "features": {"vcpu": vcpu, "host": host}}, weights))
    with pytest.raises(PolicyError, match=rf"^\S*/x\.npz: {message}") as caught:
        read_network(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


def test_names_without_their_weights_are_refused(tmp_path: Path) -> None:
    """One name fewer than there are columns: the file does not say which is which."""
    head, weights = decode(encode(random_network("set", 0)))
    head["features"]["vcpu"].remove("asker")
    (tmp_path / "x.npz").write_bytes(pack(head, weights))
    with pytest.raises(PolicyError, match=r"weights vcpu1: must be float32 \(8, 20\), not float32 \(8, 21\)$"):
        read_network(tmp_path / "x.npz")
    head["features"] = ["asker"]
    (tmp_path / "x.npz").write_bytes(pack(head, weights))
    with pytest.raises(PolicyError, match=r"features \['asker'\]: must be a table of vcpu and host$"):
        read_network(tmp_path / "x.npz")


def test_a_policy_reads_all_that_is_shown() -> None:
    for kind in KINDS:
        read = random_network(kind, 6, level="oracle").inputs
        assert read == inputs_of(kind, "oracle")
        shown = observe.names_at("oracle")
        assert read.vcpu[: len(shown)] == shown and read.host == observe.HOST_FEATURES
