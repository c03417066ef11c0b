"""The log: one append-only file that is the truth of a sweep, flushed once a visit.

Its lines are the records of Optuna's journal, so `optuna.storages.JournalStorage(Journal(path))` is the live storage of
a study, and Optuna's own `JournalFileBackend` (and with it optuna-dashboard) reads the file. Knows nothing of studies.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

if sys.platform != "win32":
    import fcntl

MAX_LINE = 10_000_000  # bytes, its end included
_WHOLE = b',"whole":true}'
_CRC_BYTES = len(b',"crc":"01234567"}\n')
_START = b'{"synced":0,"clock":'  # of every log, and of nothing else
_encode = json.JSONEncoder(separators=(",", ":")).encode
_BINARY = getattr(os, "O_BINARY", 0)  # Windows only


class LogError(OSError):
    """The log can't be written; all its earlier records are safe, and the pending ones are kept for another try."""


class Journal(BaseJournalBackend):
    """The log at `path`, with this process as its one writer.

    A line is `{"synced":…,"clock":…,` + a record of Optuna's + `,"crc":"…"}`, compact JSON in ASCII:

    * clock: the attribute of that name when the record was appended, the number of the scheduler's visit;
    * synced: how many bytes of the file were on the disk before the record's commit began. So damage below the highest
      number found cannot come from a commit that was cut off, and all other damage lies within the last commit;
    * whole: true in the last record of a commit;
    * crc: the CRC-32 of the line's bytes without `,"crc":"…"` and the newline, as 8 hex digits.

    A commit that returned survives whole; one that was cut off survives whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        """Open the log or create it, check every record, and cut off the rest of a commit that did not end.

        What is cut off is appended to `<name>.torn` first. The lock is on `<name>.owner`, which holds our process id;
        `<name>.lock` is the name of a link by which Optuna's own writers lock, and which they break after 30 s.

        Raises:
            ValueError: the file is no such log, is damaged before its last commit, is in use, or can't be opened; it is
                left as it is.
        """
        self.path = path.resolve()
        self.clock = 0
        self.repaired = 0  # bytes that were cut off
        self._guard = threading.Lock()
        self._end = 0  # bytes of the file that are whole records on the disk
        self._lines: list[bytes] = []  # of the last commit, and the pending ones
        self._first = self._settled = 0  # the number of the first of them; how many of them are committed
        self._file = self._owner = -1
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
            self._lock()
            self._first, self._end = self._check()
            if os.fstat(self._file).st_size > self._end:
                self._cut()
            os.fsync(self._file)  # a process that was killed may have left records that are in no commit
            with contextlib.suppress(OSError):  # some systems can't flush a directory
                directory = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise ValueError(f"the log {self.path} can't be opened: {error.strerror or error}") from error
            raise

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keep records for the next commit; this object reads them at once, the disk has none of them.

        Raises:
            ValueError: a record is longer than a line may be; none is kept.
        """
        with self._guard:
            own = {"synced": self._end, "clock": self.clock}
            lines = [_seal(_encode({**own, **record}).encode()) for record in logs]
            longest = max(map(len, lines), default=0) + len(_WHOLE)
            if longest > MAX_LINE:
                raise ValueError(f"a record of {longest:,} bytes is too long for the log: {MAX_LINE:,} are allowed")
            self._lines += lines

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the records from a number on, pending ones included, each as JSON gives it back.

        The file is read for those only that are older than the last commit.
        """
        with self._guard:
            first, lines = self._first, self._lines[max(0, log_number_from - self._first) :]
        recent = map(json.loads, lines)
        return recent if log_number_from >= first else itertools.chain(self._stored(log_number_from, first), recent)

    def commit(self) -> None:
        """Put all pending records on the disk: one write, one fsync; neither if there are none.

        Raises:
            LogError: the system refused. The file is cut back to the last commit and the records stay pending.
        """
        with self._guard:
            pending = self._lines[self._settled :]
            if not pending:
                return
            pending[-1] = _seal(pending[-1][:-_CRC_BYTES] + _WHOLE)
            try:
                if self._file < 0:
                    raise OSError(errno.EBADF, "it is closed")
                there = self.path.stat()  # of the path: it may have been deleted
                if not os.path.samestat(there, os.fstat(self._file)):
                    raise OSError(errno.EIO, "somebody else has replaced it")
                size = there.st_size
                if size < self._end:
                    raise OSError(errno.EIO, "somebody else has shortened it")
                if size > self._end:  # somebody else has written to it
                    self._cut()
                os.lseek(self._file, self._end, os.SEEK_SET)
                unwritten = memoryview(b"".join(pending))
                end = self._end + len(unwritten)
                while unwritten:
                    unwritten = unwritten[os.write(self._file, unwritten) :]
                os.fsync(self._file)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    if os.fstat(self._file).st_size > self._end:
                        os.ftruncate(self._file, self._end)
                if isinstance(error, OSError):
                    raise LogError(f"the log {self.path} can't be written: {error.strerror or error}") from error
                raise
            self._end, self._lines = end, pending
            self._first, self._settled = self._first + self._settled, len(pending)

    @property
    def end(self) -> int:
        """Bytes of the file that are whole commits on the disk: they never change."""
        return self._end

    def close(self, commit: bool = True) -> None:
        """Commit, unless told not to, and let others open the log, even if the commit fails."""
        try:
            if commit:
                self.commit()
        finally:
            self._release()

    def _lock(self) -> None:
        """Lock the log until this process ends or closes it."""
        self._owner = os.open(self._beside(".owner"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform != "win32":
                fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            known = os.read(self._owner, 20).strip()
            process = f"process {known.decode()}" if known.isdigit() else "another process"
            raise ValueError(f"the log {self.path} is in use by {process}") from None
        os.ftruncate(self._owner, 0)
        os.write(self._owner, b"%d\n" % os.getpid())

    def _check(self) -> tuple[int, int]:
        """Return how many records the whole commits hold with which the file begins, and their bytes."""
        count = end = highest = 0
        ours, blank, commits = False, True, _Commits()
        with self.path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b"")):
                record = _parse(line)
                text = line.rstrip(b"\0")  # a crash may leave NULs where data did not reach the disk
                blank = blank and not text
                begun = number == 0 and not blank and _START.startswith(text[: len(_START)])
                ours = ours or begun or record is not None
                if record is not None:
                    highest = max(highest, record["synced"])
                    if number == count and commits.take(record, len(line)):
                        count, end = commits.count, commits.end
        if not ours and not blank:
            raise ValueError(f"{self.path} is no log of jaxdqn; it was left as it is")
        if highest > end:
            raise ValueError(f"the log {self.path} is damaged at line {count + 1}; it was left as it is")
        return commits.whole

    def _cut(self) -> None:
        """Cut off what lies behind the last whole record, and keep it beside the log."""
        with self.path.open("rb") as file, self._beside(".torn").open("ab") as torn:
            file.seek(self._end)
            shutil.copyfileobj(file, torn)
            self.repaired += file.tell() - self._end
            torn.flush()
            os.fsync(torn.fileno())
        os.ftruncate(self._file, self._end)

    def _stored(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield the committed records from number `start` up to `stop`."""
        with self.path.open("rb") as file:
            for number in range(stop):
                line = file.readline(MAX_LINE)
                if number >= start:
                    record = _parse(line)
                    if record is None:
                        raise ValueError(f"the log {self.path} is damaged at line {number + 1}")
                    yield record

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _release(self) -> None:
        for descriptor in (self._file, self._owner):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._owner = -1


