"""A sweep whose machine is taken away goes on from its backup, and nothing that becomes of the backup stops a sweep."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxdqn import agent_directory, backup, files, mirror, restoring, saved_agent
from jaxdqn.backup import Backup
from jaxdqn.journal import Journal
from tests.small_sweep import TRIALS, spoken, swept

STUDY = "one-CartPole-v1"
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_CHANCE_S", 0.001)


class Log:
    """A log of commits, each a line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path, self.end = path, path.stat().st_size if path.exists() else 0
        if not self.end:
            self.commit(b'{"study_name":"s"}\n')

    def commit(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)
        self.end += len(content)


def closed(target: Path, log: Log) -> str | None:
    """Send all that is new, once."""
    return Backup(target, log.path, lambda: log.end, pause=lambda event, _: event.wait()).close()


def sent(target: Path, *commits: bytes) -> Log:
    """A backup in several pieces, and its log."""
    log = Log(target.parent / "first" / "study.log")
    closed(target, log)
    for content in commits:
        log.commit(content)
        closed(target, log)
    return log


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def pieces(target: Path) -> dict[str, tuple[int, int]]:
    return {piece.path.name: (piece.path.stat().st_ino, piece.path.stat().st_mtime_ns) for piece in mirror.find(target)}


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_sweep_whose_output_is_lost_goes_on_from_its_backup(tmp_path: Path) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive"
    swept(out, backup_to=drive, trials=4, confirm_top=0)
    before = (out / "study.log").read_bytes()
    shutil.rmtree(out)
    result = swept(out, backup_to=drive)
    assert (out / "study.log").read_bytes().startswith(before)
    assert result.counts["complete"] == TRIALS
    assert result.failures == []
    whole = swept(tmp_path / "whole")
    assert result.best == whole.best
    assert result.verdict is not None
    assert whole.verdict is not None
    assert result.verdict.returns == whole.verdict.returns


def test_the_winner_and_its_agents_are_there_again_and_nothing_is_trained(tmp_path: Path) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive"
    swept(out, backup_to=drive)
    log, agents = (out / "study.log").read_bytes(), [saved_agent.load(path) for path in agent_directory.find(out)]
    shutil.rmtree(out)
    result = swept(out, backup_to=drive)
    assert result.env_steps == 0
    assert (out / "study.log").read_bytes() == log
    assert [saved_agent.load(path).key for path in agent_directory.find(out)] == [agent.key for agent in agents]


def test_a_piece_of_the_log_is_written_once_and_never_replaced(tmp_path: Path) -> None:
    out, drive, known = tmp_path / "out", tmp_path / "drive", {}
    for trials in (3, 5, 8):
        swept(out, backup_to=drive, trials=trials)
        now = pieces(drive)
        assert known.items() < now.items()
        known = now
    swept(out, backup_to=drive, trials=8)
    assert pieces(drive) == known
    assert b"".join(piece.path.read_bytes() for piece in mirror.find(drive)) == (out / "study.log").read_bytes()


def test_only_what_brings_a_sweep_back_is_sent(tmp_path: Path) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive"
    swept(out, trials=1, confirm_top=0)  # files without their log would be refused
    for name in (
        "snapshots/0/replay.npy",
        "agents/winner.gif",
        "agents/trial-1/notes.txt",
        "study.log.torn",
        "mlflow.db",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"large")
    swept(out, backup_to=drive, save_agents="all")
    names = {path.relative_to(drive) for path in drive.rglob("*") if path.is_file()}
    assert {name.parts[0] for name in names} == {"log", "agents"}
    agents = {name for name in names if name.parts[0] == "agents"}
    winner = agent_directory.find(out)[0].parent.name
    assert agents == {path.relative_to(out) for path in (out / "agents").glob("**/[cv]*-*.*")} | {
        Path("agents/winner.json"),
        *(path.relative_to(out) for path in (out / "agents" / winner).iterdir()),
    }


def test_the_database_is_sent_whole_and_only_if_it_differs(tmp_path: Path) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive"
    seen = []
    for trials in (4, 4, 6):
        assert swept(out, backup_to=drive, trials=trials, confirm_top=0, storage=None).failures == []
        seen.append((drive / "study.db").stat().st_ino)
        with sqlite3.connect(drive / "study.db") as database:
            assert database.execute("select count(*) from trials").fetchone() == (trials,)
        database.close()
    assert seen[0] == seen[1] != seen[2]
    assert [path.name for path in (*out.glob(".*"), *out.glob("study.db-*"))] == []


