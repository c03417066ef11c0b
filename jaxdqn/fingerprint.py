"""What the bits of a result depend on besides its arguments: elsewhere they may be others."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from platform import machine

import jax


def of_machine() -> dict[str, str]:
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
