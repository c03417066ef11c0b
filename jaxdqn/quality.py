"""How good proposals are: the best values after few trials, ours against stock Optuna's and random search.

Batches are asked for whole before anything is told, as a population does. What stock Optuna and random search reached
is stored; that is made again in minutes (`write_stock`), ours is run anew each time. A curve is the best value so far
after each trial, rounded to 6 digits, and is stored as its steps: pairs of a trial and the value from there on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from jaxtyping import Float
from matplotlib.figure import Figure
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from rich.console import Group
from rich.table import Table
from scipy.stats import mannwhitneyu

from jaxdqn.objectives import Objective
from jaxdqn.sampler import BatchTPESampler

BATCH, TRIALS, SEEDS = 32, 256, 15
FIRST_SEED = 100  # none of these was used to choose the sampler's constants
SIGNIFICANT = 0.05  # corrected p below which stock counts as better
MOST = 0.65  # P(stock better) must stay below
RESAMPLES = 10_000  # of the bootstrap
COMMAND = "python scripts/benchmark.py host --stock"

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "ours": lambda seed: BatchTPESampler(seed=seed),
    "stock": lambda seed: TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
}
_LOOKS = {"ours": ("#0072B2", "-"), "stock": ("#D55E00", "--"), "random": ("#555555", ":")}  # Okabe and Ito's colours

Steps = list[list[float]]  # [trial, value from there on], …
Curves = Float[np.ndarray, "seeds trials"]
Progress = Callable[[str], None]


def run(objective: Objective, sampler: BaseSampler, trials: int = TRIALS, batch: int = BATCH) -> list[float]:
    """Return the curve of one study."""
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), sampler=sampler)
    values = []
    for start in range(0, trials, batch):
        for trial in [study.ask(fixed_distributions=objective.space) for _ in range(min(batch, trials - start))]:
            values.append(objective.value(trial.params))
            study.tell(trial, values[-1])
    return [float(f"{value:.6g}") for value in accumulate(values, min)]


def steps(curve: Sequence[float]) -> Steps:
    """Return the steps of a curve."""
    return [[i, value] for i, value in enumerate(curve) if i == 0 or value != curve[i - 1]]


def unfold(stored: Sequence[Steps], trials: int) -> Curves:
    """Return the first `trials` points of curves that are given by their steps."""
    curves = np.full((len(stored), trials), np.inf)
    for curve, its_steps in zip(curves, stored, strict=True):
        for start, value in its_steps:
            curve[int(start) :] = value
    return curves


def _seeds(num: int) -> range:
    return range(FIRST_SEED, FIRST_SEED + num)


def write_stock(path: Path, objectives: Mapping[str, Objective], progress: Progress) -> None:
    """Run stock Optuna and random search on everything and store their curves."""
    curves: dict[str, dict[str, list[Steps]]] = {}
    for name, objective in objectives.items():
        curves[name] = {}
        for sampler in ("stock", "random"):
            progress(f"{name}: {SEEDS} seeds of {sampler}")
            curves[name][sampler] = [steps(run(objective, SAMPLERS[sampler](seed))) for seed in _seeds(SEEDS)]
    known = {"made_by": COMMAND, "optuna": optuna.__version__, "trials": TRIALS, "batch": BATCH, "seeds": SEEDS}
    path.write_text(json.dumps({**known, "curves": curves}, separators=(",", ":")) + "\n", "utf-8")


def compare(
    objectives: Mapping[str, Objective],
    stored: dict[str, Any],
    seeds: int = SEEDS,
    trials: int = TRIALS,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Run ours on everything and compare its last values with those stored, `seeds` seeds each, from `FIRST_SEED` on.

    The interval of P(stock better) is the 95 % percentile interval of a bootstrap over the runs of both.
    """
    functions: dict[str, dict[str, Any]] = {}
    for name, objective in objectives.items():
        progress(f"{name}: {seeds} seeds of ours")
        ours = [steps(run(objective, SAMPLERS["ours"](seed), trials)) for seed in _seeds(seeds)]
        curves = {"ours": ours, **{who: stored["curves"][name][who][:seeds] for who in ("stock", "random")}}
        so_far = {who: unfold(its, trials) for who, its in curves.items()}
        best = {who: its[:, -1] for who, its in so_far.items()}
        share, interval = stock_better(best["ours"], best["stock"])
        functions[name] = {
            "median": {who: float(np.median(values)) for who, values in best.items()},
            "stock_better": share,
            "stock_better_interval": interval,
            "stock_better_after": [
                [n, stock_better(so_far["ours"][:, n - 1], so_far["stock"][:, n - 1])[0]]
                for n in range(BATCH, trials, BATCH)
            ],
            "p_stock_better": float(mannwhitneyu(best["stock"], best["ours"], alternative="less").pvalue),
            "p_two_sided": float(mannwhitneyu(best["stock"], best["ours"]).pvalue),
            "curves": curves,
        }
    for p in ("p_stock_better", "p_two_sided"):
        for row, corrected in zip(functions.values(), holm([row[p] for row in functions.values()]), strict=True):
            row[f"{p}_holm"] = corrected
    for row in functions.values():
        row["reached"] = row["p_stock_better_holm"] >= SIGNIFICANT and row["stock_better"] < MOST
    return {
        "trials": trials,
        "batch": BATCH,
        "seeds": seeds,
        "stock": f"Optuna {stored['optuna']}",
        "asked": f"P(stock better) < {MOST}, p of 'stock is better' ≥ {SIGNIFICANT}",
        "reached": all(row["reached"] for row in functions.values()),
        "functions": functions,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for there being several (Holm 1979): maxⱼ≤ᵢ min(1, (m − j) p₍ⱼ₎), j from 0."""
    p = np.array(p_values)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, (len(p) - np.arange(len(p))) * p[order]))
    return [float(value) for value in corrected]


def stock_better(ours: Float[np.ndarray, " runs"], stock: Float[np.ndarray, " others"]) -> tuple[float, list[float]]:
    """Return how probably a random run of stock ends below a random one of ours (a tie is half), and the interval."""
    beats = (stock[:, None] < ours) + 0.5 * (stock[:, None] == ours)
    random = np.random.default_rng(0)
    drawn = [random.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in beats.shape]  # runs' shares in a resample
    shares = np.sum(drawn[0] @ beats * drawn[1], axis=1)
    return float(beats.mean()), [float(bound) for bound in np.quantile(shares, [0.025, 0.975])]


def quality_table(result: dict[str, Any]) -> Group:
    """Show a comparison; it fits 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("function", no_wrap=True)
    for name in ("ours", "stock", "random", "P(stock better)", "p (two-sided)", "reached"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in result["functions"].items():
        low, high = row["stock_better_interval"]
        table.add_row(
            name,
            *(f"{row['median'][sampler]:.3g}" for sampler in _LOOKS),
            f"{row['stock_better']:.2f} ({low:.2f}–{high:.2f})",
            f"{row['p_stock_better_holm']:.2f} ({row['p_two_sided_holm']:.2g})",
            "✓ yes" if row["reached"] else "✗ no",
        )
    ahead = [
        f"{name} ({', '.join(f'{share:.2f} after {num}' for num, share in row['stock_better_after'] if share >= MOST)})"
        for name, row in result["functions"].items()
        if any(share >= MOST for _, share in row["stock_better_after"])
    ]
    return Group(
        f"Quality: median best of {result['trials']} trials in batches of {result['batch']}, {result['seeds']} seeds",
        f"(lower is better; stock and random: {result['stock']}, stored)",
        table,
        f"Asked: {result['asked']}.",
        "P: with its 95 % interval. p: Mann-Whitney, Holm-corrected over all.",
        f"Earlier, P(stock better) was {MOST} or more on: {'; '.join(ahead) or 'none'}.",
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the medians of all curves, with the band between their quartiles, one panel a function."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    trials = np.arange(1, result["trials"] + 1)
    for panel, (name, row) in zip(figure.subplots(2, 3).flat, result["functions"].items(), strict=True):
        for sampler, (colour, line) in _LOOKS.items():
            low, middle, high = np.quantile(unfold(row["curves"][sampler], len(trials)), [0.25, 0.5, 0.75], axis=0)
            panel.plot(trials, middle, color=colour, linestyle=line, linewidth=1.8, label=sampler)
            panel.fill_between(trials, low, high, color=colour, alpha=0.18, linewidth=0)
        if 0 < 10 * min(row["median"].values()) < max(row["median"].values()):
            panel.set_yscale("log")
        panel.set(title=name, xlabel="trials", ylabel="best value so far", xlim=(1, len(trials)))
        panel.set_xticks([1, *range(2 * BATCH, len(trials) + 1, 2 * BATCH)])
        panel.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False)
    many = f"batches of {result['batch']}, {result['seeds']} seeds each: median, and the band between the quartiles"
    figure.suptitle(f"Best value so far, lower is better ({many}; stock: {result['stock']})", fontsize=11)
    figure.savefig(path, dpi=150)
