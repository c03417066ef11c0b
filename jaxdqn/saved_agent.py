r"""Saved agents: weights as safetensors, all else as JSON. No pickle; loading checks everything and runs nothing.

An agent is two files in one directory. `NAME.safetensors` holds float32 tensors in the agent's own shapes:
`LAYER.kernel` [inputs, outputs] and `LAYER.bias` [outputs]; the layers are `hidden_0`, `hidden_1`, …, `head`, or
`linear` alone where there are no hidden ones. `NAME.json` is one object:

- `format`, `format_version`: "jaxdqn agent", 1
- `environment`: gymnax's name, which is Gymnasium's too where both have it
- `network`: `layers` (names, in order), `sizes` (observation, hidden units …, actions) and `activation`, "relu"
- `normalisation`: null, or the `mean` and `std` of each observed value
- `hyperparameters`: all of `jaxdqn.hyperparams.Hyperparams`
- `key`: what the agent's random streams come from: `study_seed`, `phase`, `trial`, `seed_index`
- `scores`: `mean_return` and whatever else was measured when it was saved
- `versions`: of the packages it was made with
- `weights`: `file`, a bare name in the same directory, and its `sha256`

Another program needs NumPy and safetensors only:

    import json, pathlib, numpy as np
    from safetensors.numpy import load_file

    about = json.loads(pathlib.Path("verdict-0.json").read_text())
    weights = load_file(about["weights"]["file"])

    def act(obs):
        x = np.asarray(obs, np.float32)
        if normal := about["normalisation"]:
            x = (x - np.float32(normal["mean"])) / np.float32(normal["std"])
        for layer in about["network"]["layers"]:
            x = x @ weights[f"{layer}.kernel"] + weights[f"{layer}.bias"]
            x = np.maximum(x, 0) if layer.startswith("hidden") else x
        return int(np.argmax(x))
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from jaxdqn import environment
from jaxdqn.checked_json import is_number, parse_object, take
from jaxdqn.config import Config
from jaxdqn.files import flush_directory, publish, read_at_most, stage
from jaxdqn.hyperparams import Hyperparams, check_value
from jaxdqn.network import Params
from jaxdqn.redact import short

FORMAT, FORMAT_VERSION = "jaxdqn agent", 1
MAX_JSON_BYTES = 1_000_000
_MAX_HEADER_BYTES = 100_000  # of a file of weights, besides the weights
_PACKAGES = ("jaxdqn", "jax", "flax", "gymnax", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of what an agent depends on here."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


@dataclass(frozen=True, eq=False)
class SavedAgent:
    """All it takes to let an agent play, and to know where it came from."""

    env: str
    params: Params  # float32, in the agent's own shapes
    hyperparams: Hyperparams  # Python numbers
    obs_mean: tuple[float, ...]  # one an observed value; empty: it does not normalise
    obs_std: tuple[float, ...]
    key: dict[str, Any]  # JSON: study_seed, phase, trial, seed_index
    scores: dict[str, Any]  # JSON: mean_return, std_return, num_episodes, …
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def sizes(self) -> list[int]:
        """Observed values, units of each hidden layer, actions."""
        env = environment.make(self.env)
        return [env.obs_size, *[self.hyperparams.hidden_width] * self.hyperparams.hidden_layers, env.num_actions]

    @property
    def mean_return(self) -> float:
        """The score it was saved with; −∞ if none."""
        return float(self.scores.get("mean_return", -math.inf))


def layers(hyperparams: Hyperparams) -> list[str]:
    """Return the names of an agent's layers, from the observation to the actions."""
    hidden = [f"hidden_{i}" for i in range(hyperparams.hidden_layers)]
    return [*hidden, "head"] if hidden else ["linear"]


def trim(params: Params, hyperparams: Hyperparams) -> Params:
    """Cut one agent's network out of the population's largest shape: the units and layers it uses."""
    width = hyperparams.hidden_width
    trimmed = {}
    for name in layers(hyperparams):
        num_in = None if name in ("hidden_0", "linear") else width
        num_out = None if name in ("head", "linear") else width
        trimmed[name] = {
            "kernel": np.array(params[name]["kernel"], np.float32)[:num_in, :num_out].copy(),
            "bias": np.array(params[name]["bias"], np.float32)[:num_out].copy(),
        }
    return trimmed


