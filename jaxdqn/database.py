"""The SQLite files that follow the log: waited for while they are locked, moved aside where they are damaged.

What they hold is in the log too, so a damaged one is written anew from it. Knows SQLite alone, no tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

import sqlalchemy

from jaxdqn.files import flush_directory

QUIET_S, LIMIT_S = 2.0, 60.0  # of waiting for a lock: before the user is told; before a start is refused
_COMPANIONS = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class LockedError(RuntimeError):
    """Another process holds a database."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"waiting for {path}: it is locked by another process")


def path_of(url: str) -> Path | None:
    """Return the file behind an SQLite URL; None if there is none, or it is not there."""
    try:
        parsed = sqlalchemy.make_url(url)
    except (ValueError, sqlalchemy.exc.ArgumentError):  # whoever opens it says what is wrong
        return None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    path = Path(parsed.database)
    return path if path.is_file() else None


def make_ready(
    url: str, log: Path | None, show: Callable[[str], None], quiet_s: float = QUIET_S, limit_s: float = LIMIT_S
) -> None:
    """Wait for a database that is locked; move one that is damaged aside.

    Args:
        url: of a database; only an SQLite file is looked at.
        log: it is written anew from; None: it is the user's own, or there is no log, so it stays where it is.
        show: what the user is told.
        quiet_s: of waiting before the user is told.
        limit_s: of waiting altogether.

    Raises:
        ValueError: it stays locked, or is damaged and can't be written anew.
    """
    path = path_of(url)
    if path is None:
        return
    try:
        try:
            damage = examine(path, quiet_s)
        except LockedError as waiting:
            show(str(waiting))
            damage = examine(path, limit_s - quiet_s)
    except LockedError:
        raise ValueError(f"{path} is locked by another process; it was waited for {limit_s:g} s") from None
    if damage is not None and log is None:
        raise ValueError(f"{path} can't be opened, it is damaged: {damage}; it was left as it is")
    if damage is not None:
        show(f"{path} is damaged ({damage}): it was moved to {set_aside(path).name}, and is written anew from {log}")


def examine(path: Path, timeout_s: float) -> str | None:
    """Return what is wrong with a database, None if nothing is or it can't be looked at.

    Raises:
        LockedError: another process has held it for `timeout_s`.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout_s, uri=True, isolation_level=None)
    except sqlite3.Error:  # whoever opens it says what is wrong
        return None
    try:
        connection.execute("BEGIN IMMEDIATE")
        said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _LOCKED:
            raise LockedError(path) from None
        return str(error) if code in _DAMAGED else None
    finally:
        connection.close()
    return None if said == "ok" else said.splitlines()[-1]


def await_lock(path: Path, timeout_s: float) -> None:
    """Return as soon as nobody else writes to a database.

    Raises:
        LockedError: another process has held it for `timeout_s`.
    """
    connection = sqlite3.connect(path, timeout_s, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED:
            raise LockedError(path) from None
    finally:
        connection.close()


def set_aside(path: Path) -> Path:
    """Rename a database, and what SQLite keeps beside it, to `NAME.damaged`, or the first such name that is free."""
    names = chain([".damaged"], (f".damaged-{number}" for number in count(2)))
    kept = next(path.with_name(path.name + name) for name in names if not _taken(path.with_name(path.name + name)))
    for companion in (*_COMPANIONS, ""):  # the database last: a new one must not find another's write-ahead log
        part = path.with_name(path.name + companion)
        if part.exists():
            os.rename(part, kept.with_name(kept.name + companion))
    flush_directory(path.parent)
    return kept


def _taken(path: Path) -> bool:
    return any(os.path.lexists(path.with_name(path.name + companion)) for companion in ("", *_COMPANIONS))
