"""How long a segment should be: the computed cost of a block's next ticks.

A cost is estimated from hyperparameters and shapes and never read from a clock, so that a sweep repeats itself. Only
the length of segments depends on it, no agent does.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdqn.config import Config, bucket_of
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams

SEGMENT_S = 0.15  # what a segment should take on each device
_HORIZON = 512  # ticks that are looked at one by one; what follows is taken to go on like them


class Speed(NamedTuple):
    """A device, roughly: seconds for the kernels of one pass, and useful FLOP/s in them."""

    pass_s: float
    flops_per_s: float


SPEEDS = {"cpu": Speed(50e-6, 40e9), "gpu": Speed(250e-6, 2e12)}


def forward_macs(config: Config) -> int:
    """Multiply-accumulates of one forward pass at the largest shapes of a space."""
    env = make(config.env)
    sizes = [env.obs_size, *[config.hidden_width] * config.hidden_layers, env.num_actions]
    return sum(a * b for a, b in itertools.pairwise(sizes))


def tick_costs(
    hyperparams: Hyperparams,
    step: Int[np.ndarray, " lanes"],
    alive: Bool[np.ndarray, " lanes"],
    config: Config,
    speed: Speed,
) -> Float[np.ndarray, " horizon"]:
    """Seconds each of the next ticks of a block should take; lanes run side by side, so the longest wait counts."""
    lanes, macs = len(step), forward_macs(config)
    steps = step + config.tick * np.arange(1, _HORIZON + 1)[:, None]
    due = alive & (steps % hyperparams.train_period == 0) & (steps >= hyperparams.warmup_steps)
    due &= steps <= config.env_steps
    costs = np.full(_HORIZON, config.tick * (speed.pass_s + 2 * lanes * macs / speed.flops_per_s))
    own_bucket = bucket_of(hyperparams.batch_size, config)
    for bucket, size in enumerate(config.batch_sizes):
        num_updates = np.max(np.where(due & (own_bucket == bucket), hyperparams.gradient_steps, 0), axis=1)
        costs += num_updates * (speed.pass_s + 10 * size * macs * lanes / speed.flops_per_s)
    return costs


def segment_ticks(
    hyperparams: Hyperparams,
    step: Int[np.ndarray, " lanes"],
    alive: Bool[np.ndarray, " lanes"],
    config: Config,
    align: int = 1,
    speed: Speed = SPEEDS["cpu"],
) -> int:
    """Ticks a block should run so that its segment takes about `SEGMENT_S`; none if nobody lives in it.

    Segments are multiples of `align` ticks: agents then start together in step with the train periods, and make their
    updates in the same passes.
    """
    if not alive.any():
        return 0
    total = np.cumsum(tick_costs(hyperparams, step, alive, config, speed))
    if total[-1] >= SEGMENT_S:
        ticks = int(np.searchsorted(total, SEGMENT_S)) + 1
    else:
        ticks = int(_HORIZON * SEGMENT_S / total[-1])
    longest = math.ceil((config.env_steps - int(step[alive].min())) / config.tick)
    return min(max(round(ticks / align), 1) * align, longest)
