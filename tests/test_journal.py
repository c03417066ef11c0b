"""The log: what a commit keeps, what a crash may take, and who may write."""

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from jaxdqn import journal
from jaxdqn.journal import Journal, LogError

optuna.logging.set_verbosity(optuna.logging.ERROR)
Record = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.log"


def record(number: int) -> Record:
    return {"op_code": 10, "worker_id": "me", "number": number, "filling": "é" * (7 * number % 40)}


def numbers(log: Journal, start: int = 0) -> list[int]:
    return [found["number"] for found in log.read_logs(start)]


def written(path: Path, *commits: int) -> list[int]:
    """Write a log of commits of so many records; return the file's size after each."""
    log, sizes, number = Journal(path), [], 0
    for count in commits:
        log.append_logs([record(number + i) for i in range(count)])
        log.commit()
        number += count
        sizes.append(path.stat().st_size)
    log.close()
    return sizes


def reopened(path: Path) -> list[int]:
    log = Journal(path)
    log.close()
    return numbers(log)


def plain(records: Any) -> list[str]:
    """As text, in which nan equals nan, without what the log adds."""
    return [json.dumps({k: v for k, v in r.items() if k not in ("synced", "clock", "whole", "crc")}) for r in records]


class TestOptunasContract(StorageTestCase):
    @pytest.fixture
    def storage(self, path: Path) -> Iterator[BaseStorage]:
        log = Journal(path)
        yield JournalStorage(log)
        log.close()

    def test_pickle_storage(self, storage: BaseStorage) -> None:
        """The one writer of a log holds its lock and its pending records: there can't be two of it."""
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(storage)


def test_optunas_own_backend_reads_the_same_trials(path: Path) -> None:
    log = Journal(path)
    study = optuna.create_study(storage=JournalStorage(log), study_name="s", direction="maximize")
    for value in (1.0, 3.0, math.inf):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(1e-5, 1.0, log=True)})
        trial.suggest_categorical("c", ["é", None, 2])
        trial.report(math.nan, 1)
        trial.report(value, 2)
        trial.set_user_attr("a", {"b": [value, -math.inf, "\n\u2028"]})
        study.tell(trial, value)
    study.ask()
    log.commit()
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    ours = study.get_trials()
    assert [str(trial) for trial in theirs.get_trials()] == [str(trial) for trial in ours]
    assert math.isnan(ours[0].intermediate_values[1])
    assert ours[-1].state == TrialState.RUNNING
    log.close()
    log = Journal(path)
    again = optuna.load_study(study_name="s", storage=JournalStorage(log))
    assert [str(trial) for trial in again.get_trials()] == [str(trial) for trial in ours]
    log.close()


def test_a_record_is_read_from_memory_as_it_is_read_from_the_file(path: Path) -> None:
    log = Journal(path)
    mutable: Record = {"op_code": 10, "tuple": (1, 2), "keys": {1: math.nan}, "state": TrialState.PRUNED}
    log.append_logs([mutable])
    mutable["tuple"] = "changed later"
    pending = list(log.read_logs(0))
    log.commit()
    log.close()
    assert pending[0]["tuple"] == [1, 2]
    assert (pending[0]["state"], type(pending[0]["state"])) == (2, int)
    log = Journal(path)
    log.close()
    stored = list(log.read_logs(0))
    assert repr(stored) == repr(list(JournalFileBackend(str(path)).read_logs(0)))
    assert plain(pending) == plain(stored)


def test_every_number_can_be_read_from(path: Path) -> None:
    written(path, 3, 1, 4)
    log = Journal(path)
    log.append_logs([record(8), record(9)])
    log.commit()
    log.append_logs([record(10)])
    for start in range(13):
        assert numbers(log, start) == list(range(start, 11))
    log.close()


def test_who_follows_the_log_causes_no_reading_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, 5)
    log = Journal(path)
    log.append_logs([record(5), record(6)])
    log.commit()
    log.append_logs([record(7)])
    with monkeypatch.context() as patched:
        for module, name in ((os, "open"), (os, "stat"), (os, "fstat"), (Path, "open")):
            patched.setattr(module, name, None)
        assert [numbers(log, start) for start in (5, 6, 7, 8)] == [[5, 6, 7], [6, 7], [7], []]
    log.close()


def test_the_clock_is_the_one_of_the_append(path: Path) -> None:
    log = Journal(path)
    log.append_logs([record(0)])
    log.clock = 17
    log.append_logs([record(1)])
    log.close()
    log = Journal(path)
    assert log.clock == 0
    assert [found["clock"] for found in log.read_logs(0)] == [0, 17]
    log.close()


