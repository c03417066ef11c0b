"""A sweep that was cut off comes to the very end of the one that was left alone."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdqn import journal, space
from jaxdqn.config import Config, Layout
from jaxdqn.events import Differing, Event, Resumed, Visited
from jaxdqn.host_agent import Agent
from jaxdqn.lanes import Lanes
from jaxdqn.recovery import SENT, read
from jaxdqn.snapshot import Snapshots
from jaxdqn.space import Space
from jaxdqn.study import Study, open_study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits
from tests.stand_in import StandIn

LAYOUT = Layout(rows=2, devices=2, block=3)
RUNGS = tuple(range(5_000, 60_001, 5_000))
CONFIG = Config(env_steps=60_000, tick=4, rungs=RUNGS)
SPACE = """
env_steps = 60_000
rungs = 5_000
[hyperparameters]
learning_rate = { low = 1e-5, high = 1e-1, log = true }
train_period = { choices = [1, 4, 8] }
batch_size = { choices = [16, 128] }
"""


def life(trial: int, seed: int) -> int:
    """Agents live for a while that depends on who they are."""
    return 4 * int(np.random.default_rng([trial, seed]).integers(1_000, 15_000))


def value(phase: int, trial: int, seed: int) -> float:
    return float(np.random.default_rng([phase, trial, seed]).normal(100, 20))


def loaded(directory: Path, text: str = SPACE) -> Space:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "one.toml"
    file.write_text(text)
    return space.load(str(file))


class Sweep:
    """A sweep of stand-ins in a directory."""

    def __init__(
        self,
        directory: Path,
        seeds: int = 1,
        sampler: str = "tpe",
        pruner: str = "halving",
        text: str = SPACE,
        layout: Layout = LAYOUT,
        keep: Callable[[Agent], None] | None = None,
        score: Callable[[int, int, int], float] | None = None,
    ) -> None:
        searched = loaded(directory, text)
        self.study = open_study(directory / "study.log", "s", searched, searched.identity(), sampler, 0, pruner)
        self.directory, self.searched, self.seeds, self.keep = directory, searched, seeds, keep
        self.trainer = StandIn(CONFIG, layout, score=score or value, life=life)

    def run(self, limits: Limits, snapshots: Snapshots | None = None) -> Iterator[Event]:
        lanes = Lanes(self.trainer)
        return sweep(lanes, self.study, self.searched, limits, self.seeds, keep=self.keep, snapshots=snapshots)

    def close(self) -> None:
        self.study.close()


def outcome(study: Study) -> list[Any]:
    """All that a study says of its trials, but for the times of day."""
    return [
        (t.number, t.state, t.value, t.params, t.intermediate, {k: v for k, v in t.attributes.items() if k != "lanes"})
        for t in study.trials()
    ]


def timeless(log: Path) -> list[dict[str, Any]]:
    """The records of a log without what no two sweeps have in common."""
    left_out = ("crc", "synced", "worker_id", "datetime_start", "datetime_complete")
    records = [{key: value for key, value in record.items() if key not in left_out} for record in journal.read(log)]
    for record in records:
        for attributes in (record.get("user_attr", {}), *record.get("system_attr", {}).values()):
            if isinstance(attributes, dict):
                for name in ("lanes", "jaxdqn_log"):
                    attributes.pop(name, None)
    return records


def lanes_of(study: Study) -> list[Any]:
    """Who was in which lane, and every segment: a log's own account of a sweep."""
    past = study.past()
    return [*past.segments, past.passed_over]


def cut_everywhere(directory: Path, limits: Limits, **how: Any) -> tuple[list[Path], list[Any], list[Any]]:
    """Run a sweep, and copy its log as it is after each visit."""
    whole, cuts = Sweep(directory / "whole", **how), []
    for event in whole.run(limits):
        if isinstance(event, Visited):
            cuts.append(directory / f"cut-{len(cuts)}")
            cuts[-1].mkdir()
            shutil.copy(directory / "whole" / "study.log", cuts[-1])
    told, lanes = outcome(whole.study), lanes_of(whole.study)
    whole.close()
    return cuts, told, lanes


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("sampler", ["tpe", "optuna-tpe"])
def test_a_sweep_cut_off_at_any_visit_comes_to_the_same_end(tmp_path: Path, seeds: int, sampler: str) -> None:
    limits = Limits(trials=30)
    cuts, told, lanes = cut_everywhere(tmp_path, limits, seeds=seeds, sampler=sampler)
    assert {state for _, state, *_ in told} == {"complete", "pruned"}
    assert len(cuts) > 20
    repeated = 0
    for cut in cuts[:: 1 if sampler == "tpe" else 7]:
        again = Sweep(cut, seeds, sampler)
        events = list(again.run(limits))
        assert outcome(again.study) == told
        assert lanes_of(again.study) == lanes
        assert not any(isinstance(event, Differing) for event in events)
        assert not any(event.changed for event in events if isinstance(event, Resumed))
        repeated += sum(isinstance(event, Resumed) for event in events)
        again.close()
    assert repeated > len(cuts)