def config_of(agent: SavedAgent) -> Config:
    """Return the static settings an agent plays with: the network in its own shape."""
    layers = agent.hyperparams.hidden_layers
    return Config(
        env=agent.env,
        hidden_width=agent.hyperparams.hidden_width if layers else 1,
        hidden_layers=layers,
        linear=layers == 0,
        obs_mean=agent.obs_mean,
        obs_std=agent.obs_std,
    )


def save(path: Path | str, agent: SavedAgent) -> Path:
    """Write `<stem>.safetensors` and `<stem>.json`, each whole or not at all, and return the latter's path.

    The JSON comes last and an older one goes first, so that a JSON always stands beside its own weights.

    Raises:
        ValueError: the agent is not one that `load` would take.
    """
    about, weights = _paths(Path(path))
    tensors = {f"{layer}.{name}": x for layer, arrays in agent.params.items() for name, x in arrays.items()}
    check(agent, tensors)
    content = safetensors.numpy.save({name: np.ascontiguousarray(x) for name, x in tensors.items()})
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "environment": agent.env,
        "network": _network(agent),
        "normalisation": {"mean": list(agent.obs_mean), "std": list(agent.obs_std)} if agent.obs_mean else None,
        "hyperparameters": agent.hyperparams._asdict(),
        "key": agent.key,
        "scores": agent.scores,
        "versions": agent.versions,
        "weights": {"file": weights.name, "sha256": hashlib.sha256(content).hexdigest()},
    }
    text = json.dumps(description, indent=2, allow_nan=False).encode()
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"its description has {len(text):,} bytes: at most {MAX_JSON_BYTES:,} are allowed")
    about.parent.mkdir(parents=True, exist_ok=True)
    staged: list[Path] = []
    try:
        staged += [stage(weights, content)]
        staged += [stage(about, text)]
        about.unlink(missing_ok=True)
        publish(staged[0], weights)
        flush_directory(about.parent)
        publish(staged[1], about)
        flush_directory(about.parent)
    finally:
        for left in staged:
            left.unlink(missing_ok=True)
    return about


def load(path: Path | str) -> SavedAgent:
    """Load an agent; `path` names its JSON, its weights or what both names begin with.

    Raises:
        ValueError: what is wrong in it, with the value and what is allowed.
    """
    about, _ = _paths(Path(path))
    try:
        return _load(about)
    except ValueError as error:
        raise ValueError(f"agent {str(about)!r}: {error}") from error


