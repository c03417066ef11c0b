"""The replay of a block of lanes: one ring whose cursor all its lanes share, so that a write is one plain slice.

A lane's window is the last `size` slots before the cursor: lanes that started later, or keep fewer transitions, see
less of the ring. Sampling is with replacement (Lin 1992; Mnih et al. 2015).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxdqn import prng


class Transition(NamedTuple):
    """One step of an agent; arrays may have leading batch axes."""

    obs: Float[Array, "*batch obs"]
    action: Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    next_obs: Float[Array, "*batch obs"]
    terminated: Bool[Array, "*batch"]


class Replay(NamedTuple):
    """The ring of a block."""

    data: Float[Array, "slots lanes features"]  # obs, next_obs, action, reward, terminated side by side
    cursor: Int[Array, ""]  # the slot written next


def init(slots: int, lanes: int, obs_size: int) -> Replay:
    """Return an empty ring."""
    return Replay(data=jnp.zeros((slots, lanes, 2 * obs_size + 3), jnp.float32), cursor=jnp.zeros((), jnp.int32))


def rows(steps: Transition) -> Float[Array, "*batch features"]:
    """Put what a ring keeps of transitions side by side."""
    features = [steps.obs, steps.next_obs, *(x[..., None] for x in (steps.action, steps.reward, steps.terminated))]
    return jnp.concatenate([x.astype(jnp.float32) for x in features], axis=-1)


def add(replay: Replay, steps: Float[Array, "tick lanes features"]) -> Replay:
    """Write the rows of a tick's transitions. The tick divides the number of slots."""
    following = replay.cursor + steps.shape[0]
    return Replay(
        data=jax.lax.dynamic_update_slice(replay.data, steps, (replay.cursor, 0, 0)),
        cursor=jnp.where(following >= replay.data.shape[0], 0, following),
    )


def read(replay: Replay, slots: Int[Array, "lanes batch"]) -> Transition:
    """Read for each lane the transitions in these slots."""
    _, lanes, features = replay.data.shape
    # Behind the barrier the slots are drawn once; fused into the read they would be, for each feature of each row.
    found = replay.data[jax.lax.optimization_barrier(slots), jnp.arange(lanes)[:, None]]
    size = (features - 3) // 2
    return Transition(
        obs=found[..., :size],
        next_obs=found[..., size : 2 * size],
        action=found[..., -3].astype(jnp.int32),
        reward=found[..., -2],
        terminated=found[..., -1] > 0.5,
    )


def draw_slots(
    replay: Replay, key: prng.Key, draw: Int[Array, ""], size: Int[Array, ""], num: int
) -> Int[Array, " num"]:
    """Draw `num` slots of a window of the last `size` transitions: draw number `draw` of the stream `key`.

    The slots of a smaller even `num` are a prefix of these.
    """

    def slot(word: UInt32[Array, " pairs"]) -> Int[Array, " pairs"]:
        back = replay.cursor - 1 - prng.below(word, jnp.maximum(size, 1))
        return jnp.where(back < 0, back + replay.data.shape[0], back)

    pairs = prng.words(key, draw, jnp.arange((num + 1) // 2))
    return jnp.stack([slot(word) for word in pairs], axis=-1).reshape(-1)[:num]