def test_a_sweep_cut_off_again_and_again_comes_to_the_same_end(tmp_path: Path) -> None:
    limits = Limits(trials=30)
    cuts, told, lanes = cut_everywhere(tmp_path, limits, seeds=2)
    for visits in itertools.cycle([1, 2, 3]):
        again, done = Sweep(cuts[0], seeds=2), 0
        for event in again.run(limits):
            done += isinstance(event, Visited)
            if done == visits:
                break
        again.close()
        if done < visits:
            break
    again = Sweep(cuts[0], seeds=2)
    assert (outcome(again.study), lanes_of(again.study)) == (told, lanes)
    again.close()


def test_what_is_trained_again_is_one_life_at_most(tmp_path: Path) -> None:
    cuts, _, _ = cut_everywhere(tmp_path, Limits(trials=30), seeds=2)
    for cut in cuts:
        again = Sweep(cut, seeds=2)
        before = again.study.past()
        ended = set(before.ended) | {
            (t.number, seed) for t in again.study.trials() if t.state != "running" for seed in range(2)
        }
        for event in again.run(Limits(trials=30)):
            if isinstance(event, Visited):
                break
        begun = [name for name in again.trainer.placed if name in ended]
        assert not begun
        again.close()


def test_a_study_that_gets_more_trials_is_cut_off_without_harm_too(tmp_path: Path) -> None:
    first = Sweep(tmp_path / "whole")
    list(first.run(Limits(trials=12)))
    first.close()
    shutil.copytree(tmp_path / "whole", tmp_path / "start")
    whole, cuts = Sweep(tmp_path / "whole"), []
    for event in whole.run(Limits(trials=24)):
        if isinstance(event, Visited):
            cuts.append(tmp_path / f"cut-{len(cuts)}")
            shutil.copytree(tmp_path / "whole", cuts[-1])
    told = outcome(whole.study)
    whole.close()
    for cut in [tmp_path / "start", *cuts]:
        again = Sweep(cut)
        list(again.run(Limits(trials=24)))
        assert outcome(again.study) == told
        again.close()


def test_a_target_that_is_reached_leaves_agents_that_go_on_where_they_were(tmp_path: Path) -> None:
    cuts, _, _ = cut_everywhere(tmp_path, Limits(trials=None, target_return=130.0))
    ends = []
    for start in (tmp_path / "whole", cuts[3]):
        first = Sweep(start)
        list(first.run(Limits(trials=None, target_return=130.0)))
        running, counts = len(first.study.unfinished()), first.study.counts()
        first.close()
        second = Sweep(start)
        more = Limits(trials=sum(counts.values()) - running + 20)
        resumed = [event for event in second.run(more) if isinstance(event, Resumed)]
        assert running
        assert resumed[-1].num_agents > 0
        ends.append(outcome(second.study))
        second.close()
    assert ends[0] == ends[1]


def test_on_another_machine_finished_trials_stand_and_agents_in_flight_start_over(tmp_path: Path) -> None:
    cuts, told, _ = cut_everywhere(tmp_path, Limits(trials=30))
    again = Sweep(cuts[15])
    finished = [each for each in outcome(again.study) if each[1] != "running"]
    running = [asked.number for asked in again.study.unfinished()]
    again.trainer.fingerprint = {"device": "none", "program": "another"}
    events = list(again.run(Limits(trials=30)))
    changed = [event for event in events if isinstance(event, Resumed)]
    assert [(event.changed, event.total) for event in changed] == [(("program: a stand-in → another",), 0)]
    assert sorted(again.trainer.placed[: len(running)]) == [(number, 0) for number in running]
    assert [each for each in outcome(again.study) if each[0] in {f[0] for f in finished}] == finished
    assert again.study.counts()["running"] == 0
    assert len(outcome(again.study)) == len(told)
    again.close()


def test_a_validation_that_comes_out_differently_is_counted_and_the_recorded_one_stands(tmp_path: Path) -> None:
    cuts, _, _ = cut_everywhere(tmp_path, Limits(trials=30), pruner="none")
    again = Sweep(cuts[10], pruner="none")
    recorded = {t.number: t.intermediate for t in again.study.trials()}
    known = sum(len(recorded[asked.number]) for asked in again.study.unfinished())
    again.trainer.score = lambda phase, trial, seed: value(phase, trial, seed) + 1
    events = list(again.run(Limits(trials=30)))
    assert known
    assert [event.count for event in events if isinstance(event, Differing)][-1] == known
    for trial in again.study.trials():
        assert recorded.get(trial.number, {}).items() <= trial.intermediate.items()
    again.close()


