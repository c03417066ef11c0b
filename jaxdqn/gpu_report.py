"""The report on what a segment would do on a GPU: compiled, predicted, and timed where there is one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table

from jaxdqn import devices, gpu_plan, space_config
from jaxdqn.config import Config, Layout
from jaxdqn.gpu_targets import Target, check_plugin
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.population import Population
from jaxdqn.space import Space, middle
from jaxdqn.workload import fill, for_ever, go_on, lived

_COLOURS = {"products": "#0072b2", "other kernels": "#9aa0a6", "copies": "#d55e00"}


def plan(
    target: Target, space: Space, lanes: int, largest_block: int | None, progress: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """Compile a space's segment for a GPU; return what it would do there, and the program's text.

    Raises:
        ModuleNotFoundError: JAX's CUDA plug-in is not installed.
    """
    check_plugin()
    settings = space_config.of(space)
    layout = devices.lay_out(lanes, 1, largest_block, "gpu")
    progress(f"compiling {layout.rows} rows of {layout.block} lanes for {target.name}, which takes a minute or two")
    start = time.perf_counter()
    compiled = gpu_plan.compile_for(target, settings, layout)
    compile_s = time.perf_counter() - start
    typical = space.hyperparams({name: middle(domain) for name, domain in space.searched.items()})
    counted = gpu_plan.counts(compiled, settings, layout, target)
    result = {
        "space": space.name,
        "compile_s": round(compile_s, 1),
        "versions": {"jax": jax.__version__},
        **counted,
        "predicted": gpu_plan.speed(counted, typical, settings),
        "bars": {name: {"is": has, "at_most": most} for name, (has, most) in gpu_plan.bars(counted).items()},
        "at_hand": None,
    }
    if devices.platform() == "gpu":
        progress(f"timing it on {jax.local_devices()[0].device_kind}")
        result["at_hand"] = timed(settings, typical, layout)
    return result, compiled.text


def timed(settings: Config, hyperparams: Hyperparams, layout: Layout, repeats: int = 5) -> dict[str, Any]:
    """Train on the first device at hand, all lanes alike; return medians a second, and their spread."""
    lasting = for_ever(settings)
    population = Population(lasting, layout, seed=0)
    compile_s = population.compile()
    warmup = -(-hyperparams.warmup_steps // lasting.tick) + 1
    fill(population, hyperparams, warmup)
    ticks = 32
    seen: dict[str, list[float]] = {"env_steps_per_s": [], "updates_per_s": []}
    for _ in range(repeats):
        start, before = time.perf_counter(), lived(population)
        for row in range(layout.rows):
            go_on(population, row, hyperparams, ticks)
        after = lived(population)
        elapsed = time.perf_counter() - start
        for name, was, now in zip(seen, before, after, strict=True):
            seen[name].append((now - was) / elapsed)
    return {
        "device": jax.local_devices()[0].device_kind,
        "compile_s": round(compile_s, 1),
        **{name: round(statistics.median(values)) for name, values in seen.items()},
        **{f"{name}_range": [round(min(values)), round(max(values))] for name, values in seen.items()},
    }


def shown(result: dict[str, Any]) -> RenderableType:
    """Show the counts; they fit 80 columns."""
    head = (
        f"{result['space']} on a {result['target']}: {result['lanes']:,} lanes, {result['rows']} rows of a block of"
        f" {result['block']};\ncompiled for it in {result['compile_s']:.0f} s and not timed (JAX"
        f" {result['versions']['jax']}); a tick is {result['tick_steps']} steps;"
        "\nµs are predicted: launches, waits, bytes and FLOPs, at best and at worst"
    )
    parts = Table("of a block", *_COLUMNS, box=None, pad_edge=False)
    for part in result["parts"]:
        parts.add_row(part["part"], *_cells(part))
    loops = Table("a turn of each loop", "turns", *_COLUMNS, box=None, pad_edge=False)
    for loop in result["loops"]:
        turns = "asked" if loop["trips"] is None else str(loop["trips"])
        loops.add_row("  " * loop["depth"] + loop["part"], turns, *_cells(loop))
    for table in (parts, loops):
        table.columns[0].no_wrap = True
        for column in table.columns[1:]:
            column.justify, column.no_wrap = "right", True
    bars = Table("", "is", "at most", "", box=None, pad_edge=False)
    for name, bar in result["bars"].items():
        bars.add_row(name, str(bar["is"]), str(bar["at_most"]), "✓" if bar["is"] <= bar["at_most"] else "✗ missed")
    memory, predicted = result["memory"], result["predicted"]
    return Group(head, "", parts, "", loops, "", bars, "", *_lines(memory, predicted, result))


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the kernels of each part."""
    parts = result["parts"]
    figure = Figure(figsize=(8, 0.55 * len(parts) + 1.6), layout="constrained")
    axes = figure.subplots()
    left = [0] * len(parts)
    of_kind = {
        "products": [part["products"] for part in parts],
        "other kernels": [part["kernels"] - part["products"] - part["copies"] for part in parts],
        "copies": [part["copies"] for part in parts],
    }
    for kind, counted in of_kind.items():
        axes.barh([part["part"] for part in parts], counted, left=left, color=_COLOURS[kind], label=kind)
        left = [a + b for a, b in zip(left, counted, strict=True)]
    for row, part in enumerate(parts):
        low, high = (1e6 * value for value in part["predicted_s"])
        waits = {0: "", 1: ", a host wait"}.get(part["waits"], f", {part['waits']} host waits")
        axes.text(left[row], row, f"  {left[row]}{waits}; predicted {low:,.0f}–{high:,.0f} µs", va="center", fontsize=9)
    axes.set_xlim(0, 1.9 * max(left))
    axes.invert_yaxis()
    axes.set_xlabel("kernels launched")
    axes.set_title(
        f"{result['space']}, a block of {result['block']} lanes on a {result['target']}: compiled, not timed"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


_COLUMNS = ("kernels", "copies", "waits", "MB", "MFLOP", "µs")


def _cells(part: dict[str, Any]) -> list[str]:
    low, high = (1e6 * value for value in part["predicted_s"])
    return [
        *(str(part[name]) for name in ("kernels", "copies", "waits")),
        f"{part['bytes'] / 1e6:,.1f}",
        f"{part['flops'] / 1e6:,.0f}",
        f"{low:,.0f}–{high:,.0f}",
    ]


def _lines(memory: dict[str, Any], predicted: dict[str, Any], result: dict[str, Any]) -> list[str]:
    mib = {name: value / 2**20 for name, value in memory.items() if name != "fits"}
    lines = [
        f"memory: {mib['bytes']:,.0f} of {mib['of_bytes']:,.0f} MiB ({result['rows']} rows of {mib['row_bytes']:,.0f},"
        f" {mib['temporary_bytes']:,.0f} while a segment runs): {'fits' if memory['fits'] else 'does not fit'}",
        *(
            f"predicted for {what}/s, all lanes alike: {predicted[name][0]:,.0f} to {predicted[name][1]:,.0f}"
            for name, what in (("env_steps_per_s", "environment steps"), ("updates_per_s", "updates"))
        ),
    ]
    if (at_hand := result["at_hand"]) is not None:
        lines.append(
            f"timed on {at_hand['device']}: {at_hand['env_steps_per_s']:,} environment steps/s,"
            f" {at_hand['updates_per_s']:,} updates/s"
        )
    return lines
