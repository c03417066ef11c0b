"""Throughput of the compiled program: uniform populations, everything counted, against what the machine can do.

*Useful FLOPs* of an update are 8 × batch size × multiply-accumulates of one forward pass (10 × with double Q): three
forward passes' worth for the gradient, one for the target network. Masks, environment and replay never count.
*Peak* is one 2048³ fp32 product on each device, all devices at once.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdqn.config import Layout
from jaxdqn.cost import SPEEDS, forward_macs, segment_ticks
from jaxdqn.hyperparams import stack
from jaxdqn.population import Population
from jaxdqn.workload import WARMUP_STEPS, Uniform, fill, go_on, lived, uniform


def measure(shape: Uniform, layout: Layout, platform: str, seconds: float = 3.0, repeats: int = 5) -> dict[str, Any]:
    """Train a uniform population for `repeats` spans of about `seconds`; return medians a second, and their spread."""
    config, hyperparams = uniform(shape)
    population = Population(config, layout, seed=0)
    compile_s = population.compile()
    ones = np.ones(layout.block, bool)
    stacked = stack([hyperparams] * layout.block)
    ticks = segment_ticks(stacked, np.full(layout.block, WARMUP_STEPS), ones, config, speed=SPEEDS[platform])
    fill(population, hyperparams, WARMUP_STEPS)
    steps_s, updates_s = [], []
    for _ in range(repeats):
        before, start = lived(population), time.perf_counter()
        while time.perf_counter() - start < seconds:
            for row in range(layout.rows):
                population.read(row)
                go_on(population, row, hyperparams, ticks)
        after, elapsed = lived(population), time.perf_counter() - start
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
