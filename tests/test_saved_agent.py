"""Saved agents: what is saved is what plays, and whatever is damaged or foreign is refused."""

import contextlib
import hashlib
import json
import os
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdqn import network, saved_agent
from jaxdqn.agent import observe
from jaxdqn.agent_directory import find, mark_winner, path_of
from jaxdqn.hyperparams import defaults
from jaxdqn.saved_agent import SavedAgent, config_of, load, save, trim
from tests.agents import LARGE, balancing, drawn, falling, masked
from tests.helpers import same

OBS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def values(agent: SavedAgent, obs: np.ndarray) -> np.ndarray:
    """What the agent's network says of observations."""
    config = config_of(agent)
    seen = jax.vmap(lambda obs: observe(obs, agent.hyperparams, config))(obs)
    return np.asarray(network.q_values(agent.params, seen, agent.hyperparams, config))


def rewrite(about: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of a saved agent."""
    content = json.loads(about.read_text())
    change(content)
    about.write_text(json.dumps(content))


def reweigh(about: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the weights of a saved agent, its hash too."""
    weights = about.with_suffix(".safetensors")
    tensors = safetensors.numpy.load(weights.read_bytes())
    change(tensors)
    content = safetensors.numpy.save(tensors)
    weights.write_bytes(content)
    rewrite(about, lambda content_: content_["weights"].update(sha256=hashlib.sha256(content).hexdigest()))


@pytest.fixture
def about(tmp_path: Path) -> Path:
    return save(tmp_path / "agent", drawn(8, 2, normalises=True))


# What is saved


@pytest.mark.parametrize(("width", "depth"), [(16, 3), (5, 2), (1, 1), (7, 0)])
def test_a_trimmed_network_has_the_values_of_the_masked_one(width: int, depth: int) -> None:
    hyperparams = defaults()._replace(hidden_width=width, hidden_layers=depth)
    params = masked(hyperparams)
    agent = SavedAgent("CartPole-v1", trim(params, hyperparams), hyperparams, (), (), {}, {})
    expected = network.q_values(params, OBS, hyperparams, LARGE)
    assert np.allclose(values(agent, OBS), expected, atol=1e-6)
    assert agent.sizes == [4, *[width] * depth, 2]


@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_agent_comes_back_as_it_was_saved(tmp_path: Path, depth: int, normalises: bool) -> None:
    agent = drawn(6, depth, normalises=normalises)
    save(tmp_path / "some.agent", agent)
    for name in ("some.agent", "some.agent.json", "some.agent.safetensors"):
        back = load(tmp_path / name)
        assert same(back.params, agent.params)
        assert back.params.keys() == agent.params.keys()
        for field in ("env", "hyperparams", "obs_mean", "obs_std", "key", "scores", "versions"):
            assert getattr(back, field) == getattr(agent, field)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.agent.json", "some.agent.safetensors"]


@pytest.mark.parametrize(("depth", "normalises"), [(0, False), (2, True)])
def test_the_documented_program_acts_as_the_network_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, normalises: bool
) -> None:
    agent = drawn(6, depth, normalises=normalises)
    save(tmp_path / "verdict-0.json", agent)
    monkeypatch.chdir(tmp_path)
    program = textwrap.dedent(str(saved_agent.__doc__).split("NumPy and safetensors only:\n")[1])
    scope: dict[str, Any] = {}
    exec(program, scope)
    obs = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    assert [scope["act"](one) for one in obs] == values(agent, obs).argmax(axis=1).tolist()


def test_saving_again_replaces_both_files(tmp_path: Path) -> None:
    save(tmp_path / "agent", drawn(8, 2))
    save(tmp_path / "agent", balancing())
    assert load(tmp_path / "agent").sizes == [4, 2]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("lost", range(4))
def test_a_json_always_has_its_weights_wherever_saving_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    save(tmp_path / "agent", drawn(8, 2))
    calls = 0
    replace_file, flush = os.replace, saved_agent.flush_directory

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > lost:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "replace", counted(replace_file))
    monkeypatch.setattr(saved_agent, "flush_directory", counted(flush))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "agent", balancing())
    assert not list(tmp_path.glob(".*"))
    if (tmp_path / "agent.json").exists():
        load(tmp_path / "agent")


def test_an_agent_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    agent = balancing()
    agent.params["linear"]["bias"][0] = np.nan
    with pytest.raises(ValueError, match=r"linear\.bias holds nan"):
        save(tmp_path / "agent", agent)
    with pytest.raises(ValueError, match=r"scores\.mean_return = nan"):
        save(tmp_path / "agent", balancing(mean_return=np.nan))
    assert not list(tmp_path.iterdir())


# What is refused


def test_a_missing_agent_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.json': there is no file"):
        load(tmp_path / "nothing")
    (tmp_path / "directory.json").mkdir()
    with pytest.raises(ValueError, match="is no file"):
        load(tmp_path / "directory")


