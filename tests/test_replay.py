"""The ring of a block: writes wrap, windows start where a lane started."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import prng, replay
from jaxdqn.replay import Replay, Transition

SLOTS, LANES, TICK = 6, 2, 2


def steps(first: int, terminated: bool = False) -> Transition:
    """A tick's transitions whose numbers say step and lane: obs = 10 step + lane, and so on."""
    number = 10.0 * jnp.arange(first, first + TICK)[:, None] + jnp.arange(LANES)[None]
    return Transition(
        obs=jnp.stack([number, -number], axis=-1),
        action=(number % 7).astype(jnp.int32),
        reward=number + 0.25,
        next_obs=jnp.stack([number + 10, -number - 10], axis=-1),
        terminated=jnp.full(number.shape, terminated),
    )


def filled(num_ticks: int) -> Replay:
    ring = replay.init(SLOTS, LANES, 2)
    for tick in range(num_ticks):
        ring = replay.add(ring, replay.rows(steps(tick * TICK)))
    return ring


def read_back(ring: Replay, back: list[list[int]]) -> Transition:
    """What each lane did so many steps ago; 0: its last one."""
    return replay.read(ring, (ring.cursor - 1 - jnp.array(back)) % SLOTS)


def test_a_lane_reads_its_own_transitions() -> None:
    read = read_back(filled(2), [[0, 1, 3], [0, 2, 3]])
    assert np.array_equal(read.obs[..., 0], [[30, 20, 0], [31, 11, 1]])
    assert np.array_equal(read.next_obs[..., 1], [[-40, -30, -10], [-41, -21, -11]])


def test_a_transition_comes_back_whole() -> None:
    ring = replay.add(filled(1), replay.rows(steps(2, terminated=True)))
    read = jax.tree.map(lambda x: x[1, 0], read_back(ring, [[0]] * LANES))
    assert read.obs.tolist() == [31.0, -31.0]
    assert (int(read.action), float(read.reward), bool(read.terminated)) == (3, 31.25, True)


def test_the_ring_wraps_and_forgets_the_oldest() -> None:
    ring = filled(4)  # steps 0 … 7 into 6 slots
    assert int(ring.cursor) == 2
    read = read_back(ring, [list(range(SLOTS))] * LANES)
    assert np.array_equal(read.obs[0, :, 0], [70, 60, 50, 40, 30, 20])


def ring_of(slots: int, cursor: int) -> Replay:
    return replay.init(slots, 1, 1)._replace(cursor=jnp.int32(cursor))


@pytest.mark.parametrize("cursor", [0, 2, 1_999])
def test_draws_stay_in_the_window_of_a_lane_and_reach_all_of_it(cursor: int) -> None:
    key, ring = prng.root(0), ring_of(2_000, cursor)
    for size in (1, 3, 1_000):
        drawn = np.concatenate([replay.draw_slots(ring, key, jnp.int32(i), jnp.int32(size), 64) for i in range(20)])
        back = (cursor - 1 - drawn) % 2_000
        assert drawn.min() >= 0
        assert drawn.max() < 2_000
        assert back.min() == 0
        assert back.max() < size
        assert size > 3 or set(back) == set(range(size))


def test_a_smaller_batch_is_a_prefix_of_a_larger_one() -> None:
    key, ring = prng.root(1), ring_of(20_000, 7)
    large = replay.draw_slots(ring, key, jnp.int32(5), jnp.int32(10_000), 128)
    assert np.array_equal(replay.draw_slots(ring, key, jnp.int32(5), jnp.int32(10_000), 16), large[:16])


def test_an_empty_window_is_no_error() -> None:
    assert (replay.draw_slots(ring_of(6, 3), prng.root(1), jnp.int32(0), jnp.int32(0), 8) == 2).all()
