"""Snapshots: they save time, they are whole or not there, and no result depends on them."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdqn.events import Differing, Event, Resumed, Visited
from jaxdqn.lanes import Lanes
from jaxdqn.snapshot import Snapshots
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits
from tests.test_recovery import LAYOUT, Sweep, lanes_of, outcome, timeless

LIMITS = Limits(trials=30)
OWNER = {"log": "1", "program": "a stand-in"}


def snapshots(directory: Path, every_s: float = 0.0, max_bytes: int = 2**20, **owner: str) -> Snapshots:
    return Snapshots(directory / "snapshots", {**OWNER, **owner}, every_s, max_bytes)


def taken(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "snapshots").glob("*"))


def cut_off(directory: Path, visits: int) -> list[Any]:
    """A sweep with snapshots that ends after so many visits, as if it had been killed."""
    run, saved = Sweep(directory, seeds=2), snapshots(directory)
    seen = itertools.count(1)
    for event in run.run(LIMITS, saved):
        if isinstance(event, Visited):
            saved.close(keep=True)  # what is being written is there
            if next(seen) == visits:
                break
    run.close()
    return taken(directory)


def resumed(directory: Path, saved: Snapshots) -> tuple[Sweep, list[Resumed]]:
    run = Sweep(directory, seeds=2)
    events: list[Resumed] = []
    for event in run.run(LIMITS, saved):
        assert not isinstance(event, Differing)
        events += [event] if isinstance(event, Resumed) else []
    saved.close(keep=False)
    return run, events


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    run = Sweep(tmp_path_factory.mktemp("alone"), seeds=2)
    list(run.run(LIMITS))
    ends = outcome(run.study), lanes_of(run.study)
    run.close()
    return ends


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Path]:
    assert len(cut_off(tmp_path / "cut", visits=17)) == 2
    yield tmp_path / "cut"
    assert not (tmp_path / "cut" / "snapshots" / ".tmp").exists()


def test_a_sweep_goes_on_from_a_snapshot_to_the_same_end(cut: Path, alone: Any) -> None:
    without = shutil.copytree(cut, cut.with_name("without"))
    run, events = resumed(cut, snapshots(cut))
    assert (outcome(run.study), lanes_of(run.study)) == alone
    assert sorted(run.trainer.restored) == [0, 1]
    run.close()
    run, all_events = resumed(without, snapshots(without, log="another"))
    assert (outcome(run.study), lanes_of(run.study)) == alone
    assert not run.trainer.restored
    assert events[-1].total < all_events[-1].total
    run.close()


def test_a_sweep_may_be_cut_off_anywhere_between_its_snapshots(tmp_path: Path, alone: Any) -> None:
    for visits in range(1, 30, 3):
        path = tmp_path / str(visits)
        cut_off(path, visits)
        run, _ = resumed(path, snapshots(path))
        assert (outcome(run.study), lanes_of(run.study)) == alone
        run.close()


def test_no_record_comes_later_because_a_snapshot_has_forgotten_a_validation(tmp_path: Path) -> None:
    whole = Sweep(tmp_path / "alone", seeds=2)
    list(whole.run(LIMITS))
    whole.close()
    records = timeless(tmp_path / "alone" / "study.log")
    for visits in range(1, 30):
        path = tmp_path / str(visits)
        cut_off(path, visits)
        run, _ = resumed(path, snapshots(path))
        run.close()
        assert timeless(path / "study.log") == records


def test_a_learning_curve_goes_on_where_the_snapshot_left_it(cut: Path) -> None:
    run = Sweep(cut, seeds=2)
    saved = snapshots(cut)
    states = saved.latest(run.study.past().clock, run.trainer.state)
    known = {name: len(noted.history) for row in states.values() for name, noted in row.noted.items()}
    assert max(known.values()) > 2
    for event in run.run(LIMITS, saved):
        if isinstance(event, Resumed) and event.over:
            break
    saved.close(keep=True)
    run.close()


def test_the_last_two_are_kept_and_none_when_the_search_is_over(cut: Path) -> None:
    assert len(taken(cut)) == 2
    assert all((cut / "snapshots" / name / "manifest.json").stat().st_mode & 0o077 == 0 for name in taken(cut))
    run, _ = resumed(cut, snapshots(cut))
    run.close()
    assert not (cut / "snapshots").exists()


def test_what_an_earlier_process_left_unfinished_is_swept_away(cut: Path) -> None:
    left = cut / "snapshots" / ".000000000099.tmp"
    left.mkdir()
    (left / "row-0.bin").write_bytes(b"half")
    snapshots(cut)
    assert not left.exists()


def test_a_snapshot_of_another_log_or_machine_is_not_used(cut: Path, alone: Any) -> None:
    run, _ = resumed(cut, snapshots(cut, program="another"))
    assert not run.trainer.restored
    assert outcome(run.study) == alone[0]
    run.close()


@pytest.mark.parametrize("visits", range(6, 20))
def test_a_snapshot_from_before_all_lanes_were_emptied_is_not_used(tmp_path: Path, visits: int) -> None:
    """Elsewhere and back: the rows have begun again, and as many segments later they hold others."""
    cut_off(tmp_path, visits)
    kept = shutil.copytree(tmp_path / "snapshots", tmp_path / "kept")
    for elsewhere in (True, False):
        run = Sweep(tmp_path, seeds=2)
        if elsewhere:
            run.trainer.fingerprint = {"program": "another"}
        seen = (event for event in run.run(LIMITS) if isinstance(event, Visited))
        list(itertools.islice(seen, 3 if elsewhere else visits))
        run.close()
    alone = shutil.copytree(tmp_path, tmp_path / "alone", ignore=shutil.ignore_patterns("kept", "snapshots"))
    whole = Sweep(alone, seeds=2)
    list(whole.run(LIMITS))
    shutil.rmtree(tmp_path / "snapshots", ignore_errors=True)
    shutil.copytree(kept, tmp_path / "snapshots")
    run, _ = resumed(tmp_path, snapshots(tmp_path))
    assert outcome(run.study) == outcome(whole.study)
    assert not run.trainer.restored
    run.close()
    whole.close()


def test_a_snapshot_that_is_ahead_of_the_log_is_not_used(cut: Path) -> None:
    run, last = Sweep(cut, seeds=2), max(map(int, taken(cut)))
    states = snapshots(cut).latest(last - 1, run.trainer.state)
    before = snapshots(cut).latest(last, run.trainer.state)
    assert [state.num_segments for state in states.values()] < [state.num_segments for state in before.values()]
    run.close()


def test_snapshots_that_are_newer_than_a_log_that_was_put_back_are_removed(cut: Path, alone: Any) -> None:
    early = Sweep(cut.with_name("early"), seeds=2)
    for event in early.run(LIMITS):
        if isinstance(event, Visited) and early.study.past().clock == 5:
            break
    early.close()
    shutil.copy(cut.with_name("early") / "study.log", cut)
    run, saved, names = Sweep(cut, seeds=2), snapshots(cut), taken(cut)
    for event in run.run(LIMITS, saved):
        if isinstance(event, Visited) and run.study.past().clock == 9:
            break
    saved.close(keep=True)
    assert not run.trainer.restored
    assert max(map(int, taken(cut))) <= 9 < min(map(int, names))
    run.close()
    run, _ = resumed(cut, snapshots(cut))
    assert outcome(run.study) == alone[0]
    run.close()


def test_a_stop_while_agents_are_brought_back_waits_for_no_more_of_their_segments(cut: Path, alone: Any) -> None:
    run, seen = Sweep(cut, seeds=2), list[Event]()
    before = run.study.past()
    for event in sweep(Lanes(run.trainer), run.study, run.searched, LIMITS, 2, stopped=lambda: bool(seen)):
        seen.append(event)
    assert [type(event) for event in seen] == [Resumed]
    assert run.study.past() == before
    run.close()
    run, _ = resumed(cut, snapshots(cut))
    assert outcome(run.study) == alone[0]
    run.close()


def test_a_manifest_torn_at_any_byte_is_refused_and_the_older_snapshot_used(cut: Path) -> None:
    run, (older, newer) = Sweep(cut, seeds=2), taken(cut)
    clock, manifest = run.study.past().clock, cut / "snapshots" / newer / "manifest.json"
    content = manifest.read_bytes()
    good = snapshots(cut).latest(int(older), run.trainer.state)
    for size in range(len(content)):
        manifest.write_bytes(content[:size])
        saved = snapshots(cut)
        found = saved.latest(clock, run.trainer.state)
        assert [row.num_segments for row in found.values()] == [row.num_segments for row in good.values()]
        assert "is damaged and is not used" in saved.news()[0]
    for place in range(0, len(content), 7):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        manifest.write_bytes(flipped)
        found = snapshots(cut).latest(clock, run.trainer.state)
        if not found or [row.num_segments for row in found.values()] != [row.num_segments for row in good.values()]:
            assert json.loads(flipped) == json.loads(content)  # the last digit of a number says nothing
            continue
        assert [row.num_segments for row in found.values()] == [row.num_segments for row in good.values()]
    run.close()


@pytest.mark.parametrize("damage", ["shorter", "longer", "flipped", "gone"])
def test_a_damaged_state_is_refused(cut: Path, damage: str) -> None:
    run, names = Sweep(cut, seeds=2), taken(cut)
    state = cut / "snapshots" / names[-1] / "row-1.bin"
    content = state.read_bytes()
    for place in range(0, len(content), len(content) // 5):
        flipped = content[:place] + bytes([content[place] ^ 128]) + content[place + 1 :]
        changed = {"shorter": content[:place], "longer": content + b"0", "flipped": flipped, "gone": b""}
        state.write_bytes(changed[damage])
        if damage == "gone":
            state.unlink()
        saved = snapshots(cut)
        clock = run.study.past().clock
        assert saved.latest(clock, run.trainer.state)[1].num_segments
        assert len(saved.refused) == 1
    run.close()


def test_a_manifest_of_anything_is_refused(cut: Path) -> None:
    run = Sweep(cut, seeds=2)
    for name in taken(cut):
        (cut / "snapshots" / name / "manifest.json").write_bytes(b"[" * 100_000)
    saved = snapshots(cut)
    assert saved.latest(10**6, run.trainer.state) == {}
    assert len(saved.refused) == 2
    for name, content in zip(taken(cut), ([1, 2], {"format": 1, "rows": [{}]}), strict=True):
        (cut / "snapshots" / name / "manifest.json").write_text(json.dumps(content))
    assert snapshots(cut).latest(10**6, run.trainer.state) == {}
    run.close()


def test_states_that_are_too_large_are_not_saved_and_the_user_is_told_once(tmp_path: Path, alone: Any) -> None:
    run, saved = Sweep(tmp_path, seeds=2), snapshots(tmp_path, max_bytes=100)
    said = [message for _ in run.run(LIMITS, saved) for message in saved.news()]
    assert len(said) == 1
    assert "more than a snapshot may have" in said[0]
    assert outcome(run.study) == alone[0]
    assert saved.summary()["snapshots"] == 0
    run.close()


def test_a_disk_that_takes_no_snapshot_stops_nothing(
    tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", rename)
    run, saved = Sweep(tmp_path, seeds=2), snapshots(tmp_path)
    said = [message for _ in run.run(LIMITS, saved) for message in saved.news()]
    saved.close(keep=True)
    assert outcome(run.study) == alone[0]
    assert said == [f"no snapshot could be written to {tmp_path / 'snapshots'}: No space left on device"]
    assert not taken(tmp_path)
    run.close()


def test_a_stop_takes_a_last_snapshot(tmp_path: Path) -> None:
    run, saved, visits = Sweep(tmp_path, seeds=2), snapshots(tmp_path, every_s=1e6), itertools.count(1)
    stop: list[int] = []
    for event in sweep(
        Lanes(run.trainer), run.study, run.searched, LIMITS, 2, stopped=lambda: bool(stop), snapshots=saved
    ):
        if isinstance(event, Visited) and next(visits) == 9:
            stop.append(1)
    saved.close(keep=True)
    assert taken(tmp_path) == [f"{9 + LAYOUT.rows:012d}"]
    run.close()


def test_the_cost_is_in_the_summary(cut: Path) -> None:
    saved = snapshots(cut)
    run, _ = resumed(cut, saved)
    summary = saved.summary()
    assert summary["snapshots"] > 0
    assert set(summary) == {"snapshots", "snapshot_mib", "snapshot_wait_s", "snapshot_write_s"}
    assert all(np.isfinite(value) for value in summary.values())
    run.close()
