"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import BinaryIO

_UMASK = os.umask(0o077)  # which can't be read without being set: once, before there are threads
os.umask(_UMASK)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old one or the new one and never a part."""
    written = stage(path, content)
    try:
        publish(written, path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def stage(path: Path, content: bytes) -> Path:
    """Put the content of a file on the disk beside it, under a name that nothing else has; return that name.

    Until it is published nobody else may read it.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        put(beside, content)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def create(path: Path) -> BinaryIO:
    """Open a new file that nobody else may read."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def put(path: Path, content: bytes) -> None:
    """Put a new file on the disk that nobody else may read."""
    with create(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sweep_away(directory: Path, older_than_s: float = 60.0) -> None:
    """Remove what writers that were killed have left unfinished below a directory."""
    for path in directory.rglob(".*.tmp"):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            left = re.fullmatch(r"\.[0-9a-f]{16}\.tmp", path.name) and path.is_file() and not path.is_symlink()
            if left and time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()


def publish(staged: Path, path: Path) -> None:
    """Give a staged file its name, and the mode that the user's files have."""
    staged.chmod(0o666 & ~_UMASK)
    os.replace(staged, path)


def read_at_most(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        ValueError: it is larger, is no file or can't be read.
    """
    try:
        if not path.is_file():
            raise ValueError(f"{path.name!r} is no file" if path.exists() else f"there is no file {path.name!r}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"{path.name!r} can't be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise ValueError(f"{path.name!r} has {path.stat().st_size:,} bytes: at most {limit:,} are allowed")
    return content


def flush_directory(directory: Path) -> None:
    """Put the names in a directory on the disk."""
    with contextlib.suppress(OSError):  # some systems can't flush a directory
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
