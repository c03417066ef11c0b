"""The figures of LESSON.md, in numbers and drawn: samplers side by side; a search of the article's space.

Means are over studies, intervals those of the bootstrap at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxdqn.comparison import Comparison
from jaxdqn.quality import stock_better
from jaxdqn.statistics import bootstrap_interval

# Okabe and Ito's colours; lines differ too
_LOOKS = {
    "grid": ("#009E73", "-."),
    "random": ("#555555", ":"),
    "tpe": ("#0072B2", "-"),
    "optuna-tpe": ("#D55E00", "--"),
    "sobol": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1))),
}
_POINTS = 120  # of a curve over environment steps
_WINDOWS = 6  # into which the trials of a study are cut
OURS, AUTHORS = "#0072B2", "#D55E00"


class Counts(NamedTuple):
    """What is known of a search of which only a few figures were published."""

    trials: int
    at_least: Mapping[float, int]  # trials at or above a return


ARTICLE = Counts(53, {10.0: 36, 400.0: 6, 490.0: 3, 500.0: 1})  # the author's log: 17 of 53 below 10, …


class Band(NamedTuple):
    """A mean over studies, and its 95 % interval of the bootstrap (equal to the mean of one study)."""

    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


def band(samples: Float[np.ndarray, "studies points"]) -> Band:
    """Return the band of each point, over the studies that have a value there."""
    points = []
    for column in samples.T:
        known = column[np.isfinite(column)]
        mean = float(np.mean(known)) if len(known) else np.nan
        points.append((mean, *(bootstrap_interval(known.tolist(), np.mean) or (mean, mean))))
    return Band(*np.array(points).T)


def best_so_far(values: Float[np.ndarray, "studies trials"]) -> Float[np.ndarray, "studies trials"]:
    """Return the best value up to each trial; nan before the first one that did not fail."""
    return np.fmax.accumulate(values, axis=1)


def best_after(
    values: Float[np.ndarray, "studies trials"],
    env_steps: Int[np.ndarray, "studies trials"],
    steps: Float[np.ndarray, " points"],
) -> Float[np.ndarray, "studies points"]:
    """Return the best value of each study once its trials, one by one, have taken so many environment steps."""
    best, spent = best_so_far(values), np.cumsum(env_steps, axis=1)
    ended = np.stack([np.searchsorted(its, steps, side="right") for its in spent])
    with_nothing = np.concatenate([np.full((len(best), 1), np.nan), best], axis=1)
    return np.take_along_axis(with_nothing, ended, axis=1)


def windows(values: Float[np.ndarray, "studies trials"], window: int) -> tuple[Float[np.ndarray, " windows"], Band]:
    """Return the middles of windows of so many trials, and the band of the trials' mean in them; a rest is left out."""
    starts = range(0, values.shape[1] - window + 1, window)
    means = np.stack([_mean(values[:, start : start + window]) for start in starts], axis=1)
    return np.array(starts) + (window + 1) / 2, band(means)


