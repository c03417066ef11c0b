"""Search spaces: TOML files -> Optuna distributions -> `Hyperparams`.

A hyperparameter is a fixed value or a domain: `{ low, high, log?, step? }` or `{ choices = [...] }`. Presets are such
files, shipped in `jaxdqn/spaces/`.
"""

from __future__ import annotations

import difflib
import itertools
import json
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from jaxdqn import environment
from jaxdqn.hyperparams import KINDS, Hyperparams, check_value, defaults
from jaxdqn.redact import short

_LATER = ("proof_episodes", "minimize")  # settings that older studies do not have: theirs are those without
OBJECTIVES = ("num_parameters",)  # that may be minimised
MAX_FILE_BYTES = 1_000_000
LARGEST = 2**30


@dataclass(frozen=True)
class Space:
    """What is searched, and what every agent of a sweep is given: its budget and how it is evaluated."""

    name: str
    env: str = "CartPole-v1"
    episodes: int | None = None  # an agent's budget, in episodes …
    env_steps: int | None = None  # … and in environment steps: the first reached ends it
    eval_episodes: int = 100  # greedy episodes of the score
    rungs: tuple[int, ...] = ()  # environment steps at which an agent is validated
    validation_episodes: int = 16  # greedy episodes of a validation
    proof_episodes: int = 0  # to count as perfect, an agent has to be so on as many
    keep_best: bool = False  # score the best validated checkpoint
    stop_when_perfect: bool = False  # end an agent that was perfect twice in a row
    solved_return: float | None = None  # mean return from which on an agent counts as solved; None: the perfect one
    seeds: int = 1  # agents a trial
    minimize: str | None = None  # a second objective beside the mean return: "num_parameters" of the network
    searched: dict[str, BaseDistribution] = field(default_factory=dict)
    fixed: dict[str, float | int | bool] = field(default_factory=dict)

    def hyperparams(self, params: dict[str, Any]) -> Hyperparams:
        """Return the hyperparameters of a trial with the searched values `params`."""
        return defaults()._replace(
            **{**self.fixed, **{name: check_value(name, params[name]) for name in self.searched}}
        )

    def objectives(self, params: dict[str, Any], mean_return: float) -> list[float]:
        """Return the values of a trial: its mean return, and what is minimised, if anything is."""
        return [mean_return, float(self.num_parameters(params))] if self.minimize else [mean_return]

    def worth(self, params: dict[str, Any], mean_return: float) -> tuple[float, ...]:
        """Return what trials are compared by, more being better.

        The mean return; where the network should be small too, first whether it solves the environment, and of those
        that do the fewest parameters.
        """
        if not self.minimize:
            return (mean_return,)
        solves = self.solved is not None and mean_return >= self.solved
        return float(solves), -float(self.num_parameters(params)) if solves else mean_return, mean_return

    def num_parameters(self, params: dict[str, Any]) -> int:
        """Return how many weights and biases the network of a trial has."""
        env, hyperparams = environment.make(self.env), self.hyperparams(params)
        hidden = [hyperparams.hidden_width] * hyperparams.hidden_layers
        sizes = [env.obs_size, *hidden, env.num_actions]
        return sum((num_in + 1) * num_out for num_in, num_out in itertools.pairwise(sizes))

    @property
    def solved(self) -> float | None:
        """Mean return from which on an agent counts as solved: as stated, or the environment's perfect one."""
        return environment.make(self.env).perfect_return if self.solved_return is None else self.solved_return

    def identity(self) -> dict[str, Any]:
        """Return what makes two sweeps' trials comparable, as JSON values."""
        others = ("name", "searched", "fixed", "solved_return", *_LATER)
        known = {name: value for name, value in asdict(self).items() if name not in others}
        known |= {name: value for name in _LATER if (value := getattr(self, name))}
        domains = {name: json.loads(distribution_to_json(domain)) for name, domain in self.searched.items()}
        values = {**defaults()._asdict(), **self.fixed, **domains}
        return {**known, "rungs": list(self.rungs), "hyperparameters": values}


