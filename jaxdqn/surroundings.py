"""What a benchmark ran on: machine, versions, devices and their peak."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import jax

from jaxdqn import devices
from jaxdqn.benchmark import peak_gflops

_LIBRARIES = ("jaxdqn", "jax", "jaxlib", "numpy", "optuna")


def surroundings() -> dict[str, Any]:
    """Return machine and versions as JSON values; it measures the peak."""
    local = jax.local_devices()
    return {
        "machine": {
            "system": platform.platform(),
            "cores": devices.cores(),
            "devices": [device.device_kind for device in local],
            "peak_gflops": round(peak_gflops(len(local)), 1),
        },
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
    }


def head(result: dict[str, Any]) -> str:
    """Return the lines that stand above a table."""
    machine = result["machine"]
    kinds = ", ".join(sorted(set(machine["devices"])))
    there = f"{len(machine['devices'])} devices ({kinds}) of {machine['cores']} cores"
    versions = ", ".join(f"{name} {its}" for name, its in result["versions"].items())
    peers = ", ".join(f"{name} {its}" for name, its in sorted(result.get("peers", {}).items()))
    lines = [machine["system"], f"{there}, peak {machine['peak_gflops']:.0f} GFLOP/s", versions]
    return "\n".join([*lines, *([f"peers: {peers}"] if peers else [])])