def test_nothing_reaches_the_disk_before_the_commit(path: Path) -> None:
    log = Journal(path)
    log.append_logs([record(0), record(1)])
    assert (path.stat().st_size, numbers(log)) == (0, [0, 1])
    log.commit()
    assert path.read_bytes().count(b"\n") == 2
    log.close()


def test_a_commit_is_one_write_and_one_flush_and_an_empty_one_is_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal(path)
    calls: list[str] = []

    def counted(name: str) -> None:
        call = getattr(os, name)

        def count(*args: Any) -> Any:
            calls.append(name)
            return call(*args)

        monkeypatch.setattr(os, name, count)

    for name in ("write", "fsync"):
        counted(name)
    storage = JournalStorage(log)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE])
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert storage.get_trial(trial_id).value == 1.0
    assert calls == []
    log.commit()
    log.commit()
    log.close()
    assert calls == ["write", "fsync"]


def test_a_record_that_is_no_json_or_too_long_is_refused_and_its_neighbours_with_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal(path)
    with pytest.raises(TypeError):
        log.append_logs([record(0), {"op_code": 10, "value": object()}])
    monkeypatch.setattr(journal, "MAX_LINE", 1000)
    with pytest.raises(ValueError, match="too long for the log: 1,000"):
        log.append_logs([record(0), {"op_code": 10, "value": "x" * 1000}])
    assert numbers(log) == []
    log.close()


def test_one_thread_commits_while_others_write_and_read(path: Path) -> None:
    log = Journal(path)
    storage = JournalStorage(log)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE])

    def work() -> None:
        for value in range(40):
            trial_id = storage.create_new_trial(study_id)
            storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [float(value)])
            assert len(list(log.read_logs(0))) > value

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.commit()
    log.close()
    trials = storage.get_all_trials(study_id)
    assert sorted(trial.value for trial in trials if trial.value is not None) == sorted(3 * [*map(float, range(40))])
    log = Journal(path)
    assert JournalStorage(log).get_all_trials(study_id) == trials
    log.close()


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("retry", [True, False])
def test_a_commit_that_fails_says_why_and_may_be_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, retry: bool
) -> None:
    (size,) = written(path, 3)
    log = Journal(path)
    log.append_logs([record(3), record(4)])
    write, short = os.write, iter([30])

    def full(descriptor: int, data: bytes = b"") -> int:
        for count in short if call == "write" else ():
            return write(descriptor, data[:count])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(LogError) as refused:
            log.commit()
    assert str(refused.value) == f"the log {path} can't be written: No space left on device"
    assert path.stat().st_size == size
    assert numbers(log) == [0, 1, 2, 3, 4]
    if retry:
        log.append_logs([record(5)])
        log.commit()
        log.close()
        assert reopened(path) == [0, 1, 2, 3, 4, 5]
    else:
        monkeypatch.setattr(os, call, full)
        with pytest.raises(LogError):
            log.close()
        monkeypatch.undo()
        assert reopened(path) == [0, 1, 2]


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Journal(path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    log.append_logs([record(number) for number in range(9)])
    log.close()
    assert reopened(path) == list(range(9))


def test_an_interrupted_commit_can_be_made_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Journal(path)
    log.append_logs([record(0)])

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.commit()
    monkeypatch.undo()
    assert path.read_bytes() == b""
    log.close()
    assert reopened(path) == [0]


def test_a_log_that_somebody_deletes_or_shortens_is_not_written_on(path: Path) -> None:
    written(path, 3)
    log = Journal(path)
    log.append_logs([record(3)])
    content = path.read_bytes()
    path.write_bytes(content[:20])
    with pytest.raises(LogError, match="shortened"):
        log.commit()
    path.unlink()
    with pytest.raises(LogError, match="No such file"):
        log.commit()
    with pytest.raises(LogError):
        log.close()
    with pytest.raises(LogError, match="it is closed"):
        log.commit()


OPENED = "import os, sys, time; from pathlib import Path; from jaxdqn.journal import Journal, LogError\n"
OPENED += "log = Journal(Path(sys.argv[1]))\n"


def child(path: Path, code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", OPENED + code, path], stdout=subprocess.PIPE, text=True)


def test_a_full_disk_costs_no_record_that_was_committed(path: Path) -> None:
    written(path, 3)
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1]) + 50, hard))
log.append_logs([{"op_code": 10, "number": 3}, {"op_code": 10, "number": 4}])
try:
    log.commit()
except LogError as error:
    print(error, os.path.getsize(sys.argv[1]))
