"""Who goes on at a rung: by hand, in Optuna's own studies, and whatever the history."""

import math
import pickle
from collections.abc import Sequence
from typing import Literal

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from jaxdqn.pruner import MIN_PEERS, PRUNERS, HalvingPruner, make

NAN, INF = math.nan, math.inf
RUNGS = tuple(range(2_000, 20_001, 2_000))
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
STATES = (TrialState.RUNNING, *FINISHED)
Direction = Literal["maximize", "minimize"]
VALUES = st.one_of(st.sampled_from([0.0, 1.0, NAN, INF, -INF]), st.floats())


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def created(reported: dict[int, float], state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    return create_trial(state=state, intermediate_values=reported, value=0.0 if state == TrialState.COMPLETE else None)


def study_of(trials: Sequence[FrozenTrial], direction: Direction = "maximize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for trial in trials:
        study._storage.create_new_trial(study._study_id, trial)
    return study


def at_rung(
    values: Sequence[float], direction: Direction = "maximize", state: TrialState = TrialState.RUNNING
) -> list[int]:
    """The places of those that go on, of trials that stand at one rung."""
    study = study_of([created({100: value}, state) for value in values], direction)
    pruner = HalvingPruner(eta=3, min_peers=2)
    return [trial.number for trial in study.get_trials() if not pruner.prune(study, trial)]


def stops(study: optuna.Study, number: int = -1, pruner: BasePruner | None = None) -> bool:
    return (pruner or HalvingPruner(min_peers=2)).prune(study, study.get_trials()[number])


@pytest.mark.parametrize("state", STATES)
def test_the_best_third_rounded_up_goes_on(state: TrialState) -> None:
    assert at_rung([40.0, 10.0, 70.0, 20.0, 60.0, 30.0], state=state) == [2, 4]
    assert at_rung([40.0, 10.0, 70.0, 20.0, 60.0, 30.0, 50.0], state=state) == [2, 4, 6]


def test_the_lowest_are_the_best_where_the_objective_is_minimised() -> None:
    assert at_rung([40.0, 10.0, 70.0, 20.0, 60.0, 30.0], "minimize") == [1, 3]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_ties_go_on(direction: Direction) -> None:
    assert at_rung([5.0] * 6, direction) == list(range(6))
    assert at_rung([5.0, 1.0, 5.0, 5.0, 9.0, 9.0], "maximize") == [4, 5]
    assert at_rung([5.0, 1.0, 5.0, 5.0, 9.0, 1.0], "maximize") == [0, 2, 3, 4]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_nan_is_worse_than_any_number_and_never_among_the_best(direction: Direction) -> None:
    worst = -INF if direction == "maximize" else INF
    assert at_rung([NAN, NAN, worst, NAN, NAN, NAN], direction) == [2]
    assert at_rung([NAN, NAN, NAN], direction) == []
    assert at_rung([1.0, NAN, 1.0, NAN, 1.0], direction) == [0, 2, 4]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_peer_counts_whatever_became_of_it(state: TrialState, direction: Direction) -> None:
    sign = 1 if direction == "maximize" else -1
    peers = [created({10: 0.0, 100: sign * value, 900: 0.0}, state) for value in (2.0, 3.0, 4.0)]
    assert not stops(study_of([*peers, created({100: sign * 3.0})], direction))
    assert stops(study_of([*peers, created({100: sign * 2.5})], direction))


def test_only_values_of_the_same_step_count() -> None:
    """The bait: values of the neighbours' other rungs, and of trials that never came to this one."""
    baits = [created({99: 1e6, 101: 1e6}), created({200: 1e6}, TrialState.COMPLETE), created({}, TrialState.FAIL)]
    peers = [created({20: 1e6, 100: value, 200: 1e6}, TrialState.PRUNED) for value in (1.0, 3.0)]
    assert not stops(study_of([*baits, *peers, created({20: -1e6, 100: 2.0})]))
    assert stops(study_of([*baits, *peers, created({20: 1e6, 100: 0.0})]))


def test_a_trial_is_judged_by_its_last_step_however_its_reports_are_ordered() -> None:
    peers = [created({100: 5.0, 300: value}, TrialState.COMPLETE) for value in (6.0, 7.0, 8.0)]
    assert stops(study_of([*peers, created({300: 1.0, 100: 9.0})]))
    assert not stops(study_of([*peers, created({300: 9.0, 100: 1.0})]))
    assert not stops(study_of([*peers, *peers, created({200: 2.0}), created({200: 1.0, 100: 9.0})]))  # 200 < 3 × 100


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_best_so_far_of_a_trial_and_of_its_peers_counts_where_that_is_asked_for(direction: Direction) -> None:
    sign = 1.0 if direction == "maximize" else -1.0
    pruner = HalvingPruner(min_peers=2, best_so_far=True)
    peers = [created({100: sign * 7.0, 300: sign * 2.0, 900: sign * 99.0}, state) for state in STATES]
    assert not stops(study_of([*peers, created({100: sign * 8.0, 300: sign * 1.0})], direction), pruner=pruner)
    assert stops(study_of([*peers, created({100: sign * 1.0, 300: sign * 6.0})], direction), pruner=pruner)
    assert stops(study_of([*peers, created({100: sign * 8.0, 300: sign * 1.0})], direction))


def test_a_trial_that_is_nan_now_has_no_best_so_far() -> None:
    pruner = HalvingPruner(min_peers=2, best_so_far=True)
    assert stops(study_of([created({100: 1.0, 300: 1.0}), created({100: 9.0, 300: NAN})]), pruner=pruner)
    before = study_of([created({100: 1.0, 300: 1.0}), created({100: NAN, 300: 9.0})])
    assert not stops(before, pruner=pruner)
    assert stops(before, 0, pruner)


def test_below_the_stated_number_of_peers_all_go_on() -> None:
    worst = created({100: -1.0})
    field = [created({100: 1.0}, TrialState.COMPLETE)] * (MIN_PEERS - 2)
    assert not stops(study_of([*field, worst]), pruner=HalvingPruner())
    assert not stops(study_of([*field, created({100: NAN})]), pruner=HalvingPruner())
    assert stops(study_of([*field, created({100: 0.0}), worst]), pruner=HalvingPruner())


def test_a_trial_counts_once_even_when_it_has_ended() -> None:
    study = study_of([created({100: value}, TrialState.PRUNED) for value in (1.0, 2.0)])
    assert stops(study, 0)
    assert not stops(study, 0, HalvingPruner(min_peers=3))


@pytest.mark.parametrize(
    ("growth", "first_rung", "judged"),
    [
        (3.0, None, [2_000, 6_000, 18_000]),
        (2.0, None, [2_000, 4_000, 8_000, 16_000]),
        (1.0, None, list(RUNGS)),
        (2.0, 5_000, [6_000, 12_000]),
        (1.0, 16_000, [16_000, 18_000, 20_000]),
        (1.0, 20_001, []),
    ],
)
def test_a_trial_is_judged_where_its_step_has_grown(growth: float, first_rung: int | None, judged: list[int]) -> None:
    pruner = HalvingPruner(min_peers=2, growth=growth, first_rung=first_rung)
    better = created(dict.fromkeys(RUNGS, 1.0))
    trials = [created(dict.fromkeys(RUNGS[: i + 1], 0.0)) for i in range(len(RUNGS))]
    assert [trial.last_step for trial in trials if stops(study_of([better, trial]), pruner=pruner)] == judged


def test_steps_may_begin_at_nought() -> None:
    better = created(dict.fromkeys(range(30), 1.0))
    trials = [created(dict.fromkeys(range(step + 1), 0.0)) for step in range(30)]
    assert [trial.last_step for trial in trials if stops(study_of([better, trial]))] == [0, 1, 3, 9, 27]


def test_a_trial_without_a_report_goes_on() -> None:
    assert not stops(study_of([created({100: 1.0}), created({})]), pruner=HalvingPruner(min_peers=1))


def test_a_trial_is_judged_anew_when_peers_come() -> None:
    pruner = HalvingPruner(min_peers=2)
    study = study_of([created({100: 1.0}, TrialState.COMPLETE), created({100: 2.0})])
    assert not stops(study, 1, pruner)
    for value in (3.0, 4.0):
        study._storage.create_new_trial(study._study_id, created({100: value}, TrialState.PRUNED))
    assert stops(study, 1, pruner)


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(ValueError, match="HalvingPruner has one objective, this study has 2"):
        HalvingPruner().prune(study, created({100: 1.0}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"eta": 1.0},
        {"eta": NAN},
        {"eta": INF},
        {"min_peers": 0},
        {"first_rung": -1},
        {"growth": 0.5},
        {"growth": NAN},
    ],
)
def test_an_argument_out_of_range_is_quoted(wrong: dict[str, float]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"{name} = {value} is not allowed"):
        HalvingPruner(**wrong)  # type: ignore[arg-type]


def test_a_pickled_pruner_judges_alike() -> None:
    study = study_of([created({2: 9.0, 6: value}) for value in (1.0, 2.0, 3.0, 4.0)])
    pruner = HalvingPruner(eta=4, min_peers=4, first_rung=3, growth=2, best_so_far=True)
    pruner.prune(study, study.get_trials()[0])
    again = pickle.loads(pickle.dumps(pruner))
    for name in ("_eta", "_min_peers", "_first_rung", "_growth", "_best_so_far"):
        assert getattr(again, name) == getattr(pruner, name)
    assert [stops(study, i, again) for i in range(4)] == [stops(study, i, pruner) for i in range(4)]


def histories() -> st.SearchStrategy[list[FrozenTrial]]:
    reported = st.dictionaries(st.sampled_from([1, 3, 9]), VALUES)
    return st.lists(st.builds(created, reported, st.sampled_from(STATES)), min_size=1, max_size=12)


def by_definition(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], eta: float, min_peers: int, maximise: bool
) -> bool:
    """Halving of the last values, read off its description."""
    step = trial.last_step
    if step is None:
        return False
    values = [peer.intermediate_values[step] for peer in trials if step in peer.intermediate_values]
    mine = trial.intermediate_values[step]
    best = sorted((value for value in values if not math.isnan(value)), reverse=maximise)
    places = math.ceil(len(values) / eta)
    bar = best[min(places, len(best)) - 1] if best else NAN
    return len(values) >= min_peers and not (mine >= bar if maximise else mine <= bar)