def check(agent: SavedAgent, tensors: dict[str, np.ndarray]) -> None:
    """Check an agent and its weights, `LAYER.kernel` and `LAYER.bias`.

    Raises:
        ValueError: the first thing that does not fit.
    """
    env = environment.make(agent.env)
    for name, value in agent.hyperparams._asdict().items():
        check_value(name, value)
    if agent.hyperparams.normalize_obs != bool(agent.obs_mean):
        needed = f"mean and std of {env.obs_size} values" if agent.hyperparams.normalize_obs else "null"
        raise ValueError(f"normalisation does not fit normalize_obs = {agent.hyperparams.normalize_obs}: {needed}")
    for name, values in (("mean", agent.obs_mean), ("std", agent.obs_std)):
        if agent.obs_mean and (len(values) != env.obs_size or not all(map(math.isfinite, values))):
            raise ValueError(f"normalisation.{name} = {short(values)} is not allowed: {env.obs_size} finite numbers")
    if not all(value > 0 for value in agent.obs_std):
        raise ValueError(f"normalisation.std = {short(agent.obs_std)} is not allowed: numbers above 0")
    for name in ("mean_return", "std_return"):
        if not is_number(agent.scores.get(name, 0.0)):
            raise ValueError(f"scores.{name} = {short(agent.scores[name])} is not allowed: a finite number")
    shapes = _shapes(agent)
    if tensors.keys() != shapes.keys():
        raise ValueError(f"tensors {', '.join(sorted(tensors))} are not allowed: {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            found = f"{tensor.dtype} of shape {list(tensor.shape)}"
            raise ValueError(f"tensor {name} is {found}: float32 of shape {list(shape)} is allowed")
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds {tensor[~np.isfinite(tensor)][0]}: finite numbers are allowed")


def _paths(path: Path) -> tuple[Path, Path]:
    """Return the paths of the JSON and of the weights, from either or from what both begin with."""
    stem = path.name.removesuffix(".json").removesuffix(".safetensors")
    if not stem:
        raise ValueError(f"{str(path)!r} names no agent: give its .json, or its name without that")
    return path.with_name(f"{stem}.json"), path.with_name(f"{stem}.safetensors")


def _shapes(agent: SavedAgent) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, num_in, num_out in zip(layers(agent.hyperparams), agent.sizes[:-1], agent.sizes[1:], strict=True):
        shapes |= {f"{layer}.kernel": (num_in, num_out), f"{layer}.bias": (num_out,)}
    return shapes


def _network(agent: SavedAgent) -> dict[str, Any]:
    return {"layers": layers(agent.hyperparams), "sizes": agent.sizes, "activation": "relu"}


def _load(about: Path) -> SavedAgent:
    content = parse_object(read_at_most(about, MAX_JSON_BYTES))
    if content.get("format") != FORMAT:
        raise ValueError(f"format = {short(content.get('format'))} is not allowed: {FORMAT!r}")
    if content.get("format_version") != FORMAT_VERSION or isinstance(content["format_version"], bool):
        raise ValueError(f"format_version = {short(content.get('format_version'))} is not known: {FORMAT_VERSION} is")
    env = take(content, "environment", str)
    environment.make(env)
    hyperparams = _hyperparams(take(content, "hyperparameters", dict))
    normalisation = take(content, "normalisation", dict) if content.get("normalisation") is not None else {}
    agent = SavedAgent(
        env=env,
        params={},
        hyperparams=hyperparams,
        obs_mean=_numbers(normalisation, "mean"),
        obs_std=_numbers(normalisation, "std"),
        key=_key(content),
        scores=take(content, "scores", dict),
        versions=take(content, "versions", dict),
    )
    if content.get("network") != _network(agent):
        raise ValueError(
            f"network = {short(content.get('network'))} does not fit {env} and its hyperparameters: "
            f"{short(_network(agent))} does"
        )
    tensors = _tensors(about, take(content, "weights", dict), agent)
    check(agent, tensors)
    for name, tensor in tensors.items():
        layer, array = name.split(".")
        agent.params.setdefault(layer, {})[array] = tensor
    return agent


def _tensors(about: Path, weights: dict[str, Any], agent: SavedAgent) -> dict[str, np.ndarray]:
    """Read, compare and parse the file of weights; nothing of it is looked at before its hash is right."""
    name, expected = take(weights, "file", str), take(weights, "sha256", str)
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise ValueError(f"weights.file = {short(name)} is not allowed: the bare name of a file in the same directory")
    file = about.parent / name
    there = Path(os.path.realpath(file))  # which, unlike `resolve`, ends where links go in circles
    if there.parent != about.parent.resolve():
        raise ValueError(f"weights.file = {short(name)} leads out of its directory, to {str(there)!r}")
    num_bytes = sum(4 * math.prod(shape) for shape in _shapes(agent).values())
    content = read_at_most(file, num_bytes + _MAX_HEADER_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise ValueError(f"the SHA-256 of {name!r} is {digest}, not {expected[:64]!r}: it is damaged, or another's")
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name!r} is no safetensors file of float32 tensors: {error}") from error


def _key(content: dict[str, Any]) -> dict[str, Any]:
    """Return where an agent's random streams come from, whose numbers are whole and whose phase is a word."""
    key = take(content, "key", dict)
    for name, value in key.items():
        word = isinstance(value, str) and value.isidentifier() and value.isascii()
        if not (word or (isinstance(value, int) and not isinstance(value, bool))):
            raise ValueError(f"key: {short(name)} = {short(value)} is not allowed: a whole number or a word")
    return key


def _hyperparams(content: dict[str, Any]) -> Hyperparams:
    odd = sorted(content.keys() ^ set(Hyperparams._fields))
    if odd:
        wrong = "unknown" if odd[0] in content else "missing"
        raise ValueError(f"hyperparameter {short(odd[0])} is {wrong}: {', '.join(Hyperparams._fields)} are allowed")
    return Hyperparams(**{name: check_value(name, value) for name, value in content.items()})


def _numbers(content: dict[str, Any], name: str) -> tuple[float, ...]:
    values = take(content, name, list) if content else []
    if not all(map(is_number, values)):
        raise ValueError(f"normalisation.{name} = {short(values)} is not allowed: finite numbers")
    return tuple(map(float, values))
