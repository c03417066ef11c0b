"""A sweep of the stand-in that is killed anywhere, and started again, ends as the one that was left alone."""

import hashlib
import itertools
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from jaxdqn import journal, opening, plan, recovery, run
from jaxdqn.events import Visited
from jaxdqn.plan import Settings
from jaxdqn.trials import Limits
from tests import kills
from tests.killed_sweep import ANYWHERE, MAIN, MLFLOW, THREADS, Command, Ended, Job, arguments, population
from tests.test_recovery import Sweep, lanes_of, outcome, timeless

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna's, of its experimental journal
PLAIN = {"storage": "off", "snapshot_every": 0.0}
KINDS = [  # of sweeps that are killed at random
    {},
    {"sampler": "optuna-tpe", **PLAIN},
    {"sampler": "random", "seeds": 1, "pruner": "median", "snapshot_every": 0.0},
    {"seeds": 1, "storage": "off", "save_agents": "all"},
]
CHAINS = [  # of kills
    pytest.param([(point, 1 + i % 3) for i, point in enumerate(MAIN)], marks=pytest.mark.slow),
    [(MAIN[2], 9), *((point, 1) for point in THREADS), *((point, 3) for point in reversed(MAIN[1:8]))],
]


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    with Command() as started:
        yield started


class Alone:
    """What sweeps come to that are left alone, each made once."""

    def __init__(self, command: Command, directory: Path) -> None:
        self.command, self.directory = command, directory
        self.known: dict[str, tuple[dict[str, Any], Ended]] = {}

    def __call__(self, **changes: Any) -> tuple[dict[str, Any], Ended]:
        name = json.dumps(changes)
        if name not in self.known:
            directory = self.directory / str(len(self.known))
            ended = self.command.run(Job(arguments(directory, **changes)))
            assert ended.status == 0, ended.said
            self.known[name] = ends(directory / "out"), ended
        return self.known[name]