def presets() -> list[str]:
    """Names of the spaces shipped with the package."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in resources.files("jaxdqn.spaces").iterdir()
        if path.name.endswith(".toml")
    )


def load(name: str, **overrides: Any) -> Space:
    """Load a preset or a TOML file; `overrides` that are not None replace its top-level keys.

    Raises:
        ValueError: what is wrong in it, with the value and what is allowed.
    """
    text = (resources.files("jaxdqn.spaces") / f"{name}.toml").read_text("utf-8") if name in presets() else _read(name)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers too long and tables too deep are no TOMLDecodeError
        raise ValueError(f"space {short(name)} is no TOML: {error}") from error
    content.update({key: value for key, value in overrides.items() if value is not None})
    try:
        if not Path(name).stem.isprintable():
            raise ValueError("the name of its file is not printable")
        return _parse(Path(name).stem, content)
    except ValueError as error:
        raise ValueError(f"space {short(name)}: {error}") from error


def middle(domain: BaseDistribution) -> Any:
    """Return a value in the middle of a domain."""
    if isinstance(domain, CategoricalDistribution):
        return domain.choices[len(domain.choices) // 2]
    assert isinstance(domain, FloatDistribution | IntDistribution)
    value = (domain.low + domain.high) / 2
    return int(value) if isinstance(domain, IntDistribution) else value


def _read(name: str) -> str:
    path = Path(name)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(f"it is larger than {MAX_FILE_BYTES:,} bytes")
        return content.decode("utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(name, presets(), 1, 0.6)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"space {short(name)} is neither a file nor a preset: {hint}presets are {', '.join(presets())}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"space {short(name)} can't be read: {error}") from error


def _parse(name: str, content: dict[str, Any]) -> Space:
    domains = content.pop("hyperparameters", {})
    if not isinstance(domains, dict):
        raise ValueError(f"hyperparameters = {short(domains)} is no table")
    known = [key for key in Space.__dataclass_fields__ if key not in ("name", "searched", "fixed")]
    for key in content:
        if key in Hyperparams._fields:
            raise ValueError(f"{key} is a hyperparameter: put it below [hyperparameters]")
        _check_known(key, known, "key")
    searched: dict[str, BaseDistribution] = {}
    fixed: dict[str, float | int | bool] = {}
    for key, domain in domains.items():
        _check_known(key, list(Hyperparams._fields), "hyperparameter")
        if isinstance(domain, dict):
            searched[key] = _distribution(key, domain)
        else:
            fixed[key] = check_value(key, domain)
    settings = {key: check_setting(key, value) for key, value in content.items() if key != "rungs"}
    searched = {
        field: searched[field] for field in Hyperparams._fields if field in searched
    }  # the file's does not count
    space = Space(name, **settings, searched=searched, fixed=fixed)
    if space.episodes is None and space.env_steps is None:
        raise ValueError("no budget: give episodes or env_steps, or both")
    environment.make(space.env)
    space = replace(space, rungs=_rungs(content.get("rungs", []), space))
    for needs in ("keep_best", "stop_when_perfect"):
        if getattr(space, needs) and not space.rungs:
            raise ValueError(f"{needs} = true needs rungs: at least one within the budget")
    batch_size, buffer_size = bounds(space, "batch_size")[1], bounds(space, "buffer_size")[0]
    if batch_size > buffer_size:
        raise ValueError(f"batch_size {batch_size} is above the replay capacity: buffer_size may be {buffer_size}")
    return space


def _check_known(key: str, known: list[str], kind: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown {kind} {short(key)}: {hint}")


def check_setting(key: str, value: Any) -> Any:
    """Return the value of a space's key other than `rungs`, checked.

    Raises:
        ValueError: it is not allowed.
    """
    if key == "env":
        if isinstance(value, str):
            return value
        raise ValueError(f"env = {short(value)} is no name")
    if key in ("keep_best", "stop_when_perfect"):
        if isinstance(value, bool):
            return value
        raise ValueError(f"{key} = {short(value)} is not allowed: true or false")
    if key == "minimize":
        if value in OBJECTIVES:
            return value
        raise ValueError(f"minimize = {short(value)} is not allowed: {', '.join(OBJECTIVES)}")
    if key == "solved_return":
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
            return float(value)
        raise ValueError(f"solved_return = {short(value)} is not allowed: a finite number")
    limit = {"episodes": LARGEST, "env_steps": LARGEST, "seeds": 10_000}.get(key, 100_000)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise ValueError(f"{key} = {short(value)} is not allowed: int in [1, {limit}]")
    return value


def _rungs(value: Any, space: Space) -> tuple[int, ...]:
    """A list of environment steps, or one number: every so many steps of the budget."""
    limit = environment.make(space.env).time_limit
    steps = min(space.env_steps or LARGEST, (space.episodes or LARGEST) * limit)
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(x, int) and not isinstance(x, bool) and 1 <= x <= LARGEST for x in numbers):
        raise ValueError(f"rungs = {short(value)} is not allowed: environment steps, as a list or as one distance")
    within = sorted({rung for rung in numbers if rung <= steps})
    rungs: Sequence[int] = within if isinstance(value, list) else range(numbers[0], steps + 1, numbers[0])
    if len(rungs) > 1_000:
        raise ValueError(f"rungs = {short(value)} makes {len(rungs):,} rungs: at most 1,000 are allowed")
    return tuple(rungs)


def _distribution(name: str, domain: dict[str, Any]) -> BaseDistribution:
    kind = KINDS[name]
    if "choices" in domain:
        choices = domain["choices"]
        if set(domain) != {"choices"} or not isinstance(choices, list) or not choices:
            raise ValueError(f"{name} = {short(domain)} is not allowed: choices is a list of values and stands alone")
        values = [check_value(name, choice) for choice in choices]
        if len(set(values)) < len(values):
            raise ValueError(f"{name} has a choice twice: {short(choices)}")
        return CategoricalDistribution(values)
    for key in domain:
        _check_known(key, ["low", "high", "log", "step", "choices"], f"key of {name}'s domain")
    if kind.type is bool or not {"low", "high"} <= set(domain):
        raise ValueError(
            f"{name} = {short(domain)} is not allowed: a value, {{ choices = [...] }} or {{ low, high, log, step }}"
        )
    log, step = domain.get("log", False), domain.get("step")
    if not isinstance(log, bool) or (log and step is not None):
        raise ValueError(f"{name}: log = {short(log)} is not allowed: true or false, and not together with step")
    if log and domain["low"] == 0:
        raise ValueError(f"{name}: low = 0 is not allowed with log = true: the logarithm of 0 is not finite")
    low, high = check_value(name, domain["low"]), check_value(name, domain["high"])
    if low > high:
        raise ValueError(f"{name}: the range is empty: low = {low} is above high = {high}")
    if step is not None:
        numeric = isinstance(step, int | float) and not isinstance(step, bool) and 0 < step < LARGEST
        if not numeric or (high - low) / step > LARGEST:
            raise ValueError(
                f"{name}: step = {short(step)} is not allowed: a number above 0, at most {LARGEST} to a range"
            )
        if kind.type is int and step != int(step):
            raise ValueError(f"{name}: step = {short(step)} is not allowed: a whole number")
    with warnings.catch_warnings():  # Optuna lowers a high that no step reaches, and warns
        warnings.simplefilter("ignore", UserWarning)
        if kind.type is float:
            return FloatDistribution(low, high, log=log, step=step)
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))


def bounds(space: Space, name: str) -> tuple[float, float]:
    """Return the smallest and the largest value of a hyperparameter in a space."""
    domain = space.searched.get(name)
    if isinstance(domain, FloatDistribution | IntDistribution):
        return domain.low, domain.high
    if isinstance(domain, CategoricalDistribution):
        return min(_numbers(domain)), max(_numbers(domain))
    value = space.fixed.get(name, KINDS[name].default)
    return value, value


def choices(space: Space, name: str) -> list[float] | None:
    """Return the values a hyperparameter may take, where they can be listed."""
    domain = space.searched.get(name)
    if isinstance(domain, CategoricalDistribution):
        return sorted(_numbers(domain))
    if isinstance(domain, IntDistribution):
        values = range(domain.low, domain.high + 1, domain.step)
        return None if domain.log or len(values) > 64 else list(values)
    return [bounds(space, name)[0]]


def _numbers(domain: CategoricalDistribution) -> list[float]:
    return [choice for choice in domain.choices if isinstance(choice, int | float)]