@settings(max_examples=60, deadline=None)
@given(histories(), st.sampled_from([1.5, 2.0, 3.0]), st.integers(1, 6), st.booleans())
def test_halving_is_what_it_says(trials: list[FrozenTrial], eta: float, min_peers: int, maximise: bool) -> None:
    pruner = HalvingPruner(eta=eta, min_peers=min_peers, growth=1)
    study = study_of(trials, "maximize" if maximise else "minimize")
    for trial in study.get_trials():
        assert pruner.prune(study, trial) == by_definition(trial, trials, eta, min_peers, maximise)


@settings(max_examples=60, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_the_trials_is_no_matter(trials: list[FrozenTrial], random: object, best_so_far: bool) -> None:
    order = list(range(len(trials)))
    random.shuffle(order)  # type: ignore[attr-defined]
    study, shuffled = study_of(trials), study_of([trials[i] for i in order])
    fates = [stops(study, i, HalvingPruner(min_peers=2, best_so_far=best_so_far)) for i in order]
    assert fates == [stops(shuffled, i, HalvingPruner(min_peers=2, best_so_far=best_so_far)) for i in range(len(order))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=40), st.floats(1.01, 10.0), st.booleans())
def test_the_best_at_a_rung_is_never_stopped(values: list[float], eta: float, maximise: bool) -> None:
    study = study_of([created({100: value}) for value in values], "maximize" if maximise else "minimize")
    pruner = HalvingPruner(eta=eta, min_peers=1)
    best = int(np.argmax(values) if maximise else np.argmin(values))
    assert not stops(study, best, pruner)
    assert sum(not stops(study, i, pruner) for i in range(len(values))) >= math.ceil(len(values) / eta)


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=MIN_PEERS - 1))
def test_below_the_default_number_of_peers_none_is_stopped(values: list[float]) -> None:
    study = study_of([created({100: value}) for value in values])
    assert not any(stops(study, i, HalvingPruner()) for i in range(len(values)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_a_pruner_remembers_changes_no_judgement(data: st.DataObject) -> None:
    """A pruner that watched the whole study judges as one that sees it for the first time."""
    study, watching = optuna.create_study(direction="maximize"), HalvingPruner(min_peers=2, growth=1)
    running: list[int] = []
    storage = study._storage
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["ask", "report", "report", "tell"]))
        if what == "ask" or not running:
            running.append(storage.create_new_trial(study._study_id))
            continue
        trial_id = data.draw(st.sampled_from(running))
        if what == "tell":
            running.remove(trial_id)
            storage.set_trial_state_values(trial_id, data.draw(st.sampled_from(FINISHED)), [0.0])
            continue
        step = (storage.get_trial(trial_id).last_step or 0) + 1
        storage.set_trial_intermediate_value(trial_id, step, data.draw(VALUES))
        trial = storage.get_trial(trial_id)
        assert watching.prune(study, trial) == HalvingPruner(min_peers=2, growth=1).prune(study, trial)


