"""Whole sweeps: one compiled population; the same search in one lane; Stable-Baselines3 under stock Optuna.

Ours are whole commands, as a user types them, with storage, tracking and, where there is one, confirmation and verdict.
The others get a time budget instead of so many trials: trials an hour are those that ended, over the time from the
first one's start to the last one's end. A trial that the budget cut off does not count, and since long ones are cut
off more often, that favours whoever is slow. What they would have taken to the verdict is computed from their trials'
mean durations, and marked as such.

The same agents are not trained: proposals depend on what has ended before, and one lane learns of each trial before it
begins the next, which is better for its choice of hyperparameters.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optuna.distributions import distribution_to_json

from jaxdqn import history, space, space_config
from jaxdqn.hyperparams import defaults
from jaxdqn.peers import Peer, PeerError, Running, last_words, prepare
from jaxdqn.space import Space

POPULATION, LANE, STOCK = "one population", "one lane", "SB3 under Optuna"
SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"

Progress = Callable[[str], None]


class Ended(NamedTuple):
    """A trial that has ended; seconds since the command was typed."""

    began_s: float
    ended_s: float
    state: str  # complete or pruned
    value: float | None


class Search(NamedTuple):
    """What a search came to."""

    trials: list[Ended]  # in the order in which they ended
    start_s: float  # from typing the command to the first trial
    verdict_s: float | None = None  # to the verdict; None: it was not asked for one
    retrained: int = 0  # agents that confirmation and verdict trained

    @property
    def trials_per_hour(self) -> float:
        """Trials that ended, over the time from the first one's start to the last one's end."""
        if not self.trials:
            return 0.0
        began = min(trial.began_s for trial in self.trials)
        return 3_600 * len(self.trials) / max(self.trials[-1].ended_s - began, 1e-9)

    def first_s(self, target: float) -> float:
        """Return when the first trial reached a return; infinity: none did."""
        return min((t.ended_s for t in self.trials if t.value is not None and t.value >= target), default=math.inf)

    def to_verdict_s(self, trials: int, retrained: int) -> float:
        """Return the seconds to the verdict of a search of so many trials; computed, if it was not asked for one.

        Then every trial takes the mean of those that ended, and every agent trained anew that of the complete ones.
        """
        if self.verdict_s is not None:
            return self.verdict_s
        whole = [trial.ended_s - trial.began_s for trial in self.trials if trial.state == "complete"]
        if not whole:
            return math.inf
        return self.start_s + trials * 3_600 / self.trials_per_hour + retrained * statistics.mean(whole)


class Settings(NamedTuple):
    """What is searched, and how long."""

    space: str
    trials: int  # of the population
    budget_s: float  # of each of the others
    repeats: int
    target: float
    limit_s: float  # of any command


def compare(
    settings: Settings, directory: Path, environments: Path, sides: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Run each side, in turns, with study seeds from 0 on; return medians, their spread and all trials.

    Raises:
        PeerError: a side failed.
        ValueError: there is no such space.
    """
    searched = space.load(settings.space)
    if searched.env != "CartPole-v1" or searched.minimize:
        raise ValueError(f"space {settings.space!r} is not allowed: CartPole-v1 with one objective is compared")
    runs: dict[str, list[Search]] = {side: [] for side in sides}
    versions: dict[str, str] = {}
    for seed in range(settings.repeats):
        for side in sides:
            progress(f"sweep {seed + 1} of {settings.repeats}: {side}")
            if side == STOCK:
                found, versions = _stock(settings, searched, seed, directory, environments)
            else:
                found = _ours(settings, seed, alone=side == LANE)
            runs[side].append(found)
            progress(f"{side}: {len(found.trials)} trials, {found.trials_per_hour:,.0f} an hour")
    retrained = max((one.retrained for its in runs.values() for one in its), default=0)
    by = {side: _summary(its, settings, retrained) for side, its in runs.items()}
    if POPULATION in by:
        for side, its in runs.items():
            pairs = zip(runs[POPULATION], its, strict=True)
            ratios = [ours.trials_per_hour / max(one.trials_per_hour, 1e-9) for ours, one in pairs if one.trials]
            by[side]["times_as_many"] = round(statistics.median(ratios), 1) if ratios else None
    return {**settings._asdict(), "retrained": retrained, "peers": versions, "by": by}


