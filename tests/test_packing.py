"""What is packed comes back as it was, to the bit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.packing import pack, unpack


class Life(NamedTuple):
    place: Any
    step: Any
    alive: Any
    board: Any
    key: Any


def life(seed: int, lanes: int = 3) -> Life:
    rng = np.random.default_rng(seed)
    return Life(
        place=(jnp.asarray(rng.normal(size=(lanes, 4)), jnp.float32), jnp.asarray(rng.normal(size=lanes), jnp.float32)),
        step=jnp.asarray(rng.integers(2**30, 2**31 - 1, lanes), jnp.int32),  # of which a float keeps 24 bits
        alive=jnp.asarray(rng.integers(0, 2, lanes), bool),
        board=jnp.asarray(rng.integers(0, 200, (lanes, 2, 5)), jnp.uint8),
        key=jax.random.key_data(jax.random.split(jax.random.key(seed), lanes)),
    )


def test_a_tree_comes_back_to_the_bit() -> None:
    tree = life(0)
    back = unpack(pack(tree), life(1))
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_a_tree_of_floats_integers_and_truth_values_is_two_arrays() -> None:
    tree = life(0)
    shapes = {kind: numbers.shape for kind, numbers in pack((tree.place, tree.step, tree.alive)).items()}
    assert shapes == {"float32": (5, 3), "int32": (2, 3)}


def test_a_loop_may_carry_it() -> None:
    def turn(packed: dict[str, jax.Array], _: None) -> tuple[dict[str, jax.Array], None]:
        tree = unpack(packed, start)
        return pack(tree._replace(step=tree.step - 1, alive=~tree.alive)), None

    start = life(0)
    end = unpack(jax.lax.scan(turn, pack(start), length=3)[0], start)
    assert np.array_equal(end.step, start.step - 3)
    assert np.array_equal(end.alive, ~start.alive)
    assert np.array_equal(end.board, start.board)
