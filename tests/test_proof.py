"""Perfect is who stays so: validations without a flaw go on, and end at the first one."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxdqn import environment, evaluate, network, prng, space, space_config
from jaxdqn.config import Config, Layout
from jaxdqn.evaluate import Flawless
from jaxdqn.hyperparams import defaults
from tests import probes
from tests.helpers import agent_at, fixing, made, train

HYPERPARAMS = defaults()._replace(hidden_width=4, batch_size=8, warmup_steps=8, train_period=4, buffer_size=32)
PERFECT = 1.0


def played(env: str, flawless: Flawless | None, chunk: int = 2) -> np.ndarray:
    """Returns of up to 12 episodes of an untrained agent."""
    config = Config(env=env, hidden_width=4)
    params = network.init(prng.root(0), HYPERPARAMS, config)
    run = jax.jit(lambda: evaluate.greedy_returns(prng.root(3), params, HYPERPARAMS, config, 12, 12, chunk, flawless))
    return np.asarray(run())


def test_episodes_go_on_for_as_long_as_none_has_a_flaw() -> None:
    assert played(probes.CONSTANT, Flawless(4, PERFECT)).tolist() == [PERFECT] * 12


def test_after_a_flaw_no_further_chunk_is_played() -> None:
    whole, cut = played(probes.OBSERVATION, None), played(probes.OBSERVATION, Flawless(2, PERFECT))
    assert set(whole) == {-1.0, 1.0}
    end = 2 * (int(np.argmax(whole < PERFECT)) // 2 + 1)
    assert end < 12
    assert cut[:end].tolist() == whole[:end].tolist()
    assert np.isnan(cut[end:]).all()


def test_flaws_do_not_shorten_what_is_played_at_least() -> None:
    cut = played(probes.OBSERVATION, Flawless(10, PERFECT))
    assert np.isfinite(cut[:10]).all()


def config(**settings: int) -> Config:
    return Config(
        env=probes.OBSERVATION,
        env_steps=200,
        eval_episodes=2,
        rungs=tuple(range(8, 201, 8)),
        validation_episodes=1,
        keep_best=True,
        stop_when_perfect=True,
        tick=4,
        slots=32,
        batch_sizes=(8,),
        hidden_width=4,
        fixed=fixing(HYPERPARAMS),
        **settings,
    )


@pytest.mark.slow
def test_who_is_perfect_by_luck_is_found_out_by_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its episodes pay 1 or −1 by chance: two validations of one episode are soon perfect, none of 32 ever is."""
    monkeypatch.setitem(environment.PERFECT_RETURN, probes.OBSERVATION, PERFECT)
    environment.make.cache_clear()
    steps, worth, validation = {}, {}, {}
    for proof in (0, 32):
        population = made(config(proof_episodes=proof), Layout(rows=1, devices=1, block=4))
        progress = train(population, {(0, i): (0, i, HYPERPARAMS) for i in range(4)}, [60])
        steps[proof], validation[proof] = int(progress.step[0, 0]), progress.validation[0, 0]
        worth[proof] = float(agent_at(population, (0, 0))[1].best_worth)
    environment.make.cache_clear()
    assert steps[0] < 200
    assert steps[32] == 200
    both = ~np.isnan(validation[0])
    assert validation[32][both].tolist() == validation[0][both].tolist()  # the figure at a rung has no proof in it
    assert set(validation[32]) == {-1.0, 1.0}
    assert worth[0] == PERFECT
    assert PERFECT <= worth[32] < PERFECT + 1


def test_many_episodes_with_flaws_are_never_perfect_in_any_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA's minimum over a row that holds NaNs once said that it was above the perfect return."""
    monkeypatch.setitem(environment.PERFECT_RETURN, probes.OBSERVATION, PERFECT)
    environment.make.cache_clear()
    many = dataclasses.replace(config(proof_episodes=1_024), validation_episodes=128, rungs=(8, 16), env_steps=32)
    population = made(many, Layout(rows=1, devices=1, block=4))
    progress = train(population, {(0, i): (0, i, HYPERPARAMS) for i in range(4)}, [8])
    environment.make.cache_clear()
    assert progress.step[0].tolist() == [32] * 4


def test_the_default_space_asks_for_proof() -> None:
    default = space.load("default")
    assert default.proof_episodes > 4 * default.validation_episodes
    assert space_config.of(default).proof_episodes == default.proof_episodes
