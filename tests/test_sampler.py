"""Proposals in batches: Optuna's contract, restarts, and what counts in the two densities."""

import math
import pickle
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from jaxdqn import parzen, sampler
from jaxdqn.parzen import Axis
from jaxdqn.sampler import BatchTPESampler, Space
from tests.test_parzen import MIXED, distributions, is_inside, some_points

SQUARE: Space = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
Value = Callable[[dict[str, Any]], float]


class TestContract(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return BatchTPESampler


class TestContractOnceFitted(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: BatchTPESampler(num_startup_trials=1)


class TestContractWithoutStartup(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: BatchTPESampler(num_startup_trials=0)


class Strict(BatchTPESampler):
    """Fails where Optuna would replace a proposal that is not in its distribution."""

    def sample_independent(self, *args: Any) -> Any:
        raise AssertionError(args)


def distance(params: dict[str, Any]) -> float:
    """From the middle of the square, squared."""
    return float((params["x"] - 0.5) ** 2 + (params["y"] - 0.5) ** 2)


def points_of(space: Space, num: int, seed: int = 0) -> list[dict[str, Any]]:
    """Params that are even over a space."""
    axes = parzen.axes_of(space)
    return [dict(zip(space, parzen.decode(axes, point), strict=True)) for point in some_points(axes, num, seed)]


def finished(space: Space, params: dict[str, Any], value: float) -> FrozenTrial:
    return create_trial(params=params, distributions=space, value=value)


def running(space: Space, params: dict[str, Any]) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, params=params, distributions=space)


def pruned(space: Space, params: dict[str, Any], reported: dict[int, float]) -> FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED, params=params, distributions=space, intermediate_values=reported, value=None
    )


def studied(num: int, space: Space = SQUARE, value: Value = distance, **options: Any) -> optuna.Study:
    """A study of so many complete trials."""
    study = optuna.create_study(sampler=BatchTPESampler(search_space=space), **options)
    study.add_trials([finished(space, params, value(params)) for params in points_of(space, num)])
    return study


def proposed(study: optuna.Study, num: int = 8, start: int = 1000, space: Space = SQUARE, **options: Any) -> Any:
    """What a new sampler proposes to a study, at once."""
    return BatchTPESampler(**options).propose(study, space, range(start, start + num))


def asked_for(study: optuna.Study) -> FrozenTrial:
    """A new trial, as a sampler gets it."""
    number = study.ask().number
    return study.get_trials(deepcopy=False)[number]


def history(study: optuna.Study, space: Space = SQUARE) -> sampler._History:
    """What a new sampler knows of a study."""
    return BatchTPESampler()._view(study).history(study, space)


def spread(batch: Sequence[dict[str, Any]]) -> float:
    """The mean distance to the nearest other point."""
    points = np.array([[params["x"], params["y"]] for params in batch])
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(len(points), math.inf))
    return float(distances.min(axis=1).mean())


@st.composite
def searched(draw: st.DrawFn) -> Space:
    return {
        f"p{i}": distribution for i, distribution in enumerate(draw(st.lists(distributions(), min_size=1, max_size=5)))
    }


@st.composite
def pasts(draw: st.DrawFn, space: Space) -> list[FrozenTrial]:
    """Trials of all kinds: infinite values, parameters missing, pruned before and after they reported."""
    trials = []
    for params in points_of(space, draw(st.integers(0, 30)), draw(st.integers(0, 99))):
        kind = draw(st.sampled_from(["complete", "complete", "pruned", "failed", "running", "partly"]))
        value = draw(st.sampled_from([0.0, 1.0, -1e300, 1e300, math.inf, -math.inf, 1e-300]))
        if kind == "complete":
            trials.append(finished(space, params, value))
        elif kind == "pruned":
            trials.append(pruned(space, params, draw(st.sampled_from([{}, {3: value}, {3: 0.0, 7: math.nan}]))))
        elif kind == "running":
            trials.append(running(space, params))
        elif kind == "failed":
            trials.append(create_trial(state=TrialState.FAIL, params=params, distributions=space))
        else:
            names = list(space)[::2]
            part = {name: space[name] for name in names}
            trials.append(finished(part, {name: params[name] for name in names}, value))
    return trials


