"""Segments by computed cost."""

import numpy as np

from jaxdqn.config import Config
from jaxdqn.cost import Speed, segment_ticks, tick_costs
from jaxdqn.hyperparams import Hyperparams, defaults, stack

CONFIG = Config(env_steps=100_000, tick=8, batch_sizes=(16, 128))
SPEED = Speed(step_s=1e-4, pass_s=1e-4, weight_s=0.0, flops_per_s=1e12)
BASE = defaults()._replace(train_period=8, batch_size=16, warmup_steps=0)


def block(*lanes: Hyperparams) -> tuple[Hyperparams, np.ndarray, np.ndarray]:
    return stack(list(lanes)), np.zeros(len(lanes), np.int32), np.ones(len(lanes), bool)


def test_cheap_blocks_run_longer_segments_than_costly_ones() -> None:
    cheap = segment_ticks(*block(BASE._replace(train_period=256)), CONFIG, speed=SPEED)
    costly = segment_ticks(*block(BASE._replace(gradient_steps=16)), CONFIG, speed=SPEED)
    assert cheap > 2 * costly


def test_lanes_of_two_batch_shapes_cost_two_passes() -> None:
    one = tick_costs(*block(BASE, BASE), CONFIG, SPEED)
    two = tick_costs(*block(BASE, BASE._replace(batch_size=128)), CONFIG, SPEED)
    assert (two > one + 0.9e-4).all()


def test_nothing_is_due_before_the_warm_up() -> None:
    costs = tick_costs(*block(BASE._replace(warmup_steps=80)), CONFIG, SPEED)
    assert (costs[:9] < costs[9]).all()


def test_a_segment_is_a_multiple_of_its_alignment_and_no_longer_than_the_longest_life() -> None:
    assert segment_ticks(*block(BASE), CONFIG, align=32, speed=SPEED) % 32 == 0
    hyperparams, step, alive = block(BASE)
    assert segment_ticks(hyperparams, step + 99_990, alive, CONFIG, align=32, speed=SPEED) == 2


def test_a_block_where_nobody_lives_runs_no_tick() -> None:
    hyperparams, step, alive = block(BASE)
    assert segment_ticks(hyperparams, step, ~alive, CONFIG) == 0
