"""Where a sweep keeps its agents: `agents/trial-N/PHASE-SEED.json`, and which trial's are the ones to take."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jaxdqn.checked_json import parse_object, take
from jaxdqn.files import read_at_most, write_whole

_WINNER = "winner.json"


def path_of(output: Path, trial: int, phase: str, seed_index: int) -> Path:
    """Return where the agent of a trial is saved in a sweep's directory."""
    return output / "agents" / f"trial-{trial}" / f"{phase}-{seed_index}.json"


def mark_winner(output: Path, trial: int) -> None:
    """Write down which trial's agents are the ones to take."""
    path = output / "agents" / _WINNER
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"trial": trial}).encode())


def find(output: Path, trial: int | None = None) -> list[Path]:
    """Return the saved agents of a trial (None: the winner), by phase and seed index.

    Raises:
        ValueError: there are none; says what there is.
    """
    try:
        return _find(output, trial)
    except OSError as error:
        raise ValueError(f"{str(output)!r} can't be read: {error.strerror or error}") from error


def _find(output: Path, trial: int | None) -> list[Path]:
    agents = output / "agents"
    if not output.is_dir():
        raise ValueError(f"{str(output)!r} is no directory: give the --output of a sweep")
    known = sorted(
        int(found[1])
        for path in (agents.iterdir() if agents.is_dir() else ())
        if (found := re.fullmatch(r"trial-([0-9]{1,18})", path.name)) and _agents_in(path)
    )
    if not known:
        raise ValueError(f"no saved agents in {str(output)!r}: is it the --output of a sweep that has come to its end?")
    there = f"trial{'s' if len(known) > 1 else ''} {', '.join(map(str, known[:20]))}{', …' if known[20:] else ''}"
    if trial is None and not (agents / _WINNER).exists():
        raise ValueError(f"no winner is marked in {str(output)!r}: give --trial; there are agents of {there}")
    chosen = _winner(agents / _WINNER) if trial is None else trial
    if chosen not in known:
        raise ValueError(f"trial {chosen} has no saved agent in {str(output)!r}: there are agents of {there}")
    return _agents_in(agents / f"trial-{chosen}")


def _agents_in(directory: Path) -> list[Path]:
    inside = directory.iterdir() if directory.is_dir() else ()
    found = [(re.fullmatch(r"([a-z]+(?:-[0-9]{1,10})?)-([0-9]{1,9})\.json", path.name), path) for path in inside]
    return [path for _, _, path in sorted((name[1], int(name[2]), path) for name, path in found if name)]


def _winner(path: Path) -> int:
    try:
        trial = take(parse_object(read_at_most(path, 1_000)), "trial", int)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} names no winner: {error}; give --trial") from error
    return int(trial)
