"""The command refuses what is wrong in one line, with exit status 2, before it writes anything."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import optuna
import pytest

from jaxdqn import devices, opening, plan, recording, run, space
from jaxdqn.journal import Journal
from jaxdqn.plan import Settings
from jaxdqn.study import Best

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"
DEFAULT = space.load("default")


class Outcome(NamedTuple):
    """What a command leaves: its exit status and what it printed."""

    status: int
    out: str
    err: str


class Case(NamedTuple):
    """Bad input, and the words with which it is refused."""

    arguments: str
    words: list[str]
    space: str = ""  # hyperparameters of mine.toml


Command = Callable[[list[str]], Outcome]

CASES = {
    "no trials": Case("--trials 0", ["--trials 0", "int in [1, "]),
    "trials that are no number": Case("--trials abc", ["--trials", "abc", "integer"]),
    "a time budget that is no number": Case("--time-budget soon", ["--time-budget", "soon", "valid"]),
    "an option without its value": Case("--trials", ["--trials", "requires an argument"]),
    "a misspelt option": Case("--trails 3", ["--trails", "--trials"]),
    "a word too many": Case("default", ["default", "unexpected"]),
    "an unknown hyperparameter": Case(
        "--space mine.toml", ["mine.toml", "'learning_rat'", "did you mean learning_rate?"], "learning_rat = 0.1"
    ),
    "an empty range": Case("--space mine.toml", ["gamma", "empty", "0.9", "0.8"], "gamma = { low = 0.9, high = 0.8 }"),
    "a logarithm of zero": Case("--space mine.toml", ["tau = 0", "float in ["], "tau = { low = 0, high = 1 }"),
    "a logarithmic range from zero": Case(
        "--space mine.toml", ["tau", "low = 0", "log = true"], "tau = { low = 0, high = 1, log = true }"
    ),
    "a batch larger than the replay": Case(
        "--space mine.toml", ["batch_size 64", "buffer_size", "32"], "batch_size = 64\nbuffer_size = 32"
    ),
    "a space that is no TOML": Case("--space mine.toml", ["mine.toml", "no TOML", "line 3"], "gamma: 0.9"),
    "a missing space": Case("--space missing.toml", ["'missing.toml'", "presets are ", "article, default"]),
    "a misspelt preset": Case("--space artikel", ["'artikel'", "did you mean article?"]),
    "a directory as space": Case("--space .", ["'.'", "can't be read"]),
    "no episodes": Case("--episodes 0", ["episodes = 0", "int in [1, "]),
    "no environment steps": Case("--env-steps 0", ["env_steps = 0", "int in [1, "]),
    "nothing to score on": Case("--eval-episodes 0", ["eval_episodes = 0", "int in [1, 100000]"]),
    "an unknown environment": Case("--env CartPole-v9", ["'CartPole-v9'", "did you mean CartPole-v1?"]),
    "continuous actions": Case("--env Pendulum-v1", ["'Pendulum-v1'", "Box", "Discrete"]),
    "output below a file": Case("--output file/runs", ["'file/runs'", "no writable directory"]),
    "a file as output": Case("--output file", ["'file'", "no writable directory"]),
    "storage of an unknown kind": Case("--storage nonsense://x", ["nonsense://x", "can't be opened"]),
    "storage in a missing directory": Case(
        "--storage sqlite:////no/such/dir/x.db", ["sqlite:////no/such/dir/x.db", "can't be opened"]
    ),
    "storage that is no URL": Case("--storage nonsense", ["storage nonsense can't be opened", "URL"]),
    "storage with a password": Case(
        "--storage postgresql://u:secretword@localhost:1/x", ["postgresql://u:***@localhost:1/x", "can't be opened"]
    ),
    "storage with an odd port": Case(
        "--storage postgresql://u@localhost:abc/x", ["postgresql://u@localhost:abc/x", "can't be opened"]
    ),
    "tracking to files": Case("--tracking file:///x", ["'file:///x'", "'off'", "sqlite", "http"]),
    "tracking to a bare path": Case("--tracking mlruns", ["'mlruns'", "'off'", "sqlite", "http"]),
    "an unknown sampler": Case("--sampler nope", ["'nope'", "tpe, sobol, grid, optuna-tpe, random"]),
    "no seeds": Case("--seeds 0", ["--seeds 0", "int in [1, 10000]"]),
    "no lanes": Case("--lanes 0", ["--lanes 0", "int in [1, 1000000]"]),
    "lanes that are no number": Case("--lanes many", ["--lanes 'many'", "int in [1, 1000000], or auto"]),
    "fewer than no lanes": Case("--lanes=-1", ["--lanes -1", "int in [1, 1000000]"]),
    "more lanes than a number has digits": Case(f"--lanes {'9' * 5_000}", ["--lanes '999", "or auto"]),
    "automatic lanes on devices that are not there": Case("--lanes auto --devices 99", ["--devices 99", "has"]),
    "devices that are not there": Case("--devices 99", ["--devices 99", "this machine has"]),
    "no devices": Case("--devices 0", ["--devices 0", "this machine has"]),
    "an unknown pruner": Case("--pruner nope", ["--pruner 'nope'", "halving, median, percentile"]),
    "a pruner without rungs": Case(
        "--space mine.toml --pruner halving", ["--pruner halving needs rungs", "'mine'"], "tau = 0.5"
    ),
    "an unknown choice of agents": Case("--save-agents some", ["--save-agents 'some'", "confirmed, all"]),
    "fewer than no trials to confirm": Case("--confirm-top -1", ["--confirm-top -1", "int in [0, 1000]"]),
    "no seeds to confirm with": Case("--confirm-seeds 0", ["--confirm-seeds 0", "int in [1, 10000]"]),
    "fewer than no seeds of the verdict": Case("--verdict-seeds -1", ["--verdict-seeds -1", "int in [0, 10000]"]),
    "no time": Case("--time-budget 0", ["--time-budget 0", "above 0"]),
    "a time that is no number": Case("--time-budget nan", ["--time-budget nan", "above 0"]),
    "endless time": Case("--time-budget inf", ["--time-budget inf", "above 0"]),
    "a target that is no number": Case("--target-return nan", ["--target-return nan", "finite"]),
    "a backup in the output": Case("--backup-to runs", ["--backup-to 'runs'", "one inside the other"]),
    "a backup in a file": Case("--backup-to file", ["--backup-to 'file'", "no writable directory"]),
    "a backup on a drive that is not mounted": Case(
        "--backup-to drive/sweep", ["--backup-to 'drive/sweep'", "mounted?"]
    ),
    "a backup all the time": Case("--backup-every 0", ["--backup-every 0", "at least 1"]),
    "a backup at no time": Case("--backup-every nan", ["--backup-every nan", "at least 1"]),
    "a study without a name": Case("--study ''", ["--study ''", "1 to 200 printable characters"]),
    "a study with a bell in its name": Case("--study 'a\a'", ["--study 'a\\x07'", "1 to 200 printable characters"]),
    "a negative seed": Case("--seed -1", ["--seed -1", "int in [0, 2147483647]"]),
    "a seed too large": Case("--seed 2147483648", ["--seed 2147483648", "int in [0, 2147483647]"]),
    "a new database for nothing": Case("--storage sqlite:///new.db --lanes 0", ["--lanes 0", "int in [1, 1000000]"]),
    "devices that are not there, as JSON": Case("--json --devices 99", ["--devices 99", "this machine has"]),
}
QUICK = ("a misspelt option", "an unknown hyperparameter", "devices that are not there")

SECRETS = {
    "plain": "--storage postgresql://u:secretword@localhost:1/x",
    "quoted": "--storage postgresql://u:secretword%21@localhost:1/x",
    "as a parameter": "--storage 'postgresql://localhost:1/x?user=u&password=secretword'",
    "with an odd port": "--storage postgresql://u:secretword@localhost:abc/x",
    "without a scheme": "--storage u:secretword@localhost:1/x",
    "with a misspelt scheme": "--storage postgresql//u:secretword@localhost:1/x",
    "in a tracking URI": "--tracking ftp://u:secretword@localhost:1/x",
    "in a tracking URI without a scheme": "--tracking u:secretword@localhost:1/x",
}


def contents(directory: Path) -> dict[str, bytes | None]:
    """All that lies below a directory."""
    found = directory.rglob("*")
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in found}


def names(directory: Path) -> set[str]:
    """The files below a directory, without those that SQLite keeps beside a database while it is open."""
    return {name for name in contents(directory) if not name.endswith(("-wal", "-shm"))}


def prepared(directory: Path, case: Case) -> list[str]:
    """Put the files of a case into a directory; return its arguments."""
    (directory / "file").write_text("a regular file")
    if case.space:
        (directory / "mine.toml").write_text(f"episodes = 200\n[hyperparameters]\n{case.space}\n")
    return shlex.split(case.arguments)


def assert_refused(outcome: Outcome, words: list[str]) -> None:
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert [word for word in words if word not in outcome.err] == [], outcome.err


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run the command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(devices, "prepare", lambda: None)  # JAX's backend has started
    for module, name in ((recording, "Follower"), (run, "Population")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("the sweep began"))

    def call(arguments: list[str]) -> Outcome:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        capfd.readouterr()
        status: Any = 0
        try:
            script.main(script.sweep, epilog=script.EXAMPLES)
        except SystemExit as ended:
            status = ended.code or 0
        return Outcome(status, *capfd.readouterr())

    return call


def process(directory: Path, arguments: list[str]) -> Outcome:
    """Run the command in a process of its own."""
    environment = {**os.environ, "COLUMNS": "80"}
    words = [sys.executable, str(SCRIPT), *arguments]
    ended = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


# What is wrong


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    command: Command, tmp_path: Path, name: str
) -> None:
    arguments = prepared(tmp_path, CASES[name])
    before = contents(tmp_path)
    outcome = command(arguments)
    assert contents(tmp_path) == before
    assert_refused(outcome, CASES[name].words)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CASES]
)
def test_a_process_with_bad_input_ends_with_status_2_and_one_line(tmp_path: Path, name: str) -> None:
    arguments = prepared(tmp_path, CASES[name])
    before = contents(tmp_path)
    outcome = process(tmp_path, arguments)
    assert contents(tmp_path) == before
    assert_refused(outcome, CASES[name].words)


@pytest.mark.parametrize("name", SECRETS)
def test_a_password_is_never_shown(command: Command, name: str) -> None:
    outcome = command(shlex.split(SECRETS[name]))
    assert outcome.status == 2
    assert "secretword" not in outcome.out + outcome.err


# Studies that are there


def made_before(directory: Path, **settings: Any) -> Path:
    """Make a study with two trials as an earlier sweep would have; return its log."""
    planned = plan.plan(Settings(output=directory / "runs" / "default-CartPole-v1", storage="off", **settings))
    opened = opening.open_plan(planned)
    for value in (10.0, 20.0):
        opened.study.tell(opened.study.ask(1)[0].number, value, {"returns": [value]})
    opened.study.close()
    return planned.log


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--eval-episodes 20", ["eval_episodes: 10 there, 20 asked"]),
        ("--eval-episodes 10 --seed 1", ["seed: 0 there, 1 asked"]),
        ("--eval-episodes 10 --seeds 2", ["seeds: 1 there, 2 asked"]),
        (
            "--eval-episodes 20 --env-steps 3_000",
            ["eval_episodes: 10 there, 20 asked", f"env_steps: {DEFAULT.env_steps} there, 3000 asked"],
        ),
        (
            "--space mine.toml --study default-CartPole-v1",
            [f"env_steps: {DEFAULT.env_steps} there, null asked", "hyperparameters.batch_size", "more"],
        ),
    ],
)
def test_a_study_of_another_search_is_refused_with_the_difference_and_left_alone(
    command: Command, tmp_path: Path, arguments: str, words: list[str]
) -> None:
    typed = prepared(tmp_path, Case(arguments, words, "tau = 0.5"))
    log = made_before(tmp_path, eval_episodes=10)
    known, before = log.read_bytes(), names(tmp_path)
    outcome = command([*typed, "--storage", "off"])
    assert log.read_bytes() == known
    assert names(tmp_path) == before
    assert_refused(outcome, ["'default-CartPole-v1'", *words, "choose another --study or --output"])


def test_a_storage_that_holds_the_study_of_another_program_is_refused_and_left_alone(
    command: Command, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    storage = optuna.storages.RDBStorage(url)
    theirs = optuna.create_study(study_name="theirs", storage=storage)
    theirs.tell(theirs.ask(), 1.0)
    known = theirs.get_trials()
    outcome = command(["--storage", url, "--study", "theirs"])
    assert optuna.load_study(study_name="theirs", storage=storage).get_trials() == known
    storage.remove_session()
    storage.engine.dispose()
    assert not (tmp_path / "runs").exists()
    assert_refused(outcome, ["already holds study 'theirs'", "its log is not in", "choose another --study"])


def test_a_log_that_is_none_is_refused_and_left_alone(command: Command, tmp_path: Path) -> None:
    there = tmp_path / "runs" / "default-CartPole-v1" / "study.log"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"no log " * 1_000)
    outcome = command(["--storage", "off"])
    assert there.read_bytes() == b"no log " * 1_000
    assert_refused(outcome, ["study.log", "is no log of jaxdqn"])


def test_a_log_in_use_is_refused_with_its_process(command: Command, tmp_path: Path) -> None:
    log = made_before(tmp_path)
    holder = Journal(log)
    assert_refused(command([]), ["study.log", f"in use by process {os.getpid()}"])
    holder.close()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("default", ["learning_rate is continuous", "choices or a step"]),
        ("huge.toml", ["60,000 cells", "hours on this machine", "at most 10,000"]),
    ],
)
def test_a_grid_that_has_no_end_or_takes_too_long_is_refused(
    command: Command, tmp_path: Path, space: str, words: list[str]
) -> None:
    domains = "target_period = { low = 1, high = 1000 }\ngradient_steps = { low = 1, high = 60 }"
    (tmp_path / "huge.toml").write_text(f"env_steps = 1_000\n[hyperparameters]\n{domains}\n")
    assert_refused(command(["--sampler", "grid", "--space", space]), words)
    assert not (tmp_path / "runs").exists()


def test_a_database_that_is_none_is_refused_and_left_alone(command: Command, tmp_path: Path) -> None:
    there = tmp_path / "runs" / "default-CartPole-v1" / "study.db"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"no database " * 1_000)
    before = contents(tmp_path)
    outcome = command([])
    assert contents(tmp_path) == before
    assert_refused(outcome, ["study.db", "can't be opened", "not a database"])


# Help


def plain(text: str) -> str:
    """A text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def helped(command: Command) -> str:
    outcome = command(["--help"])
    assert (outcome.status, outcome.err) == (0, "")
    return plain(outcome.out)