def test_an_hour_writes_no_more_than_the_log_grows_in_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, writes, now = Log(tmp_path / "out" / "study.log"), [], [0.0]
    second = 14_000 * 10_000 // 3_600  # bytes: 10,000 trials of the default space

    def count(path: Path, content: bytes) -> None:
        writes.append(len(content))
        files.write_whole(path, content)

    def pause(closing: threading.Event, seconds: float) -> bool:
        now[0] += seconds
        if now[0] <= 3_600:
            log.commit(b"x" * int(second * seconds))
            return False
        return closing.wait()

    monkeypatch.setattr(backup, "write_whole", count)
    sending = Backup(tmp_path / "drive", log.path, lambda: log.end, 60.0, pause=pause)
    wait_until(lambda: now[0] > 3_600)
    assert sending.close() is None
    assert sum(writes) == log.end
    assert len(writes) == len(mirror.find(tmp_path / "drive")) == 61
    assert sum(writes) < 141e6


def test_nothing_is_written_while_nothing_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, passes, writes = Log(tmp_path / "out" / "study.log"), [0], []
    monkeypatch.setattr(backup, "write_whole", lambda path, content: writes.append(files.write_whole(path, content)))

    def pause(closing: threading.Event, _: float) -> bool:
        passes[0] += 1
        return passes[0] > 100 and closing.wait()

    sending = Backup(tmp_path / "drive", log.path, lambda: log.end, pause=pause)
    wait_until(lambda: passes[0] > 100)
    assert sending.close() is None
    assert len(writes) == 1


def test_agents_are_there_before_the_log_tells_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, order, found = Log(tmp_path / "out" / "study.log"), [], mirror.agents
    agent = tmp_path / "out" / "agents" / "trial-1" / "confirm-0.json"

    def list_late(directory: Path) -> list[Path]:
        listed = found(directory)
        agent.parent.mkdir(parents=True, exist_ok=True)
        agent.write_text("{}")
        log.commit(b"told of it\n")
        return listed

    def note(path: Path, content: bytes) -> None:
        order.append((path.name, content))
        files.write_whole(path, content)

    monkeypatch.setattr(mirror, "agents", list_late)
    monkeypatch.setattr(backup, "write_whole", note)
    assert closed(tmp_path / "drive", log) is None
    assert [b"told" in content for name, content in order] == [False, False, True]
    assert order[1][0] == "confirm-0.json"


@pytest.mark.parametrize("number", range(1, 9))
def test_a_kill_at_any_moment_of_a_restore_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out, drive, calls, replace = tmp_path / "out", tmp_path / "drive", [0], os.replace
    swept(out, backup_to=drive, confirm_top=1, confirm_seeds=2, verdict_seeds=1)  # 3 agents of 2 files, winner, log
    (log, known), there = ((out / "study.log"), contents(out)), contents(drive)
    shutil.rmtree(out)

    def killed(*arguments: Path) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise KeyboardInterrupt
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            restoring.restore(drive, log, STUDY)
    assert not log.exists()
    assert str(restoring.restore(drive, log, STUDY)).startswith(f"restored {len(known['study.log']):,} bytes of log")
    assert contents(out).items() <= known.items()
    assert contents(drive) == there


@pytest.mark.parametrize("trouble", ["full", "removed", "a file"])
def test_a_target_that_fails_never_stops_a_sweep_and_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    out, drive, began = tmp_path / "out", tmp_path / "drive", [False]

    def full(*_: object) -> None:
        raise FULL

    def score(phase: int, trial: int, seed: int) -> float:
        if not began[0] and trouble != "full":
            wait_until(lambda: len(mirror.find(drive)) == 1)
            shutil.rmtree(drive)
            if trouble == "a file":
                drive.write_text("nothing")
        began[0] = True
        return spoken(phase, trial, seed)

    if trouble == "full":
        monkeypatch.setattr(backup, "write_whole", full)
    result = swept(out, backup_to=drive, score=score)
    assert result.counts["complete"] == TRIALS
    (said,) = result.failures
    why = {"full": "No space left on device", "removed": "No such file", "a file": "Not a directory"}[trouble]
    assert " bytes of the log are not in the backup " in said
    assert why in said
    assert said.endswith("; the next run of this study sends them again")


