"""Which waiting agent goes into which free lane: where its updates fall into the passes others need anyway.

The lanes of a block make their updates together: a pass that one lane needs is paid for by all. Decided by
hyperparameters alone, never by a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from jaxdqn.config import Config, bucket_of
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import Hyperparams

PATIENCE = 16  # an agent that was passed over so often goes next
_LONGEST = 4_096  # steps looked at for train periods that rarely meet


class Rhythm(NamedTuple):
    """When an agent makes updates, and of what shape."""

    bucket: int
    train_period: int
    gradient_steps: int


def rhythm(hyperparams: Hyperparams, config: Config) -> Rhythm:
    """Return the rhythm of an agent."""
    bucket = int(bucket_of(hyperparams.batch_size, config))
    return Rhythm(bucket, int(hyperparams.train_period), int(hyperparams.gradient_steps))


@lru_cache(maxsize=100_000)
def pass_cost(rhythms: frozenset[Rhythm], batch_sizes: tuple[int, ...]) -> float:
    """Return the passes an environment step that agents of these rhythms need together, in transitions a lane.

    Agents of one bucket that are due at the same step share their passes; those of two buckets do not.
    """
    cost = 0.0
    for bucket, size in enumerate(batch_sizes):
        own = [(r.train_period, r.gradient_steps) for r in sorted(rhythms) if r.bucket == bucket]
        cycle = math.lcm(*(period for period, _ in own))
        if cycle > _LONGEST:
            cost += size * sum(steps / period for period, steps in own)
            continue
        due = sorted({step for period, _ in own for step in range(period, cycle + 1, period)})
        cost += size * sum(max(steps for period, steps in own if step % period == 0) for step in due) / cycle
    return cost


def assign(
    lanes: Sequence[Sequence[Agent | None]], waiting: Sequence[Agent], config: Config
) -> list[tuple[int, int, Agent]]:
    """Return which waiting agent goes where: (device, lane, agent), until no lane is free or nobody waits.

    In turn, the agent and the block are chosen whose lanes then waste least on one another's passes; among equals the
    device with the least work, and the agent that has waited longest. Raises `passed_over` of those left behind.

    Args:
        lanes: the blocks of a row, one a device; None is a free lane.
        waiting: agents in the order in which they came.
        config: of the population.
    """
    sets = [{rhythm(agent.hyperparams, config) for agent in block if agent is not None} for block in lanes]
    free = [[lane for lane, agent in enumerate(block) if agent is None] for block in lanes]
    queue = [(agent, rhythm(agent.hyperparams, config)) for agent in waiting]
    placed = []
    while queue and any(free):
        first_only = queue[0][0].passed_over >= PATIENCE
        earliest = {its: index for index, (_, its) in reversed(list(enumerate(queue[:1] if first_only else queue)))}
        _, _, _, index, device = min(
            (
                round(_added_waste(sets[device], len(lanes[device]) - len(free[device]), its, config), 9),
                round(_cost(sets[device], config), 9),
                -len(free[device]),
                index,
                device,
            )
            for device in range(len(lanes))
            if free[device]
            for its, index in earliest.items()
        )
        agent, its = queue.pop(index)
        sets[device].add(its)
        placed.append((device, free[device].pop(0), agent))
        for passed, _ in queue[:index]:
            passed.passed_over += 1
    return placed


def _cost(rhythms: set[Rhythm], config: Config) -> float:
    return pass_cost(frozenset(rhythms), config.batch_sizes)


def _added_waste(rhythms: set[Rhythm], num_living: int, added: Rhythm, config: Config) -> float:
    """Return by how much the passes that are not their own grow for the lanes of a block when an agent is added."""
    others = rhythms | {added}
    return (num_living + 1) * _cost(others, config) - num_living * _cost(rhythms, config) - _cost({added}, config)
