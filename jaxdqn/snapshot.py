"""Snapshots of a running search: states of its rows, which spare the next process to train those agents again.

Only time depends on them: the log alone brings every agent back. A snapshot is a directory, there whole or not at all,
with a file of raw bytes for each row and a manifest that says what they are; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdqn.files import flush_directory, put, read_at_most
from jaxdqn.lanes import Lanes
from jaxdqn.recovery import Noted, Saved

KEPT = 2
_FORMAT, _MANIFEST = 1, "manifest.json"
_MAX_MANIFEST = 256 * 2**20  # bytes
_URGENT_S = 5.0  # that the further visits of a snapshot may take when the sweep is to end


class Snapshots:
    """The snapshots of one search, below `directory`.

    A row's state is taken between two of its segments, so that no segment is waited for: a snapshot is complete after
    as many visits as there are rows. Files are written by a thread, and nothing waits for them.
    """

    def __init__(self, directory: Path, owner: dict[str, Any], every_s: float, max_bytes: int) -> None:
        """Sweep away what an earlier process left unfinished.

        Args:
            directory: for all snapshots; made when the first one is taken.
            owner: the log and all that the bits of its results depend on; a snapshot of another owner is not used.
            every_s: time between two snapshots, in seconds.
            max_bytes: of a snapshot; none is taken of larger states.
        """
        self.directory, self._every_s, self._max_bytes = directory, every_s, max_bytes
        self._owner = hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()
        self._due = time.monotonic() + every_s
        self._taken: dict[int, Saved] | None = None  # of the snapshot that is being taken, by row
        self._visits: list[float] = []  # when the last ones were
        self._writer: threading.Thread | None = None
        self.count = 0  # snapshots written
        self.num_bytes = 0  # of the last one
        self.taken_s = self.written_s = 0.0  # copying states, which a visit waits for; writing them, which nobody does
        self.too_large = 0  # bytes of a state that was too large
        self.failure: str | None = None  # why the last one could not be written, if it could not
        self.refused: list[str] = []  # snapshots that could not be used, and why
        self._told: set[str] = set()
        for left in directory.glob(".*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def visit(self, row: int, lanes: Lanes) -> None:
        """Take a row's state, between `read` and `dispatch`, if a snapshot is due or being taken."""
        now = time.monotonic()
        self._visits = [*self._visits[-len(lanes.rows) :], now]
        if self._taken is None:
            if now < self._due or (self._writer and self._writer.is_alive()) or self.too_large:
                return
            size = len(lanes.rows) * lanes.trainer.state_bytes(row)
            if size > self._max_bytes:
                self.too_large = size
                return
            self._taken = {}
        state = lanes.trainer.state(row)
        agents = [agent for block in lanes.rows[row] for agent in block if agent is not None]
        noted = {
            (agent.trial, agent.seed_index): Noted([list(totals) for totals in agent.history], agent.validated_so_far)
            for agent in agents
            if not agent.ended
        }
        self._taken[row] = Saved(lanes.sent[row], state, noted)
        if len(self._taken) == len(lanes.rows):
            taken, self._taken, self._due = self._taken, None, time.monotonic() + self._every_s
            self._writer = threading.Thread(target=self._write, args=(taken, lanes.visits), name="snapshot")
            self._writer.start()
        self.taken_s += time.monotonic() - now

    def urge(self, num_rows: int) -> int:
        """Make a snapshot due at once; return how many further visits it takes, 0 if they would take too long."""
        visits = num_rows if self._taken is None else num_rows - len(self._taken)
        a_visit = (self._visits[-1] - self._visits[0]) / (len(self._visits) - 1) if len(self._visits) > 1 else 0.0
        self._due = 0.0
        return 0 if self.too_large or visits * a_visit > _URGENT_S else visits

    def keep_only(self, since: int, clock: int) -> None:
        """Remove all snapshots but those of visits after `since`, up to `clock`."""
        for path in self._all():
            if not since < int(path.name) <= clock:
                remove(path)

    def latest(self, clock: int, state: Callable[[int], list[np.ndarray]], since: int = 0) -> dict[int, Saved]:
        """Return the last snapshot of a log that has come to visit `clock`, by row; nothing if none can be used.

        Args:
            clock: of the log.
            state: returns the present state of a row, whose shapes and types a snapshot must have.
            since: the visit at which all lanes were empty: what was in them before is of no use.
        """
        for path in reversed(self._all()):
            if since < int(path.name) <= clock:
                try:
                    saved = self._read(path, state)
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    self.refused.append(f"snapshot {path} is damaged and is not used: {error}")
                else:
                    if saved:
                        return saved
        return {}

    def news(self) -> list[str]:
        """Return what a user should know and was not told yet."""
        large = (
            f"{self.too_large / 2**20:,.0f} MiB of lanes are more than a snapshot may have (--snapshot-mib): none is"
            " taken, agents in flight would be trained again"
        )
        known = [*self.refused, *([large] if self.too_large else []), *([self.failure] if self.failure else [])]
        new = [message for message in known if message not in self._told]
        self._told.update(new)
        return new

    def summary(self) -> dict[str, Any]:
        """Return what they cost, as JSON values."""
        return {
            "snapshots": self.count,
            "snapshot_mib": round(self.num_bytes / 2**20, 1),
            "snapshot_wait_s": round(self.taken_s, 3),
            "snapshot_write_s": round(self.written_s, 3),
        }

    def close(self, keep: bool) -> None:
        """Wait for what is being written; remove all snapshots if there is no more use for them."""
        if self._writer:
            self._writer.join()
        if not keep:
            remove(self.directory)

    def _all(self) -> list[Path]:
        """Return the snapshots there are, the last one last."""
        return sorted(path for path in self.directory.glob("*") if path.name.isdigit())

    def _write(self, rows: dict[int, Saved], clock: int) -> None:
        began = time.monotonic()
        try:
            self.num_bytes = self._write_whole(rows, clock)
        except OSError as error:
            self.failure = f"no snapshot could be written to {self.directory}: {error.strerror or error}"
        else:
            self.count, self.failure = self.count + 1, None
        self.written_s += time.monotonic() - began

    def _write_whole(self, rows: dict[int, Saved], clock: int) -> int:
        """Write a snapshot under another name, put it on the disk, give it its name; remove older ones."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished, path = self.directory / f".{clock:012d}.tmp", self.directory / f"{clock:012d}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        try:
            about: list[dict[str, Any]] = []
            for row, saved in sorted(rows.items()):
                content = b"".join(np.ascontiguousarray(array).tobytes() for array in saved.state)
                put(unfinished / f"row-{row}.bin", content)
                agents = [[*name, *noted] for name, noted in saved.noted.items()]
                about.append(
                    {
                        "size": len(content),
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "segments": saved.num_segments,
                        "agents": agents,
                    }
                )
            body = {"format": _FORMAT, "owner": self._owner, "clock": clock, "rows": about}
            manifest = json.dumps({**body, "sha256": _digest(body)}).encode()
            put(unfinished / _MANIFEST, manifest)
            flush_directory(unfinished)
            shutil.rmtree(path, ignore_errors=True)  # of a process whose log was cut back to before this visit
            os.rename(unfinished, path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        flush_directory(self.directory)
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return len(manifest) + sum(row["size"] for row in about)

    def _read(self, path: Path, state: Callable[[int], list[np.ndarray]]) -> dict[int, Saved]:
        """Read a snapshot; nothing if it is of another log or machine."""
        body = json.loads(read_at_most(path / _MANIFEST, _MAX_MANIFEST))
        if body.pop("sha256", None) != _digest(body):
            raise ValueError("its manifest has another checksum")
        if body["format"] != _FORMAT or body["owner"] != self._owner:
            return {}
        rows = {}
        for row, about in enumerate(body["rows"]):
            like = state(row)
            content = read_at_most(path / f"row-{row}.bin", sum(array.nbytes for array in like))
            if (len(content), hashlib.sha256(content).hexdigest()) != (about["size"], about["sha256"]):
                raise ValueError(f"row {row} has another checksum")
            noted = {(trial, seed): Noted(*its) for trial, seed, *its in about["agents"]}
            rows[row] = Saved(about["segments"], _arrays(content, like), noted)
        return rows


def remove(directory: Path) -> None:
    """Remove all snapshots below a directory, which need not be there."""
    shutil.rmtree(directory, ignore_errors=True)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _arrays(content: bytes, like: list[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays whose bytes follow one another, each as the one it is like."""
    arrays, start = [], 0
    for array in like:
        arrays.append(np.frombuffer(content, array.dtype, array.size, start).reshape(array.shape))
        start += array.nbytes
    if start != len(content):
        raise ValueError("a row has another size")
    return arrays
