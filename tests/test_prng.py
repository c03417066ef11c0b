"""The written-out generator is the one of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

from jaxdqn import prng


def test_words_are_those_of_threefry() -> None:
    key = prng.root(7)
    high, low = jnp.array([0, 3, 2**31 - 1]), jnp.array([5, 0, 9])
    ours = jnp.concatenate(prng.words(key, high, low))
    assert np.array_equal(ours, threefry_2x32(key, jnp.concatenate([high, low]).astype(jnp.uint32)))


def test_the_root_of_a_seed_is_the_key_of_jax() -> None:
    assert np.array_equal(prng.root(12), jax.random.key_data(jax.random.key(12)))


def test_a_folded_key_is_the_one_jax_folds() -> None:
    ours = prng.jax_key(prng.fold(prng.root(3), 0, 11))
    theirs = jax.random.fold_in(jax.random.key(3), 11)
    assert np.array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


def test_a_wrapped_key_draws_what_jax_draws() -> None:
    ours, theirs = prng.jax_key(prng.root(5)), jax.random.key(5)
    assert np.array_equal(jax.random.uniform(ours, (3, 2)), jax.random.uniform(theirs, (3, 2)))
    assert np.array_equal(jax.random.randint(ours, (5,), 0, 9), jax.random.randint(theirs, (5,), 0, 9))
    split = jax.random.split(ours, 3)
    assert np.array_equal(jax.random.key_data(split), jax.random.key_data(jax.random.split(theirs, 3)))
    assert np.array_equal(jax.random.bits(ours, (4,), "uint8"), jax.random.bits(theirs, (4,), "uint8"))
    assert jax.random.normal(jax.random.fold_in(ours, 2)) == jax.random.normal(jax.random.fold_in(theirs, 2))


def test_uniform_floats_stay_below_one() -> None:
    edges = prng.uniform(jnp.array([0, 2**32 - 1, 2**31], jnp.uint32))
    assert edges[0] == 0.0
    assert edges[1] < 1.0
    assert edges[2] == 0.5


def test_a_word_is_scaled_to_its_bound_exactly() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 2_000, dtype=np.uint64)
    for bound in (1, 2, 7, 65_536, 99_999, 10_000_000, 2**31 - 1):
        expected = (words * np.uint64(bound)) >> np.uint64(32)
        assert np.array_equal(prng.below(jnp.asarray(words.astype(np.uint32)), jnp.int32(bound)), expected.astype(int))
