"""Search hyperparameters: train a population of DQN agents in one compiled program, Optuna chooses the next ones."""

from __future__ import annotations

import time

STARTED = time.monotonic()

import json  # noqa: E402
import shlex  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from dataclasses import fields  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated, Any  # noqa: E402

import typer  # noqa: E402

WHEN, WHAT, WHERE, HOW = "When to stop (the first reached)", "What is searched", "Where results go", "Machine"

EXAMPLES = """
Examples:

  python scripts/sweep.py

  python scripts/sweep.py --space article --trials 200

  python scripts/sweep.py --space my.toml --seeds 4 --target-return 495
"""


def sweep(
    space: Annotated[
        str, typer.Option(help="Preset (default, article) or TOML file.", rich_help_panel=WHAT)
    ] = "default",
    env: Annotated[
        str | None,
        typer.Option(help="gymnax environment.  \\[default: the space's, CartPole-v1]", rich_help_panel=WHAT),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Agents a trial; its value is their mean.", rich_help_panel=WHAT)] = 1,
    episodes: Annotated[
        int | None,
        typer.Option(help="Budget of an agent, in episodes.  \\[default: the space's]", rich_help_panel=WHAT),
    ] = None,
    env_steps: Annotated[
        int | None,
        typer.Option(help="Budget of an agent, in environment steps.  \\[default: the space's]", rich_help_panel=WHAT),
    ] = None,
    eval_episodes: Annotated[
        int | None,
        typer.Option(help="Greedy episodes an agent is scored on.  \\[default: the space's]", rich_help_panel=WHAT),
    ] = None,
    sampler: Annotated[str, typer.Option(help="Who chooses: tpe or random.", rich_help_panel=WHAT)] = "tpe",
    seed: Annotated[int, typer.Option(help="Seed of the study; the same one repeats it.", rich_help_panel=WHAT)] = 0,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Finished trials, those of earlier runs included.  \\[default: 64, none if another limit is given]",
            rich_help_panel=WHEN,
        ),
    ] = None,
    time_budget: Annotated[float | None, typer.Option(help="Seconds.  \\[default: none]", rich_help_panel=WHEN)] = None,
    target_return: Annotated[
        float | None, typer.Option(help="Mean return a trial must reach.  \\[default: none]", rich_help_panel=WHEN)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory everything is written to.  \\[default: runs/<study>]", rich_help_panel=WHERE),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study.  \\[default: <space>-<env>]", rich_help_panel=WHERE)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage URL.  \\[default: SQLite in the output directory]", rich_help_panel=WHERE),
    ] = None,
    tracking: Annotated[
        str | None,
        typer.Option(
            help="MLflow tracking URI, or off.  \\[default: SQLite in the output directory]", rich_help_panel=WHERE
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One summary object on stdout, all else on stderr.", rich_help_panel=WHERE)
    ] = False,
    lanes: Annotated[
        int | None,
        typer.Option(
            help="Agents that train at the same time.  \\[default: 8 a CPU core, 512 a GPU]", rich_help_panel=HOW
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="CPU cores or GPUs.  \\[default: all]", rich_help_panel=HOW)
    ] = None,
) -> None:
    """Train a population of DQN agents in one compiled program and let Optuna choose the next ones.

    The same command again continues the study. Ctrl-C ends it cleanly: what is finished is kept.
    """
    given = dict(locals())
    if trials is None and time_budget is None and target_return is None:
        given["trials"] = 64
    sys.exit(_run(given, json_))


def _run(given: dict[str, Any], as_json: bool) -> int:
    from jaxdqn import devices as hardware

    hardware.prepare()  # before gymnax is imported: that starts JAX's backend

    from jaxdqn.run import Settings, plan, run

    settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
    planned = plan(settings)

    from rich.console import Console

    from jaxdqn.console import SweepConsole, show_result

    console = Console(stderr=as_json)
    stop = _stop_on_signals(console)
    with SweepConsole(console, planned) as shown:
        result = run(planned, shown.show, stop, STARTED)
    show_result(console, result, _resume_command(given, result.counts, result.stopped))
    if as_json:
        print(json.dumps(result.summary(), allow_nan=False))
    return 130 if result.stopped else 0


def _stop_on_signals(console: Any) -> threading.Event:
    """Let the first SIGINT or SIGTERM end the sweep at its next visit; the second ends the process."""
    stop = threading.Event()

    def handle(number: int, _: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)
        console.print("ending after this segment; once more to leave at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop


def _resume_command(given: dict[str, Any], counts: dict[str, int], stopped: bool) -> str:
    """Return the command as it was typed; where all trials are done, with more of them."""
    words = list(sys.orig_argv)
    finished = sum(counts.values()) - counts["running"]
    if not stopped and given["trials"] is not None and finished >= given["trials"]:
        words = [word for i, word in enumerate(words) if word != "--trials" and words[i - 1] != "--trials"]
        words = [word for word in words if not word.startswith("--trials=")] + ["--trials", str(2 * finished)]
    return shlex.join(words)


def main() -> None:
    """Run the command; what the user got wrong is one line and exit status 2."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(sweep)
    command = typer.main.get_command(app)
    try:
        command(standalone_mode=False)
    except ValueError as error:
        _refuse(str(error))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        wrong = [repr(detail["input"]) for detail in getattr(error.__cause__, "errors", list)()]
        _refuse(": ".join([error.format_message(), *wrong]))


def _refuse(reason: str) -> None:
    print(f"error: {' '.join(reason.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
