"""What `scripts/benchmark.py train` shows: tables of 80 columns, and two figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table

Row = dict[str, Any]

_BLUE, _ORANGE = "#0072B2", "#D55E00"


def head(machine: Row) -> str:
    """Return the machine in a line or two."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['device']}: {machine['cores']} cores, {machine['devices']} devices\n{versions}"


def about_peak(result: Row) -> str:
    """Return the peak in a line; nothing where it was not sampled."""
    if result["peak_gflops"] is None:
        return ""
    low, high = result["peak_gflops_range"]
    return f"peak: {result['peak_gflops']:.0f} GFLOP/s ({low:.0f}-{high:.0f}), sampled around every span"


def shown(part: str, measured: Row) -> Group:
    """Return a part's table with a line on what it says."""
    rows, says = measured["rows"], []
    if part == "mixed":
        low, high = rows[0]["share_of_uniform_range"]
        says = [
            f"mixed: {measured['share_of_uniform']:.0%} ({low:.0%}-{high:.0%}) of the useful GFLOP/s"
            " that uniform populations of its shapes reach"
        ]
    elif part == "devices":
        low, high = measured["ratio_range"]
        says = [
            f"{rows[-1]['devices']} devices make {measured['ratio']:.2f} ({low:.2f}-{high:.2f}) times one's updates"
        ]
    elif part == "lanes":
        linear = f"past it a lane's cost differs by {measured['differs_past_knee']:.0%} at most"
        says = [f"knee: {measured['knee']} lanes; {linear}: {'linear' if measured['linear'] else 'not linear'}"]
        if measured["do_not_fit"]:
            says.append(f"too large for the memory that is free: {', '.join(map(str, measured['do_not_fit']))} lanes")
    if part in ("devices", "lanes"):
        reference = "one" if part == "devices" else str(measured["reference_lanes"])
        return Group(scaling_table(rows, part, reference), *says, "")
    return Group(uniform_table(rows), *says, "")


def draw(measured: dict[str, Row], output: Path) -> None:
    """Draw what was measured: `train-share.png`, `train-lanes.png`."""
    shares = [row for part in ("uniform", "mixed") if part in measured for row in measured[part]["rows"]]
    if shares:
        draw_shares(shares, output / "train-share.png")
    if "lanes" in measured:
        draw_lanes(measured["lanes"], output / "train-lanes.png")


def uniform_table(rows: Sequence[Row]) -> Table:
    """Show uniform populations, and the mixed one where it was measured."""
    table = _table("Updates a second and share of peak: medians, and the ranges of the spans")
    for name in ("agents", "every", "lanes", "updates/s", "GFLOP/s", "share of peak", "compile s"):
        table.add_column(name, justify="left" if name == "agents" else "right", no_wrap=True)
    for row in rows:
        mixed = isinstance(row["batch_size"], list)
        every = "mixed" if mixed else f"{row['train_period']}" + _times(row["gradient_steps"])
        low, high = row["share_of_peak_range"]
        table.add_row(
            _agents(row),
            every,
            f"{row['lanes']}",
            f"{row['updates_per_s']:,}",
            f"{row['gflops']:.1f}",
            f"{row['share_of_peak']:.0%} ({low:.0%}-{high:.0%})",
            f"{row['compile_s']:.1f}",
        )
    return table


def scaling_table(rows: Sequence[Row], what: str, reference: str) -> Table:
    """Show how updates grow with the lanes or the devices."""
    table = _table(f"Over {what}: {_agents(rows[0])}, an update every step")
    for name in (what, "block", "updates/s", f"of {reference}", "share of peak"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        low, high = row["relative_range"]
        table.add_row(
            f"{row[what]:,}",
            f"{row['block']}",
            f"{row['updates_per_s']:,}",
            f"{row['relative']:.2f} ({low:.2f}-{high:.2f})",
            f"{row['share_of_peak']:.0%}",
        )
    return table


def draw_shares(rows: Sequence[Row], path: Path) -> None:
    """Draw the share of peak of each shape, with the range of its spans."""
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(rows):
        share, (low, high) = row["share_of_peak"], row["share_of_peak_range"]
        mixed = isinstance(row["batch_size"], list)
        axes.barh(i, share, color=_ORANGE if mixed else _BLUE, height=0.6)
        axes.plot([low, high], [i, i], color="black", linewidth=1.5, marker="|", markersize=8)
        axes.annotate(f"{share:.0%}", (max(share, high), i), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [f"{_agents(row)}, {_every(row)}" for row in rows])
    axes.set(xlim=(0, max(1.0, *(1.1 * row["share_of_peak_range"][1] for row in rows))))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set_xlabel("useful FLOP/s by fp32 peak (median and range)")
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def draw_lanes(scaling: Row, path: Path) -> None:
    """Draw updates a second over lanes, both on logarithmic axes, with the knee.

    What is drawn is free of the machine's drift: the ratio to a population that trained in turn, times its median.
    """
    rows, knee, unit = scaling["rows"], scaling["knee"], scaling["reference_updates_per_s"]
    lanes = [row["lanes"] for row in rows]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    low, high = ([unit * row["relative_range"][end] for row in rows] for end in (0, 1))
    axes.fill_between(lanes, low, high, color=_BLUE, alpha=0.18, linewidth=0)
    axes.plot(lanes, [unit * row["relative"] for row in rows], color=_BLUE, marker="o", linewidth=1.8)
    axes.axvline(knee, color=_ORANGE, linestyle="--", linewidth=1.2)
    axes.annotate(
        f"knee: {knee} lanes",
        (knee, 0.05),
        xycoords=("data", "axes fraction"),
        xytext=(6, 0),
        textcoords="offset points",
        color=_ORANGE,
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lanes, [f"{n:,}" for n in lanes])
    axes.set_ylim(min(low) / 1.6, max(high) * 1.6)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    axes.yaxis.set_minor_formatter(lambda y, _: f"{y:,.0f}" if f"{y:.0e}"[0] in "25" else "")
    many = rows[-1]["devices"]
    shape = f"{_agents(rows[0])}, an update every step, {many} device{'s' if many > 1 else ''}"
    reference = f"median and range, beside {scaling['reference_lanes']} lanes in turn"
    axes.set(xlabel="lanes", ylabel=f"updates/s\n({reference})", title=shape)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False)


def _agents(row: Row) -> str:
    sizes = row["batch_size"]
    return f"{row['hidden']} x {f'{min(sizes)}-{max(sizes)}' if isinstance(sizes, list) else sizes}"


def _times(gradient_steps: int) -> str:
    return "" if gradient_steps == 1 else f" x {gradient_steps}"


def _every(row: Row) -> str:
    if isinstance(row["batch_size"], list):
        return "the article's space"
    every = "step" if row["train_period"] == 1 else f"{row['train_period']} steps"
    return f"{row['gradient_steps']} updates every {every}" if row["gradient_steps"] > 1 else f"every {every}"