@given(st.data(), searched(), st.sampled_from([0, 1, 8]), st.integers(0, 2**40))
@settings(max_examples=120, deadline=None)
def test_every_proposal_lies_in_its_space(data: st.DataObject, space: Space, num_startup: int, seed: int) -> None:
    study = optuna.create_study(sampler=Strict(seed=seed, search_space=space, num_startup_trials=num_startup))
    study.add_trials(data.draw(pasts(space)))
    batch = BatchTPESampler(seed=seed, num_startup_trials=num_startup)
    asked = [study.ask(space).params for _ in range(3)]
    for params in asked + batch.propose(study, space, range(len(study.trials), len(study.trials) + 5)):
        assert list(params) == list(space)
        assert all(is_inside(space[name], value) for name, value in params.items())


@given(st.data(), searched(), st.sampled_from([0, 1, 8]))
@settings(max_examples=60, deadline=None)
def test_every_independent_proposal_lies_in_its_distribution(
    data: st.DataObject, space: Space, num_startup: int
) -> None:
    study = optuna.create_study(sampler=BatchTPESampler(num_startup_trials=num_startup))
    study.add_trials(data.draw(pasts(space)))
    trial = asked_for(study)
    for name, distribution in space.items():
        assert is_inside(distribution, study.sampler.sample_independent(study, trial, name, distribution))


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 31, 32, 100_000])
def test_start_up_points_of_any_number_need_no_warning(number: int) -> None:
    assert len(proposed(optuna.create_study(), 1, number, MIXED)) == 1


def test_no_number_asked_for_is_no_proposal() -> None:
    assert proposed(studied(0), 0) == proposed(studied(20), 0) == []


def test_an_empty_space_has_empty_proposals() -> None:
    assert proposed(studied(20), 3, space={}) == [{}, {}, {}]


def driven(restart: bool, batch: int) -> list[dict[str, Any]]:
    """Everything proposed to a study whose trials end in disorder, with many equal values, pruned and failed ones."""
    rng, asking = np.random.default_rng(0), BatchTPESampler(num_startup_trials=4)
    study, proposals, open_trials = optuna.create_study(), [], []
    for start in range(0, 72, batch):
        asking = BatchTPESampler(num_startup_trials=4) if restart else asking
        numbers = range(start, start + batch)
        proposals += asking.propose(study, MIXED, numbers)
        study.add_trials([running(MIXED, params) for params in proposals[start:]])
        open_trials += numbers
        rng.shuffle(open_trials)
        while len(open_trials) > 16:
            state = rng.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
            value = float(rng.integers(2)) if state == TrialState.COMPLETE else None
            study.tell(open_trials.pop(), value, state=TrialState(state))
    return proposals


@pytest.mark.parametrize("batch", [1, 6])
def test_a_rebuilt_sampler_proposes_the_same(batch: int) -> None:
    assert driven(restart=True, batch=batch) == driven(restart=False, batch=batch)


def test_a_rebuilt_sampler_answers_a_plain_study_with_the_same() -> None:
    params: list[list[dict[str, Any]]] = [[], []]
    for rebuild, asked in enumerate(params):
        study = optuna.create_study(sampler=BatchTPESampler(num_startup_trials=3))
        for i in range(25):
            trial = study.ask()
            if trial.suggest_categorical("a", [None, 1]):
                trial.suggest_float("b", 0.1, 1.0, log=True)
            trial.suggest_int("c", 0, 100)
            asked.append(trial.params)
            if i % 3:
                study.tell(trial, i % 5)
            if rebuild:
                study.sampler = BatchTPESampler(num_startup_trials=3)
    assert params[0] == params[1]


def test_a_study_read_from_a_disk_is_proposed_the_same(tmp_path: Path) -> None:
    space = MIXED | {"flag": CategoricalDistribution([True, False, None, 0.5])}
    study = studied(40, space, lambda params: params["continuous"])
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "log")))
    optuna.create_study(storage=storage, study_name="s").add_trials(study.trials)
    read = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(tmp_path / "log"))), study_name="s")
    assert proposed(read, space=space) == proposed(study, space=space)


