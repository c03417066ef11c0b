"""A segment's profile, shown: its parts and its longest kernels as tables, its parts as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table

from jaxdqn.segment_profile import PARTS


def shown(result: Mapping[str, Any]) -> RenderableType:
    """Show the parts and the longest kernels; they fit 80 columns."""
    wall = result["wall_us"]
    parts = Table("of a tick", "µs", "share", "times", "", box=None, pad_edge=False)
    for part in result["parts"]:
        if part["us"]:
            calls = f"{part['calls']:.1f}" if part["calls"] else ""
            parts.add_row(part["part"], f"{part['us']:.1f}", _percent(part), calls, PARTS[part["part"]])
    kernels = Table("the longest kernels", "µs", "times", "part", box=None, pad_edge=False)
    for kernel in result["kernels"][:12]:
        kernels.add_row(kernel["name"][:44], f"{kernel['us']:.1f}", f"{kernel['calls']:.1f}", kernel["part"])
    for table in (parts, kernels):
        for column in table.columns[1:3]:
            column.justify, column.no_wrap = "right", True
    width, layers = result["hidden"][0], len(result["hidden"])
    return Group(
        f"One block of {result['lanes']} lanes, {layers} layers of {width}, batches of {result['batch_size']};"
        f" {result['gradient_steps']} updates every {result['train_period']} steps",
        "µs a tick: "
        + "; ".join(
            f"{name} {wall[key]['median']:.0f} ({wall[key]['low']:.0f}–{wall[key]['high']:.0f})"
            for name, key in (("as it trains", "plain"), ("able to be traced", "traceable"), ("traced", "traced"))
        ),
        "",
        parts,
        "",
        kernels,
    )


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw the parts of a tick."""
    parts = [part for part in result["parts"] if part["us"]]
    figure = Figure(figsize=(8, 0.4 * len(parts) + 1.5), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([part["part"] for part in parts], [part["us"] for part in parts], color="#0072b2")
    axes.bar_label(bars, [f" {part['us']:.1f}  {_percent(part)}" for part in parts], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("µs a tick (shares without the tracing)")
    what = f"{result['lanes']} lanes, {list(result['hidden'])}, batches of {result['batch_size']}"
    axes.set_title(f"Where a tick's time goes: {what}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _percent(part: Mapping[str, Any]) -> str:
    return "" if part["share"] is None else f"{part['share']:.0%}"
