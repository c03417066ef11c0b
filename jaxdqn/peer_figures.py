"""What a comparison with peers shows: a table of each part, and one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table

from jaxdqn.peer_benchmark import OURS

_OURS, _THEIRS, _BAR = "#0072B2", "#999999", "#D55E00"  # Okabe and Ito's


def peers_shown(result: dict[str, Any]) -> Group:
    """Show all parts."""
    tables = (("sets", sets_table), ("uniform", uniform_table))
    shown = [each for part, table in tables if part in result for each in (table(result[part]), "")]
    missed = [part for part in _TITLES if part in result and not result[part]["reached"]]
    return Group(*shown, f"missed a bar: {', '.join(missed)}" if missed else "every bar is reached")


def sets_table(result: dict[str, Any]) -> Group:
    """Show the sets; it fits 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("seconds", "ours: × as fast", "asked", "return"):
        table.add_column(name, justify="right", no_wrap=True)
    returns = []
    for name, row in result["by"].items():
        mean = f"{row['mean_return']:.0f}"
        table.add_row(name, _ranged(row, "seconds", ".1f"), *_ratio(row, result["bars"].get(name)), mean)
        if interval := row.get("return_beyond_ours_interval"):
            returns.append(f"{name} {interval[0]:+.0f} to {interval[1]:+.0f}")
    same = all(row["same_work"] for row in result["by"].values())
    updates = sum(result["updates"])
    return Group(
        f"{result['sets']} sets of the article's space: {result['env_steps']:,} steps each, {updates:,} updates in all",
        f"(medians of {result['rounds']} turns and their range; ours compiled before, {result['compile_s']:.1f} s)",
        table,
        "everybody made these steps and updates" if same else "✗ not everybody made these steps and updates",
        f"mean return, theirs minus ours, 95 % over the sets: {'; '.join(returns)}",
    )


def uniform_table(result: dict[str, Any]) -> Group:
    """Show the uniform population; it fits 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("updates/s", "ours: × as fast", "asked"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in result["by"].items():
        table.add_row(name, _ranged(row, "updates_per_s", ",.0f"), *_ratio(row, result["bars"].get(name)))
    compiled = ", ".join(f"{name} {s:.1f} s" for name, s in result["compile_s"].items())
    return Group(
        f"[64, 64] × 64, an update every step: ours and rejax {result['lanes']} lanes, else an agent a process",
        f"(medians of {result['rounds']} turns of {result['seconds']:g} s and their range)",
        table,
        f"compiled before: {compiled}",
    )


def draw_peers(result: dict[str, Any], path: Path) -> None:
    """Draw how many times as fast ours is as each peer, a panel a part, with what is asked."""
    parts = [(name, title) for name, title in _TITLES.items() if name in result]
    figure = Figure(figsize=(5.5 * len(parts), 3.4), layout="constrained")
    for panel, (part, title) in zip(figure.subplots(1, len(parts), squeeze=False).flat, parts, strict=True):
        rows = {name: row for name, row in result[part]["by"].items() if name != OURS}
        for height, (name, row) in enumerate(rows.items()):
            middle, (low, high) = row["times_as_fast"], row["times_as_fast_range"]
            panel.barh(height, middle, color=_OURS if row["processes"] == 1 else _THEIRS, height=0.6)
            panel.plot([low, high], [height, height], color="black", linewidth=1.2)
            bar = result[part]["bars"].get(name)
            if bar is not None:
                panel.plot([bar, bar], [height - 0.4, height + 0.4], color=_BAR, linewidth=2)
            label = bar if bar is not None and high <= bar <= 1.2 * high else high  # not upon what is asked
            panel.annotate(f"{middle:.1f}×", (label, height), (4, 0), textcoords="offset points", va="center")
        panel.set_yticks(range(len(rows)), [name.replace(", ", ",\n") for name in rows])
        panel.set(title=title, xlabel="ours is × as fast (orange: asked)")
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.margins(x=0.15)
        panel.invert_yaxis()
        panel.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=150)


_TITLES = {"sets": "16 sets of the article's space", "uniform": "[64, 64] × 64, an update every step"}


def _ranged(row: dict[str, Any], name: str, form: str) -> str:
    low, high = row[f"{name}_range"]
    return f"{row[name]:{form}} ({low:{form}}–{high:{form}})"


def _ratio(row: dict[str, Any], bar: float | None) -> tuple[str, str]:
    """Return how many times as fast ours is, and what was asked."""
    if "times_as_fast" not in row:
        return "", ""
    asked = "" if bar is None else f"≥ {bar:g} {'✓' if row['times_as_fast'] >= bar else '✗'}"
    return _ranged(row, "times_as_fast", ".1f"), asked
