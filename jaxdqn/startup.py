"""What makes a start quick, and says how long it took. Knows no library."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def process_started() -> float:
    """Return when this process began, by `time.monotonic`: before Python itself had started. To be asked soon."""
    now = time.monotonic()
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # since boot
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):  # no Linux
        return now
    return now - age if 0 <= age < 60 else now  # else clocks and process are of different worlds


@contextlib.contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """Let Python's collector rest: what imports and tracing make stays, and a quarter of them is looking through it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


_LOCK = threading.RLock()  # held while an `__init__` runs


class _Package(ModuleType):
    """A package whose `__init__` has not run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # importlib and inspect ask for such names; no `__init__` here provides one
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{self.__name__}.{name}"):
            return importlib.import_module(f"{self.__name__}.{name}")
        with _LOCK:
            if type(self) is _Package:
                self.__class__ = ModuleType  # type: ignore[assignment]
                spec = self.__spec__
                assert spec is not None
                assert spec.loader is not None
                spec.loader.exec_module(self)
            return getattr(self, name)


def lean_import(module: str) -> ModuleType:
    """Import a module; of the packages above it that were not imported so far, run no `__init__`.

    Such a package runs it when something is asked of it that no module of its provides: whoever imports it later gets
    all of it, and the same modules.
    """
    parts = module.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            package = importlib.util.module_from_spec(spec)
            package.__class__ = _Package
            sys.modules[name] = package
            if depth > 1:
                setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], package)
    return importlib.import_module(module)
