"""Measure this machine: how fast populations train, what the host costs, whole sweeps, and all of it beside others."""

from __future__ import annotations

import json
import math
import os
import signal
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
TRAIN_PARTS = ("uniform", "mixed", "devices", "lanes")  # the last one only where it is named
REPEATS = 5  # spans of a population, whose medians count
PEERS = Path(__file__).parent / "peers"
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
Environments = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the peers' virtual environments, made if they are not there: 2 GB, minutes, a network."
        "  \\[default: environments in --output]"
    ),
]


def train(
    only: Annotated[
        list[str] | None,
        typer.Option(help="This part; may be given several times.  \\[default: uniform, mixed, devices]"),
    ] = None,
    lanes: Annotated[
        int, typer.Option(help="Agents that train at the same time, where that is one number.", min=1)
    ] = 64,
    width: Annotated[
        int | None, typer.Option(help="Measure this shape alone: units of each of the two hidden layers.", min=1)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Measure this shape alone: transitions an update.", min=1)
    ] = None,
    train_period: Annotated[
        int | None, typer.Option(help="Measure this shape alone: environment steps between train events.", min=1)
    ] = None,
    gradient_steps: Annotated[
        int | None, typer.Option(help="Measure this shape alone: updates at a train event.", min=1)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds of each of the 5 spans measured.", min=0.1)] = 3.0,
    output: Annotated[
        Path, typer.Option(help="Directory of train.json, with everything this run measured, and of figures.")
    ] = Path("runs/benchmark"),
    as_json: AsJson = False,
) -> None:
    """Train populations; print environment steps and updates a second, and the share of the machine's peak.

    Parts: uniform populations of six shapes; the article's mixed space beside uniform populations of its shapes;
    devices, one against all; lanes, from 1 to 4,096 (this one only where it is named). Everything is counted; compile
    time is kept apart. This is what runs when no command is given.

    Examples: python scripts/benchmark.py

    python scripts/benchmark.py train --only lanes

    python scripts/benchmark.py train --lanes 16 --width 128 --batch-size 32
    """
    alone = any(value is not None for value in (width, batch_size, train_period, gradient_steps))
    if alone and only:
        refuse("--only names parts whose shapes are given: a shape of your own is measured alone")
    for name in only or ():
        if name not in TRAIN_PARTS:
            refuse(f"--only {name!r} is not allowed: parts are {', '.join(TRAIN_PARTS)}")
    _make_output(output, "train.json")

    from jaxdqn import devices

    devices.prepare()

    from rich.console import Console

    from jaxdqn import compile_cache, throughput, throughput_figures
    from jaxdqn.peak import Peak
    from jaxdqn.surroundings import about_peak, head, surroundings
    from jaxdqn.workload import Uniform

    try:
        layout = devices.choose_layout(lanes)
    except ValueError as error:
        refuse(str(error))
    own = Uniform((width or 64, width or 64), batch_size or 64, train_period or 1, gradient_steps or 1)
    parts = ["uniform"] if alone else [name for name in TRAIN_PARTS if name in (only or TRAIN_PARTS[:3])]
    console, about = Console(stderr=as_json), surroundings()
    console.print(head(about), "", highlight=False)
    measured: dict[str, Any] = {}
    with compile_cache.of_this_process():
        peak = Peak(layout.devices)
        for name in parts:
            shapes = (own,) if alone else throughput.SHAPES
            measured[name] = throughput.measure_part(name, lanes, seconds, REPEATS, peak, _progress, shapes)
            console.print(throughput_figures.shown(name, measured[name]))
            result = throughput.summary(about, peak, measured)
            (output / "train.json").write_text(json.dumps(result, allow_nan=False) + "\n", "utf-8")
    throughput_figures.draw(measured, output)
    _publish("train", result, output, as_json, about_peak(result))


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
    as_json: AsJson = False,
) -> None:
    """Measure the host: asking and proposals beside stock Optuna, and what host and differing agents cost a sweep.

    Parts: ask, quality, mixed, recording, gpu (the last two take minutes). A bar that is missed is printed as such; the
    exit status is 0 all the same.

    Example: python scripts/benchmark.py host --only ask
    """
    for name in only or ():
        if name not in PARTS:
            refuse(f"--only {name!r} is not allowed: parts are {', '.join(PARTS)}")
    _make_output(output, "host.json")

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: the cores belong to the training

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    import optuna
    from rich.console import Console

    from jaxdqn.surroundings import surroundings

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if stock:
        _write_stock()
    console = Console(stderr=as_json)
    result = surroundings()
    measured = [name for name in PARTS if not only or name in only]
    for name in measured:
        result[name], shown = PARTS[name](output)
        (output / "host.json").write_text(json.dumps(result, allow_nan=False) + "\n", "utf-8")
        console.print(shown, "")
    missed = [name for name in measured if not result[name]["reached"]]
    _publish(
        "host", result, output, as_json, f"missed a bar: {', '.join(missed)}" if missed else "every bar is reached"
    )