def test_a_target_that_fails_for_a_while_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, drive, failing, go_on = Log(tmp_path / "out" / "study.log"), tmp_path / "drive", [True], threading.Semaphore(0)

    def write(path: Path, content: bytes) -> None:
        if failing[0]:
            raise FULL
        files.write_whole(path, content)

    def pause(closing: threading.Event, _: float) -> bool:
        go_on.acquire()
        return closing.is_set()

    monkeypatch.setattr(backup, "write_whole", write)
    sending = Backup(drive, log.path, lambda: log.end, pause=pause)
    wait_until(lambda: sending.failure == "No space left on device")
    failing[0] = False
    go_on.release()
    wait_until(lambda: sending.failure is None and len(mirror.find(drive)) == 1)
    go_on.release(2)
    assert sending.close() is None


def test_a_target_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, forever = Log(tmp_path / "out" / "study.log"), threading.Event()
    monkeypatch.setattr(backup, "write_whole", lambda *_: forever.wait())
    monkeypatch.setattr(backup, "PATIENCE_S", 0.02)
    sending = Backup(tmp_path / "drive", log.path, lambda: log.end)
    wait_until(lambda: sending.failure == "it does not answer")
    said = sending.close(patience_s=0.05)
    assert said is not None
    assert said.startswith(f"{log.end} bytes of the log are not in the backup ")
    assert "it does not answer" in said
    forever.set()


def test_a_sweep_that_fails_leaves_its_whole_log_in_the_backup(tmp_path: Path) -> None:
    def score(phase: int, trial: int, seed: int) -> float:
        if trial == 6:
            raise RuntimeError("broken")
        return spoken(phase, trial, seed)

    with pytest.raises(RuntimeError, match="broken"):
        swept(tmp_path / "out", backup_to=tmp_path / "drive", score=score)
    there = b"".join(piece.path.read_bytes() for piece in mirror.find(tmp_path / "drive"))
    assert there == (tmp_path / "out" / "study.log").read_bytes()


def test_what_is_lost_from_the_backup_is_sent_again(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    log = sent(drive, b"one\n", b"two\n")
    mirror.find(drive)[1].path.unlink()
    agent = drive / "agents" / "trial-1" / "verdict-0.json"
    for directory in (log.path.parent, tmp_path / "drive"):
        (directory / "agents" / "trial-1").mkdir(parents=True)
    (log.path.parent / "agents" / "trial-1" / "verdict-0.json").write_text("{}")
    agent.symlink_to(log.path.parent / "agents" / "trial-1" / "verdict-0.json")
    closed(drive, log)
    assert not agent.is_symlink()
    assert agent.read_text() == "{}"
    restoring.restore(drive, tmp_path / "new" / "study.log", "s")
    assert (tmp_path / "new" / "study.log").read_bytes() == log.path.read_bytes()


def test_behind_a_gap_nothing_is_restored_and_the_sweep_writes_on_there(tmp_path: Path) -> None:
    drive, new = tmp_path / "drive", tmp_path / "new" / "study.log"
    log = sent(drive, b"one\n", b"two\n", b"three\n")
    late = mirror.find(drive)[2].path
    late.write_bytes(b"tw")  # cut off
    restoring.restore(drive, new, "s")
    assert new.read_bytes() == log.path.read_bytes().removesuffix(b"two\nthree\n")
    again = Log(new)
    again.commit(b"2\n")
    again.commit(b"something else\n")
    assert closed(drive, again) is None
    restoring.restore(drive, tmp_path / "third" / "study.log", "s")
    assert (tmp_path / "third" / "study.log").read_bytes() == new.read_bytes()
    assert [path.suffix for path in (drive / "log").iterdir()].count(".unused") == 1


def test_pieces_that_overlap_and_agree_are_put_together(tmp_path: Path) -> None:
    drive, whole = tmp_path / "drive", b'{"study_name":"s"}\n0123456789'
    (drive / "log").mkdir(parents=True)
    for start, end in ((0, 21), (19, 25), (20, 22), (25, 29)):
        (drive / "log" / mirror.name_of(start, end)).write_bytes(whole[start:end])
    restoring.restore(drive, tmp_path / "new" / "study.log", "s")
    assert (tmp_path / "new" / "study.log").read_bytes() == whole


def test_pieces_that_disagree_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    log = sent(drive, b"one\n", b"two\n")
    (drive / "log" / mirror.name_of(log.end - 6, log.end - 4)).write_bytes(b"??")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"two sweeps have written to .* disagrees"):
        restoring.restore(drive, tmp_path / "new" / "study.log", "s")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("local", "words"),
    [
        (b'{"study_name":"s"}\none\nTWO\nthree\n', "it holds another log than .* choose another --backup-to"),
        (b'{"study_name":"t"}\n', "it holds another log than "),
        (b'{"study_name":"s"}\none\n', "it holds 27 bytes of log, .* only 23: choose an empty --output"),
    ],
)
def test_a_log_that_does_not_begin_as_its_backup_does_is_refused(tmp_path: Path, local: bytes, words: str) -> None:
    sent(tmp_path / "drive", b"one\n", b"two\n")
    log = tmp_path / "study.log"
    log.write_bytes(local)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=words):
        restoring.restore(tmp_path / "drive", log, "s")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("more", [b"", b"three\n", b"\0\0\0"])
