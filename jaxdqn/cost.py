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

from jaxdqn.config import Config, Layout, bucket_of
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams, stack

SEGMENT_S = 1.0  # what a segment should take on each device
_WIDE = 20_000  # multiply-accumulates of a forward pass: two agents' parameters and moments fill a core's cache
_HORIZON = 512  # ticks that are looked at one by one; what follows is taken to go on like them


class Speed(NamedTuple):
    """A device, roughly: what its kernels take whatever they work on, and what the work takes."""

    step_s: float  # for the kernels of an environment step of a block
    pass_s: float  # for those of a pass of updates
    weight_s: float  # for each weight of each lane in a pass: the optimiser's work
    flops_per_s: float  # useful ones, in products


# A CPU's were fitted to passes of blocks of 4 [64, 64], 2 [128, 128] and 1 [256, 256] networks, batches of 16 to 128.
SPEEDS = {"cpu": Speed(15e-6, 60e-6, 0.75e-9, 60e9), "gpu": Speed(250e-6, 250e-6, 0.0, 2e12)}


def forward_macs(config: Config) -> int:
    """Multiply-accumulates of one forward pass at the largest shapes of a space."""
    env = make(config.env)
    sizes = [env.obs_size, *[config.hidden_width] * config.hidden_layers, env.num_actions]
    return sum(a * b for a, b in itertools.pairwise(sizes))


def passes(
    hyperparams: Hyperparams, steps: Int[np.ndarray, "ticks lanes"], config: Config, lived: Int[np.ndarray, " lanes"]
) -> Int[np.ndarray, "ticks buckets"]:
    """Return how many passes of updates a block makes at each tick, in each bucket: as many as any of its lanes needs.

    Args:
        hyperparams: of the lanes.
        steps: of each lane's agent after each tick.
        config: of the population.
        lived: the step at which each lane's agent ends; 0 where nobody lives.
    """
    due = (steps % hyperparams.train_period == 0) & (steps >= hyperparams.warmup_steps) & (steps <= lived)
    own_bucket = bucket_of(hyperparams.batch_size, config)
    needed = [np.where(due & (own_bucket == i), hyperparams.gradient_steps, 0) for i in range(len(config.batch_sizes))]
    return np.stack([np.max(updates, axis=1) for updates in needed], axis=1)


def update_flops(batch_size: int, config: Config, double_q: bool = False) -> int:
    """Useful FLOPs of an update: 8 × batch size × multiply-accumulates of a forward pass, 10 × with double Q.

    Two a multiply-accumulate, for: Q, the target's Q, the gradients of weights and of activations, the choice of double
    Q.
    """
    return (10 if double_q else 8) * batch_size * forward_macs(config)


def update_costs(num_lanes: int, config: Config, speed: Speed) -> Float[np.ndarray, " buckets"]:
    """Return the seconds of one pass of updates of a block in each bucket."""
    double_q = dict(config.fixed).get("double_q", True)  # searched: who pays for one pays for all
    flops = np.array([update_flops(size, config, bool(double_q)) for size in config.batch_sizes])
    a_lane = speed.weight_s * forward_macs(config) + flops / speed.flops_per_s
    return speed.pass_s + num_lanes * a_lane


def step_cost(num_lanes: int, config: Config, speed: Speed) -> float:
    """Return the seconds of an environment step of a block."""
    return speed.step_s + 2 * num_lanes * forward_macs(config) / speed.flops_per_s


def tick_costs(
    hyperparams: Hyperparams,
    step: Int[np.ndarray, " lanes"],
    alive: Bool[np.ndarray, " lanes"],
    config: Config,
    speed: Speed,
) -> Float[np.ndarray, " horizon"]:
    """Seconds each of the next ticks of a block should take; lanes run side by side, so the longest wait counts."""
    steps = step + config.tick * np.arange(1, _HORIZON + 1)[:, None]
    updates = passes(hyperparams, steps, config, np.where(alive, config.env_steps, 0))
    return config.tick * step_cost(len(step), config, speed) + updates @ update_costs(len(step), config, speed)


def largest_block(config: Config, mixed: bool, platform: str) -> int | None:
    """Return how many lanes a block of a space should have at most; None: as many as pay on the device.

    On a CPU a block lives in a core's cache: of wide networks only one agent fits (at [256, 256] × 16 two make 1.1 and
    four 1.8 times the time an update). Where agents are of many kinds, a lane pays for updates that only its neighbours
    make, which costs more than sharing a pass saves: at width 64 a lane alone makes 71 % of the updates of two.
    """
    if platform == "gpu":
        return None
    if forward_macs(config) >= _WIDE:
        return 1
    return 2 if mixed else None


def agent_s(hyperparams: Hyperparams, config: Config, layout: Layout, speed: Speed) -> float:
    """Return roughly the seconds that an agent takes which lives as long as it may, when all lanes are busy alike."""
    step, alive = np.full(layout.block, config.env_steps // 2), np.ones(layout.block, bool)
    costs = tick_costs(stack([hyperparams] * layout.block), step, alive, config, speed)
    return float(np.mean(costs)) * config.env_steps / config.tick / (layout.devices * layout.block)


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
