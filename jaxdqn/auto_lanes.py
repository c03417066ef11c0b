"""How many lanes pay, and in blocks of how many: a choice from figures, and what is remembered of it.

The lanes of a row train together, and two rows keep the devices busy while the host looks at one of them; so the size
of a block is all there is to choose. Doubling it pays for as long as it makes a few per cent more updates a second:
beyond that *knee* more lanes only make each of them slower. On a GPU kernels below the *launch-bound limit* take as
long as their launch, so the search for the knee starts there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdqn import compile_cache, cost, devices, files, fingerprint
from jaxdqn.config import Config, Layout
from jaxdqn.cost import Speed
from jaxdqn.hyperparams import Hyperparams, stack
from jaxdqn.memory import ROWS
from jaxdqn.redact import short

PAYS = 0.05  # more updates a second that twice as many lanes must make
LARGEST_BLOCK = 4_096
_FILE, _FORMAT, _MAX_BYTES, _MAX_ENTRIES = "lanes.json", 1, 65_536, 100


class Choice(NamedTuple):
    """The lanes of a block, and why: by how much `block → 2 block` lanes made more updates a second (1.2: a fifth)."""

    block: int
    gains: dict[int, float]
    most: int  # the largest block that was to be tried: what memory holds, or LARGEST_BLOCK


def launch_bound(agents: Sequence[Hyperparams], config: Config, speed: Speed) -> int:
    """Return the largest block, a power of two, in which launches take half of the computed time or more; at least 1.

    Args:
        agents: whose hyperparameters are typical of the space; a larger block holds them repeatedly.
        config: of the population.
        speed: of the devices.
    """
    block, launches = 1, speed._replace(weight_s=0.0, flops_per_s=np.inf)
    while block < LARGEST_BLOCK and 2 * _tick_s(agents, 2 * block, config, launches) >= (
        _tick_s(agents, 2 * block, config, speed)
    ):
        block *= 2
    return block


def gain(pairs: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second of two beats the first: the median over neighbours in time, which drift together.

    0 if there are no pairs: the second could not be measured.
    """
    return statistics.median(large / small for small, large in pairs) if pairs else 0.0


