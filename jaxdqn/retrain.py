"""Hyperparameters trained anew on fresh seeds, without a search: one population, reported as a confirmation is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxdqn import compile_cache, confirm, cost, devices, space, space_config
from jaxdqn.confirm import Candidate, Confirmation
from jaxdqn.evaluate import Phase
from jaxdqn.events import Event
from jaxdqn.history import History, fresh_seeds, read
from jaxdqn.host_agent import Agent
from jaxdqn.lanes import Lanes
from jaxdqn.population import Population
from jaxdqn.space import Space
from jaxdqn.stages import save_agent


@dataclass(frozen=True)
class Task:
    """What is trained, and how often."""

    space: Space  # in which nothing varies
    number: int  # of the trial; 0 where there is none
    seeds: int
    seed: int  # of all random keys
    search_return: float | None = None
    save: Path | None = None  # where agents are saved


@dataclass
class _Memory:
    """Results that are kept nowhere else."""

    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)

    def at(self, visit: int) -> None:
        """Nothing is logged."""

    def record(self, phase: str, number: int, seed_index: int, result: dict[str, Any]) -> None:
        """Keep the result of one agent."""
        self.results[number, seed_index] = result

    def recorded(self, phase: str) -> dict[tuple[int, int], dict[str, Any]]:
        """Return all results."""
        return self.results

    def commit(self) -> None:
        """Nothing is logged."""


def from_file(name: str) -> Space:
    """Load a space in which nothing varies.

    Raises:
        ValueError: it can't be loaded, or something varies.
    """
    loaded = space.load(name)
    if loaded.searched:
        varied = ", ".join(loaded.searched)
        raise ValueError(f"{name!r} gives no single value for {varied}: scripts/sweep.py searches, this trains")
    return loaded


def from_sweep(output: Path, trial: int | None) -> tuple[Space, int, float | None]:
    """Return the space of a sweep at the values of one trial, by default the winner, its number and its score.

    Raises:
        ValueError: there is no such sweep or trial.
    """
    history = read(output)
    number = _winner(history) if trial is None else trial
    if not 0 <= number < len(history.trials):
        there = f"trials 0 to {len(history.trials) - 1}" if history.trials else "no trial"
        raise ValueError(f"trial {number} is not in {str(output)!r}: it has {there}")
    known = history.trials[number]
    if known.params.keys() != history.space.searched.keys():  # of another program, whose commits may be cut off
        raise ValueError(f"trial {number} in {str(output)!r} was never given all its values")
    values = history.space.hyperparams(known.params)._asdict()
    return replace(history.space, searched={}, fixed=values), number, known.value


def _winner(history: History) -> int:
    """Return the trial that fresh seeds have chosen, or else the best one of the search."""
    confirmed, _ = fresh_seeds(history)
    best = confirmed or confirm.candidates(history.trials, history.space, 1)
    if not best:
        raise ValueError(f"no trial of study {history.study_name!r} has finished")
    return best[0].number


def retrain(
    task: Task, show: Callable[[str | Event], None], stop: threading.Event | None = None, cache: bool = True
) -> tuple[Confirmation | None, float]:
    """Train a task's agents; return what they say (None if it was stopped) and the seconds it took to compile.

    Compiled programs are kept for the next start, unless `cache` says not to.
    """
    stop = stop or threading.Event()
    config = space_config.of(task.space)
    lanes = min(task.seeds, devices.choose_layout().lanes)
    layout = devices.choose_layout(lanes, largest_block=cost.largest_block(config, False, devices.platform()))
    if ignored := devices.ignored_gpu():
        show(f"warning: {ignored}")
    show(f"compiling one program for {layout.lanes} lanes on {layout.devices} {devices.platform()} devices")
    if unused := compile_cache.use(devices.platform(), cache):
        show(unused)
    population = Population(config, layout, task.seed)
    compile_s = compile_cache.compiling(population.compile, show)
    candidate = Candidate(task.number, task.space.hyperparams({}), task.search_return)
    records = _Memory()

    def keep(agent: Agent) -> None:
        if task.save is not None:
            save_agent(task.save, agent, f"retrain-{task.seed}", config, task.seed, task.space.solved)

    filled = Lanes(population, space_config.common_period(task.space))
    for event in confirm.train_anew(filled, records, [candidate], Phase.RETRAIN, task.seeds, stop.is_set, keep):
        show(event)
    return confirm.confirmation(records, candidate, Phase.RETRAIN, task.seeds, task.space), compile_s