def _mean(values: Float[np.ndarray, "studies trials"]) -> Float[np.ndarray, " studies"]:
    """Return the mean of the trials of each study that did not fail; nan where all did."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)


def summary(comparison: Comparison) -> list[dict[str, Any]]:
    """Return what each sampler came to in each space, as JSON values."""
    found = []
    for (space_name, sampler), seeds in comparison.studies().items():
        values = comparison.values(space_name, sampler)
        num = values.shape[1]
        so_far = best_so_far(values)
        looks = sorted({max(1, num // 4), max(1, num // 2), num})
        bands = band(so_far[:, [n - 1 for n in looks]])
        found.append(
            {
                "space": space_name,
                "sampler": sampler,
                "studies": len(seeds),
                "trials": num,
                "best_after": [
                    {"trials": n, "mean": _number(mean), "interval": [_number(low), _number(high)]}
                    for n, mean, low, high in zip(looks, *bands, strict=True)
                ],
                "mean_return_of_trials": _number(np.nanmean(values)) if np.isfinite(values).any() else None,
                "env_steps_a_study": round(float(comparison.env_steps(space_name, sampler).sum(axis=1).mean())),
                "random_ahead": _random_ahead(comparison, space_name, so_far),
            }
        )
    return found


def _random_ahead(comparison: Comparison, name: str, so_far: Float[np.ndarray, "studies trials"]) -> float | None:
    """Return how probably a random search's best is above that of one of these studies; a tie is half."""
    if (name, "random") not in comparison.studies():
        return None
    theirs = best_so_far(comparison.values(name, "random"))
    last, random_last = (-np.nan_to_num(its[:, -1], nan=-np.inf) for its in (so_far, theirs))
    return round(stock_better(last, random_last)[0], 3)


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw what each sampler came to, a column a space.

    Above the best value over trials, in the middle what the trials proposed were worth, window by window, below the
    best value over environment steps.
    """
    names = list(dict.fromkeys(space for space, _ in comparison.studies()))
    figure = Figure(figsize=(1.2 + 4.4 * len(names), 8.6), layout="constrained")
    for panels, name in zip(figure.subplots(3, len(names), squeeze=False).T, names, strict=True):
        best, proposed, after = panels
        num = comparison.setups[name].trials
        window = -(-num // _WINDOWS)
        for space, sampler in comparison.studies():
            if space != name:
                continue
            values, env_steps = comparison.values(name, sampler), comparison.env_steps(name, sampler)
            label = f"{sampler}, {len(values)} {'study' if len(values) == 1 else 'studies'}"
            _draw(best, np.arange(1, num + 1), band(best_so_far(values)), sampler, label)
            _draw(proposed, *windows(values, window), sampler, label)
            # from the first trial of the slowest study to the last of the quickest: a mean of all of them at each point
            steps = np.linspace(env_steps[:, 0].max(), env_steps.sum(axis=1).min(), _POINTS)
            _draw(after, steps / 1000, band(best_after(values, env_steps, steps)), sampler, label)
        best.set(title=f"{name}: {num} trials a study", xlabel="trials", ylabel="best mean return so far")
        proposed.set(xlabel="trials", ylabel=f"mean return of {window} trials in a row")
        after.set(xlabel="environment steps of all trials, in thousands", ylabel="best mean return so far")
        after.set_xlim(left=0)
        best.legend(frameon=False, loc="lower right")
        for panel in panels:
            panel.grid(alpha=0.25)
        for panel in (best, proposed):
            panel.set_xlim(0, num)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle("Means over studies, and their\n95 % intervals (bootstrap)", fontsize=10)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})


def _draw(panel: Axes, x: np.ndarray, drawn: Band, sampler: str, label: str) -> None:
    colour, line = _LOOKS[sampler]
    panel.plot(x, drawn.mean, color=colour, linestyle=line, linewidth=1.8, label=label)
    panel.fill_between(x, drawn.low, drawn.high, color=colour, alpha=0.16, linewidth=0)


def article_figure(
    path: Path, trials: Sequence[tuple[int, float]], title: str, authors: Counts = ARTICLE, top: float = 500.0
) -> None:
    """Draw the share of trials at or above each return, ours and the author's, and beside it ours as they came.

    Of the author's trials only the counts are known: his curve lies somewhere in the shaded boxes between them.

    Args:
        path: the file.
        trials: number and mean return of each of ours that did not fail.
        title: what was run.
        authors: the counts.
        top: the largest return there is.
    """
    numbers, values = np.array([n for n, _ in trials]), np.array([value for _, value in trials])
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ordered = np.sort(values)
    share = np.arange(len(values), 0, -1) / len(values)
    left.step([0, *ordered], [1, *share], where="pre", color=OURS, label=f"ours, {len(values)} trials", linewidth=1.8)
    known = [(0.0, authors.trials), *sorted(authors.at_least.items())]
    at, shares = [at for at, _ in known], [count / authors.trials for _, count in known]
    for i in range(len(known) - 1):
        left.fill_between(at[i : i + 2], shares[i + 1], shares[i], color=AUTHORS, alpha=0.16, linewidth=0)
    left.plot(at[1:], shares[1:], "D", color=AUTHORS, label=f"the article's author, {authors.trials} trials: counts")
    for x, y, count in zip(at[1:], shares[1:], [count for _, count in known[1:]], strict=True):
        side, align = (7, "left") if x < top / 2 else (-7, "right")
        left.annotate(f"{count}", (x, y), textcoords="offset points", xytext=(side, -3), fontsize=9, ha=align)
    left.set(
        xlabel="mean return of a trial", ylabel="share of trials at or above it", ylim=(0, 1.02), xlim=(0, 1.02 * top)
    )
    left.legend(frameon=False, loc="upper right")
    right.plot(numbers, values, "o", color=OURS, alpha=0.45, markersize=4, label="a trial")
    right.step(numbers, np.maximum.accumulate(values), where="post", color=OURS, linewidth=1.8, label="the best so far")
    right.set(xlabel="trial", ylabel="mean return", ylim=(0, 1.02 * top))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    for panel in (left, right):
        panel.grid(alpha=0.25)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