def knee(measure: Callable[[int], Sequence[tuple[float, float]]], start: int, most: int) -> Choice:
    """Return the block from which on twice as many lanes do not pay.

    Args:
        measure: of a block, pairs of updates a second: in blocks of so many lanes, and of twice as many.
        start: a power of two to begin at; from there the search goes up for as long as it pays, else down.
        most: no larger block is tried.
    """
    gains: dict[int, float] = {}

    def pays(block: int) -> bool:
        gains[block] = gain(measure(block))
        return gains[block] >= 1 + PAYS

    block = start = max(1, min(start, _power_below(most)))
    while 2 * block <= most and pays(block):
        block *= 2
    if block == start:
        while block > 1 and not pays(block // 2):
            block //= 2
    return Choice(block, dict(sorted(gains.items())), most)


def layout(block: int, num_devices: int, agents: int | None = None) -> Layout:
    """Lay rows of such blocks out, no more lanes than there will be `agents` to fill them (None: any number)."""
    num_devices = num_devices if agents is None else max(1, min(num_devices, agents))
    if agents is not None:
        block = max(1, min(block, -(-agents // (ROWS * num_devices))))
    return devices.layout_of(ROWS, num_devices, block, devices.platform())


def explain(choice: Choice, chosen: Layout, source: str) -> str:
    """Say in a line what was chosen and why."""
    reasons = [
        f"blocks of {2 * block} make {_percent(ratio)} than of {block}" if ratio else f"blocks of {2 * block} don't fit"
        for block, ratio in choice.gains.items()
    ]
    if choice.block * 2 > choice.most:
        limit = "memory holds" if choice.most < LARGEST_BLOCK else "the program is made for"
        reasons.append(f"{limit} no blocks above {choice.most}")
    if chosen.block < choice.block:
        reasons.append(f"there are agents for blocks of {chosen.block} only")
    what = f"{chosen.lanes} lanes in {chosen.rows} rows, blocks of {chosen.block}"
    return f"{what} ({source}): {'; '.join(reasons)}"


def key(identity: Mapping[str, Any], config: Config, num_devices: int) -> str:
    """Return under which name a choice is remembered: a digest of the space, the program's settings and the machine."""
    about = [dict(identity), dataclasses.asdict(config), fingerprint.of_machine(), num_devices]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def place() -> Path | None:
    """Return the file choices are remembered in, in a directory only this user can open.

    None: there is none, or compiled programs are not to be kept either.
    """
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return None
    try:
        return compile_cache.private_directory().parent / _FILE
    except (OSError, ValueError, RuntimeError):  # compiled programs are not kept then, which is said
        return None


def recall(path: Path | None, name: str) -> Choice | None:
    """Return what was remembered under a name; None: nothing.

    Raises:
        ValueError: the file is not as `remember` writes it.
    """
    if path is None or not path.exists():
        return None
    entries = _read(path)
    return None if name not in entries else _choice(entries[name], path)


def remember(path: Path | None, name: str, choice: Choice) -> None:
    """Keep a choice for the next time; the oldest go beyond a hundred, and a file that is damaged goes whole.

    Raises:
        OSError: it can't be written.
    """
    if path is None:
        return
    try:
        entries = _read(path) if path.exists() else {}
    except ValueError:
        entries = {}
    entries.pop(name, None)
    rounded = {str(block): round(ratio, 3) for block, ratio in choice.gains.items()}
    entries[name] = {"block": choice.block, "gains": rounded, "most": choice.most}
    kept = dict(list(entries.items())[-_MAX_ENTRIES:])
    files.write_whole(path, json.dumps({"format": _FORMAT, "choices": kept}, allow_nan=False).encode())


def _read(path: Path) -> dict[str, Any]:
    """Return the entries of a file, which are still to be checked one by one."""
    try:
        content = json.loads(files.read_at_most(path, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be used: {error}") from error
    entries = content.get("choices") if isinstance(content, dict) and content.get("format") == _FORMAT else None
    if not isinstance(entries, dict):
        raise ValueError(f"{path} can't be used: it holds no choices of lanes")
    return entries


def _choice(entry: Any, path: Path) -> Choice:
    """Return a remembered choice, checked."""

    def is_block(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_BLOCK

    def is_gain(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1_000

    gains = entry.get("gains") if isinstance(entry, dict) else None
    if not isinstance(gains, dict) or len(gains) > 16 or not all(re.fullmatch("[1-9][0-9]{0,3}", one) for one in gains):
        raise ValueError(f"{path} can't be used: {short(entry)} is no choice of lanes")
    known = {int(block): ratio for block, ratio in gains.items()}
    if not all(map(is_gain, known.values())) or not all(map(is_block, (entry.get("block"), entry.get("most"), *known))):
        raise ValueError(f"{path} can't be used: {short(entry)} is no choice of lanes")
    return Choice(entry["block"], dict(sorted(known.items())), entry["most"])


def _tick_s(agents: Sequence[Hyperparams], block: int, config: Config, speed: Speed) -> float:
    """Return the computed seconds of a tick of a block in mid-life, on average."""
    lanes = stack([agents[lane % len(agents)] for lane in range(block)])
    step, alive = np.full(block, config.env_steps // 2), np.ones(block, bool)
    return float(np.mean(cost.tick_costs(lanes, step, alive, config, speed)))


def _power_below(number: int) -> int:
    """Return the largest power of two that is not above a number."""
    return 1 << max(0, number.bit_length() - 1)


def _percent(ratio: float) -> str:
    percent = round(100 * (ratio - 1))
    return f"{percent} % more updates/s" if percent >= 0 else f"{-percent} % fewer updates/s"