def optimise(pruner: BasePruner, num_trials: int, direction: Direction = "maximize") -> optuna.Study:
    """A user's own study: the value of a trial is its number's place in a permutation, at every step."""
    study = optuna.create_study(direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    worth = np.random.default_rng(1).permutation(num_trials)

    def objective(trial: optuna.Trial) -> float:
        for step in range(1, 10):
            trial.report(float(worth[trial.number]), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(worth[trial.number])

    study.optimize(objective, num_trials)
    return study


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_study_of_ones_own_prunes_about_the_expected_share(direction: Direction) -> None:
    num_trials, eta = 300, 3.0
    study = optimise(HalvingPruner(eta=eta, growth=3), num_trials, direction)
    came_to = {step: sum(step in trial.intermediate_values for trial in study.trials) for step in (1, 2, 4)}
    assert came_to[1] == num_trials
    assert abs(came_to[2] / num_trials - 1 / eta) < 0.1
    assert came_to[4] < 0.7 * came_to[2]
    best = num_trials - 1.0 if direction == "maximize" else 0.0
    assert study.best_value == best


def test_the_default_pruner_works_in_a_study_with_threads() -> None:
    study = optuna.create_study(direction="maximize", pruner=HalvingPruner())
    worth = np.random.default_rng(0).random(200)

    def objective(trial: optuna.Trial) -> float:
        trial.report(worth[trial.number], 1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return float(worth[trial.number])

    study.optimize(objective, 200, n_jobs=4)
    assert 0.3 < sum(trial.state == TrialState.PRUNED for trial in study.trials) / 200 < 0.7
    assert study.best_value == worth.max()


@pytest.mark.parametrize("name", PRUNERS)
def test_every_name_is_a_pruner_that_works_without_optunas_own_loop(name: str) -> None:
    """The trials are created in the storage and judged from outside; the study itself has another pruner."""
    study, pruner = optuna.create_study(study_name="s", direction="maximize"), make(name, RUNGS)
    storage, num_stopped = study._storage, 0
    for number, worth in enumerate(np.random.default_rng(3).permutation(120)):
        trial_id = storage.create_new_trial(study._study_id, created({}))
        state = TrialState.COMPLETE
        for rung in RUNGS:
            storage.set_trial_intermediate_value(trial_id, rung, float(worth))
            if pruner.prune(study, storage.get_trial(trial_id)):
                state = TrialState.PRUNED
                num_stopped += 1
                break
        assert not (state == TrialState.PRUNED and worth == 119), f"{name} stopped the best, trial {number}"
        storage.set_trial_state_values(trial_id, state, [float(worth)] if state == TrialState.COMPLETE else None)
    assert num_stopped == 0 if name == "none" else 20 < num_stopped < 120


def test_our_pruner_judges_by_the_best_so_far_in_a_sweep() -> None:
    field = [created({2_000: 5.0, 6_000: 5.0}, TrialState.COMPLETE)] * MIN_PEERS
    assert not stops(study_of([*field, created({2_000: 9.0, 6_000: 1.0})]), pruner=make("halving", RUNGS))


def test_an_unknown_pruner_is_quoted_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'asha' is not known: one of halving, median, .*none"):
        make("asha", RUNGS)


@pytest.mark.parametrize("name", PRUNERS)
def test_without_rungs_there_is_nothing_to_judge(name: str) -> None:
    if name == "none":
        assert not stops(study_of([created({})]), pruner=make(name, ()))
    else:
        with pytest.raises(ValueError, match=f"'{name}' needs rungs"):
            make(name, ())
