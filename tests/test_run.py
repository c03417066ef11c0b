"""A whole sweep put together, with a population that is none: what it does when memory, time or the machine change."""

import json
import math
import threading
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxdqn import fingerprint, opening, run
from jaxdqn.config import Config, Layout
from jaxdqn.events import Event, Resumed, Visited
from jaxdqn.journal import Journal, LogError
from jaxdqn.result import Result
from tests.kills import clock
from tests.small_sweep import planned, score
from tests.stand_in import StandIn

MACHINE = fingerprint.of_machine()


class Small(StandIn):
    """A population on a device with little memory."""

    most = 10**9

    def __init__(self, config: Config, layout: Layout, seed: int) -> None:
        super().__init__(config, layout, score=score)
        self.fingerprint = {**MACHINE, "program": "a stand-in"}

    def compile(self) -> float:
        if self.layout.lanes > self.most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return 0.0


def ran(
    directory: Path, population: type[Small] = Small, stop: threading.Event | None = None, **settings: Any
) -> tuple[Result, list[str | Event]]:
    shown: list[str | Event] = []
    opened = opening.open_plan(planned(directory, **settings))

    def show(event: str | Event) -> None:
        shown.append(event)
        if stop and isinstance(event, Visited):
            stop.set()

    return run.run(opened, show, stop, make_population=population), shown


def said(shown: list[str | Event]) -> list[str]:
    return [each for each in shown if isinstance(each, str)]


def ends(result: Result) -> list[Any]:
    known = [*result.confirmed, *([result.verdict] if result.verdict else [])]
    return [result.best, *((one.number, one.returns, one.env_steps, one.updates) for one in known)]


def test_lanes_are_halved_until_they_fit_and_the_study_keeps_that_layout(tmp_path: Path) -> None:
    class Narrow(Small):
        most = 6

    result, shown = ran(tmp_path, Narrow, lanes=32)
    lanes = [int(line.split(" lanes")[0]) for line in said(shown) if "do not fit" in line]
    assert lanes == [32, 16, 8]
    assert result.layout.lanes == 4
    assert result.counts["complete"] == 8
    again, shown = ran(tmp_path, Small, trials=12)
    assert again.layout == result.layout
    assert not [event for event in shown if isinstance(event, Resumed) and event.changed]


def test_devices_without_memory_for_a_single_lane_are_refused(tmp_path: Path) -> None:
    class None_(Small):
        most = 0

    with pytest.raises(ValueError, match=r"do not fit into the memory.*smaller buffer_size"):
        ran(tmp_path, None_)
    assert ran(tmp_path)[0].counts["complete"] == 8


def test_another_trouble_of_the_devices_is_not_taken_for_little_memory(tmp_path: Path) -> None:
    class Broken(Small):
        def compile(self) -> float:
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        ran(tmp_path, Broken)


def test_other_lanes_are_said_and_agents_in_flight_start_over(tmp_path: Path) -> None:
    stop = threading.Event()
    assert ran(tmp_path, stop=stop, trials=60)[0].stopped
    result, shown = ran(tmp_path, lanes=2, trials=60)
    changed = [event for event in shown if isinstance(event, Resumed) and event.changed]
    assert any(what.startswith(("block", "rows")) for what in changed[0].changed)
    assert result.counts["complete"] == 60


def test_a_stop_leaves_the_report_for_later_and_the_same_command_comes_to_the_same_end(tmp_path: Path) -> None:
    stop = threading.Event()
    first, _ = ran(tmp_path / "cut", stop=stop, report=True, trials=60)
    assert first.stopped
    assert not (tmp_path / "cut" / "report.html").exists()
    assert (tmp_path / "cut" / "snapshots").is_dir()
    second, shown = ran(tmp_path / "cut", trials=60)
    whole, _ = ran(tmp_path / "whole", trials=60)
    assert ends(second) == ends(whole)
    assert [event.over for event in shown if isinstance(event, Resumed)][-1]
    assert not (tmp_path / "cut" / "snapshots").exists()


def test_the_time_budget_is_for_the_whole_command(tmp_path: Path) -> None:
    result, _ = ran(tmp_path, trials=None, time_budget=1.5)
    assert sum(result.counts.values()) > 0
    assert not result.stopped
    more, _ = ran(tmp_path, trials=sum(result.counts.values()))
    assert more.verdict is not None


def test_no_number_that_is_none_is_in_the_log(tmp_path: Path) -> None:
    class Diverging(Small):
        def __init__(self, config: Config, layout: Layout, seed: int) -> None:
            super().__init__(config, layout, seed)
            self.score = lambda phase, trial, index: math.nan if (trial + index) % 3 == 0 else 400.0 + trial

    result, _ = ran(tmp_path, Diverging, seeds=2, trials=12)
    assert result.counts["complete"] + result.counts["failed"] == 12

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in (tmp_path / "study.log").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    json.dumps(result.summary(), allow_nan=False)


def full(journal: Journal) -> None:
    raise LogError("the log can't be written: No space left on device")


def test_a_log_that_cannot_be_written_is_let_go_and_can_be_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opening.open_plan(planned(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "commit", full)
        with pytest.raises(LogError):
            run.run(opened, lambda _: None, make_population=Small)
    assert ran(tmp_path)[0].counts["complete"] == 8


def test_a_full_disk_at_the_last_visit_keeps_the_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening.open_plan(planned(tmp_path, trials=60, snapshot_every=1e-9))
    commit = Journal.commit

    def last_fails(journal: Journal) -> None:
        if sum(opened.study.counts().values()) == 60 and not opened.study.counts()["running"]:
            full(journal)
        commit(journal)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "commit", last_fails)
        with pytest.raises(LogError):
            run.run(opened, lambda _: None, make_population=Small)
    assert list((tmp_path / "snapshots").iterdir())
    result, _ = ran(tmp_path, trials=60)
    whole, _ = ran(tmp_path / "whole", trials=60)
    assert ends(result) == ends(whole)
    assert not (tmp_path / "snapshots").exists()


def test_a_budget_that_is_over_when_training_begins_still_brings_a_visit_of_each_row(tmp_path: Path) -> None:
    clocks = []
    for _ in range(3):
        result, _ = ran(tmp_path, trials=60, time_budget=1e-3)
        clocks.append(clock(tmp_path / "study.log"))
        assert not result.done
    assert clocks == sorted({*clocks})
