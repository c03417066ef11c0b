"""Sweeps of the stand-in by the command itself, each in a process of its own that is killed at a named point.

`python -m tests.killed_sweep` reads jobs, a line of JSON each, and answers each with a line. All it needs is imported
once: a sweep runs in a fork, which starts no thread of JAX's. It is killed by SIGKILL, so nothing of it is unwound.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple

import numpy as np

from jaxdqn import devices

if __name__ == "__main__":
    devices.prepare(2)  # before gymnax is imported: that starts JAX's backend

from jaxdqn.config import Config, Layout
from tests.stand_in import StandIn

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "sweep.py"
ANYWHERE = "anywhere"
SPACE = """
env_steps = 60_000
rungs = 5_000
seeds = {seeds}
solved_return = 110
[hyperparameters]
hidden_layers = 0
learning_rate = {{ low = 1e-5, high = 1e-1, log = true }}
train_period = {{ choices = [1, 4, 8] }}
batch_size = {{ choices = [16, 128] }}
"""
MAIN = (  # points of the thread that trains: a sweep passes each of them as often as any other does
    "opened",
    "asked",
    "placed",
    "sent",
    "reported",
    "told",
    "taken in",
    "before the log's write",
    "half of the log's write",
    "after the log's write",
    "after the log's flush",
    "before an agent's file",
    "between or after an agent's files",
    "before snapshots are removed",
    "recorded",
    "before winner.json",
    "after winner.json",
    "concluding",
)
THREADS = (  # of those that write snapshots and follow the log
    "a table of the storage",
    "in the storage's queue",
    "before a trial's state",
    "a snapshot's file",
    "before a snapshot's name",
    "after a snapshot's name",
)
MLFLOW = ("before a run", "a run without figures", "a run without an end")


class Job(NamedTuple):
    """A sweep, and when it is killed."""

    arguments: dict[str, Any]  # of the command
    at: str = ""  # a point; ANYWHERE: whichever comes; "": none
    passage: int = 1  # of that point
    after_s: float | None = None  # killed from outside, so long after its start


class Ended(NamedTuple):
    """How it ended."""

    status: int  # of the command; -9: it was killed
    said: str
    passed: dict[str, int]  # how often each point was, nothing if it was killed

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Command:
    """The process that forks."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.killed_sweep"]
        self._process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "NPROC": "1"}
        )

    def run(self, job: Job) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def until_done(self, arguments: dict[str, Any], *kills: tuple[str, int]) -> int:
        """Run a sweep again until it ends by itself; return how many of the kills struck."""
        struck = 0
        for at, passage in [*kills, ("", 0)]:
            ended = self.run(Job(arguments, at, passage))
            assert ended.killed or ended.status == 0, ended.said
            struck += ended.killed
        assert not ended.killed
        return struck

    def __enter__(self) -> Command:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def arguments(directory: Path, **changes: Any) -> dict[str, Any]:
    """What a small sweep is given, with its space in a file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "one.toml").write_text(SPACE.format(seeds=2))
    known = {"space": str(directory / "one.toml"), "output": str(directory / "out"), "trials": 30, "devices": 2}
    fresh = {"confirm_top": 2, "confirm_seeds": 3, "verdict_seeds": 2, "snapshot_every": 1e-9}
    return {**known, **fresh, "lanes": "12", "tracking": "off", "report": False, **changes}


class Points:
    """Counts how often points are passed, and kills its process at one."""

    def __init__(self, at: str, passage: int) -> None:
        self.at, self.passage, self.passed = at, passage, Counter[str]()
        self._guard = threading.Lock()

    def due(self, name: str) -> bool:
        with self._guard:
            self.passed[name] += 1
            count = self.passed.total() if self.at == ANYWHERE else self.passed[name]
            return self.at in (name, ANYWHERE) and count == self.passage

    def pass_by(self, name: str) -> None:
        if self.due(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, method: str, before: str = "", after: str = "") -> None:
        function = getattr(owner, method)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before:
                self.pass_by(before)
            value = function(*args, **kwargs)
            if after:
                self.pass_by(after)
            return value

        setattr(owner, method, wrapped)


def set_up(points: Points) -> None:
    """Put the points into the product's functions."""
    from optuna.storages import RDBStorage
    from optuna.storages._rdb import storage as tables

    from jaxdqn import files, journal, opening, recording, reporting, run, saved_agent, snapshot
    from jaxdqn.lanes import Lanes
    from jaxdqn.storage_sink import StorageSink
    from jaxdqn.study import Study
    from jaxdqn.tracking import MlflowSink

    points.wrap(run.Recording, "__init__", before="opened")
    points.wrap(Study, "ask", after="asked")
    points.wrap(Study, "report", after="reported")
    points.wrap(Study, "tell", after="told")
    points.wrap(Study, "record", after="recorded")
    points.wrap(Lanes, "_send", before="placed", after="sent")
    points.wrap(Lanes, "take_in", after="taken in")
    points.wrap(run, "_conclude", before="concluding")
    points.wrap(tables._VersionManager, "__init__", before="a table of the storage")
    points.wrap(StorageSink, "_write", before="in the storage's queue")
    points.wrap(RDBStorage, "set_trial_state_values", before="before a trial's state")
    points.wrap(snapshot, "put", before="a snapshot's file")
    points.wrap(snapshot.Snapshots, "close", before="before snapshots are removed")

    reporting._animation = lambda *_: None  # it is played with JAX
    # Sweeps here are over in less than a second: the storage is there from the start, and nobody waits to open it.
    opening.path_of = lambda url: Path(url)  # type: ignore[assignment]
    recording.TRACED_AFTER_S = 0.0
    connect = MlflowSink.__init__

    def connected(sink: MlflowSink, *args: Any, **kwargs: Any) -> None:
        connect(sink, *args, **kwargs)
        points.wrap(sink._client, "create_run", after="a run without figures")
        points.wrap(sink._client, "log_batch", after="a run without an end")

    points.wrap(MlflowSink, "_write", before="before a run")
    MlflowSink.__init__ = connected  # type: ignore[method-assign]

    def write(descriptor: int, content: Any) -> int:
        if not isinstance(content, memoryview):  # the process id in the lock
            return os.write(descriptor, content)
        points.pass_by("before the log's write")
        if points.due("half of the log's write"):
            os.write(descriptor, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        written = os.write(descriptor, content)
        points.pass_by("after the log's write")
        return written

    def fsync(descriptor: int) -> None:
        os.fsync(descriptor)
        points.pass_by("after the log's flush")

    def rename(source: Path, target: Path) -> None:
        points.pass_by("before a snapshot's name")
        os.rename(source, target)
        points.pass_by("after a snapshot's name")

    publish = files.publish

    def publish_agent(staged: Path, target: Path) -> None:
        points.pass_by("before an agent's file")
        publish(staged, target)
        points.pass_by("between or after an agent's files")

    def replace(source: Path, target: Path) -> None:
        points.pass_by(f"before {target.name}")
        os.replace(source, target)
        points.pass_by(f"after {target.name}")

    known = vars(os)
    journal.os = SimpleNamespace(**{**known, "write": write, "fsync": fsync})  # type: ignore[attr-defined]
    snapshot.os = SimpleNamespace(**{**known, "rename": rename})  # type: ignore[attr-defined]
    saved_agent.publish = publish_agent
    files.os = SimpleNamespace(**{**known, "replace": replace})  # type: ignore[attr-defined]


def _score(phase: int, trial: int, seed: int) -> float:
    """Some agents of the search diverge."""
    drawn = np.random.default_rng([phase, trial, seed])
    return float("nan") if phase == 0 and drawn.random() < 0.1 else float(drawn.normal(100, 20))


def _life(trial: int, seed: int) -> int:
    return 4 * int(np.random.default_rng([trial, seed]).integers(1_000, 15_000))


class _Named(StandIn):
    """Its agents' parameters say whose they are and what they have lived."""

    def params(self, row: int) -> dict[str, dict[str, np.ndarray]]:
        lived = np.stack([self.seed[row], self.step[row]], axis=-1).astype(np.float32)
        known = super().params(row)["linear"]
        return {"linear": {**known, "kernel": np.broadcast_to(lived[..., None, :], known["kernel"].shape)}}


def population(config: Config, layout: Layout, _: int) -> StandIn:
    """Agents of all kinds of lives."""
    return _Named(config, layout, score=_score, life=_life)


def _prepared() -> Callable[..., None]:
    """Import and compile all that a sweep needs; return the command's function."""
    import jax

    from jaxdqn import console, environment, run  # noqa: F401
    from jaxdqn.storage import open_storage

    known = environment.random_policy(jax.random.key(0), environment.make("CartPole-v1"))
    environment.random_policy = lambda *_: known  # a fork can't compute it: JAX's threads are not in it
    spec = importlib.util.spec_from_file_location("sweep_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    devices.prepare = lambda *_: None
    with tempfile.TemporaryDirectory() as directory:
        open_storage(f"sqlite:///{directory}/warm.db").remove_session()  # imports what Optuna imports late
    run.run = functools.partial(run.run, make_population=population)  # type: ignore[assignment]
    return script.sweep


def _forked(command: Callable[..., None], job: Job, directory: Path) -> Ended:
    said, passed = directory / "said.txt", directory / "passed.json"
    passed.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's, of threads that no sweep here needs
        child = os.fork()
    if child == 0:
        _run(command, job, said, passed)
    if job.after_s is not None:
        time.sleep(job.after_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(status, said.read_text(), json.loads(passed.read_text()) if passed.exists() else {})


def _run(command: Callable[..., None], job: Job, said: Path, passed: Path) -> None:
    """Be the sweep; end with its status."""
    status = 99
    try:
        with said.open("w") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            points = Points(job.at, job.passage)
            set_up(points)
            try:
                command(**{**job.arguments, "output": Path(job.arguments["output"])})
            except SystemExit as exited:
                status = int(exited.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
        passed.write_text(json.dumps(points.passed))
    finally:
        os._exit(status)


def main() -> None:
    command = _prepared()
    with tempfile.TemporaryDirectory() as directory:
        for line in sys.stdin:
            print(json.dumps(_forked(command, Job(*json.loads(line)), Path(directory))), flush=True)


if __name__ == "__main__":
    main()
