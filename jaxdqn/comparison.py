"""Samplers side by side: as many trials of each, over the same space, for several study seeds.

All studies of a space train in one population, compiled once. Results are a table, a row a trial, that holds whole
studies only. Prints and draws nothing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from jaxdqn import cost, devices, grid, space_config
from jaxdqn.compiling import Compiling
from jaxdqn.config import Config, Layout
from jaxdqn.files import read_at_most, write_whole
from jaxdqn.lanes import Lanes
from jaxdqn.population import Population
from jaxdqn.space import Space
from jaxdqn.study import open_study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits

LANES = 8  # few: each proposal then rests on more results
TRIALS = 32  # of a study where the space has no small grid
_COLUMNS = ("space", "sampler", "study", "trial", "value", "best", "env_steps")
_MAX_BYTES = 100_000_000


class Row(NamedTuple):
    """A trial."""

    space: str
    sampler: str
    study: int  # its seed
    trial: int  # its number
    value: float  # its mean return; nan: it failed
    env_steps: int  # that it took


class Setup(NamedTuple):
    """What studies of a space must share to be compared."""

    trials: int
    lanes: int
    definition: str  # a digest of the space


@dataclass
class Comparison:
    """Whole studies."""

    setups: dict[str, Setup] = field(default_factory=dict)  # by space
    rows: list[Row] = field(default_factory=list)

    def studies(self) -> dict[tuple[str, str], list[int]]:
        """Return the study seeds by space and sampler, all in the order in which they first came."""
        found: dict[tuple[str, str], list[int]] = {}
        for row in self.rows:
            seeds = found.setdefault((row.space, row.sampler), [])
            if row.trial == 0:
                seeds.append(row.study)
        return found

    def values(self, space: str, sampler: str) -> Float[np.ndarray, "studies trials"]:
        """Return the values of all trials."""
        found = [row.value for row in self.rows if (row.space, row.sampler) == (space, sampler)]
        return np.array(found, np.float64).reshape(-1, self.setups[space].trials)

    def env_steps(self, space: str, sampler: str) -> Int[np.ndarray, "studies trials"]:
        """Return the environment steps of all trials."""
        found = [row.env_steps for row in self.rows if (row.space, row.sampler) == (space, sampler)]
        return np.array(found, np.int64).reshape(-1, self.setups[space].trials)


class Seeded(Compiling, Protocol):
    """A population whose random keys go by a seed that may change between two studies."""

    seed: np.uint32


def samplers_for(searched: Space) -> list[str]:
    """Return the samplers that are compared where none are named: the grid only where there is one."""
    return [*(["grid"] if _cells(searched) else []), "random", "tpe"]


def setup(searched: Space, samplers: Sequence[str], trials: int | None, lanes: int = LANES) -> Setup:
    """Return the setup of a comparison; where `trials` is None a grid's cells or `TRIALS`.

    Raises:
        ValueError: a grid is asked for where there is none, or where it has fewer cells than there are trials; or there
            are two objectives, so that no trial is the best one.
    """
    if searched.minimize:
        raise ValueError(f"space {searched.name!r} minimises {searched.minimize} too: only one objective is compared")
    cells = _cells(searched)
    if "grid" in samplers:
        if not cells:
            grid.cells(searched.searched)  # names what is continuous
            raise ValueError(f"space {searched.name!r} has no grid of at most {grid.MAX_CELLS:,} cells")
        if trials is not None and trials > cells:
            raise ValueError(f"--trials {trials} is not allowed: the grid of space {searched.name!r} has {cells} cells")
    digest = hashlib.sha256(json.dumps(searched.identity(), sort_keys=True).encode()).hexdigest()[:12]
    return Setup(trials or cells or TRIALS, lanes, digest)


def _cells(searched: Space) -> int:
    """Return the cells of a grid over a space, 0 where there are none or too many."""
    try:
        cells = grid.cells(searched.searched)
    except ValueError:
        return 0
    return cells if cells <= grid.MAX_CELLS else 0


def run(
    searched: Space,
    how: Setup,
    wanted: Sequence[tuple[str, int]],
    stopped: Callable[[], bool] = lambda: False,
    make_population: Callable[[Config, Layout, int], Seeded] = Population,
) -> Iterator[list[Row]]:
    """Run one study after the other; yield the trials of each that ran to its end.

    Args:
        searched: the space.
        how: trials and lanes.
        wanted: sampler and study seed of each.
        stopped: ends it; the study that is cut off is not yielded, since half of it can't be compared.
        make_population: what trains.
    """
    config, platform = space_config.of(searched), devices.platform()
    largest_block = cost.largest_block(config, space_config.is_mixed(searched), platform)
    population = make_population(config, devices.choose_layout(how.lanes, largest_block=largest_block), 0)
    population.compile()
    for sampler, seed in wanted:
        population.seed = np.uint32(seed)
        lanes = Lanes(population, space_config.common_period(searched))
        with tempfile.TemporaryDirectory() as directory:
            study = open_study(Path(directory) / "study.log", "comparison", searched, {}, sampler, seed)
            for _ in sweep(lanes, study, searched, Limits(how.trials), searched.seeds, stopped):
                pass
            for row in range(population.layout.rows):
                lanes.read(row)  # nobody lives in what is still under way
            trials = [trial for trial in study.trials() if trial.state != "running"]
            study.close()
        if len(trials) < how.trials:
            return
        known = [(np.nan if t.value is None else t.value, int(sum(t.attributes["env_steps"]))) for t in trials]
        yield [Row(searched.name, sampler, seed, i, value, steps) for i, (value, steps) in enumerate(known)]


def write(path: Path, comparison: Comparison) -> None:
    """Write a comparison as a table: a line of JSON with the setups, the names of the columns, a line a trial."""
    head = "# " + json.dumps({name: how._asdict() for name, how in comparison.setups.items()})
    lines = [head, "\t".join(_COLUMNS)]
    best = np.nan
    for row in comparison.rows:
        best = row.value if row.trial == 0 else np.fmax(best, row.value)
        lines.append("\t".join([*map(str, row[:4]), f"{row.value:.6g}", f"{best:.6g}", str(row.env_steps)]))
    write_whole(path, ("\n".join(lines) + "\n").encode())


def read(path: Path) -> Comparison:
    """Read what `write` wrote.

    Raises:
        ValueError: it can't be read, or is no such table.
    """
    content = read_at_most(path, _MAX_BYTES)
    try:
        head, columns, *lines = content.decode().splitlines()
        setups = {name: Setup(**known) for name, known in json.loads(head.removeprefix("# ")).items()}
        if tuple(columns.split("\t")) != _COLUMNS:
            raise ValueError("the columns are others")
        cells = [line.split("\t") for line in lines]
        rows = [Row(s, who, int(seed), int(n), float(value), int(steps)) for s, who, seed, n, value, _, steps in cells]
        np.array([row.env_steps for row in rows], np.int64)
        found = Comparison(setups, rows)
        if sum(setups[space].trials for space, _, _ in {row[:3] for row in rows}) != len(rows):
            raise ValueError("a study is not whole")
        expected = [
            (space, sampler, seed, trial)
            for (space, sampler, seed) in dict.fromkeys(row[:3] for row in rows)
            for trial in range(setups[space].trials)
        ]
        if [row[:4] for row in rows] != expected:
            raise ValueError("a study is not whole")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is no table of a comparison: {error}") from error
    return found
