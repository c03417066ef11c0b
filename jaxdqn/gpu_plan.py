"""What a population's segment would do on a GPU, read from the program that XLA compiles for it: compiled, not timed.

Launches, host waits, bytes and FLOPs are counted by what they are for, and what they take is predicted from them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxdqn import hlo
from jaxdqn.block import Block, empty_block
from jaxdqn.config import Config, Layout, bucket_of
from jaxdqn.gpu_loops import SCOPES, Kernel, Loop, loops
from jaxdqn.gpu_targets import Target, described_devices
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.population import Population


class Compiled(NamedTuple):
    """A segment compiled for a GPU."""

    text: str
    entry: Loop
    row_bytes: int  # of a row's state
    temporary_bytes: int  # while a segment runs


def compile_for(target: Target, config: Config, layout: Layout) -> Compiled:
    """Compile a segment for a GPU that need not be there.

    Raises:
        ModuleNotFoundError: JAX's CUDA plug-in is not installed.
    """
    devices = described_devices(target)
    compiled = Population(config, layout, 0, devices).lower().compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None
    assert memory is not None
    fresh_bytes = memory.output_size_in_bytes - memory.alias_size_in_bytes
    entry = loops(hlo.parse(text))
    return Compiled(text, entry, memory.alias_size_in_bytes, memory.temp_size_in_bytes + fresh_bytes)


def counts(compiled: Compiled, config: Config, layout: Layout, target: Target) -> dict[str, Any]:
    """Count kernels, host waits and copies of steps, updates and ticks, and the memory; predict what they take."""
    entry = compiled.entry
    parts = _parts(entry, config)
    buffers = big_buffers(config, layout)
    copied = [
        {"loop": loop.label, "kernel": kernel.name, "shape": kernel.shape, "of": of}
        for depth, loop in entry.all()
        for kernel in loop.turn
        if depth and kernel.kind == "copy" and (of := _named(kernel.shape, buffers))
    ]
    needed = compiled.row_bytes * layout.rows + compiled.temporary_bytes
    return {
        "target": target.name,
        "lanes": layout.lanes,
        "block": layout.block,
        "rows": layout.rows,
        "tick_steps": config.tick,
        "parts": [_told(part, target) for part in parts],
        "copies_in_loops": copied,
        "memory": {
            "row_bytes": compiled.row_bytes,
            "temporary_bytes": compiled.temporary_bytes,
            "bytes": needed,
            "of_bytes": target.memory,
            "fits": needed <= target.memory,
        },
        "loops": [
            {**_told(Part(loop.label, loop.turn, loop.entered()[1]), target), "depth": depth, "trips": loop.trips}
            for depth, loop in entry.all()
        ],
    }


class Part(NamedTuple):
    """What belongs to one environment step, or to one update, or to whatever the name says."""

    name: str
    kernels: list[Kernel]
    waits: int


def _parts(entry: Loop, config: Config) -> list[Part]:
    """Return what a block does in a tick, an environment step, an update in each bucket, and a segment."""
    its = {name: [loop for _, loop in entry.all() if loop.label == label] for name, label in SCOPES.items()}
    tick = its["tick"][0]
    quiet, waits = list(tick.turn), tick.entered()[1]
    for loop in tick.inner:
        quiet += loop.turn * (loop.trips or 0) + loop.entered()[0]
        waits += loop.entered()[1]
    due, begun = (
        outer.turn + [kernel for loop in outer.inner for kernel in loop.entered()[0]]
        for outer in (its["due"][0], entry)
    )
    return [
        Part("tick, nothing due", quiet, waits),
        Part("what is due", due, 1 + len(its["due"][0].inner)),
        *(
            Part(f"update of {size}", loop.turn, 1 + sum(inner.entered()[1] for inner in loop.inner))
            for size, loop in zip(config.batch_sizes, its["update"], strict=True)
        ),
        Part("target copy", its["copy"][0].turn, 1),
        Part("segment", begun, len(entry.inner)),
    ]


def _told(part: Part, target: Target) -> dict[str, Any]:
    return {
        "part": part.name,
        "kernels": len(part.kernels),
        "products": sum(kernel.kind == "product" for kernel in part.kernels),
        "copies": sum(kernel.kind == "copy" for kernel in part.kernels),
        "waits": part.waits,
        "bytes": sum(kernel.bytes for kernel in part.kernels),
        "flops": sum(kernel.flops for kernel in part.kernels),
        "predicted_s": seconds(part.kernels, part.waits, target),
    }


def bars(counted: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Return what is counted against the most it should be."""
    parts = {part["part"]: part for part in counted["parts"]}
    tick = parts["tick, nothing due"]
    return {
        "kernels of an environment step": (tick["kernels"] / counted["tick_steps"], 12),
        **{f"kernels of an {name}": (parts[name]["kernels"], 30) for name in parts if name.startswith("update of")},
        "host waits of a tick with nothing due": (tick["waits"], 1),
        "copies of replay or parameters in loops": (len(counted["copies_in_loops"]), 0),
    }


def seconds(kernels: list[Kernel], waits: int, target: Target) -> tuple[float, float]:
    """Predict what kernels and host waits take, at best and at worst.

    A kernel takes as long as its launch, its bytes at the memory's bandwidth, or its FLOPs at the fp32 peak, whichever
    is longest.
    """
    low, high = (
        sum(max(launch, k.bytes / target.bandwidth, k.flops / target.flops) for k in kernels) + waits * wait
        for launch, wait in zip(target.launch_s, target.wait_s, strict=True)
    )
    return low, high


def speed(counted: dict[str, Any], hyperparams: Hyperparams, config: Config) -> dict[str, tuple[float, float]]:
    """Predict environment steps and updates a second, at worst and at best, if all lanes are agents of one kind.

    Validations, scores and visits are not in it.
    """
    parts = {part["part"]: part["predicted_s"] for part in counted["parts"]}
    update = parts[f"update of {config.batch_sizes[bucket_of(hyperparams.batch_size, config)]}"]
    events = config.tick / hyperparams.train_period  # a tick, on average
    updates, copies = hyperparams.gradient_steps * events, min(config.tick / hyperparams.target_period, events)
    best_s, worst_s = (
        tick + events * due + updates * each + copies * copy
        for tick, due, each, copy in zip(
            *(parts["tick, nothing due"], parts["what is due"], update, parts["target copy"]), strict=True
        )
    )
    lanes = counted["block"]
    return {
        "env_steps_per_s": (config.tick * lanes / worst_s, config.tick * lanes / best_s),
        "updates_per_s": (updates * lanes / worst_s, updates * lanes / best_s),
    }


def big_buffers(config: Config, layout: Layout) -> dict[str, set[tuple[int, ...]]]:
    """Return the shapes of what no loop should copy, without axes of length 1 and in any order."""
    block: Block = jax.eval_shape(lambda: empty_block(config, layout))
    learner = block.agents.learner
    parameters = [leaf for leaf in jax.tree.leaves((learner.params, learner.opt_state)) if leaf.ndim > 1]
    return {"replay": {_sorted(block.replay.data.shape)}, "parameters": {_sorted(leaf.shape) for leaf in parameters}}


def _named(shape: str, buffers: dict[str, set[tuple[int, ...]]]) -> str:
    found = {_sorted(sizes) for _, sizes in hlo.arrays(shape)}
    return next((name for name, shapes in buffers.items() if found & shapes), "")


def _sorted(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size > 1))
