"""What a space compiles to: the static `Config` that serves every agent of it, and what its agents have in common."""

from __future__ import annotations

import math

import jax
from optuna.distributions import IntDistribution

from jaxdqn import environment
from jaxdqn.config import Config
from jaxdqn.hyperparams import defaults
from jaxdqn.space import LARGEST, Space, bounds, choices

FRESH_EPISODES = 1_000  # greedy episodes that judge an agent trained anew


def of(space: Space) -> Config:
    """Return the static settings that serve every agent of a space: the largest shapes, and what never varies."""
    env = environment.make(space.env)
    steps = min(space.env_steps or LARGEST, (space.episodes or LARGEST) * env.time_limit)
    rungs = tuple(rung for rung in space.rungs if rung <= steps)
    tick = math.gcd(*_values_gcd(space, "train_period"), *rungs)
    largest = {name: bounds(space, name)[1] for name in ("buffer_size", "hidden_width", "hidden_layers")}
    slots = math.ceil(min(int(largest["buffer_size"]), steps) / tick) * tick
    fixed = {k: v for k, v in defaults()._asdict().items() if k not in space.searched} | space.fixed
    normalises = bool(bounds(space, "normalize_obs")[1])
    needed = normalises or space.seeds > 1
    random = environment.random_policy(jax.random.key(0), env) if needed else environment.RandomPolicy((), (), math.nan)
    return Config(
        env=space.env,
        env_steps=steps,
        episodes=space.episodes,
        eval_episodes=space.eval_episodes,
        fresh_episodes=FRESH_EPISODES,
        rungs=rungs,
        validation_episodes=space.validation_episodes,
        proof_episodes=space.proof_episodes,
        keep_best=space.keep_best and bool(rungs),
        stop_when_perfect=space.stop_when_perfect and bool(rungs) and env.perfect_return is not None,
        tick=tick,
        slots=slots,
        batch_sizes=_batch_shapes(space),
        hidden_width=int(largest["hidden_width"]),
        hidden_layers=int(largest["hidden_layers"]),
        linear=bounds(space, "hidden_layers")[0] == 0,
        fixed=tuple(sorted(fixed.items())),
        obs_mean=random.obs_mean if normalises else (),
        obs_std=random.obs_std if normalises else (),
        diverged_return=random.mean_return if space.seeds > 1 else 0.0,
    )


def common_period(space: Space) -> int:
    """Return the least common multiple of the train periods of a space, 1 where it would be large."""
    values = choices(space, "train_period")
    multiple = math.lcm(*map(int, values)) if values else 1
    return multiple if multiple <= 4_096 else 1


def is_mixed(space: Space) -> bool:
    """Return whether agents of a space differ in when they make updates, or in the shape of those."""
    return bool({"train_period", "gradient_steps"} & space.searched.keys()) or len(_batch_shapes(space)) > 1


def _values_gcd(space: Space, name: str) -> list[int]:
    values = choices(space, name)
    if values is not None:
        return [int(value) for value in values]
    domain = space.searched[name]
    assert isinstance(domain, IntDistribution)
    return [domain.low, 1 if domain.log else domain.step]


def _batch_shapes(space: Space) -> tuple[int, ...]:
    """Shapes an update is compiled for: the batch sizes themselves where they are few, else powers of two."""
    values = choices(space, "batch_size")
    if values is not None and len(values) <= 8:
        return tuple(map(int, values))
    low, high = map(int, bounds(space, "batch_size"))
    powers = [2**i for i in range(max(0, (low - 1).bit_length()), high.bit_length()) if 2**i < high]
    return (*powers, high)