def test_missing_weights_are_named(about: Path) -> None:
    about.with_suffix(".safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no file 'agent\.safetensors'"):
        load(about)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_weights_with_a_flipped_bit_or_cut_off_are_refused(about: Path, data: st.DataObject) -> None:
    weights = about.with_suffix(".safetensors")
    whole = weights.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        for damaged in (bytes(flipped), whole[:place]):
            weights.write_bytes(damaged)
            with pytest.raises(ValueError, match="SHA-256"):
                load(about)
    finally:
        weights.write_bytes(whole)


def test_weights_in_each_others_place_are_refused(tmp_path: Path) -> None:
    one, other = save(tmp_path / "one", drawn(8, 3)), save(tmp_path / "other", drawn(8, 3, seed=1))
    other.with_suffix(".safetensors").replace(one.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match="SHA-256"):
        load(one)

    def swap(tensors: dict[str, np.ndarray]) -> None:
        tensors["hidden_1.kernel"], tensors["hidden_2.kernel"] = tensors["hidden_2.kernel"], tensors["hidden_1.kernel"]

    third = save(tmp_path / "third", drawn(8, 3))
    expected = json.loads(third.read_text())["weights"]
    reweigh(third, swap)
    rewrite(third, lambda content: content.update(weights=expected))
    with pytest.raises(ValueError, match="SHA-256"):
        load(third)


