"""What lanes take of memory, predicted and as XLA reports it, and how many fit: measured, as a table, as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from jaxdqn import cost, devices, memory, space, space_config
from jaxdqn.config import Config
from jaxdqn.gpu_targets import TARGETS
from jaxdqn.population import Population

CARDS = {target.name: target.memory for target in (TARGETS["t4"], TARGETS["a100"])}
_KIB = 1024


def measure(name: str, lanes: int | None = None, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Return as JSON values what a lane of a space takes, on this machine's devices, and how many fit where.

    Args:
        name: of the space, or its file.
        lanes: in all; None: as many as a sweep has.
        progress: what is told while a program compiles.

    Raises:
        ValueError: the space or the lanes are not as they should be.
    """
    searched = space.load(name)
    config, platform = space_config.of(searched), devices.platform()
    layout = devices.choose_layout(lanes, None, cost.largest_block(config, space_config.is_mixed(searched), platform))
    progress(f"compiling the {searched.name} space for {layout.lanes} lanes")
    population = Population(config, layout, 0)
    population.compile()
    assert population.compiled is not None
    reported: Any = population.compiled.memory_analysis()
    block = layout.block
    predicted = {
        "arguments": memory.argument_bytes(config, block),
        "temporaries": memory.temporary_bytes(config, block, layout.group),
        "results": memory.progress_bytes(config, block),
    }
    by_xla = {
        "arguments": reported.argument_size_in_bytes,
        "temporaries": reported.temp_size_in_bytes,
        "results": reported.output_size_in_bytes - reported.alias_size_in_bytes,
    }
    parts = memory.part_bytes(config, block)
    here = memory.available_bytes(layout.devices)
    return {
        "space": searched.name,
        "lanes": layout.lanes,
        "devices": layout.devices,
        "block": block,
        "bytes_a_lane": {part: round(parts[part] / block, 1) for part in memory.PARTS},
        "predicted": {part: round(value / block, 1) for part, value in predicted.items()},
        "xla": {part: round(value / block, 1) for part, value in by_xla.items()},
        "fit": {
            **{card: _fit(config, memory.PREALLOCATED * size) for card, size in CARDS.items()},
            **({"this machine": _fit(config, here) * layout.devices} if math.isfinite(here) else {}),
        },
        "available_bytes": round(here * layout.devices) if math.isfinite(here) else None,
    }


def memory_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return figures of several spaces side by side."""
    table = Table("KiB a lane", title="Memory of a lane", title_justify="left", box=None, pad_edge=False)
    for result in results:
        table.add_column(result["space"], justify="right")
    for part in memory.PARTS:
        table.add_row(f"  {part}", *(f"{result['bytes_a_lane'][part] / _KIB:,.1f}" for result in results))
    for name in ("arguments", "results", "temporaries"):
        most = "≤ " if name == "temporaries" else ""
        pairs = [(result["predicted"][name] / _KIB, result["xla"][name] / _KIB) for result in results]
        table.add_row(f"{name}: predicted", *(f"{most}{predicted:,.1f}" for predicted, _ in pairs))
        table.add_row("  as XLA reports them", *(f"{by_xla:,.1f}" for _, by_xla in pairs))
    for machine in results[0]["fit"]:
        table.add_row(f"lanes that fit: {machine}", *(f"{result['fit'][machine]:,}" for result in results))
    return table


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write stacked bars of the bytes a lane as a PNG: what stays, and what a segment needs besides."""
    from matplotlib.figure import Figure

    figure = Figure((7.5, 1.6 + 0.9 * len(results)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(results)
    names = [f"{result['space']}\nblocks of {result['block']}" for result in results]
    colours = ("#0072B2", "#009E73", "#56B4E9", "#F0E442", "#E69F00", "#999999", "#CC79A7")
    bars = {part: [result["bytes_a_lane"][part] for result in results] for part in memory.PARTS}
    bars["temporaries (XLA)"] = [result["xla"]["temporaries"] for result in results]
    for (name, values), colour in zip(bars.items(), (*colours, "#ffffff"), strict=True):
        mib = [value / 2**20 for value in values]
        hatch = "////" if name not in memory.PARTS else ""
        if max(mib) > 0.001:
            axes.barh(names, mib, left=left, color=colour, label=name, edgecolor="#555555", hatch=hatch, linewidth=0.5)
        left = [start + value for start, value in zip(left, mib, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("MiB a lane")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def _fit(config: Config, available: float) -> int:
    """Return how many lanes fit into a device's memory, in two rows."""
    return memory.ROWS * memory.largest_block(config, available, group=16)