def options(script: ModuleType) -> list[str]:
    """All options, as they are typed."""
    return [f"--{name.strip('_').replace('_', '-')}" for name in inspect.signature(script.sweep).parameters]


def entries(helped: str) -> dict[str, str]:
    """What the help says of each option, on one line."""
    rows = [line.strip("│ ") for line in helped.splitlines() if line.startswith("│")]
    found: dict[str, str] = {}
    for row in rows:
        name = row.split()[0]
        if name.startswith("--"):
            found[name] = row
        else:
            found[list(found)[-1]] += f" {row}"
    return found


def test_help_shows_every_option_with_what_it_means(helped: str, script: ModuleType) -> None:
    assert set(entries(helped)) == {*options(script), "--help"}
    assert len(options(script)) == len(set(options(script)))
    assert all(len(text.split()) > 2 for text in entries(helped).values())


def test_help_shows_the_default_of_every_option_that_takes_a_value(helped: str, script: ModuleType) -> None:
    valued = [name for name in options(script) if name != "--json"]
    assert [name for name in valued if "default: " not in entries(helped)[name]] == []


def test_help_fits_80_columns(helped: str) -> None:
    assert [line for line in helped.splitlines() if len(line) > 80] == []


def test_each_example_is_on_a_line_of_its_own_and_names_options_that_exist(helped: str, script: ModuleType) -> None:
    lines = [line.strip() for line in helped.partition("Examples:")[2].splitlines() if line.strip()]
    assert len(lines) >= 2
    assert [line for line in lines if not line.startswith("python scripts/sweep.py")] == []
    assert {word for line in lines for word in line.split() if word.startswith("--")} <= set(options(script))


