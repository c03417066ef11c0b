"""Modules of a package without all that its `__init__` imports beside them.

A package put into place here runs its `__init__` when something is asked of it that no module of its provides: whoever
imports it later gets all of it, and the same modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any


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
                self.__class__ = ModuleType
                spec = self.__spec__
                assert spec is not None
                assert spec.loader is not None
                spec.loader.exec_module(self)
            return getattr(self, name)


def lean_import(module: str) -> ModuleType:
    """Import a module; of the packages above it that were not imported so far, run no `__init__`."""
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
