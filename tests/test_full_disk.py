"""A full disk ends a sweep with what is recorded whole and readable; with room again, it goes on as if nothing was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from jaxdqn import journal
from jaxdqn.run import Result
from jaxdqn.saved_agent import load
from tests.small_sweep import FRESH, TRIALS, loaded, swept

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna's, of its experimental journal
SHARES = (0.01, 0.2, 0.45, 0.7, 0.97)  # of the log's final size


class Ended(NamedTuple):
    """How the command ended."""

    status: int
    out: str
    err: str


def run(*jobs: tuple[int | None, dict[str, Any]]) -> list[Ended]:
    """Run the command in a process of its own, once a job: under a limit of a file's size, with these arguments."""
    words = [sys.executable, "-m", "tests.limited_sweep", json.dumps(jobs)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    return [Ended(*one) for one in json.loads(done.stdout)]


def arguments(directory: Path, **changes: Any) -> dict[str, Any]:
    """What `swept` sets too, as arguments of the command."""
    directory.mkdir(exist_ok=True)
    loaded(directory)
    fresh = dict(zip(("confirm_top", "confirm_seeds", "verdict_seeds"), FRESH, strict=True))
    known = {"space": str(directory / "one.toml"), "output": str(directory), "trials": TRIALS, "sampler": "random"}
    return {**known, **fresh, "storage": "off", "tracking": "off", "report": False, **changes}


def trials(directory: Path) -> list[tuple[Any, ...]]:
    """All that Optuna reads of a log, but for the clock."""
    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(directory / "study.log"))))
    return [
        (t.number, t.state, t.values, t.params, t.intermediate_values, {**t.user_attrs, "lanes": None})
        for t in study.get_trials(deepcopy=False)
    ]


def outcome(result: Result) -> tuple[Any, ...]:
    assert result.verdict is not None
    fresh = [{**one.summary(), "lanes": None} for one in (*result.confirmed, result.verdict)]  # those hold times
    return fresh, result.best, result.failures


def commits(directory: Path) -> list[int]:
    """How many records each commit holds; the log is nothing but whole ones."""
    records, log = journal.read(directory / "study.log"), directory / "study.log"
    assert log.read_bytes().count(b"\n") == len(records)
    assert log.read_bytes()[-1:] in (b"\n", b"")
    return list(Counter(record["synced"] for record in records).values())


def assert_begins_like(directory: Path, other: Path) -> None:
    """Of the last visit there may be only what had happened when an agent could not be saved."""
    made, whole = commits(directory), commits(other)
    assert made[:-1] == whole[: len(made)][:-1]
    assert made[-1:] <= whole[: len(made)][-1:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Any, ...]]:
    directory = tmp_path_factory.mktemp("undisturbed") / "output"
    return directory, outcome(swept(directory))


def assert_ended_by_a_full_disk(ended: Ended) -> None:
    assert ended.status == 1, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.out + ended.err


def assert_goes_on(directory: Path, undisturbed: tuple[Path, tuple[Any, ...]], **settings: Any) -> None:
    assert outcome(swept(directory, **settings)) == undisturbed[1]
    assert trials(directory) == trials(undisturbed[0])


def assert_agents_are_whole(directory: Path) -> None:
    assert list(directory.rglob(".*.tmp")) == []
    for path in directory.glob("agents/*/*.json"):
        load(path)


def test_a_log_that_cannot_grow_ends_the_sweep_and_the_same_command_goes_on(
    tmp_path: Path, undisturbed: tuple[Path, tuple[Any, ...]]
) -> None:
    size = (undisturbed[0] / "study.log").stat().st_size
    jobs = [(int(share * size), arguments(tmp_path / str(share))) for share in SHARES]
    for (limit, _), ended, share in zip(jobs, run(*jobs), SHARES, strict=True):
        directory = tmp_path / str(share)
        assert_ended_by_a_full_disk(ended)
        assert f"the log {directory / 'study.log'} can't be written: File too large" in ended.err
        assert (directory / "study.log").stat().st_size <= limit
        made = commits(directory)
        assert made == commits(undisturbed[0])[: len(made)]
        if made:
            trials(directory)
        assert_agents_are_whole(directory)
        assert_goes_on(directory, undisturbed)