@pytest.mark.slow
def test_a_process_shows_its_help(tmp_path: Path, helped: str) -> None:
    outcome = process(tmp_path, ["--help"])
    assert (outcome.status, outcome.err) == (0, "")
    assert entries(plain(outcome.out)) == entries(helped)


def result(
    settings: Settings, finished: int, best: float | None = None, running: int = 0, stopped: bool = False
) -> Any:
    """How a sweep ended, as far as the next command depends on it."""
    planned = plan.plan(dataclasses.replace(settings, storage="off", tracking="off"))
    counts = {"complete": finished, "pruned": 0, "failed": 0, "running": running}
    found = None if best is None else Best(0, best, {})
    return SimpleNamespace(plan=planned, counts=counts, best=found, stopped=stopped, done=not stopped)


def test_the_command_that_goes_on_hides_its_password(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["python", "sweep.py", "--storage", "postgresql://u:secretword@h/x", "--trials", "5"]
    monkeypatch.setattr(sys, "orig_argv", typed)
    printed = script._resume_command(result(Settings(trials=5), 5))
    assert "secretword" not in printed
    assert printed.endswith("--trials 10")


@pytest.mark.parametrize(
    ("typed", "settings", "expected"),
    [
        (["--trials", "64"], Settings(trials=64), "--trials 128"),
        (["--trials=64", "--json"], Settings(trials=64), "--json --trials 128"),
        (["--target-return", "495"], Settings(trials=None, target_return=495.0), "--trials 128"),
    ],
)
def test_a_study_that_has_all_it_was_asked_for_is_offered_more(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, typed: list[str], settings: Settings, expected: str
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "sweep.py", *typed])
    assert script._resume_command(result(settings, 64, 500.0)) == f"python sweep.py {expected}"
    stopped = result(settings, 64, 500.0, stopped=True)
    assert script._resume_command(stopped) == " ".join(["python", "sweep.py", *typed])