def test_a_proposal_does_not_depend_on_what_the_sampler_was_asked_before() -> None:
    study, other = studied(40), studied(25, value=lambda params: -params["x"])
    asked = BatchTPESampler()
    for start in (1000, 7, 3):
        asked.propose(study, SQUARE, range(start, start + 5))
        asked.propose(other, SQUARE, [start])
        asked.propose(study, {"x": SQUARE["x"]}, [start])
    assert asked.propose(study, SQUARE, range(1000, 1008)) == proposed(study)


def test_a_proposal_does_not_depend_on_what_else_the_trials_hold() -> None:
    study, plain = optuna.create_study(), studied(40)
    for trial in plain.trials:
        space: Space = {"unrelated": IntDistribution(0, 9), "y": SQUARE["y"], "x": SQUARE["x"]}
        params = {"unrelated": trial.number % 10, "y": trial.params["y"], "x": trial.params["x"]}
        study.add_trial(create_trial(params=params, distributions=space, value=trial.value, user_attrs={"a": 1}))
    assert proposed(study) == proposed(plain)


@pytest.mark.parametrize("num", [0, 40])
def test_seeds_and_numbers_differ(num: int) -> None:
    study = studied(num)
    alone = [proposed(study, 1, start=number)[0] for number in range(12)]
    assert len({(params["x"], params["y"]) for params in alone}) == 12
    assert proposed(study, 12, start=0, seed=0) != proposed(study, 12, start=0, seed=1)


def test_the_seed_of_a_plain_study_counts_from_the_first_trial_on() -> None:
    for trial in range(3):
        asked = []
        for seed in (0, 0, 1):
            study = optuna.create_study(sampler=BatchTPESampler(seed=seed))
            asked.append([study.ask().suggest_float("x", 0, 1) for _ in range(3)])
        assert asked[0][trial] == asked[1][trial] != asked[2][trial]


def test_a_pickled_sampler_proposes_the_same() -> None:
    study = studied(12)
    asked = BatchTPESampler(seed=5, search_space=SQUARE, num_startup_trials=10, num_candidates=3)
    before = asked.propose(study, SQUARE, range(4))
    thawed = pickle.loads(pickle.dumps(asked))
    assert thawed.propose(study, SQUARE, range(4)) == before
    assert thawed.infer_relative_search_space(study, study.trials[0]) == SQUARE


def test_two_parameters_of_one_trial_are_not_drawn_alike() -> None:
    twins: Space = {"x": SQUARE["x"], "y": SQUARE["x"]}
    for num in (0, 40):
        study = optuna.create_study()
        study.add_trials([finished(twins, {"x": p["x"], "y": p["x"]}, distance(p)) for p in points_of(SQUARE, num)])
        asked = BatchTPESampler()
        trial = asked_for(study)
        assert len({asked.sample_independent(study, trial, name, SQUARE["x"]) for name in twins}) == 2


def sixteenths(batch: Sequence[dict[str, Any]], space: Space) -> dict[str, list[int]]:
    """For each axis, the sixteenth of it in which each point is."""
    axes = {name: Axis(distribution) for name, distribution in space.items()}
    return {name: [min(int(axis.encode(params[name]) * 16), 15) for params in batch] for name, axis in axes.items()}


FLOATS: Space = {
    "a": FloatDistribution(-1.0, 3.0),
    "b": FloatDistribution(1e-5, 1e-2, log=True),
    "c": FloatDistribution(0.0, 1.0),
}


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_sixteen_points_hit_each_sixteenth_of_each_axis(batch: int, seed: int) -> None:
    study, asked = optuna.create_study(), BatchTPESampler(seed=seed)
    points: list[dict[str, Any]] = []
    for start in range(0, 16, batch):
        points += asked.propose(study, FLOATS, range(start, start + batch))
        study.add_trials([finished(FLOATS, params, 0.0) for params in points[start:]])
    assert all(sorted(places) == list(range(16)) for places in sixteenths(points, FLOATS).values())


