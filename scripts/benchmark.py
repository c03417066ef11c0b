"""Measure this machine: `train`, how fast populations train, and `host`, how fast and how good the host is."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxdqn.command_line import main, refuse

if TYPE_CHECKING:
    from rich.console import RenderableType

DATA = Path(__file__).parent / "data"
STORED = DATA / "stock_quality.json"


def train(
    lanes: Annotated[int, typer.Option(help="Agents that train at the same time.", min=1)] = 64,
    width: Annotated[int, typer.Option(help="Units of each of the two hidden layers.", min=1)] = 64,
    batch_size: Annotated[int, typer.Option(help="Transitions an update.", min=1)] = 64,
    train_period: Annotated[int, typer.Option(help="Environment steps between train events.", min=1)] = 1,
    gradient_steps: Annotated[int, typer.Option(help="Updates at a train event.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds of each of the 5 spans measured.", min=0.1)] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Train a uniform population and print environment steps and updates a second, and the share of peak.

    Everything is counted; compile time is kept apart. This is what runs when no command is given.

    Example: python scripts/benchmark.py --lanes 64 --width 64 --batch-size 64
    """
    from jaxdqn import devices

    devices.prepare()

    import jax

    from jaxdqn.benchmark import measure
    from jaxdqn.workload import Uniform

    try:
        layout = devices.choose_layout(lanes)
    except ValueError as error:
        refuse(str(error))
    shape = Uniform((width, width), batch_size, train_period, gradient_steps)
    _progress(f"measuring 5 spans of {seconds:g} s after compiling")
    row = measure(shape, layout, devices.platform(), seconds)
    row |= {"jax": jax.__version__, "python": platform.python_version(), "device": jax.devices()[0].device_kind}
    print(json.dumps(row) if as_json else "\n".join(f"{name:20} {value}" for name, value in row.items()))