def test_a_study_that_ran_out_of_time_is_offered_the_same_again(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["python", "sweep.py", "--target-return", "495", "--time-budget", "12"]
    monkeypatch.setattr(sys, "orig_argv", typed)
    settings = Settings(trials=None, target_return=495.0, time_budget=12.0)
    for best, complete in ((None, 0), (480.0, 20)):
        assert script._resume_command(result(settings, complete, best, running=3)) == " ".join(typed)


def test_a_grid_that_was_trained_is_offered_nothing_more(script: ModuleType) -> None:
    assert script._resume_command(result(Settings(trials=12, sampler="grid"), 12, 1.0)) is None


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_a_signal_is_heard_whoever_reads_stderr(reader: str) -> None:
    code = """
import os, signal, sys, time
from jaxdqn.command_line import stop_on_signals
stop = stop_on_signals()
if sys.argv[1] == "asleep":
    os.set_blocking(2, False)
    try:
        while os.write(2, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(2, True)
print("ready", flush=True)
print("stopped" if stop.wait(20) else "deaf", flush=True)
os._exit(0)
"""
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code, reader], stdout=subprocess.PIPE, stderr=writing, env=environment, text=True
    ) as child:
        os.close(writing)
        if reader == "gone":
            os.close(reading)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "stopped\n"
    if reader == "asleep":
        os.close(reading)