def _summary(runs: Sequence[Search], settings: Settings, retrained: int) -> dict[str, Any]:
    figures = {
        "trials": [float(len(one.trials)) for one in runs],
        "trials_per_hour": [one.trials_per_hour for one in runs],
        "start_s": [one.start_s for one in runs],
        "first_s": [one.first_s(settings.target) for one in runs],
        "verdict_s": [one.to_verdict_s(settings.trials, retrained) for one in runs],
    }
    row: dict[str, Any] = {}
    for name, values in figures.items():
        row[name] = _finite(statistics.median(values))
        row[f"{name}_range"] = [_finite(min(values)), _finite(max(values))]
    row["verdict_is_computed"] = all(one.verdict_s is None for one in runs)
    row["runs"] = [[[round(t.ended_s, 2), t.state, t.value] for t in one.trials] for one in runs]
    return row


def _ours(settings: Settings, seed: int, alone: bool) -> Search:
    """Run our command: all lanes to the verdict, or one lane for the time budget."""
    budget = [
        "--lanes",
        "1",
        "--devices",
        "1",
        "--confirm-top",
        "0",
        "--no-report",
        "--time-budget",
        f"{settings.budget_s:g}",
    ]
    with tempfile.TemporaryDirectory() as directory:
        words = ["--space", settings.space, "--trials", str(settings.trials), "--seed", str(seed), "--json"]
        words += ["--output", directory, *(budget if alone else [])]
        typed = time.time()
        try:
            ended = subprocess.run(
                [sys.executable, str(SCRIPT), *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=settings.limit_s,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"scripts/sweep.py took more than {settings.limit_s:g} s") from None
        if ended.returncode:
            raise PeerError(f"scripts/sweep.py failed (exit status {ended.returncode}): {last_words(ended.stderr)}")
        summary = json.loads(ended.stdout)
        known = [trial for trial in history.read(Path(directory)).trials if trial.state in ("complete", "pruned")]
    trials = [
        Ended(
            t.started.timestamp() - typed,
            t.ended.timestamp() - typed,
            t.state,
            t.value if t.state == "complete" else None,
        )
        for t in known
        if t.started and t.ended
    ]
    trials.sort(key=lambda trial: trial.ended_s)
    judged = [*summary["confirm"], *([summary["verdict"]] if summary["verdict"] else [])]
    verdict_s = summary["start_s"] + summary["train_s"] if summary["verdict"] else None
    return Search(trials, summary["start_s"], verdict_s, sum(one["seeds"] for one in judged))


def _stock(
    settings: Settings, searched: Space, seed: int, directory: Path, environments: Path
) -> tuple[Search, dict[str, str]]:
    """Run Stable-Baselines3 under stock Optuna for the time budget."""
    peer = Peer(directory / "sb3_optuna.py", directory / "requirements-torch.txt")
    python, config = prepare(peer, environments), space_config.of(searched)
    domains = {name: json.loads(distribution_to_json(domain)) for name, domain in searched.searched.items()}
    request = {
        "searched": domains,
        "fixed": {**defaults()._asdict(), **searched.fixed},
        **{name: getattr(config, name) for name in _OF_CONFIG},
        "seeds": searched.seeds,
        "seed": seed,
        "trials": settings.trials,
        "budget_s": settings.budget_s,
        "threads": 1,
    }
    typed = time.monotonic()
    with Running(python, peer) as running:
        versions = running.ask({}, settings.limit_s)["versions"]
        start_s = time.monotonic() - typed
        answer = running.ask(request, settings.limit_s)
    trials = [Ended(t["began_s"] + start_s, t["ended_s"] + start_s, t["state"], t["value"]) for t in answer["trials"]]
    return Search(trials, start_s), versions


_OF_CONFIG = (
    "env_steps",
    "episodes",
    "eval_episodes",
    "rungs",
    "validation_episodes",
    "proof_episodes",
    "keep_best",
    "stop_when_perfect",
    "obs_mean",
    "obs_std",
)  # what a peer is told of it


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