def test_a_log_that_is_there_stays_as_it_is(tmp_path: Path, more: bytes) -> None:
    log = sent(tmp_path / "drive", b"one\n", b"two\n")
    content = log.path.read_bytes() + more
    log.path.write_bytes(content)
    assert restoring.restore(tmp_path / "drive", log.path, "s") is None
    assert log.path.read_bytes() == content


def test_an_empty_log_is_restored_and_an_empty_backup_is_said(tmp_path: Path) -> None:
    log = sent(tmp_path / "drive")
    (tmp_path / "study.log").touch()
    assert restoring.restore(tmp_path / "drive", tmp_path / "study.log", "s")
    assert (tmp_path / "study.log").read_bytes() == log.path.read_bytes()
    said = restoring.restore(tmp_path / "other", tmp_path / "new" / "study.log", "s")
    assert said == f"nothing to restore: the backup '{tmp_path / 'other'}' begins"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "first", [b"\x89PNG\n", b"[" * 100_000 + b"\n", b'{"study_name":7}\n', b'{"study_name":"t"}\n']
)
def test_a_backup_that_is_not_this_studys_is_refused_before_anything_is_written(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "drive" / "log").mkdir(parents=True)
    (tmp_path / "drive" / "log" / mirror.name_of(0, len(first))).write_bytes(first)
    with pytest.raises(ValueError, match=r"it is no log of jaxdqn|it holds study 't': choose another --backup-to"):
        restoring.restore(tmp_path / "drive", tmp_path / "new" / "study.log", "s")
    assert not (tmp_path / "new").exists()


def test_of_a_hostile_backup_only_what_is_known_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive, new, secret = tmp_path / "drive", tmp_path / "new", tmp_path / "secret"
    log = sent(drive, b"one\n")
    secret.mkdir()
    (secret / "verdict-0.json").write_text("secret")
    linked = secret / "verdict-0.json"
    (drive / "log" / mirror.name_of(log.end, log.end + 6)).symlink_to(linked)
    (drive / "log" / mirror.name_of(log.end, log.end + len(str(linked)))).symlink_to(linked)
    os.mkfifo(drive / "log" / mirror.name_of(log.end, log.end + 7))
    (drive / "log" / "-5-10").write_text("x")
    trial = drive / "agents" / "trial-1"
    trial.mkdir(parents=True)
    for name in ("verdict-0.json", "verdict-0.py", "..json", "verdict-0.json.lock", "VERDICT-0.json", "v-0\n.json"):
        (trial / name).write_text("{}")
    (trial / "verdict-1.json").symlink_to(secret / "verdict-0.json")
    (drive / "agents" / "trial-2").symlink_to(secret)
    (drive / "agents" / "trial-x").mkdir()
    (drive / "agents" / "trial-x" / "verdict-0.json").write_text("{}")
    (drive / "agents" / "winner.json").symlink_to(secret / "verdict-0.json")
    (drive / "study.db").write_text("no database")
    restoring.restore(drive, new / "study.log", "s")
    assert contents(new) == {"study.log": log.path.read_bytes(), "agents/trial-1/verdict-0.json": b"{}"}

    shutil.rmtree(new)
    monkeypatch.setattr(restoring, "_MAX_FILE", 1)
    with pytest.raises(ValueError, match=r"'verdict-0\.json' has 2 bytes: at most 1"):
        restoring.restore(drive, new / "study.log", "s")
    assert not (new / "study.log").exists()