"""
    size = path.stat().st_size
    with child(path, code) as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"the log {path} can't be written: File too large {size}\n"
    assert reopened(path) == [0, 1, 2]


@pytest.mark.parametrize("commits", [(2, 3, 2), (2,)])
def test_a_log_torn_anywhere_in_its_last_commit_keeps_what_came_before(path: Path, commits: tuple[int, ...]) -> None:
    sizes = [0, *written(path, *commits)]
    content = path.read_bytes()
    torn = path.with_name("study.log.torn")
    before, whole = content[: sizes[-2]], sum(commits[:-1])
    for size in range(sizes[-2], sizes[-1]):
        path.write_bytes(content[:size])
        torn.unlink(missing_ok=True)
        log = Journal(path)
        rest = content[len(before) : size]
        assert numbers(log) == list(range(whole))
        assert (log.repaired, torn.read_bytes() if torn.exists() else b"") == (len(rest), rest)
        log.append_logs([record(whole)])
        log.close()
        assert reopened(path) == list(range(whole + 1))
        assert len(list(JournalFileBackend(str(path)).read_logs(0))) == whole + 1


@pytest.mark.parametrize("commits", [(2, 3, 4), (4,)])
def test_blocks_that_never_reached_the_disk_tear_the_last_commit_only(path: Path, commits: tuple[int, ...]) -> None:
    sizes = [0, *written(path, *commits)]
    content = path.read_bytes()
    before = sum(commits[:-1])
    for start in range(sizes[-2], sizes[-1], 7):
        for stop in {min(start + 30, sizes[-1]), sizes[-1]}:
            path.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
            assert reopened(path) == list(range(before))
    path.write_bytes(content + bytes(5000))
    log = Journal(path)
    assert log.repaired == 5000
    log.close()
    assert path.read_bytes() == content


def test_the_tail_is_kept_beside_the_log_every_time(path: Path) -> None:
    written(path, 2)
    for garbage in (b'{"half', b"\0\0\0"):
        path.write_bytes(path.read_bytes() + garbage)
        assert reopened(path) == [0, 1]
    assert path.with_name("study.log.torn").read_bytes() == b'{"half\0\0\0'


def test_what_opening_finds_and_cuts_off_is_on_the_disk_before_anything_builds_on_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, 2)
    path.write_bytes(path.read_bytes() + b"torn")
    flushed: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, path.stat().st_size))

    size = path.stat().st_size
    monkeypatch.setattr(os, "fsync", fsync)
    log = Journal(path)
    torn = path.with_name("study.log.torn")
    inodes = [found.stat().st_ino for found in (torn, path, path.parent)]
    assert flushed == list(zip(inodes, [size, size - 4, size - 4], strict=True))
    log.close()


def test_a_sound_log_is_opened_unchanged(path: Path) -> None:
    written(path, 2, 3)
    content = path.read_bytes()
    log = Journal(path)
    log.close()
    assert (log.repaired, path.read_bytes()) == (0, content)
    assert not path.with_name("study.log.torn").exists()


def test_damage_before_the_last_commit_is_refused_and_left_as_it_is(path: Path) -> None:
    sizes = written(path, 2, 3, 2)
    content = path.read_bytes()
    for position in range(0, sizes[-2], 5):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        line = content[:position].count(b"\n") + 1
        with pytest.raises(ValueError, match=rf"study\.log is damaged at line {line}; it was left as it is"):
            Journal(path)
        assert path.read_bytes() == damaged
    assert not path.with_name("study.log.torn").exists()


def test_lines_that_are_missing_doubled_or_swapped_are_damage(path: Path) -> None:
    written(path, 1, 1, 1, 1)
    a, b, c, d = path.read_bytes().splitlines(keepends=True)
    for lines, line in (([a, c, d], 2), ([a, b, b, c, d], 4), ([a, c, b, d], 2), ([b, c, d], 1)):
        path.write_bytes(b"".join(lines))
        with pytest.raises(ValueError, match=f"damaged at line {line};"):
            Journal(path)


def test_damage_that_comes_while_the_log_is_open_is_not_read(path: Path) -> None:
    written(path, 3)
    log = Journal(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\n") + 30] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged at line 2"):
        numbers(log)
    log.close()


def test_an_endless_line_is_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_LINE", 1000)
    (size,) = written(path, 3)
    path.write_bytes(path.read_bytes() + b"x" * 12_345)
    assert reopened(path) == [0, 1, 2]
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    "content",
    [
        b"not a log, but somebody's notes\n" * 50,
        b"\x7fELF\0\0\0",
        b"\n",
        b'{"op_code":0,"worker_id":"w"}\n',
        bytes(9) + b"x",
    ],
)
def test_a_file_that_is_no_log_of_ours_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"study\.log is no log of jaxdqn; it was left as it is"):
        Journal(path)
    assert path.read_bytes() == content


def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^the log {tmp_path} can't be opened: Is a directory$"):
        Journal(tmp_path)
    with pytest.raises(ValueError, match="can't be opened: No such file or directory"):
        Journal(tmp_path / "absent" / "study.log")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_crash_anywhere_leaves_a_beginning_that_holds_every_finished_commit(data: st.DataObject) -> None:
    values = st.none() | st.integers() | st.floats() | st.text(max_size=20)
    contents = st.dictionaries(st.text(max_size=5), values | st.lists(values, max_size=3), max_size=4)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "study.log"
        log, model, settled = Journal(path), [], 0
        for _ in range(data.draw(st.integers(1, 12))):
            action = data.draw(st.sampled_from(["append", "append", "commit", "crash", "reopen"]))
            if action == "append":
                batch = [{"op_code": 10, "content": content} for content in data.draw(st.lists(contents, max_size=3))]
                log.append_logs(batch)
                model += batch
            elif action == "commit":
                log.commit()
                settled = len(model)
            elif action == "reopen":
                log.close()
                log, settled = Journal(path), len(model)
            else:
                start = path.stat().st_size
                log.close()
                whole = path.read_bytes()
                cut = data.draw(st.integers(start, len(whole)))
                known = start or min(cut, 20)  # a log is known by how it starts
                hole = sorted(data.draw(st.tuples(st.integers(known, cut), st.integers(known, cut))))
                path.write_bytes(whole[: hole[0]] + bytes(hole[1] - hole[0]) + whole[hole[1] : cut])
                log = Journal(path)
                survived = len(list(log.read_logs(0)))
                assert survived in (settled, len(model))
                model, settled = model[:survived], survived
            start = data.draw(st.integers(0, len(model)))
            assert plain(log.read_logs(start)) == plain(model[start:])
        log.close()
        assert plain(JournalFileBackend(str(path)).read_logs(0)) == plain(model)


def test_a_second_writer_is_refused_and_the_first_one_named(path: Path) -> None:
    path.with_name("study.log.owner").write_text("99999999999\n")  # of an owner that is gone
    log = Journal(path)
    with pytest.raises(ValueError, match=rf"^the log {path} is in use by process {os.getpid()}$"):
        Journal(path)
    link = path.with_name("another.log")
    link.symlink_to(path)
    with pytest.raises(ValueError, match="in use"):
        Journal(link)
    log.append_logs([record(0)])
    log.close()
    assert reopened(link) == [0]


def test_the_lock_dies_with_its_owner(path: Path) -> None:
    code = 'log.append_logs([{"op_code": 10, "number": 0}]); log.commit()\n'
    code += 'log.append_logs([{"op_code": 10, "number": 1}]); print("ready", flush=True); time.sleep(60)'
    with child(path, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match=f"in use by process {process.pid}$"):
            Journal(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert reopened(path) == [0]


def test_a_lock_without_a_number_is_another_process(path: Path) -> None:
    log = Journal(path)
    path.with_name("study.log.owner").write_bytes(b"")
    with pytest.raises(ValueError, match="in use by another process"):
        Journal(path)
    log.close()


def test_what_optunas_own_writers_append_costs_none_of_ours(path: Path) -> None:
    log = Journal(path)
    log.append_logs([record(0)])
    log.commit()
    theirs = JournalFileBackend(str(path))
    theirs.append_logs([{"op_code": 10, "note": "a dashboard's"}])
    with pytest.raises(ValueError, match="in use"):
        Journal(path)
    log.append_logs([record(1)])
    log.commit()
    theirs.append_logs([{"op_code": 10, "note": "another"}])
    log.close()
    log = Journal(path)
    log.close()
    assert numbers(log) == [0, 1]
    assert re.findall("note", path.with_name("study.log.torn").read_text()) == ["note", "note"]


def test_a_log_that_somebody_replaces_is_not_written_on(path: Path) -> None:
    written(path, 2)
    log = Journal(path)
    path.rename(path.with_suffix(".old"))
    path.write_bytes(path.with_suffix(".old").read_bytes())
    log.append_logs([record(2)])
    with pytest.raises(LogError, match="somebody else has replaced it"):
        log.commit()
    log.close(commit=False)
    assert reopened(path) == [0, 1]
