"""What a comparison of whole sweeps shows: a table, and a figure over wall time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from rich.console import Group
from rich.table import Table

from jaxdqn.sweep_benchmark import LANE, POPULATION, STOCK

# Okabe and Ito's colours; lines differ too
_LOOKS = {POPULATION: ("#0072B2", "-"), LANE: ("#009E73", "--"), STOCK: ("#D55E00", "-.")}


def sweep_table(result: dict[str, Any]) -> Group:
    """Show the sides; it fits 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    target, repeats = result["target"], result["repeats"]
    for name in ("trials", "trials/h", "ours", "start", f"first ≥ {target:g}", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for side, row in result["by"].items():
        times = row.get("times_as_many")
        verdict = _span(row["verdict_s"])
        table.add_row(
            side,
            f"{row['trials']:.0f}",
            f"{row['trials_per_hour']:,.0f}",
            f"{times:g} ×" if times is not None and side != POPULATION else "",
            _span(row["start_s"]),
            _span(row["first_s"]),
            f"~{verdict}" if row["verdict_is_computed"] and row["verdict_s"] is not None else verdict,
        )
    runs = f"medians of {repeats} sweeps" if repeats > 1 else "one sweep"
    budgets = f"{result['trials']} trials; the others had {result['budget_s']:g} s"
    return Group(
        f"Whole sweeps of space {Path(result['space']).stem}: {budgets}",
        f"({runs}; times from typing the command, imports and compiling included)",
        table,
        "ours: the population ends so many times as many trials an hour",
        f"-: not within its time. ~: computed for {result['trials']} trials and {result['retrained']} agents trained",
        "anew, from the mean durations of the trials that ended",
    )


def draw_sweeps(result: dict[str, Any], path: Path) -> None:
    """Draw trials that have ended and the best score so far over wall time; a line a sweep."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    many, best = figure.subplots(1, 2)
    for side, row in result["by"].items():
        colour, line = _LOOKS[side]
        for number, trials in enumerate(row["runs"]):
            looks: dict[str, Any] = {"color": colour, "linestyle": line, "label": None if number else side}
            seconds = [s for s, _, _ in trials]
            many.step(seconds, range(1, len(trials) + 1), where="post", marker=".", markersize=3, **looks)
            scored = [(s, value) for s, _, value in trials if value is not None]
            so_far = np.maximum.accumulate([value for _, value in scored])
            best.step([s for s, _ in scored], so_far, where="post", marker=".", markersize=3, **looks)
    many.set(ylabel="trials that have ended", yscale="log")
    many.yaxis.set_major_formatter(ScalarFormatter())
    many.yaxis.set_minor_formatter(NullFormatter())
    best.set(ylabel="best mean return so far")
    best.axhline(result["target"], color="black", linewidth=0.8, linestyle=":")
    for panel in (many, best):
        panel.set(xlabel="seconds since the command was typed", xlim=(0, None))
        panel.grid(alpha=0.25)
    many.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _span(seconds: float | None) -> str:
    """Return a time as people read it."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"
