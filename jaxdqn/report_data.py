"""What a report shows, and what is worked out of it before anything is drawn.

Thinning, a clock without the pauses between runs, what held the lanes. Knows neither pages nor pictures.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

from jaxdqn.follower import Trial
from jaxdqn.space import Space

BEST_DRAWN, OTHERS_DRAWN = 100, 200  # trials whose curves are drawn: the best, and an even sample of the others
POINTS_DRAWN = 100  # of a curve
SCORES_DRAWN = 2_000  # dots of the progress
BARS_DRAWN = 5_000  # of the timeline
CONFIRMED_DRAWN = 40  # candidates of the confirmation
PAUSE_S = 60.0  # nothing trained for longer: a pause between two runs
KINDS = ("ended", "pruned", "diverged", "confirm", "verdict")  # what a bar of the timeline may be

T = TypeVar("T")


@dataclass(frozen=True)
class ReportData:
    """All that a report is made of. Whatever is not known may be absent or None."""

    study_name: str
    space: Space
    command: str  # the one that makes the study again, or several, a line each
    seed: int
    solved_return: float | None  # the mean return from which on a seed counts as solved
    trials: list[Trial]
    confirm: list[dict[str, Any]] = field(default_factory=list)  # candidates on fresh seeds, the winner first
    verdict: dict[str, Any] | None = None  # the winner on seeds that are fresh again
    animation: Path | None = None  # a GIF
    pareto: list[tuple[int, float, float]] | None = None  # trial, mean return, parameters of its network


class Held(NamedTuple):
    """An agent in its lane."""

    trial: int
    seed_index: int
    lane: int
    began: float  # Unix seconds
    ended: float
    kind: str  # one of KINDS


class Clock:
    """Seconds since the first start, the pauses between runs cut out."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        """Join the spans of all agents to stretches without a pause."""
        stretches: list[list[float]] = []
        for began, ended in sorted(spans):
            if stretches and began - stretches[-1][1] <= PAUSE_S:
                stretches[-1][1] = max(stretches[-1][1], ended)
            else:
                stretches.append([began, ended])
        lengths = [ended - began for began, ended in stretches]
        self._starts = [began for began, _ in stretches]
        self._lengths, self._before = lengths, [0.0, *accumulate(lengths)]
        self.seams = self._before[1:-1]  # where a pause was cut out
        self.length = self._before[-1]

    def at(self, unix_s: float) -> float:
        """Return the seconds since the first start; the end of the run for a time in the pause after it."""
        i = max(bisect_right(self._starts, unix_s) - 1, 0)
        if not self._starts:
            return 0.0
        return self._before[i] + min(max(unix_s - self._starts[i], 0.0), self._lengths[i])


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def even_sample(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items at even distances, the first and the last among them; all where there are no more."""
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[:count])
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the complete trials, the best first, the earliest of equals first."""
    complete = [trial for trial in trials if trial.state == "complete" and is_number(trial.value)]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


def best_and_sample(trials: Sequence[Trial], best: int, others: int) -> list[Trial]:
    """Return the best trials and after them an even sample of the others, all as they rank: scored ones first."""
    scored = ranked(trials)
    known = {trial.number for trial in scored}
    rest = [trial for trial in sorted(trials, key=lambda trial: trial.number) if trial.number not in known]
    return scored[:best] + even_sample(scored[best:] + rest, others)


def curve(trial: Trial, most: int = POINTS_DRAWN) -> tuple[list[int], list[float | None]]:
    """Return the validations of a trial, at most so many: environment steps and mean returns, None: not finite."""
    steps = even_sample(sorted(trial.intermediate), most)
    values = [trial.intermediate[step] for step in steps]
    return steps, [float(value) if is_number(value) else None for value in values]


def wall_time(trial: Trial, clock: Clock) -> float | None:
    """Return when a trial ended, in seconds since the first start."""
    return None if trial.ended is None else clock.at(trial.ended.timestamp())


def best_so_far(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the corners of the best value so far of points (time, value), and its last point."""
    times: list[float] = []
    values: list[float] = []
    for time, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not values or value > values[-1]:
            times.append(time)
            values.append(value)
    if times:
        times.append(max(time for time, _ in points))
        values.append(values[-1])
    return times, values


def held_lanes(data: ReportData) -> list[Held]:
    """Return what held the lanes, in the order of its beginning."""
    found = [bar for trial in data.trials for bar in _bars(trial.number, trial.attributes.get("lanes"), None)]
    for kind, entries in (("confirm", data.confirm), ("verdict", [data.verdict] if data.verdict else [])):
        for entry in entries:
            found += _bars(entry.get("number", -1), entry.get("lanes"), kind)
    return sorted(found, key=lambda bar: (bar.began, bar.lane, bar.trial, bar.seed_index))


