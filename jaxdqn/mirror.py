"""What lies in the backup of a sweep: the log in pieces, `log/<from>-<to>`, and agents as in the output directory.

A piece begins and ends between two commits, is written once and never replaced: mounted drives keep what is replaced in
their trash. Nothing that is found is trusted, neither names nor links nor sizes; log and agents check themselves.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdqn.redact import hide_password

LOG, AGENTS, WINNER = Path("log"), Path("agents"), Path("agents/winner.json")
REPORT, DATABASE = Path("report.html"), Path("study.db")
BLOCK = 1 << 20  # bytes read at a time
AGENT = re.compile(r"([a-z]+)(?:-[0-9]{1,10})?-[0-9]{1,9}\.(?:json|safetensors)")  # its phase
_PIECE = re.compile(r"([0-9]{12,15})-([0-9]{12,15})")
_TRIAL = re.compile(r"trial-[0-9]{1,18}")


class Piece(NamedTuple):
    """Bytes of the log."""

    path: Path
    start: int  # in bytes of the log
    end: int


def name_of(start: int, end: int) -> str:
    """Return the name of a piece of the log."""
    return f"{start:012d}-{end:012d}"


def find(directory: Path) -> list[Piece]:
    """Return the whole pieces below a directory, by where they begin; one that was cut off is not there yet."""
    found = []
    if not (directory / LOG).is_symlink():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory / LOG) as entries:
            for entry in entries:
                name = _PIECE.fullmatch(entry.name)
                if name and entry.is_file(follow_symlinks=False):
                    start, end = int(name[1]), int(name[2])
                    if 0 < end - start == entry.stat(follow_symlinks=False).st_size:
                        found.append(Piece(Path(entry.path), start, end))
    return sorted(found, key=lambda piece: (piece.start, piece.end))


def reach(pieces: Sequence[Piece]) -> int:
    """Return how many bytes of the log are there without a gap."""
    end = 0
    for piece in pieces:
        if piece.start > end:
            break
        end = max(end, piece.end)
    return end


def agrees(piece: Piece, log: Path) -> bool:
    """Return whether a piece holds what the log holds there, as far as the log goes."""
    with piece.path.open("rb") as there, log.open("rb") as here:
        here.seek(piece.start)
        while content := there.read(BLOCK):
            known = here.read(len(content))
            if content[: len(known)] != known:
                return False
            if len(known) < len(content):
                break
    return True


def set_aside(piece: Piece) -> None:
    """Give a piece a name under which it is no piece."""
    piece.path.rename(piece.path.with_name(f"{piece.path.name}.{secrets.token_hex(4)}.unused"))


def agents(directory: Path) -> list[Path]:
    """Return the names of the files of agents below a directory: weights first, the winner's mark last."""
    found = [WINNER] if _is_file(directory / WINNER) else []
    for trial in _directories(directory / AGENTS):
        if _TRIAL.fullmatch(trial.name):
            names = (path.name for path in trial.iterdir() if AGENT.fullmatch(path.name) and _is_file(path))
            found += [AGENTS / trial.name / name for name in names]
    return sorted(found, key=lambda name: (name == WINNER, name.suffix == ".json", name))


def make_parents(directory: Path, name: Path) -> None:
    """Make the directories of a file below one that is there; none of them may be a link to somewhere else."""
    for parent in reversed(name.parents[:-1]):
        if (directory / parent).is_symlink():
            raise ValueError(f"{str(directory / parent)!r} is a link")
        (directory / parent).mkdir(exist_ok=True)


def said(error: Exception) -> str:
    """Return the first line of an error without passwords."""
    reason = error.strerror if isinstance(error, OSError) else None
    lines = str(reason or error).strip().splitlines() or [type(error).__name__]
    return hide_password(lines[0])


def _directories(above: Path) -> list[Path]:
    if above.is_symlink() or not above.is_dir():
        return []
    return [path for path in above.iterdir() if path.is_dir() and not path.is_symlink()]


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
