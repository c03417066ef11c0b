"""Throughput of the compiled program: uniform populations, everything counted, against what the machine can do.

*Useful FLOPs* of an update are 8 × batch size × multiply-accumulates of one forward pass (10 × with double Q): three
forward passes' worth for the gradient, one for the target network. Masks, environment and replay never count.
*Peak* is one 2048³ fp32 product on each device, all devices at once.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdqn.block import Placement
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS, forward_macs, segment_ticks
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.judging import Names
from jaxdqn.population import Population

_WARMUP_STEPS = 64


class Uniform(NamedTuple):
    """A population whose agents all have the same shapes."""

    hidden: tuple[int, int]
    batch_size: int
    train_period: int
    gradient_steps: int
    learning: bool = True  # else the agents only act


def measure(shape: Uniform, layout: Layout, platform: str, seconds: float = 3.0, repeats: int = 5) -> dict[str, Any]:
    """Train a uniform population for `repeats` spans of about `seconds`; return medians a second, and their spread."""
    hyperparams = defaults()._replace(
        hidden_width=shape.hidden[0],
        hidden_layers=len(shape.hidden),
        batch_size=shape.batch_size,
        train_period=shape.train_period,
        gradient_steps=shape.gradient_steps,
        warmup_steps=_WARMUP_STEPS if shape.learning else 2**30,
        buffer_size=10_000,
    )
    config = Config(
        env_steps=2**30,
        tick=shape.train_period,
        slots=-(-10_000 // shape.train_period) * shape.train_period,
        batch_sizes=(shape.batch_size,),
        hidden_width=shape.hidden[0],
        hidden_layers=len(shape.hidden),
        fixed=tuple(hyperparams._asdict().items()),
    )
    population = Population(config, layout, seed=0)
    compile_s = population.compile()
    ones = np.ones(layout.block, bool)
    stacked = stack([hyperparams] * layout.block)
    ticks = segment_ticks(stacked, np.full(layout.block, _WARMUP_STEPS), ones, config, speed=SPEEDS[platform])
    _start(population, stacked)

    def counted() -> tuple[int, int]:
        read = [population.read(row) for row in range(layout.rows)]
        return sum(int(p.step.sum()) for p in read), sum(int(p.updates.sum()) for p in read)

    steps_s, updates_s = [], []
    for _ in range(repeats):
        before, start = counted(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            for row in range(layout.rows):
                population.read(row)
                _dispatch(population, row, stacked, ticks)
        after, elapsed = counted(), time.perf_counter() - start
        steps_s.append((after[0] - before[0]) / elapsed)
        updates_s.append((after[1] - before[1]) / elapsed)
    updates = statistics.median(updates_s)
    gflops = updates * 8 * shape.batch_size * forward_macs(config) / 1e9
    peak = peak_gflops(layout.devices)
    return {
        "hidden": list(shape.hidden),
        "batch_size": shape.batch_size,
        "train_period": shape.train_period,
        "gradient_steps": shape.gradient_steps,
        "lanes": layout.lanes,
        "devices": layout.devices,
        "env_steps_per_s": round(statistics.median(steps_s)),
        "updates_per_s": round(updates),
        "updates_per_s_range": [round(min(updates_s)), round(max(updates_s))],
        "gflops": round(gflops, 1),
        "peak_gflops": round(peak, 1),
        "share_of_peak": round(gflops / peak, 3),
        "compile_s": round(compile_s, 2),
    }


def peak_gflops(devices: int, size: int = 2048, repeats: int = 5) -> float:
    """Median GFLOP/s of one fp32 product of `size`³ on each of `devices` devices at once."""
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("device",))
    sharding = NamedSharding(mesh, PartitionSpec("device"))
    ones = jax.device_put(np.ones((devices, size, size), np.float32), sharding)
    product = jax.jit(
        jax.shard_map(lambda x: x @ x, mesh=mesh, in_specs=PartitionSpec("device"), out_specs=PartitionSpec("device"))
    )
    product(ones).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(ones).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * devices * size**3 / statistics.median(times) / 1e9


def _start(population: Population, stacked: Hyperparams) -> None:
    """Put an agent into every lane and bring all past their warm-up."""
    layout = population.layout
    for row in range(layout.rows):
        trial = (row * layout.devices * layout.block + np.arange(layout.devices * layout.block)).astype(np.int32)
        _dispatch(population, row, stacked, _WARMUP_STEPS, trial.reshape(layout.row_shape))


def _dispatch(
    population: Population, row: int, stacked: Hyperparams, ticks: int, trial: np.ndarray | None = None
) -> None:
    shape = population.layout.row_shape
    fresh = np.full(shape, trial is not None)
    numbers = np.zeros(shape, np.int32) if trial is None else trial
    hyperparams = Hyperparams(*(np.broadcast_to(x, shape) for x in stacked))
    placement = Placement(fresh, Names(np.zeros_like(numbers), numbers, np.zeros(shape, np.int32)), hyperparams)
    population.dispatch(row, placement, np.full(shape[0], ticks, np.int32))