def make_clock(data: ReportData) -> Clock:
    """Return the clock of a sweep; a trial without lanes counts from its start to its end."""
    spans = [(bar.began, bar.ended) for bar in held_lanes(data)]
    in_lanes = {bar.trial for trial in data.trials for bar in _bars(trial.number, trial.attributes.get("lanes"), None)}
    for trial in data.trials:
        if trial.number not in in_lanes and trial.started is not None and trial.ended is not None:
            began = trial.started.timestamp()
            spans.append((began, max(began, trial.ended.timestamp())))
    return Clock(spans)


def thin_lanes(bars: Sequence[Held], most: int = BARS_DRAWN) -> tuple[list[Held], int, int]:
    """Return the bars of evenly chosen lanes, at most `most`; the number of lanes, and how many of them are kept.

    A lane is kept whole, so that an idle stretch in the picture was one; of a single lane too long the latest bars.
    """
    lanes = sorted({bar.lane for bar in bars})
    kept, count = list(bars), len(lanes)
    while len(kept) > most and count > 1:
        count = min(count - 1, max(1, count * most // len(kept)))
        chosen = set(even_sample(lanes, count))
        kept = [bar for bar in bars if bar.lane in chosen]
    return kept[-most:], len(lanes), count


def busy_share(bars: Sequence[Held], clock: Clock) -> float | None:
    """Return which share of the lanes' time an agent held; of the lanes that ever held one."""
    available = len({bar.lane for bar in bars}) * clock.length
    return sum(bar.ended - bar.began for bar in bars) / available if available else None


def num_seeds(entry: dict[str, Any]) -> int:
    """Return how many seeds a confirmation or the verdict had."""
    seeds = entry.get("seeds")
    if isinstance(seeds, int):
        return seeds
    return len(seeds or entry.get("returns") or [])


def num_solved(entry: dict[str, Any]) -> int | None:
    """Return how many seeds solve, None where nothing says what that is."""
    share = entry.get("solved_share")
    return round(share * num_seeds(entry)) if is_number(share) else None


def num_diverged(entry: dict[str, Any]) -> int:
    """Return how many seeds of a confirmation or the verdict diverged."""
    return sum(not is_number(value) for value in entry.get("returns") or [])


def diverged_seeds(trial: Trial) -> list[int]:
    """Return the indices of a trial's seeds that diverged: as their lanes have it, else those without a return.

    A pruned trial has no returns, and its seeds did not diverge for that.
    """
    lanes, returns = trial.attributes.get("lanes"), trial.attributes.get("returns")
    if isinstance(lanes, list | tuple) and any(lanes):
        return [i for i, lane in enumerate(lanes) if isinstance(lane, list | tuple) and "diverged" in lane[-1:]]
    known = returns if isinstance(returns, list | tuple) and trial.state != "pruned" else []
    return [i for i, value in enumerate(known) if not is_number(value)]


def winner(data: ReportData) -> tuple[int, dict[str, Any]] | None:
    """Return the number of the winner and its hyperparameters: confirmed where possible, else the best trial."""
    by_number = {trial.number: trial for trial in data.trials}
    for entry in [data.verdict, *data.confirm[:1]]:
        if entry and entry.get("number") is not None:
            searched = by_number[entry["number"]].params if entry["number"] in by_number else {}
            return entry["number"], entry.get("hyperparameters") or {**data.space.fixed, **searched}
    best = ranked(data.trials)[:1]
    return (best[0].number, {**data.space.fixed, **best[0].params}) if best else None


def period(trials: Sequence[Trial]) -> tuple[datetime, datetime] | None:
    """Return when the first trial started and the last one ended."""
    started = [trial.started for trial in trials if trial.started is not None]
    ended = [trial.ended for trial in trials if trial.ended is not None]
    return (min(started), max(ended)) if started and ended else None


def _bars(trial: int, lanes: Any, kind: str | None) -> list[Held]:
    """Read the lanes of a trial's agents; whatever is none is passed over."""
    found = []
    for index, entry in enumerate(lanes if isinstance(lanes, list | tuple) else []):
        if not isinstance(entry, list | tuple) or len(entry) != 4 or not all(map(is_number, entry[:3])):
            continue
        lane, began, ended, outcome = entry
        if ended >= began and outcome in KINDS[:3]:
            drawn = kind if kind is not None and outcome != "diverged" else outcome
            found.append(Held(trial, index, int(lane), float(began), float(ended), drawn))
    return found


def span(values: Sequence[float]) -> tuple[float, float]:
    """Return what an axis shows: all values, and at least a twentieth of their size, lest equals look far apart."""
    low, high = min(values), max(values)
    return min(low, high - 0.05 * max(abs(low), abs(high), 1.0)), high