def test_the_first_points_of_choices_are_even() -> None:
    space: Space = {"choice": CategoricalDistribution("abcd"), "int": IntDistribution(0, 7)}
    points = proposed(optuna.create_study(), 16, 0, space)
    assert sorted(params["choice"] for params in points) == sorted("abcd" * 4)
    assert sorted(params["int"] for params in points) == sorted([*range(8)] * 2)


def test_a_space_that_is_given_is_searched_from_the_first_trial_on() -> None:
    study = optuna.create_study(sampler=Strict(search_space=FLOATS))
    points = [study.ask(FLOATS).params for _ in range(16)]
    assert points == proposed(optuna.create_study(), 16, 0, FLOATS)


@pytest.mark.parametrize("tell", [True, False])
def test_a_space_that_is_not_given_is_searched_from_the_second_trial_on(tell: bool) -> None:
    study = optuna.create_study(sampler=BatchTPESampler())
    points = []
    for _ in range(16):
        trial = study.ask(FLOATS)
        points.append(trial.params)
        if tell:
            study.tell(trial, 0.0)
    assert points[1:] == proposed(optuna.create_study(), 16, 0, FLOATS)[1:]


def test_points_just_chosen_repel() -> None:
    study, spreads = studied(20), []
    for seed in range(5):
        batch = proposed(study, 32, seed=seed)
        alone = [proposed(study, 1, start=1000 + i, seed=seed)[0] for i in range(32)]
        assert batch[0] == alone[0]
        spreads.append((spread(batch), spread(alone)))
    repelling, unchanged = np.mean(spreads, axis=0)
    assert repelling > 1.5 * unchanged


def test_running_trials_repel() -> None:
    spreads = []
    for seed in range(5):
        study, batch = studied(20), []
        alone = [proposed(study, 1, start=1000 + i, seed=seed)[0] for i in range(15)]
        for i in range(15):  # not 16: where so many run, more trials count as good
            batch += proposed(study, 1, start=1000 + i, seed=seed)
            study.add_trial(running(SQUARE, batch[-1]))
        spreads.append((spread(batch), spread(alone)))
    repelling, unchanged = np.mean(spreads, axis=0)
    assert repelling > 1.5 * unchanged


def test_a_running_trial_counts_like_a_point_just_chosen() -> None:
    study = studied(20)
    batch = proposed(study, 8)
    study.add_trials([running(SQUARE, params) for params in batch[:5]])
    assert proposed(study, 3, start=1005) == batch[5:]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_trial_that_ended_is_no_longer_a_running_one(state: TrialState) -> None:
    study, asked = studied(20), BatchTPESampler()
    study.add_trials([running(SQUARE, params) for params in points_of(SQUARE, 3, seed=1)])

    def liars() -> tuple[int, ...]:
        fitted = asked._view(study).history(study, SQUARE).fit()
        assert len(fitted.liars.centres) == len(fitted.liar_numbers)
        return fitted.liar_numbers

    assert liars() == (20, 21, 22)
    study.tell(21, 1.0 if state == TrialState.COMPLETE else None, state=state)
    assert liars() == (20, 22)


def test_a_trial_is_no_liar_to_itself() -> None:
    study = studied(20)
    study.add_trials([running(SQUARE, params) for params in points_of(SQUARE, 2, seed=1)])
    assert proposed(study, 1, start=20) != proposed(study, 1, start=22)
    without = studied(20)
    without.add_trial(create_trial(state=TrialState.FAIL))
    without.add_trial(study.trials[21])
    assert proposed(study, 1, start=20) == proposed(without, 1, start=20)


def test_a_failed_trial_counts_in_nothing() -> None:
    study, plain = studied(20), studied(20)
    study.add_trials(
        [create_trial(state=TrialState.FAIL, params=p, distributions=SQUARE) for p in points_of(SQUARE, 9, seed=1)]
    )
    assert proposed(study) == proposed(plain)
    assert history(study).num_finished == 20


