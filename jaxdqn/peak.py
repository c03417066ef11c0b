"""What a machine can do at best: fp32 products of 2048³, timed again and again beside whatever is compared to them.

*Peak* is one product on each device, all devices at once, and no less than NumPy's own product with its threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

SIZE = 2048
_PRODUCTS = 3  # of a sample, whose median counts


class Peak:
    """The products, made ready once; a shared machine's speed drifts, so that they are sampled often."""

    def __init__(self, devices: int, size: int = SIZE) -> None:
        """Make the products of `devices` devices ready; NumPy's counts where these are all cores of a CPU."""
        self._flops = 2 * size**3
        self.samples: list[float] = []
        there = jax.local_devices()
        mesh, spec = Mesh(np.array(there[:devices]), ("device",)), PartitionSpec("device")
        ones = jax.device_put(np.ones((devices, size, size), np.float32), NamedSharding(mesh, spec))
        product = jax.jit(jax.shard_map(lambda x: x @ x, mesh=mesh, in_specs=spec, out_specs=spec))
        jax.block_until_ready(product(ones))
        self._rivals: list[tuple[int, Callable[[], object]]] = [(devices, lambda: jax.block_until_ready(product(ones)))]
        if there[0].platform == "cpu" and devices == len(there):
            matrix = np.ones((size, size), np.float32)
            self._rivals.append((1, lambda: matrix @ matrix))
            _ = matrix @ matrix  # its threads start

    def sample(self) -> float:
        """Return the GFLOP/s of this moment."""
        reached = []
        for products, multiply in self._rivals:
            times = []
            for _ in range(_PRODUCTS):
                start = time.perf_counter()
                multiply()
                times.append(time.perf_counter() - start)
            reached.append(products * self._flops / statistics.median(times) / 1e9)
        self.samples.append(max(reached))
        return self.samples[-1]

    def summary(self) -> dict[str, float | list[float]]:
        """Return the median and the range of all samples as JSON values; nothing where there are none."""
        if not self.samples:
            return {}
        low, high = min(self.samples), max(self.samples)
        return {
            "peak_gflops": round(statistics.median(self.samples), 1),
            "peak_gflops_range": [round(low, 1), round(high, 1)],
        }
