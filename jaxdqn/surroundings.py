"""What a benchmark ran on: machine, devices, versions, and the peak that was sampled beside it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import jax

from jaxdqn import devices, fingerprint
from jaxdqn.peak import Peak

_LIBRARIES = ("jaxdqn", "jax", "jaxlib", "numpy", "optuna")


def surroundings() -> dict[str, Any]:
    """Return machine and versions as JSON values."""
    known = fingerprint.of_machine()
    return {
        "machine": {
            "device": known["device"],
            "devices": len(jax.local_devices()),
            "cores": devices.cores(),
            "system": platform.platform(),
            "xla_flags": known["xla_flags"],
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "its own"),
        },
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
    }


def with_peak(about: dict[str, Any], peak: Peak | None = None) -> dict[str, Any]:
    """Return surroundings with the peak's samples, one taken now at least; None: a peak of all devices."""
    peak = peak or Peak(about["machine"]["devices"])
    if not peak.samples:
        peak.sample()
    return about | peak.summary()


def head(about: dict[str, Any]) -> str:
    """Return the lines that stand above a table."""
    machine = about["machine"]
    lines = [
        f"{machine['device']}: {machine['cores']} cores, {machine['devices']} devices",
        _listed(about["versions"]),
        f"peers: {_listed(about['peers'])}" if about.get("peers") else "",
        about_peak(about),
    ]
    return "\n".join(filter(None, lines))


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {its}" for name, its in versions.items())


def about_peak(about: dict[str, Any]) -> str:
    """Return the peak in a line; nothing where it was not sampled."""
    if about.get("peak_gflops") is None:
        return ""
    low, high = about["peak_gflops_range"]
    return f"peak: {about['peak_gflops']:.0f} GFLOP/s ({low:.0f}-{high:.0f}), of one fp32 product of 2048³ a device"