@pytest.mark.parametrize("name", ["log", "agents"])
def test_nothing_is_written_through_a_link_in_the_backup(tmp_path: Path, name: str) -> None:
    out, drive, elsewhere = tmp_path / "out", tmp_path / "drive", tmp_path / "elsewhere"
    elsewhere.mkdir()
    drive.mkdir()
    (drive / name).symlink_to(elsewhere)
    (drive / "log").mkdir(exist_ok=True)
    (said,) = swept(out, backup_to=drive).failures
    assert "is a link" in said
    assert ("bytes of the log are not in" in said) == (name == "log")
    assert list(elsewhere.iterdir()) == []


def test_two_sweeps_with_one_backup_are_told_so(tmp_path: Path) -> None:
    log, drive, go_on = Log(tmp_path / "out" / "study.log"), tmp_path / "drive", threading.Semaphore(0)

    def pause(closing: threading.Event, _: float) -> bool:
        go_on.acquire()
        return closing.is_set()

    sending = Backup(drive, log.path, lambda: log.end, pause=pause)
    wait_until(lambda: len(mirror.find(drive)) == 1)
    foreign = drive / "log" / mirror.name_of(log.end, log.end + 6)
    foreign.write_bytes(b"other\n")
    log.commit(b"mine\n")
    go_on.release()
    wait_until(lambda: sending.failure == f"another sweep writes there ({foreign.name})")
    go_on.release(4)
    assert "5 bytes of the log are not in" in str(sending.close())
    assert foreign.read_bytes() == b"other\n"


def test_damage_at_the_end_of_a_backup_costs_the_last_commits_only(tmp_path: Path) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive"
    swept(out, backup_to=drive, trials=4, confirm_top=0)
    before = (out / "study.log").read_bytes()
    last = mirror.find(drive)[-1].path
    last.write_bytes(last.read_bytes()[:-20] + b"\0" * 20)
    shutil.rmtree(out)
    result = swept(out, backup_to=drive)
    assert result.failures == []
    assert result.counts["complete"] == TRIALS
    after = (out / "study.log").read_bytes()
    shutil.rmtree(out)
    restoring.restore(drive, out / "study.log", STUDY)
    assert (out / "study.log").read_bytes() == after
    assert after[:1_000] == before[:1_000]
    Journal(out / "study.log").close()


def test_no_password_is_shown_or_becomes_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, drive = tmp_path / "out", tmp_path / "me:secret@drive"

    def refuse(path: Path, _: bytes) -> None:
        raise OSError(f"ftp://me:secret@drive/{path.name} is gone")

    monkeypatch.setattr(backup, "write_whole", refuse)
    (said,) = swept(out, backup_to=drive, confirm_top=0).failures
    assert "secret" not in said
    assert "***" in said
    monkeypatch.setattr(backup, "write_whole", files.write_whole)
    swept(out, backup_to=drive, command="sweep.py --storage postgresql://me:***@host/db")
    assert not any("secret" in str(path.relative_to(drive)) for path in drive.rglob("*"))
    assert "secret" not in str(restoring.restore(drive, tmp_path / "new" / "study.log", STUDY))


def test_a_target_that_can_not_hold_the_backup_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, file = tmp_path / "out", tmp_path / "file"
    file.touch()
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "another" / "agents").mkdir(parents=True)
    for target, words in (
        (out, "one inside the other"),
        (out / "backup", "one inside the other"),
        (tmp_path, "one inside the other"),
        (tmp_path / "link", "one inside the other"),
        (file, "no writable directory"),
        (file / "below", "there is no .*file"),
        (tmp_path / "drive" / "sweep", r"there is no .*drive' \(mounted\?\)"),
        (tmp_path / "another", "holds other files and no backup"),
    ):
        with pytest.raises(ValueError, match=words):
            restoring.check(target, out)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="no writable directory"):
        restoring.check(tmp_path / "readable", out)
    assert not out.exists()