def test_pruned_trials_rank_by_how_far_they_came_and_then_by_value() -> None:
    reported: list[dict[int, float] | float] = [
        {1: -9.0},
        {},
        {1: 0.0, 5: 2.0},
        7.0,
        {1: -50.0, 5: 1.0},
        {1: 0.0, 5: math.nan},
        3.0,
        {5: -1.0, 6: 9.0},
        math.inf,
    ]
    study = optuna.create_study()
    for params, what in zip(points_of(SQUARE, len(reported)), reported, strict=True):
        study.add_trial(pruned(SQUARE, params, what) if isinstance(what, dict) else finished(SQUARE, params, what))
    known = history(study)
    assert sorted(range(len(reported)), key=known._ranks.__getitem__) == [6, 3, 8, 7, 4, 2, 5, 0, 1]


def test_the_earliest_of_equals_is_the_best() -> None:
    study, asked = optuna.create_study(), BatchTPESampler()
    study.add_trials([running(SQUARE, params) for params in points_of(SQUARE, 20)])
    for number in reversed(range(20)):
        study.tell(number, 1.0)
        known = asked._view(study).history(study, SQUARE)
    params = study.trials[0].params
    assert known.fit().good.centres[1:].tolist() == [[params["x"], params["y"]]]  # the first one is the prior's


