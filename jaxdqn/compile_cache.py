"""Programs that were compiled before, kept for the next process in a private directory of the user's.

They are code that JAX runs without looking at it, so nobody else may be able to write there. Their names come from
program, options, versions and the machine's features: another machine or another JAX finds nothing of these.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import jax

MAX_BYTES = 500_000_000  # the oldest go first; a program takes about a megabyte
_QUIET_VENDOR = "AuthenticAMD"  # JAX 0.7 to 0.10 reload without a word; Intel's print errors that are none


def use(platform: str) -> str | None:
    """Let JAX keep its programs; return why they are not kept, in a line, None if they are or need not be.

    Whoever sets JAX_COMPILATION_CACHE_DIR has another place for them, JAX_ENABLE_COMPILATION_CACHE=false goes without.
    """
    settings: Any = jax.config  # its types know only what can be set for a while
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return None
    if platform == "cpu" and not _reloads_quietly():
        return None
    try:
        path = private_directory()
        bound(path)
    except OSError as error:
        return f"compiled programs are not kept for the next time: {error.strerror or error} ({error.filename})"
    except (ValueError, RuntimeError) as error:  # the latter: there is no home
        return f"compiled programs are not kept for the next time: {error}"
    settings.update("jax_compilation_cache_dir", str(path))
    return None


def private_directory() -> Path:
    """Return the directory, made where it is missing.

    Raises:
        ValueError: somebody else may write there.
        OSError: it can't be made.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    path = given if given.is_absolute() else Path.home() / ".cache"
    path.mkdir(parents=True, exist_ok=True)
    for name in ("jaxdqn", "xla"):
        path = path / name
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError(f"{path} is not a directory that only this user can open (mode 0700)")
    return path


def bound(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Delete the oldest programs beyond so many bytes."""
    kept = 0
    for entry in sorted(os.scandir(path), key=lambda entry: entry.stat(follow_symlinks=False).st_mtime, reverse=True):
        kept += entry.stat(follow_symlinks=False).st_size
        if kept > max_bytes and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                os.unlink(entry)


def _reloads_quietly() -> bool:
    try:
        return _QUIET_VENDOR in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
