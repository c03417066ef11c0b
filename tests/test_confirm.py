"""The best trials on fresh seeds, with a population that is none and a study on a real log."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import IntDistribution

from jaxdqn import agent_directory, confirm, saved_agent, space, statistics
from jaxdqn.config import Layout
from jaxdqn.confirm import Candidate, Confirmation, Fresh
from jaxdqn.evaluate import Phase
from jaxdqn.events import Retrained
from jaxdqn.follower import Trial
from jaxdqn.hyperparams import defaults
from jaxdqn.lanes import Lanes
from jaxdqn.space import Space
from jaxdqn.statistics import wilson
from tests.small_sweep import FRESH, GOOD, LUCKY, TRIALS, Sweep, loaded, score, spoken


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of fewer resamples."""
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 199)


def without_times(one: Confirmation | None) -> Confirmation | None:
    return replace(one, lanes=[]) if one else None


# The whole of it


def test_a_trial_that_was_lucky_once_loses(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    winner, loser = sweep.run()
    best = sweep.study.best()
    assert best is not None
    assert (best.number, best.value) == (LUCKY, 500.0)
    assert (winner.number, winner.mean_return, winner.search_return) == (GOOD, 500.0, 495.0)
    assert (loser.number, loser.mean_return, loser.search_return) == (LUCKY, 102.0, 500.0)
    assert (winner.solved_share, loser.solved_share) == (1.0, 0.0)
    assert (winner.worst_seed_return, loser.worst_seed_return) == (500.0, 100.0)
    assert loser.returns == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert winner.hyperparameters["learning_rate"] == sweep.study.trial(GOOD).params["learning_rate"]
    assert winner.env_steps == [20_000] * 5
    assert json.loads(json.dumps(winner.summary(), allow_nan=False))["number"] == GOOD


def test_the_verdict_is_on_the_winner_alone_and_on_a_phase_that_nothing_else_has_seen(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.run()
    assert sweep.trained_in(Phase.SEARCH) == [(trial, 0) for trial in range(TRIALS)]
    assert sweep.trained_in(Phase.CONFIRM) == [(trial, seed) for trial in (LUCKY, GOOD) for seed in range(5)]
    assert sweep.trained_in(Phase.VERDICT) == [(GOOD, seed) for seed in range(4)]
    verdict = sweep.stages.verdict
    assert verdict is not None
    assert (verdict.number, verdict.seeds, verdict.returns) == (GOOD, 4, [490.0, 491.0, 492.0, 493.0])
    assert (verdict.mean_return, verdict.worst_seed_return) == (491.5, 490.0)


def test_agents_are_saved_with_their_own_parameters_and_the_winner_is_marked(tmp_path: Path) -> None:
    Sweep(tmp_path).run()
    paths = agent_directory.find(tmp_path)
    expected = [f"confirm-{i}.json" for i in range(5)] + [f"verdict-{i}.json" for i in range(4)]
    assert [path.name for path in paths] == expected
    assert {path.parent.name for path in paths} == {f"trial-{GOOD}"}
    assert len(agent_directory.find(tmp_path, LUCKY)) == 5
    for path in (*paths, *agent_directory.find(tmp_path, LUCKY)):
        agent = saved_agent.load(path)
        phase, trial = Phase[agent.key["phase"].upper()], agent.key["trial"]
        assert agent.params["linear"]["bias"].tolist() == [trial, phase]
        assert agent.mean_return == score(phase, trial, agent.key["seed_index"])
        assert agent.scores["solved"] == (trial == GOOD)
        assert agent.key["study_seed"] == 0


@pytest.mark.parametrize("layout", [Layout(1, 1, 1), Layout(1, 1, 2), Layout(2, 1, 2), Layout(3, 2, 4)])
def test_agents_wait_where_there_are_fewer_lanes_than_seeds_and_the_result_is_the_same(
    tmp_path: Path, layout: Layout
) -> None:
    sweep = Sweep(tmp_path, spoken, Fresh(3, 7, 9), layout)
    confirmed = sweep.run()
    assert [one.number for one in confirmed] == [7, 6, 5]
    assert [len(one.returns) for one in confirmed] == [7, 7, 7]
    assert confirmed[0].returns == [spoken(Phase.CONFIRM, 7, seed) for seed in range(7)]
    assert len(sweep.trained) == len(set(sweep.trained)) == TRIALS + 3 * 7 + 9


def test_progress_is_told_agent_by_agent_and_phase_by_phase(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, layout=Layout(1, 1, 2))
    sweep.run()
    assert list(dict.fromkeys(event.phase for event in sweep.events)) == [Phase.CONFIRM, Phase.VERDICT]
    for phase, total in ((Phase.CONFIRM, 10), (Phase.VERDICT, 4)):
        events = [event for event in sweep.events if event.phase is phase]
        assert {event.total for event in events} == {total}
        assert sum(len(event.ended) for event in events) == events[-1].done == total
        assert [event.done for event in events] == sorted(event.done for event in events)
        assert events[-1].env_steps == total * 20_000
        assert events[-1].lanes_busy == 0


def test_a_fresh_agent_that_diverges_solves_nothing_and_has_no_return(tmp_path: Path) -> None:
    def diverging(phase: int, trial: int, seed: int) -> float:
        return float("nan") if phase != Phase.SEARCH and trial == GOOD and seed == 1 else score(phase, trial, seed)

    sweep = Sweep(tmp_path, diverging)
    winner, _ = sweep.run()
    assert (winner.number, winner.solved_share, winner.mean_return) == (GOOD, 0.8, 500.0)
    assert winner.returns == [500.0, None, 500.0, 500.0, 500.0]
    assert winner.solved_interval == wilson(4, 5)
    assert winner.worst_seed_return == 500.0
    assert [lane[3] for lane in winner.lanes] == ["ended", "diverged", "ended", "ended", "ended"]
    assert not agent_directory.path_of(tmp_path, GOOD, "confirm", 1).exists()
    assert json.dumps(winner.summary(), allow_nan=False)


def test_a_trial_all_of_whose_fresh_agents_diverge_comes_last(tmp_path: Path) -> None:
    def diverging(phase: int, trial: int, seed: int) -> float:
        return float("nan") if phase == Phase.CONFIRM and trial == LUCKY else score(phase, trial, seed)

    winner, loser = Sweep(tmp_path, diverging).run()
    assert (winner.number, loser.number) == (GOOD, LUCKY)
    assert (loser.solved_share, loser.mean_return, loser.worst_seed_return) == (0.0, None, None)
    assert (loser.mean_interval, loser.iqm_return, loser.returns) == (None, None, [None] * 5)


def test_where_nothing_counts_as_solved_the_mean_return_decides(tmp_path: Path) -> None:
    def far_from(phase: int, trial: int, seed: int) -> float:
        return score(phase, trial, seed) - 1_000

    sweep = Sweep(tmp_path, far_from, env="Acrobot-v1", solved_return=None)
    assert sweep.searched.solved is None
    winner, loser = sweep.run()
    assert (winner.number, winner.mean_return, loser.number) == (GOOD, -500.0, LUCKY)
    assert (winner.solved_share, winner.solved_interval) == (None, None)
    verdict = sweep.stages.verdict
    assert verdict is not None
    assert (verdict.solved_share, verdict.mean_return) == (None, -508.5)


def test_nothing_is_confirmed_where_no_trial_shall_be(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, fresh=FRESH._replace(top=0))
    assert sweep.run() == []
    assert sweep.stages.verdict is None
    assert sweep.stages.done
    assert sweep.events == []
    assert {phase for phase, _, _ in sweep.trained} == {Phase.SEARCH}
    assert not (tmp_path / "agents").exists()


def test_the_winner_is_not_trained_once_more_where_no_verdict_is_wanted(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, fresh=FRESH._replace(verdict_seeds=0))
    assert [one.number for one in sweep.run()] == [GOOD, LUCKY]
    assert sweep.stages.verdict is None
    assert sweep.stages.done
    assert sweep.trained_in(Phase.VERDICT) == []


def test_fewer_complete_trials_than_wanted_are_all_confirmed(tmp_path: Path) -> None:
    def poor(phase: int, trial: int, seed: int) -> float:
        return score(phase, trial, seed) if trial in (LUCKY, GOOD) else float("nan")

    sweep = Sweep(tmp_path, poor, FRESH._replace(top=100))
    assert [one.number for one in sweep.run()] == [GOOD, LUCKY]


def test_nothing_is_confirmed_where_every_trial_failed(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda phase, trial, seed: float("nan"))
    assert sweep.run() == []
    assert sweep.stages.done


# Sweeps that are cut off


@pytest.mark.parametrize("phase", [Phase.CONFIRM, Phase.VERDICT])
def test_a_confirmation_that_was_cut_off_goes_on_and_comes_to_the_same(tmp_path: Path, phase: Phase) -> None:
    layout, fresh = Layout(2, 1, 1), Fresh(2, 5, 5)
    whole = Sweep(tmp_path / "whole", spoken, fresh, layout)
    whole.run()
    first = Sweep(tmp_path / "cut", spoken, fresh, layout)
    first.run(until=lambda event: event.phase is phase and 0 < event.done < event.total)
    known = {of: first.study.recorded(of) for of in ("confirm", "verdict")}
    assert known[phase.name.lower()]
    assert not first.stages.done
    first.study.close()

    second = Sweep(tmp_path / "cut", spoken, fresh, layout)
    assert {of: set(second.study.recorded(of)) for of in known} == {of: set(known[of]) for of in known}
    second.run()
    assert second.trained_in(Phase.SEARCH) == []
    for of, results in known.items():
        assert set(second.trained_in(Phase[of.upper()])) & set(results) == set()
    assert [without_times(one) for one in second.stages.confirmed] == [
        without_times(one) for one in whole.stages.confirmed
    ]
    assert without_times(second.stages.verdict) == without_times(whole.stages.verdict)
    assert second.stages.done
    assert (tmp_path / "cut" / "agents" / "winner.json").read_bytes() == (
        tmp_path / "whole" / "agents" / "winner.json"
    ).read_bytes()


def test_an_end_in_the_middle_records_only_the_agents_that_ended(tmp_path: Path) -> None:
    stop: list[bool] = []
    sweep, ended = Sweep(tmp_path, layout=Layout(2, 1, 2)), []
    lanes = Lanes(sweep.trainer)
    for event in sweep.stages.run(lanes, lambda: bool(stop), 0.0):
        if isinstance(event, Retrained):
            assert not stop
            ended += [(agent.trial, agent.seed_index) for agent in event.ended]
            if len(ended) >= 3:
                stop.append(True)
    assert 3 <= len(ended) < 10
    assert set(sweep.study.recorded("confirm")) == set(ended)
    assert sweep.study.recorded("verdict") == {}
    assert (lanes.num_busy, lanes.queue) == (0, [])
    assert sweep.stages.confirmed == []
    assert sweep.stages.verdict is None
    assert not (tmp_path / "agents" / "winner.json").exists()


def test_an_end_in_the_search_confirms_nothing(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    list(sweep.stages.run(Lanes(sweep.trainer), lambda: bool(sweep.study.counts()["complete"]), 0.0))
    assert 0 < sweep.study.counts()["complete"] < TRIALS
    assert {phase for phase, _, _ in sweep.trained} == {Phase.SEARCH}


def test_the_winner_is_marked_though_the_end_comes_with_the_last_agent(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    list(sweep.stages.run(Lanes(sweep.trainer), lambda: len(sweep.study.recorded("verdict")) == 4, 0.0))
    assert sweep.stages.done  # so that nobody will come back to mark it
    assert agent_directory.find(tmp_path)[0].parent.name == f"trial-{GOOD}"


def test_a_study_that_has_all_its_agents_needs_no_more(tmp_path: Path) -> None:
    first = Sweep(tmp_path)
    before = first.run()
    first.study.close()
    second = Sweep(tmp_path)
    assert second.stages.done
    assert [without_times(one) for one in second.run()] == [without_times(one) for one in before]
    assert second.trained == []


def test_more_seeds_train_only_those_that_are_missing(tmp_path: Path) -> None:
    first = Sweep(tmp_path)
    first.run()
    first.study.close()
    second = Sweep(tmp_path, fresh=Fresh(3, 6, 4))
    assert not second.stages.done
    second.run()
    third = 7  # of the search
    assert second.trained_in(Phase.CONFIRM) == [(LUCKY, 5), (GOOD, 5), *((third, seed) for seed in range(6))]
    assert second.trained_in(Phase.VERDICT) == []


# Who is chosen


def told(number: int, value: float | None, env_steps: list[int] | None = None, state: str = "complete") -> Trial:
    attributes = {} if env_steps is None else {"env_steps": env_steps}
    return Trial(number, state, value, {"learning_rate": 1e-3}, attributes, {}, None, None)


def test_candidates_are_the_best_then_those_with_fewer_steps_then_the_earlier(tmp_path: Path) -> None:
    trials = [
        told(0, 9.0, [300, 300]),
        told(1, 10.0, [900]),
        told(2, 10.0, [500, 700]),
        told(3, 10.0, [600]),
        told(4, 99.0, [1], state="pruned"),
        told(5, None, [1], state="failed"),
        told(6, None, state="running"),
        told(7, 11.0),
    ]
    searched = loaded(tmp_path)
    chosen = confirm.candidates(trials, searched, 100)
    assert [one.number for one in chosen] == [7, 2, 3, 1, 0]
    assert chosen[0] == Candidate(7, defaults()._replace(hidden_layers=0, learning_rate=1e-3), 11.0)
    assert [one.number for one in confirm.candidates(trials, searched, 2)] == [7, 2]
    assert confirm.candidates(trials, searched, 0) == []


class Notes:
    """Results of fresh agents by hand."""

    def __init__(self, **returns: list[float | None]) -> None:
        self.returns = {int(name.removeprefix("trial_")): values for name, values in returns.items()}
        self.env_steps: dict[int, int] = {}

    def recorded(self, phase: str) -> dict[tuple[int, int], dict[str, Any]]:
        return {
            (number, seed): {
                "mean_return": value,
                "env_steps": self.env_steps.get(number, 100),
                "updates": 1,
                "lanes": [0, 0.0, 1.0, "ended"],
            }
            for number, values in self.returns.items()
            for seed, value in enumerate(values)
        }

    def order(self, searched: Space) -> list[int]:
        chosen = [Candidate(number, defaults(), 0.0) for number in sorted(self.returns)]
        seeds = len(next(iter(self.returns.values())))
        found = confirm.confirmed(self, chosen, seeds, searched)
        winner = confirm.winner(self, chosen, seeds, searched)
        assert winner is not None
        assert winner.number == found[0].number
        return [one.number for one in found]


def test_the_winner_solves_most_often_whatever_the_others_mean_return(tmp_path: Path) -> None:
    notes = Notes(trial_0=[474.9] * 8, trial_1=[475.0] * 3 + [0.0] * 5, trial_2=[500.0] * 2 + [474.0] * 6)
    assert notes.order(loaded(tmp_path)) == [1, 2, 0]


def test_of_trials_that_solve_as_often_the_surer_mean_return_wins(tmp_path: Path) -> None:
    sure, unsure = [480.0] * 8, [500.0] * 7 + [475.0]  # a higher mean …
    assert sum(unsure) > sum(sure)
    assert Notes(trial_0=unsure, trial_1=sure).order(loaded(tmp_path)) == [0, 1]
    sure, unsure = [450.0] * 8, [474.0] * 7 + [400.0]  # … whose lower bound may be higher or not
    assert sum(unsure) > sum(sure)
    assert Notes(trial_0=unsure, trial_1=sure).order(loaded(tmp_path)) == [1, 0]


def test_of_equals_the_one_with_fewer_steps_wins_and_then_the_earlier(tmp_path: Path) -> None:
    notes = Notes(trial_0=[500.0] * 4, trial_1=[500.0] * 4, trial_2=[500.0] * 4)
    assert notes.order(loaded(tmp_path)) == [0, 1, 2]
    notes.env_steps = {1: 90, 2: 80}
    assert notes.order(loaded(tmp_path)) == [2, 1, 0]


@pytest.mark.parametrize("solved", ["solved_return = 475", "env = 'Acrobot-v1'"])
def test_of_single_seeds_the_better_return_wins(tmp_path: Path, solved: str) -> None:
    notes = Notes(trial_0=[-300.0], trial_1=[None], trial_2=[-80.0], trial_3=[-100.0])
    notes.env_steps = {0: 1, 1: 1}
    assert notes.order(loaded(tmp_path, solved)) == [2, 3, 0, 1]


def test_nobody_has_won_before_every_candidate_has_all_its_seeds(tmp_path: Path) -> None:
    searched, notes = loaded(tmp_path), Notes(trial_0=[500.0] * 4, trial_1=[500.0] * 3)
    chosen = [Candidate(number, defaults(), 0.0) for number in (0, 1)]
    assert confirm.confirmed(notes, chosen, 4, searched) == []
    assert confirm.winner(notes, chosen, 4, searched) is None
    assert confirm.verdict(notes, chosen, Fresh(2, 4, 4), searched) is None
    missing = confirm.missing(notes, chosen, Phase.CONFIRM, 4)
    assert [(agent.trial, agent.seed_index, agent.phase) for agent in missing] == [(1, 3, Phase.CONFIRM)]
    assert len(confirm.confirmed(notes, chosen, 3, searched)) == 2


def test_the_share_of_solved_seeds_has_wilsons_interval(tmp_path: Path) -> None:
    searched, candidate = loaded(tmp_path), Candidate(0, defaults(), 480.0)
    one = confirm.confirmation(Notes(trial_0=[500.0] * 16), candidate, Phase.CONFIRM, 16, searched)
    assert one is not None
    assert one.solved_interval is not None
    assert one.solved_interval.low == pytest.approx(16 / (16 + 1.959964**2), abs=1e-6)
    assert one.solved_interval.high == pytest.approx(1.0)
    assert one.mean_interval == (500.0, 500.0)
    assert one.iqm_return == 500.0


def test_where_the_network_should_be_small_the_smallest_that_half_of_the_seeds_solve_wins(tmp_path: Path) -> None:
    searched = space.load("default", env_steps=20_000, minimize="num_parameters", solved_return=475.0)
    searched = replace(searched, searched={"hidden_width": IntDistribution(2, 64)}, fixed={"hidden_layers": 1})
    width = {0: 64, 1: 8, 2: 4, 3: 2}
    chosen = [Candidate(i, defaults()._replace(hidden_width=width[i], hidden_layers=1), 0.0) for i in width]
    solved = {0: 4, 1: 4, 2: 2, 3: 1}
    notes = Notes(**{f"trial_{i}": [500.0] * solved[i] + [9.0] * (4 - solved[i]) for i in width})
    found = confirm.confirmed(notes, chosen, 4, searched)
    assert [one.number for one in found] == [2, 1, 0, 3]
    assert [one.num_parameters for one in found] == [4 * 7 + 2, 8 * 7 + 2, 64 * 7 + 2, 2 * 7 + 2]


def complete(number: int, value: float) -> Trial:
    return Trial(number, "complete", value, {"learning_rate": 1e-3}, {"env_steps": [1]}, {}, None, None)


def test_a_search_that_goes_on_forgets_no_trial_that_was_confirmed(tmp_path: Path) -> None:
    searched, fresh = loaded(tmp_path), Fresh(1, 4, 4)
    trials = [complete(0, 400.0), complete(1, 450.0)]  # trial 0 was the best once, and was confirmed
    notes = Notes(trial_0=[500.0] * 4, trial_1=[480.0] * 4)
    rivals = confirm.rivals(notes, trials, searched, fresh)
    assert [one.number for one in rivals] == [1, 0]
    assert confirm.confirmed(notes, rivals, 4, searched)[0].number == 0


def test_a_verdict_stands_until_all_new_candidates_are_trained(tmp_path: Path) -> None:
    searched, fresh = loaded(tmp_path), Fresh(1, 4, 2)
    trials = [complete(0, 400.0), complete(1, 450.0)]

    class Judged(Notes):
        judged = 0  # seeds of trial 0 that have a verdict

        def recorded(self, phase: str) -> dict[tuple[int, int], dict[str, Any]]:
            known = super().recorded("confirm")
            return {(0, seed): known[0, seed] for seed in range(self.judged)} if phase == "verdict" else known

    notes = Judged(trial_0=[500.0] * 4, trial_1=[480.0] * 3)
    assert confirm.confirmed(notes, confirm.rivals(notes, trials, searched, fresh), 4, searched) == []
    notes.judged = 2
    rivals = confirm.rivals(notes, trials, searched, fresh)
    assert [one.number for one in rivals] == [0]
    verdict = confirm.verdict(notes, rivals, fresh, searched)
    assert verdict is not None
    assert (verdict.number, verdict.seeds) == (0, 2)
