"""Search hyperparameters: train a population of DQN agents in one compiled program, Optuna chooses the next ones."""

from __future__ import annotations

import time

STARTED = time.monotonic()

import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from dataclasses import fields  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Annotated, Any, NoReturn  # noqa: E402

import typer  # noqa: E402

if TYPE_CHECKING:
    from jaxdqn.plan import Settings

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
    sampler: Annotated[
        str,
        typer.Option(
            help="Who chooses: tpe (in batches), optuna-tpe, random, sobol, or grid (of a small space).",
            rich_help_panel=WHAT,
        ),
    ] = "tpe",
    seed: Annotated[int, typer.Option(help="Seed of the study; the same one repeats it.", rich_help_panel=WHAT)] = 0,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Finished trials, those of earlier runs included.  \\[default: 64, none if another limit is given]",
            rich_help_panel=WHEN,
        ),
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(help="Seconds, compiling included.  \\[default: none]", rich_help_panel=WHEN)
    ] = None,
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
        typer.Option(
            help="Optuna storage URL that follows the log, or off.  \\[default: SQLite in the output directory]",
            rich_help_panel=WHERE,
        ),
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
    stop = _stop_on_signals()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: the cores belong to the training

    from jaxdqn import devices as hardware

    hardware.prepare()  # before gymnax is imported: that starts JAX's backend

    from rich.console import Console

    from jaxdqn.console import SweepConsole, show_result
    from jaxdqn.journal import LogError
    from jaxdqn.plan import Settings, plan
    from jaxdqn.run import open_plan, run

    console = Console(stderr=as_json)
    try:
        opened = open_plan(plan(Settings(**{field.name: given[field.name] for field in fields(Settings)})))
        with SweepConsole(console, opened.plan) as shown:
            result = run(opened, shown.show, stop, STARTED)
    except ValueError as error:
        _refuse(str(error))
    except LogError as error:
        _refuse(str(error), status=1)
    best = result.best.value if result.best else None
    show_result(console, result, _resume_command(result.plan.settings, result.counts, best, result.stopped))
    if as_json:
        print(json.dumps(result.summary(), allow_nan=False))
    return 130 if result.stopped else 0


def _stop_on_signals() -> threading.Event:
    """Let the first SIGINT or SIGTERM end the sweep at its next visit; the second ends the process."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def handle(_: int, __: Any) -> None:
        stop.set()
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        os.write(2, b"ending after this segment; once more to leave at once\n")  # print may be in use right now

    for number in signals:
        signal.signal(number, handle)
    return stop


def _resume_command(settings: Settings, counts: dict[str, int], best: float | None, stopped: bool) -> str | None:
    """Return the command as it was typed; where it has nothing left to do, with more trials and no target.

    None: there is no more to do, every cell of a grid was trained.
    """
    from jaxdqn.console import shell_word

    words = list(sys.orig_argv)
    finished = sum(counts.values()) - counts["running"]
    all_done = settings.trials is not None and finished >= settings.trials
    reached = settings.target_return is not None and best is not None and best >= settings.target_return
    if all_done and settings.sampler == "grid":
        return None
    if not stopped and (all_done or reached):
        limits = ("--trials", "--target-return")
        words = [word for i, word in enumerate(words) if word not in limits and words[i - 1] not in limits]
        words = [word for word in words if not word.startswith(tuple(f"{limit}=" for limit in limits))]
        words += ["--trials", str(2 * finished)]
    return " ".join(map(shell_word, words))


def main() -> None:
    """Run the command; what the user got wrong is one line and exit status 2."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(sweep)
    command = typer.main.get_command(app)
    try:
        sys.exit(command(standalone_mode=False))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        wrong = [repr(detail["input"]) for detail in getattr(error.__cause__, "errors", list)()]
        _refuse(": ".join([error.format_message(), *wrong]))


def _refuse(reason: str, status: int = 2) -> NoReturn:
    from jaxdqn.redact import hide_password

    print(f"error: {hide_password(' '.join(reason.split()))}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