def test_a_storage_that_cannot_grow_stops_nothing_and_is_named(
    tmp_path: Path, undisturbed: tuple[Path, tuple[Any, ...]]
) -> None:
    started = arguments(tmp_path, storage=None, trials=2, confirm_top=0)
    limit = 60_000  # more than the log needs, less than the database
    first, ended = run((None, started), (limit, arguments(tmp_path, storage=None)))
    assert first.status == ended.status == 0, (first, ended)
    assert "the next run of this study sends" in ended.out
    assert "not in the storage: " in ended.out
    assert trials(tmp_path) == trials(undisturbed[0])
    assert swept(tmp_path, storage=None).failures == []
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [(t.number, t.values, t.params) for t in study.get_trials(deepcopy=False)] == [
        (number, values, params) for number, _, values, params, _, _ in trials(tmp_path)
    ]


@pytest.mark.slow
def test_a_report_that_does_not_fit_is_said_and_leaves_no_half_page(
    tmp_path: Path, undisturbed: tuple[Path, tuple[Any, ...]]
) -> None:
    (ended,) = run((200_000, arguments(tmp_path, report=True)))
    assert ended.status == 0, ended
    assert "the report could not be written: [Errno 27] File too large; scripts/report.py tries again" in ended.out
    assert not (tmp_path / "report.html").exists()
    assert_agents_are_whole(tmp_path)
    assert_goes_on(tmp_path, undisturbed, report=True)
    assert (tmp_path / "report.html").is_file()


# A disk of its own, which only root can make


@contextmanager
def disk(at: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of so many kilobytes at `at`."""
    at.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(at)], capture_output=True)
    if made.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {made.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)  # a test may still read there


def fill(directory: Path, left: int) -> Path:
    """Leave so many bytes on a disk; return the file that takes the rest."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() - left)
    return filler


@pytest.mark.slow
@pytest.mark.parametrize("left", [4_096, 12_288, 24_576, 40_960])
def test_a_sweep_on_a_full_disk_ends_and_goes_on_when_there_is_room(
    tmp_path: Path, undisturbed: tuple[Path, tuple[Any, ...]], left: int
) -> None:
    with disk(tmp_path / "disk", 4_096) as directory:
        given = arguments(directory)
        filler = fill(directory, left)
        (ended,) = run((None, given))
        assert_ended_by_a_full_disk(ended)
        assert "No space left on device" in ended.err
        assert_begins_like(directory, undisturbed[0])
        assert_agents_are_whole(directory)
        filler.unlink()
        assert_goes_on(directory, undisturbed)


@pytest.mark.slow
def test_agents_that_find_no_room_end_the_sweep_and_none_is_half_written(
    tmp_path: Path, undisturbed: tuple[Path, tuple[Any, ...]]
) -> None:
    output = tmp_path / "output"
    given = arguments(output)
    with disk(output / "agents", 20):
        (ended,) = run((None, given))
        assert_ended_by_a_full_disk(ended)
        assert "can't be written: No space left on device" in ended.err
        assert_agents_are_whole(output)
        assert_begins_like(output, undisturbed[0])
    assert_goes_on(output, undisturbed)


@pytest.mark.slow
def test_followers_on_a_full_disk_stop_nothing_and_are_named(
    tmp_path: Path, undisturbed: tuple[Path, tuple[Any, ...]]
) -> None:
    output = tmp_path / "output"
    with disk(tmp_path / "disk", 2_048) as full:
        storage = f"sqlite:///{full / 'study.db'}"
        (first,) = run((None, arguments(output, storage=storage, trials=2, confirm_top=0)))
        assert first.status == 0, first
        filler = fill(full, 61_440)  # enough to open it
        (ended,) = run((None, arguments(output, storage=storage)))
        assert ended.status == 0, ended
        assert "not in the storage: " in ended.out
        assert trials(output) == trials(undisturbed[0])
        filler.unlink()
        assert swept(output, storage=storage).failures == []
        study = optuna.load_study(study_name=None, storage=storage)
        assert [t.values for t in study.get_trials(deepcopy=False)] == [t[2] for t in trials(output)]
