"""Traced programs, kept beside the compiled ones: to trace one again takes Python longer than to import everything.

What is kept is StableHLO with a checksum, no pickle. Its name is a digest of all that it is made from: this package's
sources, the versions of what they call, JAX's settings, the devices, and what the caller names.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax import export
from jaxtyping import PyTree

from jaxdqn import compile_cache, files, fingerprint

_MADE_WITH = ("flax", "gymnax", "numpy", "optax")
_SETTINGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_disable_jit",
    "jax_enable_x64",
    "jax_numpy_rank_promotion",
    "jax_threefry_partitionable",
    "jax_use_shardy_partitioner",
)
# What no other version of XLA need know: the programs are for this one.
_FOR_THIS_XLA = (export.DisabledSafetyCheck.custom_call("LayoutConstraint"),)
_SOURCES = Path(__file__).parent
_CHECKSUM_BYTES = hashlib.sha256().digest_size


def exported(
    program: jax.stages.Wrapped, arguments: tuple[PyTree, ...], results: PyTree, made_from: object | None
) -> Callable[..., Any]:
    """Return a program as it was traced, by this process or an earlier one: a function that is not traced again.

    Args:
        program: what is traced if nothing is kept.
        arguments: arrays, or their shapes, that it takes.
        results: what has the structure of what it returns.
        made_from: whatever decides what it is besides this package's sources; None: it is not to be kept.
    """
    directory = compile_cache.directory()
    path = None if directory is None or made_from is None else directory / f"{_name(made_from)}.stablehlo"
    structure = jax.tree.structure(results)
    found = _load(path) if path else None
    if found is None:
        leaves, taken = jax.tree.flatten(arguments)

        def flat(*leaves: Any) -> list[Any]:
            return jax.tree.leaves(program(*jax.tree.unflatten(taken, leaves)))

        found = export.export(jax.jit(flat), disabled_checks=_FOR_THIS_XLA)(*leaves)
        if path:
            _store(path, found)
    call: Callable[..., Any] = found.call
    return lambda *given: jax.tree.unflatten(structure, call(*jax.tree.leaves(given)))


def _name(made_from: object) -> str:
    settings = {name: getattr(jax.config, name, None) for name in _SETTINGS}
    versions = {name: version(name) for name in _MADE_WITH} | {"python": sys.version}
    about = json.dumps([fingerprint.of_machine(), len(jax.local_devices()), settings, versions, repr(made_from)])
    digest = hashlib.sha256(about.encode())
    for source in sorted(_SOURCES.glob("*.py")):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def _load(path: Path) -> export.Exported | None:
    """Return a program that was kept; None if there is none, or not all of it."""
    try:
        content = path.read_bytes()
        checksum, kept = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        return export.deserialize(bytearray(kept)) if hashlib.sha256(kept).digest() == checksum else None
    except OSError:
        return None


def _store(path: Path, program: export.Exported) -> None:
    """Keep a program; if that can't be done, the next process traces it again."""
    try:
        kept = bytes(program.serialize())
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, hashlib.sha256(kept).digest() + kept)
    except OSError:
        return
