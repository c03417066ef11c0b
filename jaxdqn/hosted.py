"""Where a notebook runs: which service, whether JAX computes on its GPUs, and what its results survive there.

Knows Colab and Kaggle by their environment; asks no network.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from enum import Enum
from importlib import metadata
from pathlib import Path

DRIVE = Path("/content/drive")
INPUTS = Path("/kaggle/input")
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_DEPTH = 4  # directories between Kaggle's inputs and the `runs` of a notebook's output


class Service(Enum):
    """A place that runs notebooks."""

    COLAB = "Colab"
    KAGGLE = "Kaggle"
    OTHER = "this machine"


_CHOOSE = {
    Service.COLAB: "Runtime > Change runtime type > T4 GPU",
    Service.KAGGLE: "Settings > Accelerator > GPU T4 x2",
}
_RESTART = {Service.COLAB: "Runtime > Restart session", Service.KAGGLE: "Run > Restart & clear cell outputs"}
_RENEW = {Service.COLAB: "Runtime > Disconnect and delete runtime", Service.KAGGLE: "Run > Power off, then on again"}


def service() -> Service:
    """Return where this process runs. Kaggle is asked for first: its image descends from Colab's."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return Service.KAGGLE
    return Service.COLAB if "COLAB_RELEASE_TAG" in os.environ else Service.OTHER


def cards() -> list[str]:
    """Return the names of the NVIDIA GPUs the driver knows, whatever JAX makes of them."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def plugin() -> str | None:
    """Return the CUDA plug-in of JAX that is installed, with its version."""
    for name in _PLUGINS:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def advice(where: Service, backend: str, gpus: list[str], cuda: str | None) -> list[str]:
    """Return what to do, a sentence each, where JAX computes on no GPU; nothing where it does.

    Args:
        where: the service.
        backend: JAX's own word for what it computes on.
        gpus: those the driver knows.
        cuda: JAX's plug-in for them, if it is installed.
    """
    if backend == "gpu":
        return []
    choose = f"Choose {_CHOOSE[where]}, then run all cells again." if where in _CHOOSE else ""
    if backend != "cpu":
        return [f"JAX computes on a {backend.upper()} here, on which jaxdqn was never tried.", choose]
    if not gpus:
        found = f"No GPU is chosen for this session of {where.value}" if choose else "No NVIDIA GPU was found here"
        slow = "The sweep runs on a CPU too, with few agents at a time: choose fewer trials then."
        return [f"{found}: JAX computes on the CPU.", choose, slow]
    lost = f"There is a GPU ({gpus[0]}), but JAX computes on the CPU."
    if os.environ.get("JAX_PLATFORMS"):
        return [
            lost,
            f"The environment variable JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} tells it to: take it away.",
        ]
    never = "Do not install another jax or jaxlib: it would not fit what is there."
    renew = f"take a new one: {_RENEW[where]}." if where in _RENEW else "look at what nvidia-smi says."
    if cuda:
        how = f" ({_RESTART[where]})" if where in _RESTART else ""
        again = f"Restart the session{how} and run all cells again; if that does not help, {renew}"
        return [lost, f"Its plug-in {cuda} is installed, but could not start.", again, never]
    if where is Service.OTHER:
        return [lost, 'Its plug-in is missing: pip install -e ".[cuda12]" in the checkout, then restart the notebook.']
    return [lost, f"Its plug-in, which every new session has, is gone from this one; {renew}", never]


def mount_drive() -> Path:
    """Mount the user's drive on Colab, which asks for leave once a session; return where jaxdqn's part of it is.

    Raises:
        ValueError: it can't be mounted; says why.
    """
    try:
        from google.colab import drive

        drive.mount(str(DRIVE))
        ours = DRIVE / "MyDrive" / "jaxdqn"
        ours.mkdir(exist_ok=True)
    except Exception as error:  # of whatever the service raises
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    return ours


def carry_over(inputs: Path, runs: Path) -> list[Path]:
    """Copy the sweeps in the outputs of earlier sessions to where this one goes on; return their directories here.

    What is here stays. Of several copies of a sweep the one with the longest log is taken: a log only grows.
    """
    found: dict[str, Path] = {}
    for depth in range(_DEPTH + 1):
        for log in inputs.glob("*/" * depth + "runs/*/study.log"):
            known = found.get(log.parent.name)
            if known is None or log.stat().st_size > (known / "study.log").stat().st_size:
                found[log.parent.name] = log.parent
    copied = []
    for name, source in sorted(found.items()):
        if not (runs / name).exists():
            _copy(source, runs / name)
            copied.append(runs / name)
    return copied


def _copy(source: Path, target: Path) -> None:
    """Copy a directory whole or not at all, without the modes of its files: inputs can't be written."""
    beside = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        for path in sorted(source.rglob("*")):
            copy = beside / path.relative_to(source)
            (copy if path.is_dir() else copy.parent).mkdir(parents=True, exist_ok=True)
            if path.is_file():
                shutil.copyfile(path, copy)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