@pytest.fixture(scope="module")
def alone(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(command, tmp_path_factory.mktemp("alone"))


def ends(output: Path) -> dict[str, Any]:
    """All that a sweep leaves behind, but for the times of day."""
    files = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    kept = [str(path) for path in files if path.suffix not in (".tmp", ".torn", ".owner")]
    agents = {name: _digest(output / name) for name in kept if name.startswith("agents/")}
    log = timeless(output / "study.log")
    sent = max(i for i, record in enumerate(log) if recovery.SENT in record.get("system_attr", {}))
    return {**kills.outcome(output), "files": kept, "agents": agents, "log": log[: sent + 1], **_stored(output)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stored(output: Path) -> dict[str, Any]:
    """What the storage that follows the log says, if there is one."""
    if not (output / "study.db").is_file():
        return {}
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{output / 'study.db'}")
    trials = [
        [t.number, t.state.name, t.values, t.params, t.intermediate_values, {**t.user_attrs, "lanes": 0}]
        for t in study.get_trials(deepcopy=False)
    ]
    judged = [study.user_attrs["confirm"], [study.user_attrs["verdict"]]]
    fresh = [[{**one, "lanes": 0} for one in ones] for ones in judged]
    study._storage.remove_session()
    return {"stored": trials, "stored fresh": fresh}


def assert_whole(output: Path, expected: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    found = ends(output)
    assert [number for number, *_ in found["trials"]] == list(range(len(expected["trials"])))
    assert "running" not in {state for _, state, *_ in found["trials"]}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert name in but or found[name] == value, name


def middling(passed: int) -> int:
    """A passage after which a third of a sweep is done."""
    return max(1, passed // 3)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_sweep_killed_at_named_points_ends_as_if_it_had_been_left_alone(
    tmp_path: Path, command: Command, alone: Alone, chain: list[tuple[str, int]]
) -> None:
    expected, _ = alone()
    assert {state for _, state, *_ in expected["trials"]} >= {"complete", "pruned"}
    struck = command.until_done(arguments(tmp_path), *chain)
    assert struck >= 2, "points were not passed"  # a sweep may be over before its threads come to all of theirs
    assert_whole(tmp_path / "out", expected)


@pytest.mark.slow
@pytest.mark.parametrize("point", [*MAIN, *THREADS])
def test_a_sweep_killed_at_one_point_again_and_again(
    tmp_path: Path, command: Command, alone: Alone, point: str
) -> None:
    expected, whole = alone(save_agents="all")
    passage = middling(whole.passed[point])
    struck = command.until_done(arguments(tmp_path, save_agents="all"), (point, 1), *[(point, passage)] * 3)
    assert struck >= (2 if point in MAIN else 1)
    assert_whole(tmp_path / "out", expected)


def test_snapshots_that_outlived_their_search_are_removed_by_the_next_sweep(tmp_path: Path, command: Command) -> None:
    given = arguments(tmp_path, storage="off", confirm_top=0, trials=8)
    assert command.run(Job(given, "before snapshots are removed")).killed
    assert (tmp_path / "out" / "snapshots").exists()
    assert command.run(Job(given)).status == 0
    assert not (tmp_path / "out" / "snapshots").exists()


def random_kills(moments: random.Random, passages: int) -> Iterator[tuple[str, int, float | None]]:
    """Points and moments for ever: half of them count what happens, the others seconds."""
    for _ in itertools.count():
        yield from ((ANYWHERE, moments.randint(1, passages), None), ("", 0, moments.uniform(0.0, 0.5)))


def struck_at_random(
    directory: Path, command: Command, alone: Alone, wanted: int, moments: random.Random, **changes: Any
) -> int:
    """Kill a sweep until enough kills have struck or it has ended; it ends as the one that was left alone."""
    expected, whole = alone(**changes)
    given, struck = arguments(directory, **changes), 0
    for at, passage, after_s in random_kills(moments, sum(whole.passed.values()) // 4):
        ended = command.run(Job(given, at, passage, after_s) if struck < wanted else Job(given))
        assert ended.killed or ended.status == 0, ended.said
        if not ended.killed:
            break
        struck += 1
    assert_whole(directory / "out", expected)
    return struck


def test_a_sweep_killed_at_random_ends_as_if_it_had_been_left_alone(
    tmp_path: Path, command: Command, alone: Alone
) -> None:
    assert struck_at_random(tmp_path, command, alone, 6, random.Random(1))


@pytest.mark.slow
def test_two_hundred_random_kills_change_nothing(tmp_path: Path, command: Command, alone: Alone) -> None:
    moments, struck = random.Random(0), 0
    for number, changes in enumerate(itertools.cycle(KINDS)):
        struck += struck_at_random(tmp_path / str(number), command, alone, 16, moments, **changes)
        if struck >= 200:
            break


def test_a_log_torn_at_any_byte_of_its_last_commits_is_cut_back_to_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, whole = Limits(trials=6), Sweep(tmp_path / "whole")
    list(whole.run(limits))
    told, lanes = outcome(whole.study), lanes_of(whole.study)
    whole.close()
    content = (tmp_path / "whole" / "study.log").read_bytes()
    synced = {record["synced"] for record in journal.read(tmp_path / "whole" / "study.log")}
    commits = sorted({*synced, len(content)})
    torn = tmp_path / "torn"
    monkeypatch.setattr(journal.os, "fsync", lambda _: None)  # thousands of them
    sampled = range(0, commits[-2], 23)
    for size in (*sampled, *range(commits[-2], len(content) + 1)):
        shutil.rmtree(torn, ignore_errors=True)
        torn.mkdir()
        (torn / "study.log").write_bytes(content[:size])
        kept = max(end for end in commits if end <= size)
        if size % 100 and size not in commits:
            journal.Journal(torn / "study.log").close()
        else:
            again = Sweep(torn)
            list(again.run(limits))
            assert (outcome(again.study), lanes_of(again.study)) == (told, lanes)
            again.close()
        assert (torn / "study.log").read_bytes()[:kept] == content[:kept]
        cut_off = (torn / "study.log.torn").read_bytes() if kept < size else b""
        assert cut_off == content[kept:size]


@pytest.mark.slow
def test_a_sweep_killed_while_it_writes_its_report_writes_it_again(
    tmp_path: Path, command: Command, alone: Alone
) -> None:
    given, page = arguments(tmp_path, **PLAIN, report=True), tmp_path / "out" / "report.html"
    assert command.run(Job(given, "before report.html")).killed
    assert not page.exists()
    assert command.run(Job(given, "after report.html")).killed
    assert command.until_done(given) == 0
    assert page.read_text().rstrip().endswith("</html>")
    assert_whole(tmp_path / "out", alone(**PLAIN)[0], but=("files",))


@pytest.mark.slow
def test_mlflow_that_is_killed_in_the_middle_of_its_queue_has_one_run_of_each_trial(
    tmp_path: Path, command: Command, alone: Alone
) -> None:
    changes = {"storage": "off", "snapshot_every": 0.0, "trials": 14}
    expected, _ = alone(**changes)
    given = arguments(tmp_path, **{**changes, "tracking": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    assert command.until_done(given, *((point, 3) for point in MLFLOW)) == len(MLFLOW)
    assert_whole(tmp_path / "out", expected, but=("files",))

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'one-CartPole-v1'")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "jaxdqn.trial" in run.data.tags]
    assert len(runs) == 1 + len(children)
    assert sorted(int(run.data.tags["jaxdqn.trial"]) for run in children) == list(range(14))
    assert {run.info.status for run in runs} == {"FINISHED"}
    values = {int(run.data.tags["jaxdqn.trial"]): run.data.metrics.get("mean_return") for run in children}
    assert values == {number: value if state == "complete" else None for number, state, value, *_ in expected["trials"]}


def test_a_second_sweep_in_one_directory_is_refused_and_changes_nothing(
    tmp_path: Path, command: Command, alone: Alone
) -> None:
    expected, _ = alone(**PLAIN)
    given = arguments(tmp_path, **PLAIN)
    typed = f"{sys.executable} -m tests.killed_sweep"
    known = {"output": Path(given["output"]), "lanes": int(given["lanes"]), "command": typed}
    settings = Settings(**{**given, **known})
    refused: list[Ended] = []

    def look(event: object) -> None:
        if isinstance(event, Visited) and not refused:
            before = contents(settings.output)
            refused.append(command.run(Job(given)))
            assert contents(settings.output) == before

    run.run(opening.open_plan(plan.plan(settings)), look, make_population=population)
    log = settings.output.resolve() / "study.log"
    assert [(one.status, one.said) for one in refused] == [
        (2, f"error: the log {log} is in use by process {os.getpid()}\n")
    ]
    assert_whole(settings.output, expected)


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_long_sweep_goes_on_without_training_finished_trials_again(
    tmp_path: Path, command: Command, alone: Alone
) -> None:
    changes = {"trials": 3_000, "sampler": "random", "pruner": "none", "seeds": 1, "confirm_top": 0, **PLAIN}
    given = arguments(tmp_path, **changes)
    assert command.run(Job(given, "told", 2_980)).killed
    ended = command.run(Job(given))
    assert ended.status == 0, ended.said
    assert ended.passed["told"] <= 21 + 12
    assert ended.passed["sent"] < 60  # segments, those that were repeated and the new ones
    assert_whole(tmp_path / "out", alone(**changes)[0])
