"""Train hyperparameters anew on fresh seeds: how often do they work?"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from jaxdqn.command_line import main, refuse, stop_on_signals
from jaxdqn.startup import process_started

WHAT, HOW, WHERE = "What is trained", "How", "Where results go"
MAX_SEEDS, MAX_SEED = 10_000, 2**31 - 1

EXAMPLES = """
Examples:

  python scripts/train.py --output runs/default-CartPole-v1 --seeds 32

  python scripts/train.py --output runs/default-CartPole-v1 --trial 24 --seeds 8 --save runs/trial-24-again

  python scripts/train.py --hyperparameters mine.toml --seeds 16 --seed 7
"""


def train(
    hyperparameters: Annotated[
        str | None,
        typer.Option(help="TOML file (or preset) like a search space, every value fixed.", rich_help_panel=WHAT),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of a sweep: its winner, or --trial.", rich_help_panel=WHAT)
    ] = None,
    trial: Annotated[
        int | None, typer.Option(help="Trial of the sweep.  \\[default: the winner]", rich_help_panel=WHAT)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Agents, which differ in nothing else.", rich_help_panel=HOW)] = 16,
    seed: Annotated[
        int, typer.Option(help="Of all random keys. None of them is one of a sweep.", rich_help_panel=HOW)
    ] = 0,
    save: Annotated[
        Path | None, typer.Option(help="Directory in which the agents are saved.", rich_help_panel=WHERE)
    ] = None,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep the compiled program for the next start.", rich_help_panel=HOW),
    ] = True,
    json_: Annotated[
        bool, typer.Option("--json", help="One object on stdout, all else on stderr.", rich_help_panel=WHERE)
    ] = False,
) -> None:
    """Train hyperparameters on fresh seeds, all agents in one population, and say how often they work.

    Each agent is judged on 1,000 greedy episodes.
    """
    started, stop = process_started(), stop_on_signals()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if (hyperparameters is None) == (output is None):
        refuse("say what to train: --hyperparameters FILE or --output DIR (with --trial N), one of them")
    if trial is not None and output is None:
        refuse("--trial needs --output, the directory of its sweep")
    for name, value, low, high in (("seeds", seeds, 1, MAX_SEEDS), ("seed", seed, 0, MAX_SEED)):
        if not low <= value <= high:
            refuse(f"--{name} {value} is not allowed: int in [{low}, {high}]")

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from rich.console import Console
    from rich.markup import escape

    from jaxdqn.console import SweepConsole, show_hyperparams, show_verdict
    from jaxdqn.plan import check_writable
    from jaxdqn.retrain import Task, from_file, from_sweep, retrain

    console = Console(stderr=json_)
    try:
        if save is not None:
            check_writable(save)
            if (save / "study.log").exists() and output != save:
                raise ValueError(f"--save {str(save)!r} is not allowed: it holds a sweep, whose trials are others")
        if output is not None:
            space, number, search_return = from_sweep(output, trial)
            what = f"trial {number} of {output}"
        else:
            space, number, search_return = from_file(str(hyperparameters)), 0, None
            what = str(hyperparameters)
        task = Task(space, number, seeds, seed, search_return, save)
        with SweepConsole(console, f"[bold]{escape(what)}[/]: {escape(space.env)}, {seeds} agents") as shown:
            result, compile_s = retrain(task, shown.show, stop, cache)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"an agent can't be saved: {error}", status=1)
    if result is None:
        print("stopped before all agents had ended: nothing to report", file=sys.stderr)
        sys.exit(130)
    wall_s = time.monotonic() - started
    show_hyperparams(console, result.hyperparameters, set())
    console.print(f"{sum(result.env_steps) / seeds:,.0f} environment steps an agent, {wall_s:.0f} s", highlight=False)
    show_verdict(console, result, space.solved)
    if json_:
        summary = {**result.summary(), "seed": seed, "wall_s": round(wall_s, 3), "compile_s": round(compile_s, 3)}
        print(json.dumps(summary, allow_nan=False))


if __name__ == "__main__":
    main(train, epilog=EXAMPLES)