def host(
    only: Annotated[
        list[str] | None, typer.Option(help="This part; may be given several times.  \\[default: all]")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Directory of host.json, with everything this run measured, and of figures.")
    ] = Path("runs/benchmark"),
    stock: Annotated[
        bool, typer.Option("--stock", help="Run stock Optuna's side of the quality again and store it, first.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
) -> None:
    """Measure the host: asking and proposals beside stock Optuna, and what host and differing agents cost a sweep.

    Parts: ask, quality, mixed, recording, gpu (the last two take minutes). A bar that is missed is printed as such; the
    exit status is 0 all the same.

    Example: python scripts/benchmark.py host --only ask
    """
    for name in only or ():
        if name not in PARTS:
            refuse(f"--only {name!r} is not allowed: parts are {', '.join(PARTS)}")
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "host.json").touch()
    except OSError as error:
        refuse(f"--output {str(output)!r} is no writable directory: {error.strerror}")

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: the cores belong to the training

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    import numpy as np
    import optuna
    from rich.console import Console

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if stock:
        _write_stock()
    console = Console(stderr=as_json)
    result: dict[str, Any] = {
        "machine": {
            "cores": devices.cores(),
            "blas_threads": os.environ["OPENBLAS_NUM_THREADS"],
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "optuna": optuna.__version__},
    }
    measured = [name for name in PARTS if not only or name in only]
    for name in measured:
        result[name], shown = PARTS[name](output)
        (output / "host.json").write_text(json.dumps(result, allow_nan=False) + "\n", "utf-8")
        console.print(shown, "")
    missed = [name for name in measured if not result[name]["reached"]]
    console.print(f"missed a bar: {', '.join(missed)}" if missed else "every bar is reached")
    console.print(f"written to {output}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        print(json.dumps(result, allow_nan=False))


def gpu_plan(
    target: Annotated[str, typer.Option(help="The GPU to compile for: t4, a100 or h100.")] = "t4",
    space: Annotated[str, typer.Option(help="Search space: a preset or a TOML file.")] = "default",
    lanes: Annotated[int, typer.Option(help="Agents that train at the same time.", min=1)] = 1_024,
    block: Annotated[int | None, typer.Option(help="Lanes of a block.  \\[default: chosen as on a GPU]", min=1)] = None,
    hlo: Annotated[Path | None, typer.Option(help="Write the compiled program here, as text.")] = None,
    output: Annotated[Path, typer.Option(help="Directory of gpu-plan.json and gpu-plan.png.")] = Path("runs/benchmark"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
) -> None:
    """Compile the training for a GPU that is not there; count what it launches, and predict what that takes.

    Needs JAX's CUDA plug-in, but no GPU: nothing of it is timed. Where a GPU is at hand, the training is timed on that
    one too.

    Example: python scripts/benchmark.py gpu-plan --target t4 --space article --lanes 512
    """
    from jaxdqn import devices

    devices.prepare()
    if not devices.sees_gpu():
        import jax

        jax.config.update("jax_platforms", "cpu")  # the plug-in alone would complain that there is no driver

    from rich.console import Console

    from jaxdqn import gpu_report
    from jaxdqn.gpu_targets import TARGETS
    from jaxdqn.space import load

    if target not in TARGETS:
        refuse(f"--target {target!r} is not allowed: {', '.join(TARGETS)}")
    console = Console(stderr=as_json)
    try:
        output.mkdir(parents=True, exist_ok=True)
        result, text = gpu_report.plan(TARGETS[target], load(space), lanes, block, _progress)
        (output / "gpu-plan.json").write_text(json.dumps(result, allow_nan=False) + "\n", "utf-8")
        if hlo is not None:
            hlo.write_text(text, "utf-8")
    except (ValueError, ModuleNotFoundError) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename!r} can't be written: {error.strerror}")
    gpu_report.draw(result, output / "gpu-plan.png")
    console.print(gpu_report.shown(result))
    console.print(f"written to {output}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        print(json.dumps(result, allow_nan=False))


def profile(
    lanes: Annotated[int | None, typer.Option(help="Lanes of the block.  \\[default: as in training]", min=1)] = None,
    width: Annotated[int, typer.Option(help="Units of each of the two hidden layers.", min=1)] = 64,
    batch_size: Annotated[int, typer.Option(help="Transitions an update.", min=1)] = 64,
    train_period: Annotated[int, typer.Option(help="Environment steps between train events.", min=1)] = 1,
    gradient_steps: Annotated[int, typer.Option(help="Updates at a train event.", min=1)] = 1,
    ticks: Annotated[int, typer.Option(help="Ticks of each of the 5 segments traced.", min=1)] = 200,
    output: Annotated[Path, typer.Option(help="Directory of profile.json and profile.png.")] = Path("runs/benchmark"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
) -> None:
    """Show where the time of a segment goes: one block on one device, each kernel traced.

    Example: python scripts/benchmark.py profile --width 256 --batch-size 16
    """
    from jaxdqn import devices

    devices.prepare(1)

    import jax
    from rich.console import Console

    from jaxdqn import segment_profile
    from jaxdqn.config import Layout
    from jaxdqn.workload import Uniform

    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "profile.json").touch()
    except OSError as error:
        refuse(f"--output {str(output)!r} is no writable directory: {error.strerror}")
    block = lanes or devices.choose_layout(1_000_000 // 2, 1).block
    console = Console(stderr=as_json)
    shape = Uniform((width, width), batch_size, train_period, gradient_steps)
    _progress(f"compiling twice, then tracing 5 segments of {ticks} ticks")
    try:
        result = segment_profile.measure(shape, Layout(1, 1, block), devices.platform(), ticks)
    except ValueError as error:
        refuse(str(error))
    result |= {"jax": jax.__version__, "python": platform.python_version(), "device": jax.devices()[0].device_kind}
    (output / "profile.json").write_text(json.dumps(result, allow_nan=False) + "\n", "utf-8")
    segment_profile.draw(result, output / "profile.png")
    console.print(segment_profile.shown(result))
    console.print(f"written to {output}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        print(json.dumps(result, allow_nan=False))


def _ask(_: Path) -> tuple[dict[str, Any], RenderableType]:
    from jaxdqn import space
    from jaxdqn.host_benchmark import ask_table, ask_times

    result = ask_times(space.load("article").searched, progress=_progress)
    return result, ask_table(result)


def _quality(output: Path) -> tuple[dict[str, Any], RenderableType]:
    from jaxdqn.objectives import objectives
    from jaxdqn.quality import compare, draw, quality_table

    result = compare(objectives(DATA), json.loads(STORED.read_text("utf-8")), progress=_progress)
    draw(result, output / "quality.png")
    return result, quality_table(result)


def _bars(
    title: str, result: dict[str, Any], bars: dict[str, tuple[str, float]]
) -> tuple[dict[str, Any], RenderableType]:
    """Return figures with whether each keeps its bar, and a table of them; a bar is `<=` or `>=` a number."""
    from rich.table import Table

    table = Table("", "asked", "reached", "", title=title, title_justify="left", box=None, pad_edge=False)
    kept = {}
    for name, value in result.items():
        asked = mark = ""
        if name in bars:
            sign, bound = bars[name]
            kept[name] = value <= bound if sign == "<=" else value >= bound
            asked, mark = f"{'≤' if sign == '<=' else '≥'} {bound:g}", "✓" if kept[name] else "✗ missed"
        shown = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(name, asked, shown, mark)
    return result | {"reached": all(kept.values())}, table


def _recording(_: Path) -> tuple[dict[str, Any], RenderableType]:
    from jaxdqn.host_load import recording

    _progress("recording: 3 pairs of whole sweeps with and without storage and MLflow, some minutes")
    bars = {"ratio": ("<=", 1.05), "visit_share": ("<=", 0.03)}
    return _bars("Recording: whole sweeps with storage and MLflow against both off", recording(), bars)


def _gpu(_: Path) -> tuple[dict[str, Any], RenderableType]:
    from jaxdqn.host_load import simulated_gpu

    _progress("gpu: 10,000 trials at 25 a second, about 7 minutes")
    bars = {"trials": (">=", 10_000), "lanes_busy": (">=", 0.95), "drain_s": ("<=", 60.0), "memory_gb": ("<=", 2.0)}
    return _bars("A simulated GPU that ends 25 trials a second", simulated_gpu(), bars)


def _mixed(_: Path) -> tuple[dict[str, Any], RenderableType]:
    from jaxdqn.host_load import mixed

    _progress("mixed: the article's space, then a uniform population of each of its shapes, about 2 minutes")
    title = "Heterogeneity: the article's space, mixed, against uniform populations of its shapes"
    return _bars(title, mixed(), {"ratio": ("<=", 1.4)})


PARTS: dict[str, Callable[[Path], tuple[dict[str, Any], RenderableType]]] = {
    "ask": _ask,
    "quality": _quality,
    "mixed": _mixed,
    "recording": _recording,
    "gpu": _gpu,
}
# A part measures, may leave figures in the output directory, and returns its figures, with `reached` among them, and
# what to show of them.


def _write_stock() -> None:
    from jaxdqn.objectives import objectives
    from jaxdqn.quality import write_stock

    write_stock(STORED, objectives(DATA), _progress)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(train, host, gpu_plan, profile)