def test_an_agent_that_ends_elsewhere_than_recorded_holds_nothing_up(tmp_path: Path) -> None:
    cuts, _, _ = cut_everywhere(tmp_path, Limits(trials=30))
    again = Sweep(cuts[10])
    again.trainer.life = lambda trial, seed: life(trial, seed) // 3 // 4 * 4
    list(again.run(Limits(trials=30)))
    assert again.study.counts()["running"] == 0
    assert [t.number for t in again.study.trials()] == list(range(30))
    again.close()


MIXED = """
env_steps = 60_000
rungs = 5_000
[hyperparameters]
learning_rate = { low = 1e-5, high = 1e-1, log = true }
train_period = { choices = [1, 3, 4, 7, 8] }
gradient_steps = { choices = [1, 2, 4] }
batch_size = { choices = [16, 128] }
"""
CELLS = """
env_steps = 60_000
rungs = 5_000
[hyperparameters]
gamma = { choices = [0.9, 0.99, 0.999] }
train_period = { choices = [1, 4, 8] }
batch_size = { choices = [16, 32, 64, 128] }
"""
SMALLEST = """
env_steps = 60_000
rungs = 5_000
solved_return = 100
minimize = "num_parameters"
[hyperparameters]
learning_rate = { low = 1e-5, high = 1e-1, log = true }
hidden_width = { choices = [2, 8, 32] }
hidden_layers = { low = 0, high = 2 }
"""


def sometimes_diverging(phase: int, trial: int, seed: int) -> float:
    lost = np.random.default_rng([trial, seed, 1]).random() < 0.3
    return float("nan") if lost else value(phase, trial, seed)


KINDS = {
    "sobol": {"sampler": "sobol", "pruner": "optuna-halving"},
    "median": {"sampler": "random", "pruner": "median", "seeds": 2},
    "percentile": {"pruner": "percentile", "seeds": 3},
    "hyperband": {"sampler": "optuna-tpe", "pruner": "hyperband"},
    "grid": {"sampler": "grid", "text": CELLS},
    "two objectives": {"sampler": "optuna-tpe", "pruner": "none", "text": SMALLEST, "seeds": 2},
    "diverging": {"score": sometimes_diverging, "seeds": 2},
    "all diverging": {"score": lambda *_: float("nan")},
    "passed over": {"text": MIXED, "layout": Layout(rows=3, devices=2, block=6), "seeds": 2},
    "one row": {"layout": Layout(rows=1, devices=1, block=5), "seeds": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_swept_a_cut_changes_no_record_of_it(tmp_path: Path, kind: str) -> None:
    limits, how = Limits(trials=36), KINDS[kind]
    cuts, told, lanes = cut_everywhere(tmp_path, limits, **how)
    records = timeless(tmp_path / "whole" / "study.log")
    if kind == "passed over":
        assert any(record.get("system_attr", {}).get(SENT, {}).get("passed_over") for record in records)
    for cut in cuts[::3]:
        again = Sweep(cut, **how)
        list(again.run(limits))
        assert (outcome(again.study), lanes_of(again.study)) == (told, lanes)
        again.close()
        assert timeless(cut / "study.log") == records


def test_a_cut_saves_every_agent_once_more_at_most_and_leaves_none_out(tmp_path: Path) -> None:
    def saver(kept: dict[tuple[int, int], list[float]]) -> Callable[[Agent], None]:
        def keep(agent: Agent) -> None:
            assert agent.params is not None
            kept[agent.trial, agent.seed_index] = np.asarray(agent.params["linear"]["bias"]).tolist()

        return keep

    limits, expected = Limits(trials=30), dict[tuple[int, int], list[float]]()
    cuts, told, _ = cut_everywhere(tmp_path, limits, seeds=2, keep=saver(expected))
    for visits in range(1, len(cuts), 3):
        kept: dict[tuple[int, int], list[float]] = {}
        path = tmp_path / f"saving-{visits}"
        for until in (visits, len(cuts) + 1):
            run = Sweep(path, seeds=2, keep=saver(kept))
            events = (event for event in run.run(limits) if isinstance(event, Visited))
            list(itertools.islice(events, until))
            told_now = outcome(run.study)
            run.close()
        assert told_now == told
        assert kept == expected


def test_the_log_without_lanes_says_nothing_of_them() -> None:
    past = read([])
    assert (past.where, past.segments, past.ended, past.clock) == ({}, [], {}, 0)
