"""Counter-based random words: Threefry-2x32 with 20 rounds (Salmon et al. 2011), the generator of `jax.random`.

The same function of (key, counter), but written out: on a CPU `jax.random` runs it as a loop of small kernels, which
costs more than the environment step it serves; here XLA fuses all the draws of a block into one kernel.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Float, Int, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

Key = UInt32[Array, "2"]


def root(seed: Int[Array, ""] | int) -> Key:
    """Return the key of a seed, the words of `jax.random.key(seed)`."""
    return jnp.stack([jnp.uint32(0), jnp.asarray(seed).astype(jnp.uint32)])


def words(
    key: Key, high: Int[Array, "*shape"] | int, low: Int[Array, "*shape"] | int
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Return the two random words at the counter (high, low)."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    x = jnp.asarray(high).astype(jnp.uint32) + schedule[0]
    y = jnp.asarray(low).astype(jnp.uint32) + schedule[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x = x + y
            y = (y << rotation) | (y >> (32 - rotation))
            y = x ^ y
        x = x + schedule[(block + 1) % 3]
        y = y + schedule[(block + 2) % 3] + jnp.uint32(block + 1)
    return x, y


def fold(key: Key, high: Int[Array, ""] | int, low: Int[Array, ""] | int = 0) -> Key:
    """Return the key of a stream of its own, the one at the counter (high, low)."""
    return jnp.stack(words(key, high, low))


def jax_key(key: Key) -> Array:
    """Return a key for `jax.random`, whose draws are those of its own Threefry keys."""
    return jax.random.wrap_key_data(key, impl=_WRITTEN_OUT)


def uniform(word: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return a float in [0, 1) from the upper 24 bits of a word."""
    return (word >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def below(word: UInt32[Array, "*shape"], bound: Int[Array, ""]) -> Int[Array, "*shape"]:
    """Return ⌊word · bound / 2³²⌋, an integer in [0, bound) whose bias is below bound / 2³² (Lemire 2019)."""
    bound = jnp.asarray(bound).astype(jnp.uint32)
    half = jnp.uint32(0xFFFF)
    word_high, word_low, bound_high, bound_low = word >> 16, word & half, bound >> 16, bound & half
    cross, other = word_high * bound_low, word_low * bound_high
    carry = (cross & half) + (other & half) + ((word_low * bound_low) >> 16)
    return (word_high * bound_high + (cross >> 16) + (other >> 16) + (carry >> 16)).astype(jnp.int32)


def _split(key: Key, shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    counter = jnp.arange(math.prod(shape)).reshape(shape)
    return jnp.stack(words(key, 0, counter), axis=-1)


def _random_bits(key: Key, bit_width: int, shape: tuple[int, ...]) -> Array:
    x, y = words(key, 0, jnp.arange(math.prod(shape)).reshape(shape))
    if bit_width == 64:
        return (x.astype(jnp.uint64) << 32) | y
    return (x ^ y).astype(f"uint{bit_width}")


_WRITTEN_OUT = define_prng_impl(
    key_shape=(2,),
    seed=root,
    split=_split,
    random_bits=_random_bits,
    fold_in=lambda key, data: fold(key, 0, data),
    name="threefry2x32_written_out",
    tag="jaxdqn",
)
