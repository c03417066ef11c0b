"""Peers: other programs that train DQN, each in a virtual environment of its own, spoken to over a pipe.

A peer is a script that reads a line of JSON and writes one. It starts once and answers many requests, so that runs of
ours and of theirs can take turns, and nobody's imports are timed. Knows nothing of what is asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdqn.files import write_whole

COMPLETE = "complete"  # of an environment: holds what it was made of
MAKING_S = 1_800.0  # PyTorch is large
MAX_REASON = 300  # characters of a peer's last words


class PeerError(Exception):
    """A peer can't be installed, failed, or took too long: one line that says so."""


class Peer(NamedTuple):
    """A peer's script and what it needs."""

    script: Path
    requirements: Path

    def python(self, environments: Path) -> Path:
        """Return the interpreter of its environment below `environments`."""
        return environments / self.requirements.stem.removeprefix("requirements-") / "bin" / "python"


def prepare(peer: Peer, environments: Path, limit_s: float = MAKING_S) -> Path:
    """Make a peer's environment, unless it is there whole; return its interpreter.

    Raises:
        PeerError: it can't be made.
    """
    python = peer.python(environments)
    directory, wanted = python.parent.parent, peer.requirements.read_text("utf-8")
    made_of = hashlib.sha256(f"{platform.python_version()}\n{wanted}".encode()).hexdigest()
    with contextlib.suppress(OSError):
        if (directory / COMPLETE).read_text("utf-8") == made_of and python.exists():
            return python
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2"]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / COMPLETE).unlink(missing_ok=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(directory)],
            [*install, "-q", "-r", str(peer.requirements)],
        ):
            ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
            if ended.returncode:
                reason = last_words(ended.stderr or ended.stdout)
                raise PeerError(
                    f"the environment {directory} can't be made: {reason}. It takes a network, once: run this command "
                    "where there is one, or give --environments a directory in which it was made"
                )
        write_whole(directory / COMPLETE, made_of.encode())
    except subprocess.TimeoutExpired:
        raise PeerError(
            f"the environment {directory} was not made within {limit_s:g} s: is the network slow?"
        ) from None
    except OSError as error:
        raise PeerError(f"the environment {directory} can't be made: {error.strerror or error}") from None
    return python


class Running:
    """A peer that waits for requests. Use it in a `with`: it ends with that."""

    def __init__(self, python: Path, peer: Peer, cores: Sequence[int] | None = None) -> None:
        """Start it, on these cores alone if they are given."""
        self.name = peer.script.name
        self._said = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed with the rest)
        # What is set for our JAX and NumPy is not meant for others.
        ours = ("XLA_FLAGS", "NPROC", "OPENBLAS_NUM_THREADS", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        try:
            self._process = subprocess.Popen(
                [str(python), str(peer.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env=environment,
            )
            if cores is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(self._process.pid, cores)
        except OSError as error:
            self._said.close()
            raise PeerError(f"{self.name} can't be started: {error.strerror or error}") from None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._process.communicate()
        self._said.close()

    def end(self) -> None:
        """End it at once; whoever waits for an answer gets an error."""
        self._process.kill()

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            PeerError: none came within `limit_s`, it is no JSON object, or the peer has failed.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        late = threading.Event()

        def too_late() -> None:
            late.set()
            self.end()

        timer = threading.Timer(limit_s, too_late)
        timer.start()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if late.is_set():
            raise PeerError(f"{self.name} gave no answer within {limit_s:g} s")
        if not line:
            self._process.wait()
            self._said.seek(0)
            raise PeerError(
                f"{self.name} failed (exit status {self._process.returncode}): {last_words(self._said.read())}"
            )
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PeerError(f"{self.name} answered {line.strip()[:MAX_REASON]!r}: no JSON object")
        return answer


def last_words(text: str) -> str:
    """Return the last line of what a process said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MAX_REASON] if lines else "it said nothing"