def gpu_plan(
    target: Annotated[str, typer.Option(help="The GPU to compile for: t4, a100 or h100.")] = "t4",
    space: Annotated[str, typer.Option(help="Search space: a preset or a TOML file.")] = "default",
    lanes: Annotated[int, typer.Option(help="Agents that train at the same time.", min=1)] = 1_024,
    block: Annotated[int | None, typer.Option(help="Lanes of a block.  \\[default: chosen as on a GPU]", min=1)] = None,
    hlo: Annotated[Path | None, typer.Option(help="Write the compiled program here, as text.")] = None,
    output: Annotated[Path, typer.Option(help="Directory of gpu-plan.json and gpu-plan.png.")] = Path("runs/benchmark"),
    as_json: AsJson = False,
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

    from jaxdqn import gpu_report
    from jaxdqn.gpu_targets import TARGETS
    from jaxdqn.space import load

    if target not in TARGETS:
        refuse(f"--target {target!r} is not allowed: {', '.join(TARGETS)}")
    _make_output(output, "gpu-plan.json")
    try:
        result, text = gpu_report.plan(TARGETS[target], load(space), lanes, block, _progress)
        if hlo is not None:
            hlo.write_text(text, "utf-8")
    except (ValueError, ModuleNotFoundError) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename!r} can't be written: {error.strerror}")
    gpu_report.draw(result, output / "gpu-plan.png")
    _publish("gpu-plan", result, output, as_json, gpu_report.shown(result))


def profile(
    lanes: Annotated[int | None, typer.Option(help="Lanes of the block.  \\[default: as in training]", min=1)] = None,
    width: Annotated[int, typer.Option(help="Units of each of the two hidden layers.", min=1)] = 64,
    batch_size: Annotated[int, typer.Option(help="Transitions an update.", min=1)] = 64,
    train_period: Annotated[int, typer.Option(help="Environment steps between train events.", min=1)] = 1,
    gradient_steps: Annotated[int, typer.Option(help="Updates at a train event.", min=1)] = 1,
    ticks: Annotated[int, typer.Option(help="Ticks of each of the 5 segments traced.", min=1)] = 200,
    output: Annotated[Path, typer.Option(help="Directory of profile.json and profile.png.")] = Path("runs/benchmark"),
    as_json: AsJson = False,
) -> None:
    """Show where the time of a segment goes: one block on one device, each kernel traced.

    Example: python scripts/benchmark.py profile --width 256 --batch-size 16
    """
    from jaxdqn import devices

    devices.prepare(1)

    from jaxdqn import profile_report, segment_profile
    from jaxdqn.config import Layout
    from jaxdqn.surroundings import head, surroundings, with_peak
    from jaxdqn.workload import Uniform, laid_out

    _make_output(output, "profile.json")
    shape = Uniform((width, width), batch_size, train_period, gradient_steps)
    layout = Layout(1, 1, lanes or laid_out(shape, None, 1).block)
    _progress(f"compiling twice, then tracing 5 segments of {ticks} ticks")
    try:
        result = with_peak(surroundings()) | segment_profile.measure(shape, layout, devices.platform(), ticks)
    except ValueError as error:
        refuse(str(error))
    profile_report.draw(result, output / "profile.png")
    _publish("profile", result, output, as_json, head(result), "", profile_report.shown(result))


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
    from jaxdqn.mixed import mixed

    title = "Heterogeneity: the article's space, mixed, against uniform populations of its shapes"
    return _bars(title, mixed(progress=_progress), {"ratio": ("<=", 1.4)})


