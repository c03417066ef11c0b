"""A tree of the lanes' arrays as one array of each type.

What a loop carries costs kernels for each of its arrays, and on a CPU a kernel of a few lanes costs the same however
little it does: an environment step takes 0.65 to 0.75 of the time if its state is a few arrays.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

Tree = TypeVar("Tree", bound=PyTree)
Packed: TypeAlias = dict[str, Array]  # the numbers of each type, arrays of shape (numbers, lanes)


def pack(tree: PyTree) -> Packed:
    """Put the arrays of a tree, of shape (lanes, …), below each other; truth values go to the integers."""
    rows: dict[str, list[Array]] = {}
    for leaf in jax.tree.leaves(tree):
        numbers = leaf.astype(jnp.int32) if leaf.dtype == bool else leaf
        rows.setdefault(_kind(leaf), []).append(numbers.reshape(len(numbers), -1).T)
    return {kind: jnp.concatenate(arrays) for kind, arrays in rows.items()}


def unpack(packed: Packed, like: Tree) -> Tree:
    """Return the tree that was packed; `like` is one of its shapes."""
    leaves, used = [], dict.fromkeys(packed, 0)
    for leaf in jax.tree.leaves(like):
        kind, num = _kind(leaf), leaf.size // len(leaf)
        numbers = packed[kind][used[kind] : used[kind] + num].T.reshape(leaf.shape)
        leaves.append(numbers.astype(bool) if leaf.dtype == bool else numbers)
        used[kind] += num
    unpacked: Tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return unpacked


def _kind(leaf: Array) -> str:
    return "int32" if leaf.dtype == bool else str(leaf.dtype)