TENSORS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "another name": (
        lambda t: t.update({"hidden_9.bias": t.pop("hidden_1.bias")}),
        r"hidden_9\.bias.* are not allowed",
    ),
    "one missing": (lambda t: t.pop("head.bias"), r"are not allowed: head\.bias, head\.kernel, hidden_0"),
    "one too many": (lambda t: t.update(x=np.zeros(1, np.float32)), "x are not allowed"),
    "a transposed one": (
        lambda t: t.update({"hidden_0.kernel": t["hidden_0.kernel"].T.copy()}),
        r"hidden_0\.kernel is float32 of shape \[8, 4\]: float32 of shape \[4, 8\] is allowed",
    ),
    "float64": (
        lambda t: t.update({"head.bias": t["head.bias"].astype(np.float64)}),
        r"head\.bias is float64 of shape \[2\]: float32",
    ),
    "an infinite one": (lambda t: t["head.bias"].fill(np.inf), r"head\.bias holds inf"),
    "one that is no number": (lambda t: t["hidden_1.kernel"].fill(np.nan), r"hidden_1\.kernel holds nan"),
    "far too many": (lambda t: t.update(x=np.zeros(99_999, np.float32)), "bytes: at most [0-9,]+ are allowed"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_the_networks_are_refused(about: Path, name: str) -> None:
    change, message = TENSORS[name]
    reweigh(about, change)
    with pytest.raises(ValueError, match=message):
        load(about)


def test_a_file_with_the_right_hash_that_is_no_safetensors_is_refused(about: Path) -> None:
    content = b"\x80\x04never unpickled."
    about.with_suffix(".safetensors").write_bytes(content)
    rewrite(about, lambda c: c["weights"].update(sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(ValueError, match="no safetensors file"):
        load(about)


def put(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value in a JSON."""

    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = to

    return change


CONTENTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (put("format", to="x"), "format = 'x' is not allowed: 'jaxdqn agent'"),
    "a later version": (put("format_version", to=2), "format_version = 2 is not known: 1 is"),
    "no version": (lambda c: c.pop("format_version"), "format_version = None"),
    "an unknown environment": (put("environment", to="CartPole-v9"), r"CartPole-v9.*did you mean CartPole-v1"),
    "an environment that is no name": (put("environment", to=[1]), r"environment = \[1\] is not allowed: a string"),
    "another environment": (put("environment", to="MountainCar-v0"), r"\[4, 8, 8, 2\].*\[2, 8, 8, 3\].* does"),
    "other sizes": (put("network", "sizes", to=[4, 9, 9, 2]), r"\[4, 9, 9, 2\].* does not fit"),
    "another activation": (put("network", "activation", to="tanh"), "'tanh'.* does not fit"),
    "another width": (put("hyperparameters", "hidden_width", to=9), r"does not fit.*\[4, 9, 9, 2\]"),
    "a width out of bounds": (put("hyperparameters", "hidden_width", to=10**9), r"hidden_width = 1000000000 .* int in"),
    "a gamma that is no number": (put("hyperparameters", "gamma", to="1"), r"gamma = '1' is not allowed: float in"),
    "an unknown hyperparameter": (put("hyperparameters", "x", to=1), "'x' is unknown"),
    "a missing hyperparameter": (lambda c: c["hyperparameters"].pop("tau"), "'tau' is missing"),
    "no hyperparameters": (put("hyperparameters", to=None), "hyperparameters = None is not allowed: an object"),
    "no normalisation": (put("normalisation", to=None), "normalisation does not fit normalize_obs = True"),
    "too few means": (put("normalisation", "mean", to=[0.0]), r"normalisation.mean = \(0.0,\) .*: 4 finite numbers"),
    "means that are no numbers": (put("normalisation", "mean", to=["0"] * 4), "normalisation.mean = .*finite"),
    "a deviation of zero": (put("normalisation", "std", to=[1, 1, 1, 0]), "normalisation.std = .* above 0"),
    "a score that is no number": (put("scores", "mean_return", to="x"), "scores.mean_return = 'x'"),
    "a key that is no object": (put("key", to=3), "key = 3 is not allowed: an object"),
    "another hash": (put("weights", "sha256", to="0" * 64), "SHA-256"),
    "no weights": (lambda c: c.pop("weights"), "weights = None"),
    "weights above": (put("weights", "file", to="../agent.safetensors"), "bare name of a file in the same directory"),
    "weights at a path": (put("weights", "file", to="/etc/passwd"), "bare name"),
    "weights below": (put("weights", "file", to="sub\\x"), "bare name"),
    "a directory as weights": (put("weights", "file", to=".."), "bare name"),
    "weights with a zero byte": (put("weights", "file", to="a\0b"), "agent"),
    "a number that is none": (put("scores", "x", to=float("nan")), "NaN is no JSON"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_description_that_is_wrong_is_refused_by_name(about: Path, name: str) -> None:
    change, message = CONTENTS[name]
    rewrite(about, change)
    with pytest.raises(ValueError, match=message) as refused:
        load(about)
    assert "agent.json" in str(refused.value)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=50)
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000, b"{}", b'"x"', b" " * 1_000_001])
)
def test_whatever_is_no_description_is_refused(about: Path, content: bytes) -> None:
    about.write_bytes(content)
    with pytest.raises(ValueError, match=r"agent\.json"):
        load(about)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_value_in_a_description_leads_to_anything_but_a_refusal(about: Path, data: st.DataObject) -> None:
    whole = about.read_text()
    content = json.loads(whole)
    inside = data.draw(st.sampled_from([content, *(value for value in content.values() if isinstance(value, dict))]))
    simple = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(simple | st.lists(simple, max_size=5))
    about.write_text(json.dumps(content))
    with contextlib.suppress(ValueError):
        load(about)
    about.write_text(whole)


def test_a_link_to_itself_is_refused(about: Path) -> None:
    weights = about.with_suffix(".safetensors")
    weights.unlink()
    weights.symlink_to(weights)
    with pytest.raises(ValueError, match=r"agent\.safetensors"):
        load(about)


def test_a_link_that_leaves_the_directory_is_refused(tmp_path: Path, about: Path) -> None:
    weights = about.with_suffix(".safetensors")
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    weights.replace(outside / "w")
    weights.symlink_to(outside / "w")
    with pytest.raises(ValueError, match="leads out of its directory"):
        load(about)
    weights.unlink()
    (outside / "w").replace(tmp_path / "beside")
    weights.symlink_to(tmp_path / "beside")
    load(about)


# Where agents are


def test_the_agents_of_a_trial_and_of_the_winner_are_found_in_order(tmp_path: Path) -> None:
    for trial, phase, seed_index in ((3, "verdict", 10), (3, "verdict", 2), (3, "confirm", 0), (7, "search", 0)):
        save(path_of(tmp_path, trial, phase, seed_index), falling())
    (tmp_path / "agents" / "trial-9").mkdir()
    (tmp_path / "agents" / "trial-x").write_text("")
    (tmp_path / "agents" / "trial-11").write_text("")
    names = [path.name for path in find(tmp_path, 3)]
    assert names == ["confirm-0.json", "verdict-2.json", "verdict-10.json"]
    with pytest.raises(ValueError, match=r"no winner is marked in .*: give --trial; there are agents of trials 3, 7"):
        find(tmp_path)
    mark_winner(tmp_path, 3)
    mark_winner(tmp_path, 7)
    assert find(tmp_path) == [path_of(tmp_path, 7, "search", 0)]
    with pytest.raises(ValueError, match=r"trial 9 has no saved agent in .*: there are agents of trials 3, 7"):
        find(tmp_path, 9)


@pytest.mark.parametrize("content", ["", "{}", '{"trial": true}', '{"trial": "7"}', "[7]", '{"trial": 1e400}'])
def test_a_damaged_mark_of_the_winner_is_refused(tmp_path: Path, content: str) -> None:
    save(path_of(tmp_path, 3, "verdict", 0), falling())
    (tmp_path / "agents" / "winner.json").write_text(content)
    with pytest.raises(ValueError, match=r"names no winner: .*give --trial"):
        find(tmp_path)


def test_a_sweep_without_agents_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no saved agents in"):
        find(tmp_path)
    with pytest.raises(ValueError, match="is no directory"):
        find(tmp_path / "missing")


def test_an_agents_score_is_its_mean_return() -> None:
    assert replace(balancing(), scores={}).mean_return == -np.inf
    assert balancing(mean_return=12.5).mean_return == 12.5
