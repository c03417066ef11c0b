"""A high return and a small network: what is best, what is confirmed, what ends a sweep."""

import dataclasses
from pathlib import Path

import optuna
import pytest

from jaxdqn import confirm, space
from jaxdqn.config import Config, Layout
from jaxdqn.confirm import Confirmation
from jaxdqn.follower import Trial
from jaxdqn.lanes import Lanes
from jaxdqn.plan import Settings, plan
from jaxdqn.space import Space
from jaxdqn.statistics import Interval, wilson
from jaxdqn.storage_sink import StorageSink
from jaxdqn.study import open_study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits
from tests.stand_in import StandIn

TEXT = """
env_steps = 20_000
solved_return = -10
minimize = "num_parameters"
[hyperparameters]
learning_rate = { low = 1e-5, high = 1e-1, log = true }
hidden_width = { choices = [2, 8, 32] }
hidden_layers = { low = 0, high = 2 }
"""


@pytest.fixture
def searched(tmp_path: Path) -> Space:
    file = tmp_path / "small.toml"
    file.write_text(TEXT)
    return space.load(str(file))


def trial(number: int, value: float, width: int, layers: int = 1, steps: int = 100) -> Trial:
    params = {"learning_rate": 1e-3, "hidden_width": width, "hidden_layers": layers}
    return Trial(number, "complete", value, params, {"env_steps": [steps]}, {}, None, None)


@pytest.mark.parametrize(("width", "layers", "size"), [(8, 0, 10), (2, 1, 16), (8, 1, 58), (8, 2, 130)])
def test_the_size_of_a_network_is_that_of_the_shape_in_use(searched: Space, width: int, layers: int, size: int) -> None:
    assert searched.num_parameters({"learning_rate": 1e-3, "hidden_width": width, "hidden_layers": layers}) == size


def test_the_best_is_the_smallest_network_that_solves_the_environment(searched: Space) -> None:
    def worth(one: Trial) -> tuple[float, ...]:
        return searched.worth(one.params, one.value or 0.0)

    small_fails, small_solves, large_solves = trial(0, -11.0, 2), trial(1, -9.0, 8), trial(2, -1.0, 32)
    assert worth(small_solves) > worth(large_solves) > worth(small_fails)
    assert worth(trial(3, -20.0, 32)) > worth(trial(4, -30.0, 2))  # nobody solves it: the better return


def test_one_trial_of_each_of_the_smallest_sizes_is_confirmed(searched: Space) -> None:
    trials = [trial(0, -2.0, 8, steps=50), trial(1, -1.0, 8, steps=90), trial(2, -50.0, 2), trial(3, -3.0, 32)]
    trials.append(trial(4, -1.0, 8, steps=10))
    assert [one.number for one in confirm.candidates(trials, searched, 3)] == [4, 3, 2]


def confirmed(number: int, size: int, solved: int) -> Confirmation:
    flat = Interval(0.0, 0.0)
    return Confirmation(
        number, {}, size, 16, solved / 16, wilson(solved, 16), 0.0, flat, 0.0, flat, 0.0, 0.0, [], [1], [1], []
    )


def test_the_winner_is_the_smallest_network_that_half_of_the_seeds_solve() -> None:
    ranked = confirm.ranked([confirmed(0, 100, 16), confirmed(1, 50, 8), confirmed(2, 10, 7)], small=True)
    assert [one.number for one in ranked] == [1, 0, 2]
    assert [one.number for one in confirm.ranked([confirmed(1, 50, 8), confirmed(0, 100, 16)])] == [0, 1]


def test_a_sweep_with_two_objectives_tells_both_and_the_storage_has_them(searched: Space, tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.log", "s", searched, searched.identity(), "optuna-tpe", 0)
    trainer = StandIn(Config(env_steps=20_000, tick=4), Layout(rows=1, devices=1, block=4))
    list(sweep(Lanes(trainer), study, searched, Limits(trials=20)))
    best = study.best()
    assert best is not None
    solving = [t for t in study.trials() if t.value is not None and t.value >= -10]
    smallest = min(t.attributes["num_parameters"] for t in solving)
    assert searched.num_parameters(best.params) == smallest
    storage = optuna.storages.InMemoryStorage()
    sink = StorageSink(storage, "s", searched.searched, {}, ("maximize", "minimize"))
    sink.write(study.trials())
    copied = optuna.load_study(storage=storage, study_name="s")
    assert [t.values for t in copied.trials] == [[t.value, t.attributes["num_parameters"]] for t in study.trials()]
    assert copied.best_trials
    study.close()


def test_a_target_return_says_what_counts_as_solved(tmp_path: Path) -> None:
    made = plan(Settings(space="smallest", target_return=400.0, output=tmp_path, storage="off", tracking="off"))
    assert made.space.solved == 400.0
    assert (made.sampler, made.pruner) == ("optuna-tpe", "none")
    assert space.load("smallest").solved == 500.0


def test_a_target_return_alone_does_not_make_the_search_endless(tmp_path: Path) -> None:
    given = Settings(space="smallest", trials=None, target_return=475.0, output=tmp_path, storage="off", tracking="off")
    assert plan(given).settings.trials == 64
    assert plan(dataclasses.replace(given, time_budget=60.0)).settings.trials is None


@pytest.mark.parametrize("name", ["tpe", "sobol"])
def test_samplers_with_one_objective_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--sampler {name} has one objective"):
        plan(Settings(space="smallest", sampler=name, output=tmp_path))


def test_pruning_by_one_objective_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--pruner halving judges by one objective"):
        plan(Settings(space="smallest", pruner="halving", output=tmp_path))


def test_the_second_objective_makes_another_study(searched: Space) -> None:
    alone = dataclasses.replace(searched, minimize=None)
    assert "minimize" not in alone.identity()
    assert searched.identity() == {**alone.identity(), "minimize": "num_parameters"}


def test_anything_else_to_be_minimised_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(TEXT.replace('"num_parameters"', '"time"'))
    with pytest.raises(ValueError, match="minimize = 'time' is not allowed: num_parameters"):
        space.load(str(file))
