"""Compare samplers: the same number of trials of each, for several study seeds, and a figure of the best so far."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jaxdqn.command_line import main, refuse, shell_word, stop_on_signals

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from jaxdqn.comparison import Comparison
    from jaxdqn.space import Space

WHAT, WHERE = "What is compared", "Where results go"
MAX_STUDIES, MAX_TRIALS, MAX_LANES = 1_000, 100_000, 1_000_000
TABLE, FIGURE = "comparison.tsv", "comparison.png"

EXAMPLES = """
Examples:

  python scripts/compare_samplers.py

  python scripts/compare_samplers.py --spaces article --samplers random,tpe --studies 3 --trials 32

  python scripts/compare_samplers.py --from runs/comparison/comparison.tsv
"""


class Options(NamedTuple):
    """What was asked for."""

    spaces: list[str]
    samplers: list[str] | None
    studies: int
    trials: int | None
    lanes: int
    output: Path


def compare(
    spaces: Annotated[
        str,
        typer.Option(help="Presets or TOML files, with commas: lesson, article, my.toml, …", rich_help_panel=WHAT),
    ] = "lesson",
    samplers: Annotated[
        str | None,
        typer.Option(
            help="Of grid, random, tpe, optuna-tpe and sobol, with commas."
            "  \\[default: random,tpe; grid too where the space has one]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    studies: Annotated[
        int, typer.Option(help="Study seeds from 0 on, each sampler's; they make the intervals.", rich_help_panel=WHAT)
    ] = 5,
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of a study.  \\[default: all cells of a grid, else 32]", rich_help_panel=WHAT),
    ] = None,
    lanes: Annotated[
        int,
        typer.Option(
            help="Trials that train at the same time: the fewer, the more a proposal of tpe knows.",
            rich_help_panel=WHAT,
        ),
    ] = 8,
    output: Annotated[
        Path | None,
        typer.Option(
            help=f"Directory of {TABLE}, a row a trial, and {FIGURE}.  \\[default: runs/comparison, or that of --from]",
            rich_help_panel=WHERE,
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Draw this table again and train nothing.", rich_help_panel=WHERE),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One summary object on stdout, all else on stderr.", rich_help_panel=WHERE)
    ] = False,
) -> None:
    """Let samplers search the same space and draw the best mean return so far, over trials and environment steps.

    A grid asks for its cells in random order, random search draws each trial alone, tpe (Bayesian) learns from those
    that have ended. One lucky study proves nothing: each sampler gets several, and the figure has intervals.
    No trial is pruned, and trials of one number and study share their random keys in all samplers.

    The same command again goes on with the studies that are missing; Ctrl-C keeps and draws the whole ones.
    """
    stop = stop_on_signals()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: the cores belong to the training
    for name, value, high in (
        ("studies", studies, MAX_STUDIES),
        ("trials", trials, MAX_TRIALS),
        ("lanes", lanes, MAX_LANES),
    ):
        if value is not None and not 1 <= value <= high:
            refuse(f"--{name} {value} is not allowed: int in [1, {high}]")

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from rich.console import Console

    from jaxdqn.comparison import read
    from jaxdqn.lesson_figures import draw_comparison, summary

    console = Console(stderr=json_)
    directory = output or (Path("runs/comparison") if from_ is None else from_.parent)
    chosen = None if samplers is None else _words("samplers", samplers)
    options = Options(_words("spaces", spaces), chosen, studies, trials, lanes, directory)
    try:
        found = read(from_) if from_ else _run(options, console, stop.is_set)
        if not found.rows:
            refuse("no study was run to its end: nothing to draw", status=130 if stop.is_set() else 2)
        directory.mkdir(parents=True, exist_ok=True)
        draw_comparison(found, directory / FIGURE)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{str(directory)!r} can't be written: {error.strerror or error}", status=1)
    figures = summary(found)
    console.print(_shown(figures))
    for path in (from_ or directory / TABLE, directory / FIGURE):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    if stop.is_set():
        again = " ".join(map(shell_word, sys.orig_argv))
        console.print(f"stopped; for the studies that are missing: {again}", markup=False, soft_wrap=True)
    if json_:
        print(json.dumps({"samplers": figures, "stopped": stop.is_set()}, allow_nan=False))
    sys.exit(130 if stop.is_set() else 0)


def _words(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words) or len(set(words)) < len(words):
        refuse(f"--{name} {text!r} is not allowed: names with commas between them, each once")
    return words


def _run(options: Options, console: Console, stopped: Callable[[], bool]) -> Comparison:
    """Run the studies that the table lacks, and write it after each; return all it then holds."""
    from jaxdqn import comparison, space
    from jaxdqn.samplers import SAMPLERS

    path = options.output / TABLE
    found = comparison.read(path) if path.exists() else comparison.Comparison()
    planned: list[tuple[Space, comparison.Setup, list[tuple[str, int]]]] = []
    for name in options.spaces:
        searched = space.load(name)
        samplers = options.samplers or comparison.samplers_for(searched)
        for sampler in samplers:
            if sampler not in SAMPLERS:
                raise ValueError(f"--samplers: {sampler!r} is not allowed: {', '.join(SAMPLERS)}")
        how = comparison.setup(searched, samplers, options.trials, options.lanes)
        known = found.setups.setdefault(searched.name, how)
        if known != how:
            raise ValueError(
                f"{path} holds {searched.name} with {_text(known)}, asked is {_text(how)}: choose another --output"
            )
        there = found.studies()
        wanted = [
            (sampler, seed)
            for seed in range(options.studies)
            for sampler in samplers
            if seed not in there.get((searched.name, sampler), [])
        ]
        planned.append((searched, how, wanted))
    options.output.mkdir(parents=True, exist_ok=True)
    for searched, how, wanted in planned:
        if not wanted or stopped():
            continue
        console.print(f"{searched.name}: compiling, then {len(wanted)} studies of {how.trials} trials", highlight=False)
        started = time.monotonic()
        for rows in comparison.run(searched, how, wanted, stopped):
            found.rows += rows
            comparison.write(path, found)
            best = max((row.value for row in rows if row.value == row.value), default=float("nan"))
            elapsed, started = time.monotonic() - started, time.monotonic()
            text = f"{searched.name}, study {rows[0].study}, {rows[0].sampler}: best {best:.1f}, {elapsed:.0f} s"
            console.print(text, markup=False, highlight=False)
    return found


def _text(how: tuple[int, int, str]) -> str:
    return f"{how[0]} trials in {how[1]} lanes, definition {how[2]}"


def _shown(figures: list[dict[str, object]]) -> Table:
    """Return the summary as a table of at most 80 columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("space", "sampler"):
        table.add_column(name, no_wrap=True)
    for name in ("studies", "best after trials: mean (95 %)", "mean trial", "steps", "random ahead"):
        table.add_column(name, justify="right")
    for row in figures:
        looks = row["best_after"]
        assert isinstance(looks, list)
        best = [f"{x['trials']}: {_n(x['mean'])} ({_n(x['interval'][0])}–{_n(x['interval'][1])})" for x in looks]
        cells = (str(row["studies"]), "\n".join(best), _n(row["mean_return_of_trials"]))
        ahead = "" if row["random_ahead"] is None else f"{row['random_ahead']:.2f}"
        table.add_row(str(row["space"]), str(row["sampler"]), *cells, f"{row['env_steps_a_study']:,}", ahead)
    return table


def _n(value: object) -> str:
    return "none" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    main(compare, epilog=EXAMPLES)