PARTS: dict[str, Callable[[Path], tuple[dict[str, Any], RenderableType]]] = {
    "ask": _ask,
    "quality": _quality,
    "mixed": _mixed,
    "recording": _recording,
    "gpu": _gpu,
}
# A part measures, may leave figures in the output directory, and returns its figures, with `reached` among them, and
# what to show of them.


def _make_output(output: Path, name: str) -> None:
    """Make a directory, and a file in it, or refuse."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / name).touch()
    except OSError as error:
        refuse(f"--output {str(output)!r} is no writable directory: {error.strerror}")


def _publish(name: str, result: dict[str, Any], output: Path, as_json: bool, *shown: RenderableType) -> None:
    """Write a result, print what is to be seen of it, and where it is."""
    from rich.console import Console

    (output / f"{name}.json").write_text(json.dumps(result, allow_nan=False) + "\n", "utf-8")
    console = Console(stderr=as_json)
    for each in shown:
        console.print(each, highlight=False)
    console.print(f"written to {output}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        print(json.dumps(result, allow_nan=False))


def _write_stock() -> None:
    from jaxdqn.objectives import objectives
    from jaxdqn.quality import write_stock

    write_stock(STORED, objectives(DATA), _progress)


def peers(
    only: Annotated[
        list[str] | None, typer.Option(help="This part: sets or uniform; may be given twice.  \\[default: both]")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of everybody; figures are their medians.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds of a span of the uniform population.", min=0.1)] = 3.0,
    limit: Annotated[float, typer.Option(help="Seconds after which a peer that gives no answer is ended.")] = 1_200.0,
    environments: Environments = None,
    output: Annotated[Path, typer.Option(help="Directory of peers.json and peers.png.")] = Path("runs/benchmark"),
    as_json: AsJson = False,
) -> None:
    """Train beside rejax, Stable-Baselines3 and a plain PyTorch loop, in turns.

    sets: 16 hyperparameter sets of the article's space, the same environment steps, updates and greedy episodes for
    everybody (a round: about 6 minutes on 2 cores). uniform: [64, 64], an update of 64 every step (40 seconds a round).
    Peers run in one process with the number of threads that suits them best, and again with a process a core.
    A bar that is missed is printed as such; the exit status is 0 all the same.

    Example: python scripts/benchmark.py peers --only uniform --environments ~/.cache/jaxdqn/peers
    """
    parts = ("sets", "uniform")
    for name in only or ():
        if name not in parts:
            refuse(f"--only {name!r} is not allowed: parts are {', '.join(parts)}")
    if not 0 < limit < math.inf:
        refuse(f"--limit {limit:g} is not allowed: seconds above 0")
    _make_output(output, "peers.json")
    _end_with_children()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: the cores belong to the training

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from jaxdqn.peer_benchmark import compare
    from jaxdqn.peer_figures import draw_peers, peers_shown
    from jaxdqn.peers import PeerError
    from jaxdqn.surroundings import head, surroundings, with_peak

    chosen = [part for part in parts if not only or part in only]
    where = environments or output / "environments"
    try:
        compared = compare(PEERS, where, chosen, rounds, seconds, limit, _progress)
    except PeerError as error:
        refuse(str(error), status=1)
    result = with_peak(surroundings()) | compared
    draw_peers(result, output / "peers.png")
    _publish("peers", result, output, as_json, head(result), "", peers_shown(result))


def sweep(
    space: Annotated[str, typer.Option(help="Preset or TOML file of CartPole, with one objective.")] = "default",
    trials: Annotated[int, typer.Option(help="Trials of the population's sweep.", min=1)] = 64,
    budget: Annotated[float, typer.Option(help="Seconds of each of the two others.", min=1.0)] = 180.0,
    only: Annotated[
        list[str] | None,
        typer.Option(help="This side: population, lane or sb3; may be given several times.  \\[default: all]"),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Sweeps of each side; 5 for a figure to be published.", min=1)] = 1,
    target: Annotated[float, typer.Option(help="Mean return whose first trial is looked for.")] = 475.0,
    limit: Annotated[float, typer.Option(help="Seconds after which a command is given up.")] = 3_600.0,
    environments: Environments = None,
    output: Annotated[Path, typer.Option(help="Directory of sweep.json and sweep.png.")] = Path("runs/benchmark"),
    as_json: AsJson = False,
) -> None:
    """Run a whole sweep beside the same search in one lane, and beside Stable-Baselines3 under stock Optuna.

    population: scripts/sweep.py to its verdict. lane: the same with one lane on one device, for --budget seconds.
    sb3: one agent after another, stock Optuna, the same space and budgets, for --budget seconds. By default about 8
    minutes on 2 cores.

    Example: python scripts/benchmark.py sweep --trials 128 --budget 120
    """
    for name in only or ():
        if name not in ("population", "lane", "sb3"):
            refuse(f"--only {name!r} is not allowed: sides are population, lane, sb3")
    for option, value in (("budget", budget), ("limit", limit), ("target", target)):
        if not math.isfinite(value) or (option != "target" and value <= 0):
            refuse(f"--{option} {value:g} is not allowed: a finite number{'' if option == 'target' else ' above 0'}")
    _make_output(output, "sweep.json")
    _end_with_children()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: the cores belong to the training

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from jaxdqn.peers import PeerError
    from jaxdqn.surroundings import head, surroundings, with_peak
    from jaxdqn.sweep_benchmark import LANE, POPULATION, STOCK, Settings, compare
    from jaxdqn.sweep_figures import draw_sweeps, sweep_table

    named = {"population": POPULATION, "lane": LANE, "sb3": STOCK}
    sides = [side for name, side in named.items() if not only or name in only]
    settings = Settings(space, trials, budget, repeats, target, limit)
    try:
        compared = compare(settings, PEERS, environments or output / "environments", sides, _progress)
    except ValueError as error:
        refuse(str(error))
    except PeerError as error:
        refuse(str(error), status=1)
    result = with_peak(surroundings()) | compared
    draw_sweeps(result, output / "sweep.png")
    _publish("sweep", result, output, as_json, head(result), "", sweep_table(result))


def _end_with_children() -> None:
    """Let SIGTERM end this process as Ctrl-C does, by an exception, at which the processes it started are ended too."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def memory(
    spaces: Annotated[
        list[str] | None,
        typer.Option(
            "--space", help="Preset or TOML file; may be given several times.  \\[default: default and article]"
        ),
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(help="Agents that train at the same time.  \\[default: as many as a sweep has]")
    ] = None,
    output: Annotated[Path, typer.Option(help="Directory of memory.json and memory.png.")] = Path("runs/benchmark"),
    as_json: AsJson = False,
) -> None:
    """Count the bytes of a lane by part, ask XLA for the same, and say how many lanes fit a T4, an A100, this machine.

    Example: python scripts/benchmark.py memory --space default --lanes 64
    """
    _make_output(output, "memory.json")

    from jaxdqn import devices

    devices.prepare()

    from jaxdqn.memory_report import draw, measure, memory_table
    from jaxdqn.surroundings import head, surroundings, with_peak

    result = with_peak(surroundings())
    try:
        result["rows"] = [measure(name, lanes, _progress) for name in spaces or ("default", "article")]
    except ValueError as error:
        refuse(str(error))
    draw(result["rows"], output / "memory.png")
    _publish("memory", result, output, as_json, head(result), "", memory_table(result["rows"]))


if __name__ == "__main__":
    main(train, sweep, peers, host, memory, gpu_plan, profile)
