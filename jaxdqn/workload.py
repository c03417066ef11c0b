"""What benchmarks give a population to do: every lane full of agents of one kind that neither end nor are validated."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxdqn import cost, devices
from jaxdqn.block import Placement
from jaxdqn.config import Config, Layout
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.judging import Names
from jaxdqn.population import Population

WARMUP_STEPS = 64
_FOR_EVER = 2**30


class Uniform(NamedTuple):
    """A population whose agents all have the same shapes."""

    hidden: tuple[int, ...]
    batch_size: int
    train_period: int
    gradient_steps: int
    learning: bool = True  # else the agents only act


def uniform(shape: Uniform) -> tuple[Config, Hyperparams]:
    """Return the settings of a uniform population, and the hyperparameters of each of its agents."""
    hyperparams = defaults()._replace(
        hidden_width=shape.hidden[0],
        hidden_layers=len(shape.hidden),
        batch_size=shape.batch_size,
        train_period=shape.train_period,
        gradient_steps=shape.gradient_steps,
        warmup_steps=WARMUP_STEPS if shape.learning else _FOR_EVER,
        epsilon_start=defaults().epsilon_end,  # who explores asks no network, which would be measured as speed
        buffer_size=10_000,
    )
    config = Config(
        env_steps=_FOR_EVER,
        tick=shape.train_period,
        slots=-(-10_000 // shape.train_period) * shape.train_period,
        batch_sizes=(shape.batch_size,),
        hidden_width=shape.hidden[0],
        hidden_layers=len(shape.hidden),
        fixed=tuple(hyperparams._asdict().items()),
    )
    return config, hyperparams


def laid_out(shape: Uniform, lanes: int | None, num_devices: int | None = None) -> Layout:
    """Lay a uniform population out as a sweep of its shape would be."""
    platform = devices.platform()
    return devices.choose_layout(lanes, num_devices, cost.largest_block(uniform(shape)[0], False, platform))


def for_ever(config: Config) -> Config:
    """Return the settings of a space without an agent's end and validations."""
    return dataclasses.replace(
        config, env_steps=_FOR_EVER, episodes=None, rungs=(), keep_best=False, stop_when_perfect=False
    )


def fill(population: Population, hyperparams: Hyperparams, ticks: int) -> None:
    """Put a new agent into every lane and let all of them live for so many ticks."""
    layout = population.layout
    for row in range(layout.rows):
        lanes = layout.devices * layout.block
        trial = (row * lanes + np.arange(lanes)).astype(np.int32).reshape(layout.row_shape)
        _dispatch(population, row, hyperparams, ticks, trial, fresh=True)


def go_on(population: Population, row: int, hyperparams: Hyperparams, ticks: int) -> None:
    """Queue another segment of so many ticks of a row."""
    shape = population.layout.row_shape
    _dispatch(population, row, hyperparams, ticks, np.zeros(shape, np.int32), fresh=False)


def lived(population: Population) -> tuple[int, int]:
    """Wait for all rows; return the environment steps and updates that their agents have made."""
    read = [population.read(row) for row in range(population.layout.rows)]
    return sum(int(p.step.sum()) for p in read), sum(int(p.updates.sum()) for p in read)


def _dispatch(
    population: Population, row: int, hyperparams: Hyperparams, ticks: int, trial: np.ndarray, fresh: bool
) -> None:
    shape = population.layout.row_shape
    zeros = np.zeros(shape, np.int32)
    alike = Hyperparams(*(np.broadcast_to(x, shape) for x in stack([hyperparams])))
    placement = Placement(np.full(shape, fresh), Names(zeros, trial, zeros), alike)
    population.dispatch(row, placement, np.full(shape[0], ticks, np.int32))
