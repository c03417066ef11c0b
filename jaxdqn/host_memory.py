"""How much memory this process may still take: what the system has left, or less where a control group allows less."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes that are free or can be freed at once; None: the system does not say.

    Args:
        root: where `proc` and `sys` are.
    """
    left = [*_of_system(root), *_of_groups(root)]
    return max(0, min(left)) if left else None


def _of_system(root: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", (root / "proc/meminfo").read_text(), re.MULTILINE)
        if found:
            yield 1024 * int(found[1])
            return
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """Yield what each control group of the process that has a limit leaves, of version 2 or 1 of these groups."""
    names = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version not in names:
            continue
        top = root / "sys/fs/cgroup" / version
        group = top / path.lstrip("/")
        for directory in (group, *group.parents):  # in a container the group itself may not be there: its top is
            if not directory.is_relative_to(top):
                break
            with contextlib.suppress(OSError, ValueError):  # no such group; "max": no limit
                limit, used = (int((directory / name).read_text()) for name in names[version])
                yield limit - used + _reclaimable(directory)


def _reclaimable(group: Path) -> int:
    """Return the bytes of files that are kept in memory and have not been read lately, of the groups below it too."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
