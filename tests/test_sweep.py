"""The scheduler, with a population that is none and a study in memory."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner

from jaxdqn import space
from jaxdqn.config import Config, Layout
from jaxdqn.events import Event, TrialEnded, Visited
from jaxdqn.host_agent import Agent, Totals
from jaxdqn.hyperparams import defaults
from jaxdqn.lanes import Lanes
from jaxdqn.space import Space
from jaxdqn.study import Study, open_study
from jaxdqn.sweep import _Scheduler, sweep
from jaxdqn.trials import Limits
from tests.stand_in import StandIn

LAYOUT = Layout(rows=2, devices=2, block=3)
CONFIG = Config(env_steps=20_000, tick=4)


@pytest.fixture
def searched(tmp_path: Path) -> Space:
    file = tmp_path / "one.toml"
    file.write_text("env_steps = 20_000\n[hyperparameters]\nlearning_rate = { low = 1e-5, high = 1e-1, log = true }\n")
    return space.load(str(file))


def opened(searched: Space, directory: Path, sampler: str = "random", seed: int = 0) -> Study:
    return open_study(directory / "study.log", "s", searched, searched.identity(), sampler, seed)


RUNGS = tuple(range(5_000, 60_001, 5_000))
JUDGED = Config(env_steps=60_000, tick=4, rungs=RUNGS)


class Doomed(BasePruner):
    """Ends named trials at a rung, and remembers whom it judged where."""

    def __init__(self, *doomed: int, at: int = RUNGS[2]) -> None:
        self.doomed, self.at = doomed, at
        self.judged: list[tuple[int, int]] = []  # (trial, rung)

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        assert trial.last_step is not None
        self.judged.append((trial.number, trial.last_step))
        return trial.number in self.doomed and trial.last_step >= self.at


def judged_by(pruner: BasePruner, searched: Space, directory: Path) -> Study:
    study = opened(searched, directory)
    study._pruner = pruner
    return study


def ended(events: list[Event]) -> list[TrialEnded]:
    return [event for event in events if isinstance(event, TrialEnded)]


def test_as_many_trials_are_told_as_were_asked_for(searched: Space, tmp_path: Path) -> None:
    study, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    events = list(sweep(Lanes(trainer), study, searched, Limits(trials=30)))
    assert study.counts() == {"complete": 30, "pruned": 0, "failed": 0, "running": 0}
    assert sorted(event.number for event in ended(events)) == list(range(30))
    assert len(trainer.placed) == 30
    assert max(event.lanes_busy for event in events if isinstance(event, Visited)) == 12


def test_a_trial_is_worth_the_mean_of_its_seeds(searched: Space, tmp_path: Path) -> None:
    study, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    events = ended(list(sweep(Lanes(trainer), study, searched, Limits(trials=5), num_seeds=3)))
    assert sorted(trainer.placed) == [(trial, seed) for trial in range(5) for seed in range(3)]
    for event in events:
        expected = -(np.log10(event.params["learning_rate"]) ** 2) + 0.01
        assert event.mean_return == pytest.approx(expected, abs=1e-4)
        assert [agent.seed_index for agent in event.agents] == [0, 1, 2]
        assert event.std_return == pytest.approx(1.0, abs=0.01)


def test_two_sweeps_with_the_same_arguments_are_the_same(searched: Space, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        study, trainer = opened(searched, tmp_path / name, "tpe"), StandIn(CONFIG, LAYOUT)
        events = ended(list(sweep(Lanes(trainer), study, searched, Limits(trials=25))))
        runs.append(([(e.number, e.params, e.mean_return) for e in events], trainer.placed))
    assert runs[0] == runs[1]


def test_a_sweep_that_was_cut_off_goes_on_with_the_trials_it_had_begun(searched: Space, tmp_path: Path) -> None:
    first, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    for count, event in enumerate(sweep(Lanes(trainer), first, searched, Limits(trials=20))):
        if isinstance(event, TrialEnded) and count > 20:
            break  # nobody told the trials in flight
    running = [trial.number for trial in first.unfinished()]
    finished = {trial.number: trial.value for trial in first.trials() if trial.state == "complete"}
    assert running
    assert finished
    first.close()

    second, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    list(sweep(Lanes(trainer), second, searched, Limits(trials=20)))
    assert sorted(trainer.placed[: len(running)]) == [(number, 0) for number in running]
    assert second.counts()["complete"] == 20
    assert second.counts()["running"] == 0
    told = {trial.number: trial.value for trial in second.trials()}
    assert sorted(told) == list(range(20))
    assert {number: told[number] for number in finished} == finished


def test_a_study_that_has_all_its_trials_needs_no_more(searched: Space, tmp_path: Path) -> None:
    first = opened(searched, tmp_path)
    list(sweep(Lanes(StandIn(CONFIG, LAYOUT)), first, searched, Limits(trials=4)))
    first.close()
    trainer = StandIn(CONFIG, LAYOUT)
    assert not ended(list(sweep(Lanes(trainer), opened(searched, tmp_path), searched, Limits(trials=4))))
    assert not trainer.placed


def test_a_diverged_agent_fails_its_trial_and_no_other(searched: Space, tmp_path: Path) -> None:
    study = opened(searched, tmp_path)
    trainer = StandIn(CONFIG, LAYOUT, diverging=frozenset({2, 5}))
    events = ended(list(sweep(Lanes(trainer), study, searched, Limits(trials=10), num_seeds=2)))
    assert {event.number for event in events if event.state == "failed"} == {2, 5}
    assert study.counts() == {"complete": 8, "pruned": 0, "failed": 2, "running": 0}


def test_the_target_return_ends_the_sweep(searched: Space, tmp_path: Path) -> None:
    study, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    events = ended(list(sweep(Lanes(trainer), study, searched, Limits(trials=500, target_return=-4.0))))
    reached = [i for i, event in enumerate(events) if event.mean_return >= -4.0]
    assert reached[0] >= len(events) - LAYOUT.lanes // LAYOUT.rows  # it was told in the last visit


def test_a_stop_ends_the_sweep_at_the_next_visit(searched: Space, tmp_path: Path) -> None:
    study, trainer, stop = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT), []
    for event in sweep(Lanes(trainer), study, searched, Limits(trials=50), stopped=lambda: bool(stop)):
        assert not stop or isinstance(event, TrialEnded | Visited)
        if isinstance(event, TrialEnded):
            stop.append(event)
    assert study.counts()["complete"] < 50


def test_a_rung_is_reported_when_all_seeds_have_reached_it(searched: Space, tmp_path: Path) -> None:
    config = Config(env_steps=20_000, tick=4, rungs=(5_000, 10_000))
    study, trainer = opened(searched, tmp_path), StandIn(config, LAYOUT)
    list(sweep(Lanes(trainer), study, searched, Limits(trials=6), num_seeds=3))
    assert [trial.intermediate for trial in study.trials()] == [{5_000: 5_001.0, 10_000: 10_001.0}] * 6


def test_a_seed_that_ended_early_counts_with_its_last_validation() -> None:
    ended = Agent(0, 0, defaults(), ended=True, validation=np.array([3.0, np.nan]))
    lives = Agent(0, 1, defaults(), validation=np.array([5.0, np.nan]))
    assert [ended.validated(rung) for rung in (0, 1)] == [3.0, 3.0]
    assert [lives.validated(rung) for rung in (0, 1)] == [5.0, None]
    assert Agent(0, 2, defaults(), ended=True, validation=np.array([np.nan])).validated(0) is None


def test_a_seed_that_diverged_counts_as_the_random_policy_and_holds_no_report_up(
    searched: Space, tmp_path: Path
) -> None:
    config = Config(env_steps=20_000, tick=4, rungs=(5_000,), diverged_return=22.0)
    study, trainer = opened(searched, tmp_path), StandIn(config, LAYOUT)
    scheduler = _Scheduler(Lanes(trainer), study, searched, Limits(), 2, None)
    scheduler._ask(2)
    first, second = scheduler.lanes.queue[:2]
    first.ended, first.diverged, first.validation = True, True, np.array([np.nan])
    second.validation = np.array([8.0])
    assert scheduler._judge(0) is None
    assert study.trial(0).intermediate == {5_000: 15.0}


def test_a_trial_with_a_diverged_seed_is_worth_less_and_one_with_none_left_fails(
    searched: Space, tmp_path: Path
) -> None:
    def score(phase: int, trial: int, seed: int) -> float:
        return float("nan") if (trial, seed) in ((2, 0), (3, 0), (3, 1)) else 400.0

    config, study = Config(env_steps=20_000, tick=4, diverged_return=20.0), opened(searched, tmp_path)
    list(sweep(Lanes(StandIn(config, LAYOUT, score=score)), study, searched, Limits(trials=5), num_seeds=2))
    assert [trial.value for trial in study.trials()] == [400.0, 400.0, 210.0, None, 400.0]
    assert [trial.state for trial in study.trials()].count("failed") == 1
    assert study.trial(2).attributes["returns"] == [None, 400.0]


def test_all_that_an_event_says_is_on_the_disk(searched: Space, tmp_path: Path) -> None:
    study, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    log = tmp_path / "study.log"
    for event in sweep(Lanes(trainer), study, searched, Limits(trials=8)):
        if isinstance(event, TrialEnded):
            assert f'"values":[{event.mean_return}]' in log.read_text()
        elif event.changed:
            assert max(trial.number for trial in event.changed) < log.read_text().count('"op_code":4')
    study.close()


def test_agents_that_are_all_different_wait_in_a_small_reserve(tmp_path: Path) -> None:
    file = tmp_path / "mixed.toml"
    file.write_text("env_steps = 20_000\n[hyperparameters]\ntrain_period = { choices = [4, 8, 16] }\n")
    mixed = space.load(str(file))
    study, trainer = opened(mixed, tmp_path), StandIn(CONFIG, Layout(rows=4, devices=2, block=4))
    events = list(sweep(Lanes(trainer), study, mixed, Limits(trials=80)))
    waiting = [
        event.counts["running"] - event.lanes_busy
        for event in events
        if isinstance(event, Visited) and sum(event.counts.values()) < 80
    ]
    assert max(waiting) <= 3
    assert study.counts()["complete"] == 80


def test_a_learning_curve_ends_where_the_agent_ended(searched: Space, tmp_path: Path) -> None:
    study, trainer = opened(searched, tmp_path), StandIn(CONFIG, LAYOUT)
    events = ended(list(sweep(Lanes(trainer), study, searched, Limits(trials=2))))
    for event in events:
        curve = event.agents[0].curve
        assert curve[-1].step == CONFIG.env_steps
        assert [point.mean_return for point in curve] == pytest.approx([10.0] * len(curve))
        assert [point.loss for point in curve] == pytest.approx([0.5] * len(curve))
        assert curve[-1].epsilon == pytest.approx(0.05)


def test_a_thinned_learning_curve_still_covers_the_whole_life() -> None:
    agent = Agent(
        0, 0, defaults(), history=[Totals(step, step, step, 2.0 * step, 3.0 * step) for step in range(0, 90, 9)]
    )
    agent.history = agent.history[::2] + agent.history[-1:]
    assert [point.step for point in agent.curve] == [18, 36, 54, 72, 81]
    assert {(point.mean_return, point.loss) for point in agent.curve} == {(2.0, 3.0)}


# Trials that are pruned


def test_a_pruned_trial_is_worth_its_last_rung_and_is_never_the_best(searched: Space, tmp_path: Path) -> None:
    study = judged_by(Doomed(0, 7), searched, tmp_path)
    trainer = StandIn(JUDGED, LAYOUT, score=lambda phase, trial, seed: 500.0 if trial in (0, 7) else float(trial))
    events = ended(list(sweep(Lanes(trainer), study, searched, Limits(trials=20))))
    assert study.counts() == {"complete": 18, "pruned": 2, "failed": 0, "running": 0}
    for number in (0, 7):
        trial = study.trial(number)
        assert (trial.state, trial.value) == ("pruned", 500.0)
        assert list(trial.intermediate) == list(RUNGS[:3])
        assert trial.attributes["returns"] == [None]
        assert trial.attributes["std_return"] is None
        assert trial.attributes["lanes"][0][3] == "pruned"
    best = study.best()
    assert best is not None
    assert best.number not in (0, 7)
    assert {event.number for event in events if event.state == "pruned"} == {0, 7}
    assert [event.is_best for event in events if event.state == "pruned"] == [False, False]
    study.close()
    again = opened(searched, tmp_path)
    assert again.counts()["pruned"] == 2
    assert again.best() == best


def test_the_lanes_of_a_pruned_trial_are_given_to_others_at_the_same_visit(searched: Space, tmp_path: Path) -> None:
    layout = Layout(rows=1, devices=2, block=3)
    study, trainer = judged_by(Doomed(1, 4, at=0), searched, tmp_path), StandIn(JUDGED, layout)
    busy = []
    for event in sweep(Lanes(trainer), study, searched, Limits(trials=40)):
        if isinstance(event, TrialEnded) and event.state == "pruned":
            busy.append((trainer.replaced, trainer.emptied))
        elif isinstance(event, Visited) and study.counts()["pruned"] and not event.counts["complete"]:
            assert event.lanes_busy == layout.lanes
    assert busy == [(2, 0), (2, 0)]


def test_nothing_of_a_pruned_trial_is_trained_on(searched: Space, tmp_path: Path) -> None:
    pruner = Doomed(0, 1, at=RUNGS[0])
    study, trainer = judged_by(pruner, searched, tmp_path), StandIn(JUDGED, LAYOUT)
    list(sweep(Lanes(trainer), study, searched, Limits(trials=8), num_seeds=4))
    assert study.counts()["pruned"] == 2
    assert sorted(trainer.placed) == [(trial, seed) for trial in range(8) for seed in range(4)]  # each once
    assert trainer.replaced == 8  # of both rows, each at its own next visit
    steps = [study.trial(number).attributes["env_steps"] for number in range(8)]
    assert all(max(of_trial) < 60_000 for of_trial in steps[:2])
    assert steps[2:] == [[60_000] * 4] * 6
    assert [rung for trial, rung in pruner.judged if trial == 0] == [RUNGS[0]]


def test_the_seeds_that_wait_for_a_lane_are_dropped_with_their_trial(searched: Space, tmp_path: Path) -> None:
    config = Config(env_steps=60_000, tick=4, rungs=(4,))
    study = judged_by(Doomed(0, at=0), searched, tmp_path)
    lanes = Lanes(StandIn(config, Layout(rows=1, devices=1, block=2)))
    scheduler = _Scheduler(lanes, study, searched, Limits(), 4, False)
    scheduler._ask(1)
    scheduler._dispatch(0)
    waiting = [agent for agent in lanes.queue if agent.trial == 0]
    assert len(waiting) == 2
    for agent in scheduler.open[0][1]:
        agent.validation = np.array([1.0])
    event = scheduler._judge(0)
    assert event is not None
    assert event.state == "pruned"
    assert not any(agent.trial == 0 for agent in lanes.queue)
    assert [span is None for span in study.trial(0).attributes["lanes"]] == [False, False, True, True]


def test_a_trial_is_judged_once_at_each_rung(searched: Space, tmp_path: Path) -> None:
    pruner = Doomed()
    study, trainer = judged_by(pruner, searched, tmp_path), StandIn(JUDGED, LAYOUT)
    list(sweep(Lanes(trainer), study, searched, Limits(trials=20), num_seeds=2))
    assert len(set(pruner.judged)) == len(pruner.judged) > 0
    assert {tuple(trial.intermediate) for trial in study.trials()} == {RUNGS}
    for number in range(20):
        rungs = [rung for trial, rung in pruner.judged if trial == number]
        assert rungs == list(RUNGS[: len(rungs)])


def test_a_rung_that_is_in_the_log_is_not_judged_again_after_a_restart(searched: Space, tmp_path: Path) -> None:
    before, after = Doomed(), Doomed()
    first = judged_by(before, searched, tmp_path)
    for event in sweep(Lanes(StandIn(JUDGED, LAYOUT)), first, searched, Limits(trials=20)):
        if isinstance(event, Visited) and event.counts["complete"]:
            break
    running = {asked.number: asked.rungs for asked in first.unfinished()}
    assert max(running.values()) > 0
    first.close()

    second = judged_by(after, searched, tmp_path)
    assert {asked.number: asked.rungs for asked in second.unfinished()} == running
    list(sweep(Lanes(StandIn(JUDGED, LAYOUT)), second, searched, Limits(trials=20)))
    assert set(before.judged) & set(after.judged) == set()
    for number, rungs in running.items():
        assert all(rung > RUNGS[rungs - 1] for trial, rung in after.judged if trial == number and rungs)
    assert {tuple(trial.intermediate) for trial in second.trials()} == {RUNGS}
    assert second.counts()["complete"] == 20


def test_a_trial_whose_agents_have_all_ended_is_complete_and_not_pruned(searched: Space, tmp_path: Path) -> None:
    pruner = Doomed(*range(100), at=RUNGS[-1])
    study, trainer = judged_by(pruner, searched, tmp_path), StandIn(JUDGED, LAYOUT)
    list(sweep(Lanes(trainer), study, searched, Limits(trials=6)))
    assert study.counts() == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    assert {tuple(trial.intermediate) for trial in study.trials()} == {RUNGS}


def test_a_pruned_trial_counts_as_one_that_was_asked_for(searched: Space, tmp_path: Path) -> None:
    study, trainer = judged_by(Doomed(*range(1_000), at=0), searched, tmp_path), StandIn(JUDGED, LAYOUT)
    list(sweep(Lanes(trainer), study, searched, Limits(trials=15)))
    assert study.counts() == {"complete": 0, "pruned": 15, "failed": 0, "running": 0}
    assert study.best() is None
    assert sorted(trainer.placed) == [(number, 0) for number in range(15)]


def test_halving_ends_the_worst_trials_and_no_better_one(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(
        f"env_steps = 60_000\nrungs = {list(RUNGS)}\n[hyperparameters]\nlearning_rate = {{ low = 1e-5, high = 1e-1 }}"
    )
    judged = space.load(str(file))
    study = open_study(tmp_path / "study.log", "s", judged, judged.identity(), "random", 0, pruner="halving")
    trainer = StandIn(JUDGED, LAYOUT, score=lambda phase, trial, seed: float(trial * 37 % 101))
    list(sweep(Lanes(trainer), study, judged, Limits(trials=60)))
    values = {state: [t.value for t in study.trials() if t.state == state] for state in ("complete", "pruned")}
    assert len(values["complete"]) + len(values["pruned"]) == 60
    assert 10 < len(values["pruned"]) < 50
    assert np.mean(values["pruned"]) < np.mean(values["complete"]) - 20
    best = study.best()
    assert best is not None
    assert best.value == max(value for of_state in values.values() for value in of_state if value is not None)


def test_two_sweeps_that_prune_are_the_same(searched: Space, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        study = judged_by(Doomed(2, 3, 11), searched, tmp_path / name)
        trainer = StandIn(JUDGED, LAYOUT)
        list(sweep(Lanes(trainer), study, searched, Limits(trials=25), num_seeds=2))
        runs.append(([(t.number, t.state, t.value, t.intermediate) for t in study.trials()], trainer.placed))
    assert runs[0] == runs[1]


def test_agents_are_handed_over_with_their_parameters_where_they_are_to_be_saved(
    searched: Space, tmp_path: Path
) -> None:
    study = opened(searched, tmp_path)
    trainer = StandIn(CONFIG, LAYOUT, diverging=frozenset({2}))
    kept: list[int] = []

    def keep(agent: Agent) -> None:
        assert agent.params is not None
        assert study.trial(agent.trial).state == "running"  # what is told has been kept
        kept.append(agent.trial)

    list(sweep(Lanes(trainer), study, searched, Limits(trials=5), keep=keep))
    assert sorted(kept) == [0, 1, 3, 4]