class _Commits:
    """Records in the order of a log, by the commits they came in."""

    def __init__(self) -> None:
        self.count = self.end = 0  # records taken; their bytes
        self.whole = (0, 0)  # of them, those of whole commits
        self._synced = 0

    def take(self, record: dict[str, Any], size: int) -> bool:
        """Take the next record if it goes on with its commit or begins one right here; else lines are missing."""
        if record["synced"] not in (self._synced, self.end):
            return False
        if record["synced"] == self.end:  # so the one before it returned
            self.whole = self.count, self.end
        self.count, self.end, self._synced = self.count + 1, self.end + size, record["synced"]
        if record.get("whole"):
            self.whole = self.count, self.end
        return True


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log's whole commits, without locking or changing it; what follows a gap is left out."""
    records, commits = [], _Commits()
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(MAX_LINE), b""):
            record = _parse(line)
            if record is None or not commits.take(record, len(line)):
                break
            records.append(record)
    return records[: commits.whole[0]]


def is_blank(path: Path) -> bool:
    """Return whether a log is not there, or ends before its first record does."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        line = file.readline(MAX_LINE)
        begun = _START.startswith(line.rstrip(b"\0")[: len(_START)])
        return begun and _parse(line) is None and not file.read(1)


def _seal(body: bytes) -> bytes:
    """Return the line of a record in JSON: with its checksum and the newline."""
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, None if the line is damaged."""
    if line != _seal(line[:-_CRC_BYTES] + b"}"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and all(isinstance(record.get(key), int) for key in ("op_code", "synced")):
        return record
    return None
