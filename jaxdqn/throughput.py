"""What `scripts/benchmark.py train` measures: uniform populations, the article's mixed space, lanes and devices.

Ratios are those of neighbouring spans of two populations that train in turn: a shared machine's speed drifts.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import platform, python_version
from typing import Any

import jax

from jaxdqn import devices, fingerprint
from jaxdqn.benchmark import Uniform, UniformPopulation, measure, row_of
from jaxdqn.config import Layout
from jaxdqn.mixed import mixed
from jaxdqn.peak import Peak

Progress = Callable[[str], None]
Row = dict[str, Any]

SHAPES = tuple(
    Uniform(hidden, batch_size, period, 1)
    for hidden, batch_size in (((64, 64), 64), ((256, 256), 16), ((256, 256), 128))
    for period in (1, 8)
)
LANES = tuple(2**i for i in range(13))
REFERENCE_LANES = 64
KNEE, LINEAR = 0.9, 0.1  # share of the most updates a second; by how much a lane's cost may differ past the knee
_MEMORY_SHARE = 0.5  # of what is free


def about_machine() -> dict[str, Any]:
    """Return what the figures of a machine depend on."""
    known = fingerprint.of_machine()
    return {
        "device": known["device"],
        "devices": len(jax.local_devices()),
        "cores": devices.cores(),
        "system": platform(),
        "xla_flags": known["xla_flags"],
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "its own"),
        "versions": {"python": python_version(), **{name: version(name) for name in ("jax", "jaxlib", "numpy")}},
    }


def measure_part(
    part: str,
    lanes: int,
    seconds: float,
    repeats: int,
    peak: Peak,
    progress: Progress,
    shapes: Sequence[Uniform] = SHAPES,
) -> Row:
    """Measure a part (uniform, mixed, devices or lanes); return its rows, and what they say together.

    Args:
        part: its name.
        lanes: agents that train at the same time, where their number does not vary.
        seconds: of a span.
        repeats: spans, whose medians count.
        peak: of all devices.
        progress: is told what is going on.
        shapes: of the uniform populations.
    """
    if part == "uniform":
        return uniform(shapes, lanes, seconds, repeats, peak, progress)
    if part == "mixed":
        row = mixed(seconds, repeats, progress)
        return {"rows": [row], "share_of_uniform": row["share_of_uniform"]}
    if part == "devices":
        return over_devices(lanes, seconds, repeats, progress)
    return over_lanes(LANES, seconds / 2, repeats, peak, progress)


def summary(machine: Row, peak: Peak, measured: dict[str, Row]) -> Row:
    """Return everything that was measured, as JSON values: all rows, each with its part, and what the parts say."""
    return {
        "machine": machine,
        "peak_gflops": round(statistics.median(peak.samples), 1) if peak.samples else None,
        "peak_gflops_range": [round(f(peak.samples), 1) for f in (min, max)] if peak.samples else None,
        "rows": [{"part": part, **row} for part, said in measured.items() for row in said["rows"]],
        **{part: {name: x for name, x in said.items() if name != "rows"} for part, said in measured.items()},
    }


def uniform(shapes: Sequence[Uniform], lanes: int, seconds: float, repeats: int, peak: Peak, progress: Progress) -> Row:
    """Measure uniform populations one after another."""
    rows = []
    for shape in shapes:
        progress(f"uniform: {name_of(shape)}, {repeats} spans of {seconds:g} s after compiling")
        layout = devices.choose_layout(lanes)
        rows.append(measure(shape, layout, devices.platform(), seconds, repeats, peak))
    return {"rows": rows}


def over_lanes(counts: Sequence[int], seconds: float, repeats: int, peak: Peak, progress: Progress) -> Row:
    """Measure how a shape's updates a second grow with the lanes, up to those that fit into half of the free memory."""
    shape, names = SHAPES[0], devices.platform()
    reference = UniformPopulation(shape, devices.choose_layout(REFERENCE_LANES), names, seconds)
    others: list[float] = []
    rows: list[Row] = []
    left_out: list[int] = []
    for lanes in counts:
        layout = devices.choose_layout(lanes)
        if layout.lanes != lanes:  # this machine's devices and blocks do not divide it
            continue
        if lanes * reference.lane_bytes > _MEMORY_SHARE * free_bytes():
            left_out.append(lanes)
            continue
        progress(f"lanes: {lanes}, in turn with {REFERENCE_LANES}")
        try:
            population = UniformPopulation(shape, layout, names, seconds)
            rows.append(_beside(population, reference, seconds, repeats, peak, others))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            left_out.append(lanes)
    return {
        **knee_of(rows),
        "rows": rows,
        "reference_lanes": REFERENCE_LANES,
        "reference_updates_per_s": round(statistics.median(others)),
        "do_not_fit": left_out,
    }


