"""What lanes take of a device's memory: counted from the shapes of their state, without a device.

What stays on a device (its rows) is exact. What a segment needs besides is bounded from above: how much of it lives at
one time is up to the compiler.
"""

from __future__ import annotations

import math
from functools import lru_cache

import jax

from jaxdqn import devices, evaluate, host_memory
from jaxdqn.block import empty_block
from jaxdqn.config import Config, Layout
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.judging import Names

PARTS = ("replay", "online", "target", "best", "optimiser", "environment", "validation")
ROWS = 2  # one trains while the host visits the other
PREALLOCATED = 0.75  # of a GPU's memory: what JAX takes of it unless told otherwise; no more is taken of a host's
_WORD = 4  # bytes of every number but the booleans


def part_bytes(config: Config, block: int) -> dict[str, int]:
    """Return the bytes of a block's state by part. All of it is counted: what has no name here is `environment`."""
    one, two = _counted(config, 1), _counted(config, 2)
    return {part: one[part] + (block - 1) * (two[part] - one[part]) for part in PARTS}


def argument_bytes(config: Config, block: int) -> int:
    """Return the bytes of what a device's program is given: the state, a placement, the ticks, the study's seed."""
    placement = _WORD * block * (1 + len(Names._fields) + len(Hyperparams._fields))
    return sum(part_bytes(config, block).values()) + placement + 2 * _WORD


def progress_bytes(config: Config, block: int) -> int:
    """Return the bytes of what a segment hands to the host; all else that it returns takes its arguments' place."""
    flags, numbers = 2, 5  # alive, diverged; step, episodes, updates, return_sum, loss_sum
    returns = max(config.eval_episodes, config.fresh_episodes)
    return block * (flags + _WORD * (numbers + len(config.rungs) + returns))


def temporary_bytes(config: Config, block: int, group: int) -> int:
    """Return the most bytes that a segment needs besides, whatever the compiler puts into one place.

    Everything but the ring once more (a condition writes its result beside what it was given), and the ring too where a
    block is one lane (XLA lays it out anew at both ends of a segment); what is drawn for a tick; and either the rows
    and activations of an update, online, target and backward, or judged episodes side by side, with their returns.
    """
    parts, env = part_bytes(config, block), make(config.env)
    state = sum(parts.values()) - (parts["replay"] if block > 1 else 0)
    features, units = 2 * env.obs_size + 3, config.hidden_layers * config.hidden_width + env.num_actions
    drawn = block * config.tick * 4 * features
    update = block * max(config.batch_sizes) * (2 * features + 3 * units)
    chunk = evaluate.chunk_of(max(config.eval_episodes, evaluate.MIN_CHUNK))
    most = max(config.eval_episodes, config.fresh_episodes, config.validation_episodes, config.proof_episodes)
    judged = group * chunk * (4 * features + 2 * units) + 3 * block * most
    return state + _WORD * (drawn + max(update, judged))


def device_bytes(config: Config, layout: Layout) -> int:
    """Return the most bytes that a population takes of each of its devices."""
    a_row = argument_bytes(config, layout.block) + progress_bytes(config, layout.block)
    return layout.rows * a_row + temporary_bytes(config, layout.block, layout.group)


def available_bytes(num_devices: int) -> float:
    """Return the bytes that a population may take of each device: a GPU's pool, or a share of the memory left here."""
    if devices.platform() == "cpu":
        left = host_memory.available_bytes()
        return math.inf if left is None else PREALLOCATED * left / num_devices
    known = [device.memory_stats() for device in jax.local_devices()[:num_devices]]
    return min((stats["bytes_limit"] - stats["bytes_in_use"] for stats in known if stats), default=math.inf)


def largest_block(config: Config, available: float, group: int, rows: int = ROWS) -> int:
    """Return how many lanes a block may have for so many rows to fit into `available` bytes; 0: none does."""

    def fits(block: int) -> bool:
        return device_bytes(config, Layout(rows, 1, block, min(group, block))) <= available

    low, high = 0, int(min(available, 2**50) // sum(part_bytes(config, 1).values()))
    while low < high:  # low fits, what is above high does not
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


@lru_cache(maxsize=64)
def _counted(config: Config, block: int) -> dict[str, int]:
    state = jax.eval_shape(lambda: empty_block(config, Layout(1, 1, block)))
    counted = dict.fromkeys(PARTS, 0)
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        names = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
        counted[_part(names)] += math.prod(leaf.shape) * leaf.dtype.itemsize
    return counted


def _part(names: list[str]) -> str:
    """Return what a leaf of a block's state counts as, by the names of the fields that lead to it."""
    if names[0] == "replay":
        return "replay"
    if names[0] == "record":
        return "best" if "best_params" in names else "validation"
    parts = {"params": "online", "target_params": "target", "opt_state": "optimiser"}
    return next((parts[name] for name in names if name in parts), "environment")
