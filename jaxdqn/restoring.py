"""From the backup of a sweep to its output directory, before the log is opened. Knows neither Optuna nor MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from jaxdqn import mirror
from jaxdqn.files import create, flush_directory, publish, read_at_most, write_whole
from jaxdqn.mirror import Piece
from jaxdqn.redact import hide_password, short

_MAX_FILE = 1 << 30  # bytes of an agent
_MAX_LINE = 10_000_000


def check(target: Path, output: Path) -> None:
    """Raise ValueError if a directory can't hold the backup of an output directory. Writes nothing.

    The directory above it has to be there: a drive that is not mounted would be made on the disk that gets lost.
    """
    try:
        _check(target, output)
    except OSError as error:
        raise ValueError(f"--backup-to {short(str(target))} can't be written: {error.strerror or error}") from error


def _check(target: Path, output: Path) -> None:
    there, ours = Path(os.path.realpath(target)), Path(os.path.realpath(output))
    if there == ours or there in ours.parents or ours in there.parents:
        raise ValueError(
            f"--backup-to {short(str(target))} is not allowed: it and {str(output)!r} are one inside the other"
        )
    if not os.path.lexists(there) and not there.parent.is_dir():
        raise ValueError(
            f"--backup-to {short(str(target))} can't be written: there is no {str(there.parent)!r} (mounted?)"
        )
    writable = there if os.path.lexists(there) else there.parent
    if not writable.is_dir() or not os.access(writable, os.W_OK | os.X_OK):
        raise ValueError(
            f"--backup-to {short(str(target))} can't be written: {str(writable)!r} is no writable directory"
        )
    if not (there / mirror.LOG).is_dir() and any(
        (there / name).exists() for name in ("study.log", mirror.DATABASE, mirror.REPORT, mirror.AGENTS)
    ):
        raise ValueError(f"--backup-to {short(str(target))} holds other files and no backup: choose an empty directory")


def restore(target: Path, log: Path, study_name: str) -> str | None:
    """Put a log that is not there, and the agents beside it, back from its backup; return what the user is told.

    The log comes last: cut off at any moment, this is done again. A log that is there has to begin as its backup does.

    Raises:
        ValueError: the backup is not this log's, or can't be read or written; the log is as it was.
    """
    known = f"the backup {hide_password(str(target))!r}"
    try:
        there = mirror.find(target)
        end = mirror.reach(there)
        if log.is_file() and log.stat().st_size:
            _compare([piece for piece in there if piece.start < end], end, log)
            return None
        if not end:
            return f"nothing to restore: {known} begins"
        agents = _put_back(target, there, log, study_name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{known}: {mirror.said(error)}") from error
    return f"restored {end:,} bytes of log and {agents} files of agents from {known}"


def _compare(there: Sequence[Piece], end: int, log: Path) -> None:
    """Refuse a log that does not begin as its backup does."""
    size, output = log.stat().st_size, str(log.parent)
    if not all(mirror.agrees(piece, log) for piece in there):
        raise ValueError(
            f"it holds another log than {output!r}, of another study or gone on elsewhere: "
            "choose another --backup-to, or an empty --output to go on with the backup"
        )
    if size < end:
        raise ValueError(
            f"it holds {end:,} bytes of log, {output!r} only {size:,}: "
            "choose an empty --output to go on with the backup, or another --backup-to"
        )


def _put_back(target: Path, there: Sequence[Piece], log: Path, study_name: str) -> int:
    """Write the agents of a backup and its log; return how many files of agents there are."""
    output, found = log.parent, _study_of(there[0].path)
    if found != study_name:
        raise ValueError(f"it holds study {found!r}: choose another --backup-to for {study_name!r}")
    output.mkdir(parents=True, exist_ok=True)
    staged = _assemble(there, log)
    try:
        agents = mirror.agents(target)
        for name in agents:
            content = read_at_most(target / name, _MAX_FILE)
            mirror.make_parents(output, name)
            write_whole(output / name, content)
        publish(staged, log)
    finally:
        staged.unlink(missing_ok=True)
    flush_directory(output)
    return len(agents)


def _assemble(pieces: Sequence[Piece], beside: Path) -> Path:
    """Put the pieces up to the first gap together, on the disk beside a path; return the file's name.

    Raises:
        ValueError: two of them hold different bytes of the same place.
    """
    staged, size = beside.with_name(f".{secrets.token_hex(8)}.tmp"), 0
    try:
        with create(staged) as file:
            for piece in pieces:
                if piece.start > size:
                    break
                file.flush()
                if not mirror.agrees(piece, staged):
                    raise ValueError(
                        f"two sweeps have written to {str(piece.path.parent)!r} ({piece.path.name} disagrees with the "
                        "others): move the files of one of them away"
                    )
                with piece.path.open("rb") as source:
                    source.seek(size - piece.start)
                    while content := source.read(mirror.BLOCK):
                        size += file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged


def _study_of(log: Path) -> str:
    """Return the name of the study that a log begins with.

    Raises:
        ValueError: it is no log.
    """
    with log.open("rb") as file, contextlib.suppress(ValueError, RecursionError):
        record = json.loads(file.readline(_MAX_LINE))
        if isinstance(record, dict) and isinstance(record.get("study_name"), str):
            return str(record["study_name"])
    raise ValueError("it is no log of jaxdqn")
