"""GPUs that XLA can compile for where there is none: what they are, and what a launch costs on them, roughly.

Sizes, clocks and bandwidths: NVIDIA's data sheets of the T4, A100 and H100. XLA chooses kernels by them.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from importlib import util
from typing import NamedTuple

import jax

MISSING = 'compiling for a GPU needs JAX\'s CUDA plug-in: pip install -e ".[cuda12]"'


class Target(NamedTuple):
    """A GPU."""

    name: str
    capability: tuple[int, int]  # CUDA's compute capability
    cores: int  # streaming multiprocessors
    units: int  # fp32 units in each
    clock_ghz: float  # at most
    bandwidth: int  # bytes/s of its memory
    memory: int  # bytes that programs can use
    cache: int  # bytes of the L2 cache
    shared: tuple[int, int]  # bytes of shared memory: a multiprocessor's, and what a kernel may ask for
    threads: int  # a multiprocessor's
    launch_s: tuple[float, float]  # a kernel that is queued behind another one, at best and at worst
    wait_s: tuple[float, float]  # the host waits for a value and then goes on: a copy back and an empty queue

    @property
    def flops(self) -> float:
        """Peak fp32 FLOP/s without tensor cores."""
        return 2 * self.cores * self.units * self.clock_ghz * 1e9


# Launches: 4-8 µs a kernel and 8 µs a turn of a loop were measured on a T4 (2 cores of a cloud machine). NVIDIA
# ("Getting started with CUDA graphs", 2019) measured 3.8 µs a kernel back to back and 9.6 µs if the host waits for each
# on a V100; newer GPUs have faster hosts and are taken to need 2.5-5 µs, and 8-20 µs where the host waits.
TARGETS = {
    "t4": Target(
        "Tesla T4", (7, 5), 40, 64, 1.59, 320_064_000_000, 15_835_660_288, 4_194_304, (65_536, 65_536), 1024,
        (4e-6, 8e-6), (10e-6, 25e-6),
    ),
    "a100": Target(
        "NVIDIA A100-SXM4-40GB", (8, 0), 108, 64, 1.41, 1_555_200_000_000, 42_505_273_344, 41_943_040,
        (167_936, 166_912), 2048, (2.5e-6, 5e-6), (8e-6, 20e-6),
    ),
    "h100": Target(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 3_352_320_000_000, 84_942_979_072, 52_428_800,
        (233_472, 232_448), 2048, (2.5e-6, 5e-6), (8e-6, 20e-6),
    ),
}  # fmt: skip


def check_plugin() -> None:
    """Raise where JAX's CUDA plug-in is not installed.

    Raises:
        ModuleNotFoundError: it is not; the message says what to install.
    """
    if util.find_spec("jax_plugins") is None or util.find_spec("jax_plugins.xla_cuda12") is None:
        raise ModuleNotFoundError(MISSING)


def described_devices(target: Target) -> list[jax.Device]:
    """Return a device to compile for, which need not be there.

    Raises:
        ModuleNotFoundError: JAX's CUDA plug-in is not installed.
    """
    check_plugin()
    import jax_plugins.xla_cuda12 as plugin
    from jax._src import xla_bridge
    from jax.experimental import topologies

    with _silent():
        plugin._import_extensions()
        with contextlib.suppress(Exception):  # a driver's libraries: none are needed to compile
            plugin._load_nvidia_libraries()
        with contextlib.suppress(Exception):  # registered already, where a GPU is at hand
            xla_bridge.register_plugin("cuda", priority=500, library_path=str(plugin._get_library_path()), options=None)
        described = topologies.get_topology_desc(
            "", platform="cuda", target_config=_in_xlas_words(target), topology="1x1x1"
        )
    return list(described.devices)


def _in_xlas_words(target: Target) -> str:
    """Return XLA's GpuTargetConfigProto as text."""
    major, minor = target.capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {target.shared[0]}
  shared_memory_per_block_optin: {target.shared[1]}
  threads_per_core_limit: {target.threads} core_count: {target.cores} fpus_per_core: {target.units}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {target.bandwidth} l2_cache_size: {target.cache} clock_rate_ghz: {target.clock_ghz}
  device_memory_size: {target.memory} pcie_bandwidth: 17179869184 ecc_enabled: true device_address_bits: 64
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  device_vendor: "NVIDIA Corporation" platform_version: "Compute Capability {major}.{minor}"
  model_str: "sm_{major}.{minor}" name: "{target.name}"
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0" dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{target.name}"
"""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The plug-in complains at length on file descriptor 2 that there is no driver."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
