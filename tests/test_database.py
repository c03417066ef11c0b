"""A locked SQLite file is waited for, a damaged one is moved aside and written anew from the log."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from jaxdqn import opening, plan
from jaxdqn.database import LockedError, await_lock, examine, make_ready, path_of, set_aside
from jaxdqn.journal import is_blank
from jaxdqn.opening import check_log
from jaxdqn.plan import Settings
from jaxdqn.storage import open_storage
from jaxdqn.storage_sink import StorageSink
from tests.small_sweep import TRIALS, loaded, swept

LONG = 60.0


def database(path: Path, rows: int = 2_000) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO numbers (text) VALUES (?)", [("x" * 100,)] * rows)
    return path


def garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 1_000)


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    """A page in the middle is another's."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8192 * 4096)
        file.write(b"\xff" * 4096)


DAMAGES = {"garbage": garbage, "truncated": truncated, "overwritten": overwritten}


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


def url(path: Path) -> str:
    return f"sqlite:///{path}"


# One file


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:///there.db", "there.db"),
        ("sqlite+pysqlite:///there.db", "there.db"),
        ("sqlite:///missing.db", None),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://me@localhost/there.db", None),
        ("http://localhost:5000", None),
        ("postgresql://me@localhost:abc/x", None),
        ("nonsense", None),
    ],
)
def test_the_file_of_a_url_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.db").touch()
    assert path_of(given) == (None if expected is None else Path(expected))


def test_a_sound_database_is_left_alone(tmp_path: Path) -> None:
    path = database(tmp_path / "study #1?.db")
    known = path.read_bytes()
    assert examine(path, 0) is None
    (tmp_path / "new.db").touch()
    assert examine(tmp_path / "new.db", 0) is None
    assert path.read_bytes() == known


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    path = database(tmp_path / "study.db")
    DAMAGES[damage](path)
    known = path.read_bytes()
    said = examine(path, 0)
    assert said
    assert "\n" not in said
    assert path.read_bytes() == known


def test_a_locked_database_is_not_damaged(tmp_path: Path) -> None:
    path = database(tmp_path / "study.db")
    with locked(path):
        with pytest.raises(LockedError, match=r"waiting for .*study\.db: it is locked by another process"):
            examine(path, 0)
        with pytest.raises(LockedError):
            await_lock(path, 0)
    assert examine(path, 0) is None
    await_lock(path, 0)


def test_a_lock_is_said_once_and_waited_for(tmp_path: Path) -> None:
    path, said = database(tmp_path / "study.db"), []
    with locked(path) as holder:

        def show(text: str) -> None:
            said.append(text)
            threading.Timer(0.1, holder.execute, ["ROLLBACK"]).start()

        make_ready(url(path), None, show, quiet_s=0.01, limit_s=LONG)
    assert said == [f"waiting for {path}: it is locked by another process"]


def test_a_lock_that_stays_ends_the_wait_at_its_limit(tmp_path: Path) -> None:
    path, said = database(tmp_path / "study.db"), list[str]()
    with (
        locked(path),
        pytest.raises(ValueError, match=r"study\.db is locked by another .* waited for 0\.05 s"),
    ):
        make_ready(url(path), tmp_path / "study.log", said.append, quiet_s=0.01, limit_s=0.05)
    assert len(said) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_what_is_set_aside_keeps_its_companions_and_takes_no_name_twice(tmp_path: Path) -> None:
    for content in (b"first", b"second", b"third"):
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"study.db{suffix}").write_bytes(content + suffix.encode())
        set_aside(tmp_path / "study.db")
    names = ["study.db.damaged", "study.db.damaged-2", "study.db.damaged-3"]
    assert {path.name for path in tmp_path.iterdir()} == {n + s for n in names for s in ("", "-wal", "-shm")}
    for name, content in zip(names, (b"first", b"second", b"third"), strict=True):
        assert (tmp_path / name).read_bytes() == content
        assert (tmp_path / f"{name}-wal").read_bytes() == content + b"-wal"


# A sweep


def begun(directory: Path, **settings: Any) -> plan.Plan:
    """A sweep that has ended, its log alone."""
    swept(directory, **settings)
    return planned(directory, **settings)


def planned(directory: Path, **settings: Any) -> plan.Plan:
    directory.mkdir(exist_ok=True)
    loaded(directory)
    known = {"space": str(directory / "one.toml"), "output": directory, "trials": TRIALS, "sampler": "random"}
    return plan.plan(Settings(**{**known, "tracking": "off", **settings}))


