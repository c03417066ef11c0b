"""A copy of a sweep in another directory, such as a mounted drive, for when the whole machine is taken away.

The log goes there in pieces, each once. The agents trained on fresh seeds go before the part of the log that tells of
them; what is made anew from the log (the winner's mark, the report, the study's database) at the end, if it differs.
Snapshots and replay stay here. Knows neither Optuna nor MLflow, and no decision here influences a result.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from jaxdqn import agent_directory, mirror
from jaxdqn.files import write_whole
from jaxdqn.follower import PATIENCE_S, low_priority
from jaxdqn.mirror import Piece
from jaxdqn.redact import hide_password

EVERY_S = 60.0
_FRESH = ("confirm", "verdict")  # phases whose agents are trained once
_CHANCES, _CHANCE_S = 3, 1.0  # at the end


class Backup:
    """The thread that sends what is new, and that nothing waits for before the end."""

    def __init__(
        self,
        target: Path,
        log: Path,
        log_end: Callable[[], int],
        every_s: float = EVERY_S,
        *,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """Start the thread, which sends at once what is there.

        Args:
            target: a directory that `restore` has looked at.
            log: the log, in the output directory.
            log_end: how many bytes of it are whole commits on the disk, which never change.
            every_s: seconds between two times of sending.
            pause: waits for an event so long at most; returns whether it has happened.
        """
        self.name = hide_password(f"the backup {str(target)!r}")
        self._target, self._log, self._log_end = target, log, log_end
        self._every_s, self._pause = every_s, pause
        self._ours: set[str] | None = None  # names of the pieces that are of this log
        self._sent: dict[Path, tuple[int, int]] = {}  # other files: size and time of what is there
        self._reached = 0  # bytes of the log that are there
        self._failure: str | None = None
        self._busy, self._sign_of_life = True, time.monotonic()
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why nothing is written at the moment; None while all is well."""
        hangs = self._busy and time.monotonic() - self._sign_of_life > PATIENCE_S
        return "it does not answer" if hangs else self._failure

    def close(self, patience_s: float = PATIENCE_S) -> str | None:
        """Send what is left; say in one line what is missing, if anything is.

        A directory in which nothing gets written for `patience_s` is given up.
        """
        self._sign_of_life = time.monotonic()
        self._closing.set()
        while self._thread.is_alive() and time.monotonic() - self._sign_of_life < patience_s:
            self._thread.join(0.1)
        self._given_up.set()  # should it answer after all, nothing more is written
        reason = "it does not answer" if self._thread.is_alive() else self._failure
        if reason is None:
            return None
        missing = self._log_end() - self._reached
        lacks = f"{missing:,} bytes of the log are not in" if missing else "the log is in, but not all files are in"
        return f"{lacks} {self.name}: {reason}; the next run of this study sends them again"

    def _work(self) -> None:
        low_priority()
        self._try(self._parts())
        while not self._pause(self._closing, self._every_s):
            self._try(self._parts())
        for _ in range(_CHANCES):
            if self._try([*self._parts(), self._send_rest, self._send_database]):
                break
            self._pause(self._given_up, _CHANCE_S)

    def _parts(self) -> list[Callable[[], None]]:
        """Return what is to be done each time. The log's end comes first: agents it tells of are there by then."""
        end = self._log_end()
        begin = [self._begin] if self._ours is None else []
        return [*begin, self._send_agents, partial(self._send_log, end)]

    def _try(self, parts: Iterable[Callable[[], None]]) -> bool:
        """Do each part, whatever becomes of the others; return whether all went well."""
        self._sign_of_life, self._busy, failure = time.monotonic(), True, None
        for part in parts:
            try:
                part()
            except Exception as error:  # of whatever a drive is made of; it must not stop the search
                failure = failure or mirror.said(error)
        self._failure, self._busy = failure, False
        return failure is None

    def _begin(self) -> None:
        """Make the directories. Later they are not made again: a drive that was taken away would seem to be there."""
        self._target.mkdir(exist_ok=True)
        (self._target / mirror.LOG).mkdir(exist_ok=True)

    def _send_log(self, end: int) -> None:
        """Write the bytes of the log that are not there as one more piece."""
        there = mirror.find(self._target)
        if self._ours is None:
            self._ours = self._sort_out(there, end)
            there = [piece for piece in there if piece.path.name in self._ours]
        foreign = [piece.path.name for piece in there if piece.path.name not in self._ours]
        if foreign:
            raise ValueError(f"another sweep writes there ({foreign[0]})")
        self._reached = start = mirror.reach(there)
        if start < end:
            with self._log.open("rb") as file:
                file.seek(start)
                content = file.read(end - start)
            if len(content) < end - start:
                raise OSError(f"{self._log} is shorter than it was")
            name = mirror.name_of(start, end)
            self._ours.add(name)
            self._write(mirror.LOG / name, content)
        self._reached = end

    def _sort_out(self, there: list[Piece], end: int) -> set[str]:
        """Set aside pieces behind a gap, or behind damage, that the log has not gone on with; name the others."""
        ours = set()
        for piece in there:
            self._sign_of_life = time.monotonic()
            if piece.end <= end and mirror.agrees(piece, self._log):
                ours.add(piece.path.name)
            else:
                mirror.set_aside(piece)
        return ours

    def _send_agents(self) -> None:
        """Write the agents trained on fresh seeds that are not there."""
        for name in mirror.agents(self._log.parent):
            found = mirror.AGENT.fullmatch(name.name)
            if found and found[1] in _FRESH:
                self._send(self._log.parent / name, name)

    def _send_rest(self) -> None:
        """Write the winner's mark, its other agents and the report."""
        output = self._log.parent
        agents: list[Path] = []
        with contextlib.suppress(ValueError):  # there is no winner
            agents = agent_directory.find(output)
        for about in agents:
            for path in (about.with_suffix(".safetensors"), about):
                self._send(path, path.relative_to(output))
        for name in (mirror.WINNER, mirror.REPORT):
            if (output / name).is_file():
                self._send(output / name, name)

    def _send_database(self) -> None:
        """Write the study's database, as it is at one moment."""
        database = self._log.with_name(mirror.DATABASE.name)
        if not database.is_file():
            return
        copy = database.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            url = f"{database.absolute().as_uri()}?mode=rw"  # a reader would leave SQLite's own log behind
            with closing(sqlite3.connect(url, uri=True)) as source, closing(sqlite3.connect(copy)) as written:
                source.backup(written)
            self._send(copy, mirror.DATABASE)
        finally:
            copy.unlink(missing_ok=True)

    def _send(self, source: Path, name: Path) -> None:
        """Write a file unless it is there as it is."""
        about, there = source.stat(), self._target / name
        known = there.is_file() and not there.is_symlink() and there.stat().st_size == about.st_size
        if known and self._sent.get(name) == (about.st_size, about.st_mtime_ns):
            return
        content = source.read_bytes()
        if not known or there.read_bytes() != content:
            self._write(name, content)
        self._sent[name] = (about.st_size, about.st_mtime_ns)

    def _write(self, name: Path, content: bytes) -> None:
        if self._given_up.is_set():
            raise OSError("it did not answer in time")
        mirror.make_parents(self._target, name)
        write_whole(self._target / name, content)
        self._sign_of_life = time.monotonic()