def test_maximising_mirrors_minimising() -> None:
    down, up = studied(40), studied(40, value=lambda params: -distance(params), direction="maximize")
    for i, params in enumerate(points_of(SQUARE, 10, seed=1)):
        down.add_trial(pruned(SQUARE, params, {i // 3: distance(params)}))
        up.add_trial(pruned(SQUARE, params, {i // 3: -distance(params)}))
    assert proposed(up) == proposed(down)
    assert proposed(up) != proposed(studied(40, direction="maximize"))


def test_the_fit_is_made_once_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    made = sampler._History._fit_finished

    def counted(self: sampler._History, num_elite: int) -> sampler._Fit:
        fits.append(num_elite)
        return made(self, num_elite)

    monkeypatch.setattr(sampler._History, "_fit_finished", counted)
    study = studied(40)
    study.sampler.propose(study, SQUARE, range(40, 168))
    trials = [study.ask(SQUARE) for _ in range(10)]
    study.tell(trials[0], state=TrialState.FAIL)
    study.ask(SQUARE)
    assert len(fits) == 1
    study.tell(trials[1], 1.0)
    study.ask(SQUARE)
    study.ask(SQUARE)
    assert len(fits) == 2


def test_two_objectives_are_refused_with_what_to_use_instead() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=BatchTPESampler())
    with pytest.raises(ValueError, match=r"one objective.*TPESampler.*NSGAIISampler"):
        study.ask(SQUARE)
    with pytest.raises(ValueError, match=r"one objective"):
        study.sampler.propose(study, SQUARE, [0])


def defined_by_run(trial: optuna.Trial) -> float:
    """An objective with parameters that depend on others, whose ranges change, and that are pruned or fail."""
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    x = trial.suggest_float("x", -1.0, 1.0 + trial.number % 3)
    if kind == "a":
        x += trial.suggest_int("depth", 1, 9) + trial.suggest_float("rate", 1e-3, 1.0, log=True)
    elif kind == "b" and trial.suggest_categorical("inner", [True, False]):
        x += trial.suggest_float("step", 0.0, 1.0, step=0.1)
    if trial.number % 7 == 3:
        trial.report(x, 1)
        raise optuna.TrialPruned
    if trial.number % 7 == 5:
        raise RuntimeError
    return math.inf if trial.number % 7 == 6 else x


@pytest.mark.parametrize("num_jobs", [1, 2])
@pytest.mark.parametrize("num_startup", [0, 2, 16])
def test_a_space_that_is_defined_by_run_is_searched(num_jobs: int, num_startup: int) -> None:
    study = optuna.create_study(sampler=BatchTPESampler(num_startup_trials=num_startup))
    study.optimize(defined_by_run, n_trials=60, n_jobs=num_jobs, catch=(RuntimeError,))
    assert len(study.trials) == 60
    for trial in study.trials:
        assert all(is_inside(trial.distributions[name], value) for name, value in trial.params.items())


def test_enqueued_trials_wait_and_are_then_trials_like_others() -> None:
    study = studied(20)
    before = proposed(study)
    study.enqueue_trial({"x": 0.25, "y": 0.75})
    study.enqueue_trial({"x": 0.125})
    assert proposed(study) == before
    asked = [study.ask(SQUARE) for _ in range(3)]
    assert asked[0].params == {"x": 0.25, "y": 0.75}
    assert asked[1].params["x"] == 0.125
    for trial in asked:
        study.tell(trial, 1.0)
    assert history(study).num_finished == 23


def test_a_trial_without_a_parameter_is_not_taken_for_one_whose_parameter_is_none() -> None:
    space: Space = {"x": SQUARE["x"], "optional": CategoricalDistribution([None, "a"])}
    study = optuna.create_study()
    study.add_trial(finished({"x": SQUARE["x"]}, {"x": 0.5}, 1.0))
    study.add_trial(finished(space, {"x": 0.5, "optional": None}, 1.0))
    assert history(study, space).num_finished == 1


def test_trials_outside_a_range_that_changed_do_not_count() -> None:
    study = studied(40)
    narrow: Space = {"x": FloatDistribution(0.0, 0.25), "y": FloatDistribution(0.0, 1.0)}
    assert history(study, narrow).num_finished == sum(trial.params["x"] <= 0.25 for trial in study.trials)
    assert all(params["x"] <= 0.25 for params in proposed(study, space=narrow, num_startup_trials=1))


def test_ranges_that_always_change_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_MAX_HISTORIES", 4)
    asked = BatchTPESampler(num_startup_trials=2)
    study = optuna.create_study(sampler=asked)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0 + trial.number), n_trials=12)
    assert len(asked._view(study)._histories) == 4


@pytest.mark.parametrize("given", [True, False])
def test_a_sampler_that_fixes_a_parameter_leaves_ours_its_space(given: bool) -> None:
    ours = BatchTPESampler(search_space=SQUARE if given else None)
    study = studied(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = PartialFixedSampler({"y": 0.5}, ours)
    assert study.ask(SQUARE).params["y"] == 0.5
    assert ours.infer_relative_search_space(study, study.trials[0]) == SQUARE


def test_a_pruner_that_shows_the_sampler_only_some_trials_is_served() -> None:
    def objective(trial: optuna.Trial) -> float:
        value = distance({name: trial.suggest_float(name, 0.0, 1.0) for name in SQUARE})
        for step in range(1, 9):
            trial.report(value / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=8, reduction_factor=2)
    study = optuna.create_study(sampler=BatchTPESampler(num_startup_trials=2), pruner=pruner)
    study.optimize(objective, n_trials=40)
    assert len(study.trials) == 40


def test_a_study_that_shows_only_some_trials_has_their_numbers() -> None:
    class Filtered(optuna.Study):
        def get_trials(self, *args: Any, **options: Any) -> list[FrozenTrial]:
            return super().get_trials(*args, **options)[10:]

    study = studied(30)
    study.add_trial(running(SQUARE, {"x": 0.1, "y": 0.1}))
    shown = Filtered(study.study_name, study._storage)
    assert BatchTPESampler()._view(shown).history(shown, SQUARE).fit().liar_numbers == (30,)


def best_of(make: Callable[[int], BaseSampler], seed: int) -> float:
    space: Space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(4)}
    study = optuna.create_study(sampler=make(seed))
    for _ in range(64):
        trial = study.ask(space)
        study.tell(trial, sum((value - 0.3) ** 2 for value in trial.params.values()))
    return study.best_value


def test_a_quadratic_s_optimum_is_found_better_than_at_random() -> None:
    ours = statistics.median(best_of(lambda seed: BatchTPESampler(seed=seed), seed) for seed in range(5))
    random = statistics.median(best_of(lambda seed: RandomSampler(seed=seed), seed) for seed in range(5))
    assert ours < random / 4
