"""Hyperparameters of one DQN agent: what they mean, their units and what values they may take.

Spaces, errors and storage take names and limits from here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxdqn.redact import short

# A traced scalar on the device; on the host a Python number, or an array with one value a lane.
Scalar: TypeAlias = Any


class Hyperparams(NamedTuple):
    """The traced scalars of one agent. A *step* is an environment step, an *update* a gradient step."""

    learning_rate: Scalar  # Adam's, at environment step 0
    learning_rate_decay_steps: Scalar  # steps over which it falls linearly to …
    learning_rate_final_fraction: Scalar  # … this fraction of itself (1: it stays constant)
    gamma: Scalar  # discount factor
    epsilon_start: Scalar  # probability of a random action at step 0
    epsilon_end: Scalar  # and from step `epsilon_decay_steps` on, linear in between
    epsilon_decay_steps: Scalar
    batch_size: Scalar  # transitions an update
    buffer_size: Scalar  # the last so many transitions are sampled
    warmup_steps: Scalar  # steps before the first update
    train_period: Scalar  # steps between two train events
    gradient_steps: Scalar  # updates at a train event
    target_period: Scalar  # steps between two copies to the target network, made at train events
    tau: Scalar  # target ← tau · online + (1 − tau) · target (1: a hard copy)
    max_grad_norm: Scalar  # gradients are scaled down to this global norm
    double_q: Scalar  # the online network chooses the target's action
    huber_loss: Scalar  # Huber's loss with δ = 1, else the squared error
    normalize_obs: Scalar  # by mean and standard deviation under the random policy
    hidden_width: Scalar  # units of each hidden layer
    hidden_layers: Scalar  # 0: a linear model


class Kind(NamedTuple):
    """What values a hyperparameter may take, and the one it has where a space does not name it."""

    type: type
    low: float
    high: float
    default: float | int | bool


KINDS: dict[str, Kind] = {
    "learning_rate": Kind(float, 1e-12, 1e3, 1e-3),
    "learning_rate_decay_steps": Kind(int, 1, 2**30, 100_000),
    "learning_rate_final_fraction": Kind(float, 0.0, 1.0, 1.0),
    "gamma": Kind(float, 0.0, 1.0, 0.99),
    "epsilon_start": Kind(float, 0.0, 1.0, 1.0),
    "epsilon_end": Kind(float, 0.0, 1.0, 0.05),
    "epsilon_decay_steps": Kind(int, 1, 2**30, 10_000),
    "batch_size": Kind(int, 1, 65_536, 64),
    "buffer_size": Kind(int, 1, 10_000_000, 50_000),
    "warmup_steps": Kind(int, 0, 2**30, 1_000),
    "train_period": Kind(int, 1, 100_000, 4),
    "gradient_steps": Kind(int, 1, 10_000, 1),
    "target_period": Kind(int, 1, 2**30, 500),
    "tau": Kind(float, 1e-6, 1.0, 1.0),
    "max_grad_norm": Kind(float, 1e-6, 1e6, 10.0),
    "double_q": Kind(bool, 0, 1, False),
    "huber_loss": Kind(bool, 0, 1, False),
    "normalize_obs": Kind(bool, 0, 1, False),
    "hidden_width": Kind(int, 1, 4_096, 64),
    "hidden_layers": Kind(int, 0, 16, 2),
}


def check_value(name: str, value: Any) -> float | int | bool:
    """Return `value` in the type of hyperparameter `name`.

    Raises:
        ValueError: it has another type, is not finite or is out of bounds.
    """
    kind = KINDS[name]
    allowed = "true or false" if kind.type is bool else f"{kind.type.__name__} in [{kind.low:g}, {kind.high:g}]"
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    fits = isinstance(value, bool) if kind.type is bool else numeric and kind.low <= value <= kind.high
    if not fits or (kind.type is int and value != int(value)):
        raise ValueError(f"{name} = {short(value)} is not allowed: {allowed}")
    return kind.type(value)


def stack(rows: list[Hyperparams]) -> Hyperparams:
    """Stack the hyperparameters of many agents: each field becomes an array of shape (agents,)."""
    dtypes: dict[type, type] = {bool: np.bool_, int: np.int32, float: np.float32}
    return Hyperparams(
        *(np.array([row[i] for row in rows], dtypes[kind.type]) for i, kind in enumerate(KINDS.values()))
    )


def defaults() -> Hyperparams:
    """Hyperparameters an agent has where nothing else is said."""
    return Hyperparams(*(kind.default for kind in KINDS.values()))
