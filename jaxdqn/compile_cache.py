"""Programs that were compiled before, kept for the next process in a private directory of the user's.

They are code that JAX runs without looking at it, so nobody else may be able to write there. Their names come from
program, options, versions and the machine's features: another machine or another JAX finds nothing of these.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax

MAX_BYTES = 500_000_000  # the oldest go first; a program takes about a megabyte
FREE_BYTES = 20_000_000  # that must be left on the disk
_NOISY = (0, 8, 2), (0, 10, 2)  # from, up to: with AVX-512 they print errors that are none (openxla/xla#44565)
_OURS = "jaxdqn", "xla"  # the directories below the user's cache
_NOT_KEPT = "compiled programs are not kept for the next time"


def use(platform: str, wanted: bool = True) -> str | None:
    """Let JAX keep its programs, if that is wanted; return why they are not kept, in a line, else None.

    Whoever sets JAX_COMPILATION_CACHE_DIR has another place for them, JAX_ENABLE_COMPILATION_CACHE=false goes without.
    """
    settings: Any = jax.config  # its types know only what can be set for a while
    if not wanted:
        settings.update("jax_enable_compilation_cache", False)
    if not settings.jax_enable_compilation_cache:
        return None
    try:
        if given := settings.jax_compilation_cache_dir:
            return _unusable(Path(given)) if "://" not in given else None
        if platform == "cpu" and _reloads_with_noise(jax.__version_info__):
            return f"{_NOT_KEPT}: JAX {jax.__version__} prints false alarms when it reloads them on this CPU"
        path = private_directory()
        unusable = _unusable(path)
        bound(path)
    except OSError as error:
        return f"{_NOT_KEPT}: {error.strerror or error} ({error.filename})"
    except (ValueError, RuntimeError) as error:  # the latter: there is no home
        return f"{_NOT_KEPT}: {error}"
    if unusable is None:
        settings.update("jax_compilation_cache_dir", str(path))
    return unusable


def compiling(make_ready: Callable[[], float], show: Callable[[str], None]) -> float:
    """Call what compiles; if what is kept can't be read or written, say so in a line, forget it and compile without.

    JAX writes its files in place: one that was cut off, or is being written by another process, is not whole.
    """
    place, settings = directory(), cast(Any, jax.config)
    if place is None:
        return make_ready()
    settings.update("jax_raise_persistent_cache_errors", True)
    try:
        return make_ready()
    except MemoryError:
        raise
    except Exception as error:  # of whatever decompresses or loads it
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    finally:
        settings.update("jax_raise_persistent_cache_errors", False)
    show(f"compiled without the programs in {place}, which can't be used: {reason}")
    settings.update("jax_enable_compilation_cache", False)
    if place.name == _OURS[-1] and place.parent.name == _OURS[-2]:
        bound(place, 0)
    return make_ready()


@contextlib.contextmanager
def of_this_process() -> Iterator[None]:
    """Keep programs for as long as this lasts: each is compiled once, whatever earlier processes have left behind."""
    settings: Any = jax.config
    before = settings.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as place:
        settings.update("jax_compilation_cache_dir", place)
        try:
            yield
        finally:
            settings.update("jax_compilation_cache_dir", before)


def directory() -> Path | None:
    """Return where programs are kept, None if they are not, or not on a disk."""
    given = jax.config.jax_compilation_cache_dir if jax.config.jax_enable_compilation_cache else None  # type: ignore[attr-defined]
    return Path(given) if given and "://" not in given else None


def private_directory() -> Path:
    """Return the directory, made where it is missing.

    Raises:
        ValueError: somebody else may write there.
        OSError: it can't be made.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    path = given if given.is_absolute() else Path.home() / ".cache"
    path.mkdir(parents=True, exist_ok=True)
    for name in _OURS:
        path = path / name
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError(f"{path} is not a directory that only this user can open (mode 0700)")
    return path


def bound(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Delete the oldest programs beyond so many bytes."""
    found = []
    for entry in os.scandir(path):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            about = entry.stat(follow_symlinks=False)
            found.append((about.st_mtime, about.st_size, entry))
    kept = 0
    for _, size, entry in sorted(found, key=lambda one: one[0], reverse=True):
        kept += size
        if kept > max_bytes and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry)


def _unusable(path: Path) -> str | None:
    """Say in a line why nothing can be written to a directory, None if it can."""
    there = path
    while not there.exists():  # JAX makes what is missing
        there = there.parent
    if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        return f"{_NOT_KEPT}: {there} is no directory that can be written to"
    if shutil.disk_usage(there).free < FREE_BYTES:
        return f"{_NOT_KEPT}: the disk of {path} is full"
    return None


def _reloads_with_noise(version: tuple[int, ...]) -> bool:
    """Whether XLA prints an error for each program it reloads, though this very machine has compiled it.

    It compares what the compiler was told, tuning for AVX-512 included, with what the processor can do.
    """
    try:
        return _NOISY[0] <= version < _NOISY[1] and " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