def stored(path: Path) -> list[tuple[int, float | None]]:
    study = optuna.load_study(study_name=None, storage=url(path))
    return [(trial.number, trial.value) for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_storage_is_kept_aside_and_written_anew_from_the_log(tmp_path: Path, damage: str) -> None:
    swept(tmp_path, storage=None)
    path = tmp_path / "study.db"
    known = stored(path)
    DAMAGES[damage](path)
    damaged, said = path.read_bytes(), list[str]()
    opened = opening.open_plan(planned(tmp_path), said.append)
    assert (tmp_path / "study.db.damaged").read_bytes() == damaged
    assert len(said) == 1
    assert "study.db is damaged (" in said[0]
    assert f"it was moved to study.db.damaged, and is written anew from {tmp_path / 'study.log'}" in said[0]
    opened.study.close()
    assert swept(tmp_path, storage=None).failures == []
    assert stored(path) == known
    assert len(known) == TRIALS


def test_a_damaged_database_of_mlflow_is_kept_aside(tmp_path: Path) -> None:
    swept(tmp_path)
    garbage(tmp_path / "mlflow.db")
    said = list[str]()
    opening.open_plan(planned(tmp_path, storage="off", tracking=None), said.append).study.close()
    assert (tmp_path / "mlflow.db.damaged").is_file()
    assert not (tmp_path / "mlflow.db").exists()
    assert "mlflow.db.damaged" in said[0]


@pytest.mark.parametrize("name", ["storage", "tracking"])
def test_a_damaged_database_of_the_users_choice_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    swept(tmp_path)
    path = tmp_path / "theirs.db"
    garbage(path)
    chosen = {"storage": "off", name: url(path)}
    for _ in range(2):  # the log is free again
        with pytest.raises(ValueError, match=r"theirs\.db can't be opened, it is damaged: .*; it was left as it is"):
            opening.open_plan(planned(tmp_path, **chosen))
    garbage(tmp_path / "expected")
    assert path.read_bytes() == (tmp_path / "expected").read_bytes()


def test_nothing_is_moved_where_there_is_no_log_to_write_it_anew_from(tmp_path: Path) -> None:
    garbage(tmp_path / "study.db")
    with pytest.raises(ValueError, match=r"study\.db can't be opened, it is damaged: file is not a database"):
        opening.open_plan(planned(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"study.db", "one.toml"}


def test_nothing_is_moved_while_another_sweep_runs(tmp_path: Path) -> None:
    holder = opening.open_plan(begun(tmp_path, storage="off"))
    garbage(tmp_path / "study.db")
    with pytest.raises(ValueError, match="in use by process"):
        opening.open_plan(planned(tmp_path))
    assert not (tmp_path / "study.db.damaged").exists()
    holder.study.close()


def test_a_follower_says_that_its_file_is_locked_and_goes_on_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxdqn.storage_sink._BUSY_S", (0.01, 0.02))
    swept(tmp_path, storage=None)
    opened = opening.open_plan(planned(tmp_path))
    assert opened.connect_storage is not None
    sink = opened.connect_storage()
    trials = opened.study.trials()
    assert isinstance(sink, StorageSink)
    with locked(tmp_path / "study.db"):
        for _ in range(2):
            with pytest.raises(LockedError, match=r"waiting for .*study\.db: it is locked by another process"):
                sink.write(trials)
    sink.write(trials)
    sink.close()
    opened.study.close()


# A log that is gone


@pytest.mark.parametrize("what", ["missing", "empty", "cut off", "zeros"])
@pytest.mark.parametrize("storage", ["off", None])
def test_results_whose_log_is_gone_are_not_mixed_with_those_of_a_fresh_study(
    tmp_path: Path, what: str, storage: str | None
) -> None:
    made = begun(tmp_path, storage=storage)
    known = made.log.read_bytes()
    made.log.unlink()
    if what != "missing":
        made.log.write_bytes({"empty": b"", "cut off": known[:30], "zeros": bytes(5_000)}[what])
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"study\.log (holds no whole record|is not there), but agents in .*restore"):
        opening.open_plan(planned(tmp_path, storage=storage))
    assert {path.name for path in tmp_path.iterdir()} == before
    made.log.write_bytes(known)
    assert swept(tmp_path, storage=storage).counts["complete"] == TRIALS


def test_a_storage_whose_log_was_cut_off_in_its_first_record_is_not_taken_for_another(tmp_path: Path) -> None:
    made = begun(tmp_path, storage=None)
    made.log.write_bytes(made.log.read_bytes()[:30])
    shutil.rmtree(tmp_path / "agents")
    with pytest.raises(ValueError, match="already holds study 'one-CartPole-v1', but its log is not in"):
        opening.open_plan(planned(tmp_path))
    assert made.log.stat().st_size == 30


def test_a_log_of_which_a_kill_left_nothing_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "study.log"
    for content in (b"", b'{"synced":0,', bytes(100)):
        log.write_bytes(content)
        (tmp_path / "agents").mkdir(exist_ok=True)
        assert is_blank(log)
        assert not check_log(log)
    for content in (b"notes of somebody\n", b'{"synced":0,"clock":0,"op_code":0}\n{"synced":0\n'):
        log.write_bytes(content)
        assert not is_blank(log)  # whoever opens it says what is wrong


def test_a_storage_that_is_opened_is_followed(tmp_path: Path) -> None:
    storage = open_storage(url(tmp_path / "study.db"))
    storage.remove_session()
    assert examine(tmp_path / "study.db", 0) is None
