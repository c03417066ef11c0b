"""The devices a sweep runs on: all cores of this process as so many CPU devices, or all GPUs.

XLA reads its settings once, when its backend starts, so `prepare` must come before anything touches a device.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax

from jaxdqn.config import Layout

_PLUGINS = [f"jax-cuda{cuda}-{part}" for cuda in (12, 13) for part in ("plugin", "pjrt")]
_LANES_A_BLOCK = {"cpu": 4, "gpu": 256}
_ROWS = 2  # one trains while the host visits the other


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(num_devices: int | None = None) -> None:
    """Make each core a device of its own that computes alone; let no GPU round its products to TF32.

    Two cores that train two blocks apart do more updates than one block spread over XLA's pool of threads.
    Where the backend has started already, as in a notebook that is run again, it keeps the devices it has.
    """
    # The second: a GPU's kernels are chosen by rule, not by timing them, which comes out otherwise in each process.
    for flag, value in (("--xla_cpu_multi_thread_eigen", "false"), ("--xla_gpu_autotune_level", "0")):
        if flag not in os.environ.get("XLA_FLAGS", ""):
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={value}".strip()
    # XLA's pool: a thread for each device and none to spare. An idle one would be given a share of every large product,
    # which costs more than it saves where each core has a segment of its own.
    os.environ.setdefault("NPROC", str(num_devices or cores()))
    with contextlib.suppress(RuntimeError):  # the backend has started
        jax.config.update("jax_num_cpu_devices", num_devices or cores())
    jax.config.update("jax_default_matmul_precision", "float32")


def platform() -> str:
    """Return `cpu` or `gpu`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "cpu" if jax.default_backend() == "cpu" else "gpu"


def sees_gpu() -> bool:
    """Return whether a device of NVIDIA's is visible, whatever JAX does with it."""
    return any(re.fullmatch(r"nvidia\d+", path.name) for path in Path("/dev").glob("nvidia*"))


class Surroundings(NamedTuple):
    """What decides whether JAX uses a GPU."""

    plugins: dict[str, str]  # JAX's CUDA plug-ins that are installed: distribution -> version
    jaxlib: str  # its version
    gpu: bool  # a device of NVIDIA's is visible
    driver: bool  # a driver of NVIDIA's is
    environment: Mapping[str, str]
    error: str  # JAX's own, "" if it has none


def ignored_gpu() -> str | None:
    """Say in a line why JAX ignores a GPU that is there or was asked for; None if it doesn't."""
    return None if platform() == "gpu" else why_ignored(_surroundings())


def why_ignored(around: Surroundings) -> str | None:
    """Return why JAX's backend is the CPU though a CUDA plug-in is installed or a GPU is visible; None: neither is."""
    if not around.plugins:
        missing = "JAX has no CUDA plug-in, so the sweep runs on the CPU: pip install -e '.[cuda12]'"
        return f"a GPU is there, but {missing}" if around.gpu else None
    ignored = "a CUDA plug-in for JAX is installed, but the CPU is used"
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        value = around.environment.get(name, "")
        if "cpu" in value and not {"cuda", "gpu"} & set(value.split(",")):
            return f"{ignored}: {name}={value} is set"
    if not around.driver:
        return f"{ignored}: no NVIDIA driver or device is visible here (in a notebook, choose a runtime with a GPU)"
    if around.environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return f"{ignored}: CUDA_VISIBLE_DEVICES={around.environment['CUDA_VISIBLE_DEVICES']} hides all GPUs"
    for plugin, version in around.plugins.items():
        if _release(version) != _release(around.jaxlib):
            mend = "install matching ones (pip install -e '.[cuda12]' brings them) or restart the runtime"
            return f"{ignored}: {plugin} is {version}, jaxlib is {around.jaxlib}; {mend}"
    if not around.gpu:
        return f"{ignored}: an NVIDIA driver is loaded, but no device is visible (does the container have a GPU?)"
    return f"{ignored}: {around.error or 'JAX does not say why'}"


def _surroundings() -> Surroundings:
    gpu = sees_gpu()
    plugins = {}
    for name in _PLUGINS:
        try:
            plugins[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    driver = gpu or any(map(os.path.exists, ("/proc/driver/nvidia", "/dev/dxg")))  # the latter: Windows' WSL
    try:
        jax.devices("cuda")
        error = ""
    except RuntimeError as refused:
        error = (str(refused).strip().splitlines() or [""])[0]
    return Surroundings(plugins, metadata.version("jaxlib"), gpu, driver, os.environ, error)


def _release(version: str) -> str:
    """Return the numbers of a version."""
    found = re.match(r"\d+(\.\d+)*", version)
    return found[0] if found else version


def num_devices(wanted: int | None = None) -> int:
    """Return how many devices are to be used, all of them unless another number is wanted.

    Raises:
        ValueError: there are not that many.
    """
    there = len(jax.local_devices())
    if wanted is not None and not 1 <= wanted <= there:
        raise ValueError(f"--devices {wanted} is not allowed: this machine has {there} ({platform()})")
    return wanted or there


def choose_layout(lanes: int | None = None, devices: int | None = None, largest_block: int | None = None) -> Layout:
    """Choose rows, devices and block for at least `lanes` lanes.

    Raises:
        ValueError: there are not that many devices, or no lane at all.
    """
    devices = num_devices(devices)
    if lanes is not None and not 1 <= lanes <= 1_000_000:
        raise ValueError(f"--lanes {lanes} is not allowed: int in [1, 1000000]")
    if lanes is None:
        lanes = _ROWS * devices * _LANES_A_BLOCK[platform()]
    return lay_out(lanes, min(devices, lanes), largest_block, platform())


def lay_out(lanes: int, devices: int, largest_block: int | None, on: str) -> Layout:
    """Lay at least `lanes` lanes out on so many devices of a platform, `cpu` or `gpu`."""
    block = min(largest_block or _LANES_A_BLOCK[on], -(-lanes // (devices * _ROWS)))
    rows = -(-lanes // (devices * block))
    return layout_of(rows, devices, block, on)


def layout_of(rows: int, devices: int, block: int, on: str) -> Layout:
    """Lay out rows of blocks on a platform; lanes are judged together where that saves launches."""
    return Layout(rows=rows, devices=devices, block=block, group=1 if on == "cpu" else min(block, 16))
