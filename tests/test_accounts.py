"""What a sweep says of its own cost."""

from pathlib import Path

import numpy as np
import pytest

from jaxdqn import cost, space, space_config
from jaxdqn.accounts import Accounts
from jaxdqn.config import Config, Layout
from jaxdqn.hyperparams import defaults, stack
from jaxdqn.lanes import Lanes
from jaxdqn.population import Population
from jaxdqn.study import open_study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits


def test_shares_of_nothing_are_nothing() -> None:
    assert set(Accounts().summary().values()) == {0.0}


def test_shares_are_what_was_of_no_use() -> None:
    accounts = Accounts(updates=30, paid_updates=40, lane_s=10.0, busy_lane_s=9.0, device_work={0: 3.0, 1: 1.0})
    assert accounts.wasted_updates == pytest.approx(0.25)
    assert accounts.idle_lanes == pytest.approx(0.1)
    assert accounts.device_imbalance == pytest.approx(1 / 3)


def test_seconds_are_given_in_all_and_a_trial() -> None:
    summary = Accounts(trials=4, ask_s=0.2).summary()
    assert (summary["ask_s"], summary["ask_ms_a_trial"]) == (0.2, 50.0)


def test_passes_are_what_any_lane_needs_in_each_batch_shape() -> None:
    config = Config(tick=4, batch_sizes=(16, 64))
    base = defaults()._replace(train_period=4, warmup_steps=8, batch_size=16)
    lanes = stack([base, base._replace(train_period=8, gradient_steps=3), base._replace(batch_size=64)])
    steps = np.array([[4, 4, 4], [8, 8, 8], [12, 12, 12], [16, 16, 16]])
    passes = cost.passes(lanes, steps, config, np.array([16, 16, 12]))
    assert passes.tolist() == [[0, 0], [3, 1], [1, 1], [3, 0]]


@pytest.mark.slow
def test_the_passes_that_are_computed_are_the_updates_that_are_made(tmp_path: Path) -> None:
    file = tmp_path / "mixed.toml"
    file.write_text(
        "env_steps = 600\neval_episodes = 2\n[hyperparameters]\ntrain_period = { choices = [2, 4] }\n"
        "gradient_steps = { choices = [1, 3] }\nbatch_size = { choices = [4, 8] }\nwarmup_steps = 50\n"
        "hidden_width = 4\nbuffer_size = 600\n"
    )
    searched = space.load(str(file))
    for block, wasted in ((1, False), (4, True)):
        population = Population(space_config.of(searched), Layout(rows=2, devices=1, block=block), 0)
        population.compile()
        study = open_study(tmp_path / f"{block}.log", "s", searched, {}, "random", 0)
        accounts = Accounts()
        list(sweep(Lanes(population, 4, accounts=accounts), study, searched, Limits(trials=8)))
        told = sum(sum(trial.attributes["updates"]) for trial in study.trials())
        assert accounts.updates == told > 0
        assert (accounts.paid_updates > accounts.updates) == wasted
        assert accounts.trials == 8
        assert 0 <= accounts.idle_lanes < 1
