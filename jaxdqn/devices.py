"""The devices a sweep runs on: all cores of this process as so many CPU devices, or all GPUs.

XLA reads its settings once, when its backend starts, so `prepare` must come before anything touches a device.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from importlib.metadata import version
from pathlib import Path
from platform import machine

import jax

from jaxdqn.config import Layout

_LANES_A_BLOCK = {"cpu": 4, "gpu": 256}
_ROWS = 2  # one trains while the host visits the other


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(num_devices: int | None = None) -> None:
    """Make each core a device of its own that computes alone; let no GPU round its products to TF32.

    Two cores that train two blocks apart do more updates than one block spread over XLA's pool of threads.
    """
    flag = "--xla_cpu_multi_thread_eigen"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}=false".strip()
    # XLA's pool: a thread for each device, which it keeps while a segment runs, and one to hand out the next segments.
    os.environ.setdefault("NPROC", str((num_devices or cores()) + 1))
    jax.config.update("jax_num_cpu_devices", num_devices or cores())
    jax.config.update("jax_default_matmul_precision", "float32")


def platform() -> str:
    """Return `cpu` or `gpu`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "cpu" if jax.default_backend() == "cpu" else "gpu"


def fingerprint() -> dict[str, str]:
    """Return what the bits of a result depend on, besides the program: JAX's versions, the devices, XLA's settings."""
    device = jax.local_devices()[0]
    flags = " ".join(sorted(os.environ.get("XLA_FLAGS", "").split()))
    model = _cpu_model() if device.platform == "cpu" else device.device_kind
    return {"jax": jax.__version__, "jaxlib": version("jaxlib"), "device": model, "xla_flags": flags}


def _cpu_model() -> str:
    """Return the CPU's model and what its instructions are, for which XLA makes its code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return machine()
    first = dict(line.split(":", 1) for line in reversed(lines) if line.startswith(("model name", "flags", "Features")))
    known = {key.strip(): value.strip() for key, value in first.items()}
    features = " ".join(sorted((known.get("flags") or known.get("Features") or "").split()))
    digest = hashlib.sha256(features.encode()).hexdigest()[:16]
    return f"{known.get('model name', machine())} ({digest})"


def choose_layout(lanes: int | None = None, devices: int | None = None, largest_block: int | None = None) -> Layout:
    """Choose rows, devices and block for at least `lanes` lanes.

    Raises:
        ValueError: there are not that many devices, or no lane at all.
    """
    there = len(jax.local_devices())
    if devices is not None and not 1 <= devices <= there:
        raise ValueError(f"--devices {devices} is not allowed: this machine has {there} ({platform()})")
    if lanes is not None and not 1 <= lanes <= 1_000_000:
        raise ValueError(f"--lanes {lanes} is not allowed: int in [1, 1000000]")
    devices = devices or there
    if lanes is None:
        lanes = _ROWS * devices * _LANES_A_BLOCK[platform()]
    devices = min(devices, lanes)
    block = min(largest_block or _LANES_A_BLOCK[platform()], -(-lanes // (devices * _ROWS)))
    rows = -(-lanes // (devices * block))
    return Layout(rows=rows, devices=devices, block=block, group=1 if platform() == "cpu" else min(block, 16))
