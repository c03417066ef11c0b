"""Saved agents at play, here and in Gymnasium's own environments."""

import numpy as np
import pytest

from jaxdqn import environment, gymnasium_play, prng
from jaxdqn.evaluate import Phase, Stream, family
from jaxdqn.play import episode, play, random_returns, starts
from jaxdqn.saved_agent import SavedAgent
from tests.agents import balancing, drawn, falling, linear

PERFECT = environment.make("CartPole-v1").perfect_return


def test_an_agent_that_balances_is_perfect_and_one_that_does_not_falls() -> None:
    assert (play(balancing(), 0, 300) == PERFECT).all()
    assert 30 < play(falling(), 0, 300).mean() < 60


def test_episodes_depend_on_the_seed_and_not_on_how_many_are_played() -> None:
    returns = play(falling(), 7, 300)
    assert np.array_equal(play(falling(), 7, 300), returns)
    assert np.array_equal(play(falling(), 7, 20), returns[:20])
    assert not np.array_equal(play(falling(), 8, 300), returns)


def test_no_episode_is_one_that_an_agent_was_judged_on() -> None:
    def beginnings(key: prng.Key) -> set[bytes]:
        reset = environment.make("CartPole-v1").reset
        return {np.asarray(reset(prng.jax_key(prng.fold(key, i, 0)))[1]).tobytes() for i in range(3)}

    ours = {obs.tobytes() for obs in starts("CartPole-v1", 0, 3)}
    judged = [family(prng.root(0), stream, phase) for stream in (Stream.VALIDATION, Stream.SCORE) for phase in Phase]
    assert len(ours) == 3
    assert all(ours.isdisjoint(beginnings(key)) for key in judged)


def test_the_random_policy_returns_what_is_known_of_it() -> None:
    returns = random_returns("CartPole-v1", 0, 4_000)
    assert abs(returns.mean() - 22.3) < 3 * 12 / 4_000**0.5 + 0.3
    assert returns.min() >= 8


@pytest.mark.parametrize("agent", [falling(), drawn(8, 2, normalises=True)], ids=["linear", "normalised"])
def test_an_episode_is_the_one_that_is_played(agent: SavedAgent) -> None:
    one = episode(agent, 5)
    assert one.total == play(agent, 5, 1)[0] == one.rewards.sum() == len(one.actions) == len(one.observations) - 1
    assert np.array_equal(one.observations[0], starts("CartPole-v1", 5, 1)[0])
    gravity = one.observations[1:, 0] - one.observations[:-1, 0]
    assert np.allclose(gravity, 0.02 * one.observations[:-1, 1], atol=1e-6)  # x′ = x + τ ẋ
    assert abs(one.observations[-1, 2]) > 12 * np.pi / 180
    assert (np.abs(one.observations[:-1, 2]) <= 12 * np.pi / 180).all()


def test_a_greedy_episode_follows_the_network() -> None:
    one = episode(falling(), 1)
    assert np.array_equal(one.actions, one.observations[:-1, 2] > 0)


AGENTS = {
    "perfect": balancing(),
    "falling": falling(),
    "drifting": linear([0.0, 0.0, 1.0, 0.15]),
    "normalised": drawn(16, 1, normalises=True),
    "on a mountain": linear([0.0, 1.0], "MountainCar-v0"),  # pushes where it moves
    "an acrobat": linear([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], "Acrobot-v1"),
}


@pytest.mark.parametrize("name", AGENTS)
def test_gymnasium_gives_the_same_returns_from_the_same_starts(name: str) -> None:
    agent = AGENTS[name]
    ours = play(agent, 0, 40)
    theirs = gymnasium_play.gymnasium_returns(agent, 0, 40, starts(agent.env, 0, 40))
    assert (ours == theirs).mean() >= (0.85 if name == "an acrobat" else 0.95)  # an acrobat's motion is chaotic
    assert abs(ours.mean() - theirs.mean()) <= 0.01 * abs(theirs.mean())


def test_gymnasiums_own_starts_give_a_mean_that_is_alike_and_repeats() -> None:
    returns = gymnasium_play.gymnasium_returns(falling(), 3, 300)
    ours = play(falling(), 3, 300)
    assert len(set(returns)) > 5
    assert abs(returns.mean() - ours.mean()) < 4 * (returns.std() + ours.std()) / 300**0.5
    assert np.array_equal(gymnasium_play.gymnasium_returns(falling(), 3, 300), returns)


def test_what_gymnasium_is_not_asked_for_is_refused() -> None:
    with pytest.raises(
        ValueError, match="'Catch-bsuite' is not compared with Gymnasium's: CartPole-v1, MountainCar-v0"
    ):
        gymnasium_play.check("Catch-bsuite")
    with pytest.raises(ValueError, match="2 starts are not allowed: one an episode, 3"):
        gymnasium_play.gymnasium_returns(falling(), 0, 3, np.zeros((2, 4), np.float32))
