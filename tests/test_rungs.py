"""Validation at rungs, on an environment where every episode is perfect, and on one where it never is."""

import jax
import numpy as np
import pytest

from jaxdqn import environment
from jaxdqn.config import Config, Layout
from jaxdqn.hyperparams import defaults
from tests import probes
from tests.helpers import agent_at, fixing, made, same, train

HYPERPARAMS = defaults()._replace(hidden_width=4, batch_size=8, warmup_steps=8, train_period=4, buffer_size=32)
NUM_RUNGS = 4


def config(env: str, **settings: bool) -> Config:
    return Config(
        env=env,
        env_steps=44,
        eval_episodes=3,
        rungs=(8, 16, 24, 40),
        validation_episodes=2,
        tick=4,
        slots=32,
        batch_sizes=(8,),
        hidden_width=4,
        fixed=fixing(HYPERPARAMS),
        **settings,
    )


def test_an_agent_is_validated_at_its_own_rungs_wherever_segments_end() -> None:
    population = made(config(probes.CONSTANT), Layout(rows=1, devices=1, block=2))
    train(population, {(0, 0): (0, 0, HYPERPARAMS)}, [3])
    progress = train(population, {(0, 1): (1, 0, HYPERPARAMS)}, [2])
    assert progress.step.tolist() == [[20, 8]]
    assert np.array_equal(progress.validation[0], [[1, 1, np.nan, np.nan], [1, np.nan, np.nan, np.nan]], equal_nan=True)


def test_an_agent_ends_when_it_was_perfect_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environment.PERFECT_RETURN, probes.CONSTANT, 1.0)
    environment.make.cache_clear()
    population = made(config(probes.CONSTANT, stop_when_perfect=True), Layout(rows=1, devices=1, block=2))
    progress = train(population, {(0, 0): (0, 0, HYPERPARAMS)}, [11])
    assert progress.step[0, 0] == 16
    assert not progress.alive[0, 0]
    assert progress.returns[0, 0].tolist() == [1.0, 1.0, 1.0]
    environment.make.cache_clear()


@pytest.mark.slow
def test_an_agent_that_is_never_perfect_lives_to_the_end() -> None:
    population = made(config(probes.ACTION, stop_when_perfect=True), Layout(rows=1, devices=1, block=2))
    assert train(population, {(0, 0): (0, 0, HYPERPARAMS)}, [11]).step[0, 0] == 44


@pytest.mark.slow
def test_the_best_validated_checkpoint_is_kept_and_the_end_is_validated_too() -> None:
    population = made(config(probes.ACTION, keep_best=True), Layout(rows=1, devices=1, block=2))
    wild = HYPERPARAMS._replace(epsilon_end=1.0)
    progress = train(population, {(0, 0): (0, 0, wild)}, [11])
    _, record = agent_at(population, (0, 0))
    assert record.best_worth >= np.nanmax(progress.validation[0, 0])
    assert progress.returns[0, 0].mean() == record.best_worth  # the environment is deterministic
    assert same(jax.tree.map(lambda x: x[0, 0], population.params(0)), record.best_params)  # those that were scored