def knee_of(rows: Sequence[Row]) -> Row:
    """Return the fewest lanes that make nine tenths of the most updates, and how linear the cost is from there on.

    Linear: the updates a second of more lanes differ from their median by no more than a tenth.
    """
    rates = [row["relative"] for row in rows]
    knee = next(i for i, rate in enumerate(rates) if rate >= KNEE * max(rates))
    past = rates[knee:]
    differs = max(abs(rate / statistics.median(past) - 1) for rate in past)
    return {"knee": rows[knee]["lanes"], "differs_past_knee": round(differs, 3), "linear": differs <= LINEAR}


def over_devices(lanes: int, seconds: float, repeats: int, progress: Progress) -> Row:
    """Measure how a shape's updates a second grow with the devices, each with the same lanes."""
    shape, names = SHAPES[0], devices.platform()
    there = len(jax.local_devices())
    all_of_them = devices.choose_layout(lanes)
    one = UniformPopulation(shape, _of_devices(all_of_them, 1), names, seconds)
    rows = []
    for count in sorted({1, *(2**i for i in range(1, there.bit_length()) if 2**i <= there), there}):
        progress(f"devices: {count}, in turn with one")
        layout = _of_devices(all_of_them, count)
        population = one if count == 1 else UniformPopulation(shape, layout, names, seconds)
        rows.append(_beside(population, one, seconds, repeats, Peak(count)))
    return {"rows": rows, "ratio": rows[-1]["relative"], "ratio_range": rows[-1]["relative_range"]}


def _of_devices(layout: Layout, count: int) -> Layout:
    return Layout(layout.rows, count, layout.block, layout.group)


def name_of(shape: Uniform) -> str:
    """Return a shape as people read it."""
    every = "step" if shape.train_period == 1 else f"{shape.train_period} steps"
    updates = "an update" if shape.gradient_steps == 1 else f"{shape.gradient_steps} updates"
    return f"{list(shape.hidden)} x {shape.batch_size}, {updates} every {every}"


def free_bytes() -> float:
    """Return the memory that is free for lanes: of the devices, or of this machine where they are its cores."""
    there = jax.local_devices()
    if stats := there[0].memory_stats():
        return float(stats["bytes_limit"] - stats["bytes_in_use"]) * len(there)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


def _beside(
    population: UniformPopulation,
    reference: UniformPopulation,
    seconds: float,
    repeats: int,
    peak: Peak,
    others: list[float] | None = None,
) -> Row:
    """Measure a population in turn with another, to whose updates a second its own are `relative`.

    `others` is given those of the other.
    """
    samples, rates, ratios = [peak.sample()], [], []
    for _ in range(repeats):
        rates.append(population.span(seconds))
        samples.append(peak.sample())
        other = rates[-1] if reference is population else reference.span(seconds)
        ratios.append(rates[-1].updates / other.updates)
        if others is not None:
            others.append(other.updates)
    return row_of(population, rates, samples) | {
        "relative": round(statistics.median(ratios), 3),
        "relative_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }
