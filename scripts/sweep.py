"""Search hyperparameters: train a population of DQN agents in one compiled program, Optuna chooses the next ones."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxdqn.command_line import main, refuse, shell_word, stop_on_signals, typed, without_passwords
from jaxdqn.startup import collecting_no_garbage, process_started

if TYPE_CHECKING:
    from jaxdqn.plan import Settings
    from jaxdqn.result import Result

WHEN, WHAT, WHERE, HOW, FRESH = (
    "When to stop (the first reached)",
    "What is searched",
    "Where results go",
    "Machine",
    "Fresh seeds",
)

LEAVE_AFTER_S = 8.5  # after the first signal, when a compiler, a segment or a follower takes longer
SECRET = {"--storage": "JAXDQN_STORAGE", "--tracking": "JAXDQN_TRACKING"}  # their values may hold passwords

EXAMPLES = """
Examples:

  python scripts/sweep.py

  python scripts/sweep.py --space article --trials 200

  python scripts/sweep.py --space my.toml --seeds 4 --target-return 495

  python scripts/sweep.py --trials 256 --confirm-top 5 --confirm-seeds 32
"""


def sweep(
    space: Annotated[
        str,
        typer.Option(
            help="Preset (default, article, smallest, mountaincar, acrobot, …) or TOML file.", rich_help_panel=WHAT
        ),
    ] = "default",
    env: Annotated[
        str | None,
        typer.Option(help="gymnax environment.  \\[default: the space's, CartPole-v1]", rich_help_panel=WHAT),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Agents a trial; its value is their mean.  \\[default: the space's]", rich_help_panel=WHAT),
    ] = None,
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
        str | None,
        typer.Option(
            help="Who chooses: tpe (in batches), optuna-tpe, random, sobol, or grid (of a small space)."
            "  \\[default: tpe; optuna-tpe where there are two objectives]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the study; the same one repeats it.", rich_help_panel=WHAT)] = 0,
    pruner: Annotated[
        str | None,
        typer.Option(
            help="Who ends trials early: halving (asynchronous), none, median, percentile, optuna-halving, hyperband."
            "  \\[default: halving, where there are rungs]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    confirm_top: Annotated[
        int, typer.Option(help="Best trials that are trained again on fresh seeds; 0: none.", rich_help_panel=FRESH)
    ] = 3,
    confirm_seeds: Annotated[
        int, typer.Option(help="Fresh seeds of each of them, to choose the winner.", rich_help_panel=FRESH)
    ] = 16,
    verdict_seeds: Annotated[
        int,
        typer.Option(
            help="Further fresh seeds of the winner, for the figure to be published; 0: none.", rich_help_panel=FRESH
        ),
    ] = 16,
    save_agents: Annotated[
        str, typer.Option(help="confirmed: those trained on fresh seeds; all: the search's too.", rich_help_panel=WHERE)
    ] = "confirmed",
    trials: Annotated[
        int | None,
        typer.Option(
            help="Finished trials, those of earlier runs included.  \\[default: 64, none if another limit is given]",
            rich_help_panel=WHEN,
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            help="Seconds of the whole command; what is left to do then is done by the next one.  \\[default: none]",
            rich_help_panel=WHEN,
        ),
    ] = None,
    target_return: Annotated[
        float | None,
        typer.Option(
            help="Mean return a trial must reach; with two objectives: that counts as solved.  \\[default: none]",
            rich_help_panel=WHEN,
        ),
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
            envvar=SECRET["--storage"],
            rich_help_panel=WHERE,
        ),
    ] = None,
    tracking: Annotated[
        str | None,
        typer.Option(
            help="MLflow tracking URI, or off.  \\[default: SQLite in the output directory]",
            envvar=SECRET["--tracking"],
            rich_help_panel=WHERE,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html at the end.", rich_help_panel=WHERE)
    ] = True,
    snapshot_every: Annotated[
        float,
        typer.Option(
            help="Seconds between snapshots of the lanes, which only save time when a sweep was cut off; 0: none.",
            rich_help_panel=WHERE,
        ),
    ] = 60.0,
    snapshot_mib: Annotated[
        float, typer.Option(help="Largest snapshot, in MiB; larger states are trained again.", rich_help_panel=WHERE)
    ] = 256.0,
    json_: Annotated[
        bool, typer.Option("--json", help="One summary object on stdout, all else on stderr.", rich_help_panel=WHERE)
    ] = False,
    backup_to: Annotated[
        Path | None,
        typer.Option(
            help="Directory on another disk or a mounted drive that a lost machine's sweep goes on from."
            "  \\[default: none]",
            rich_help_panel=WHERE,
        ),
    ] = None,
    backup_every: Annotated[
        float, typer.Option(help="Seconds between two times of writing there, at least 1.", rich_help_panel=WHERE)
    ] = 60.0,
    lanes: Annotated[
        str | None,
        typer.Option(
            help="Agents that train at the same time; auto: as many as pay here, found by trying in the first sweep of"
            " a space.  \\[default: 8 a CPU core, 512 a GPU]",
            metavar="INTEGER|auto",
            rich_help_panel=HOW,
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="CPU cores or GPUs.  \\[default: all]", rich_help_panel=HOW)
    ] = None,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep the compiled program for the next start.", rich_help_panel=HOW),
    ] = True,
) -> None:
    """Train a population of DQN agents in one compiled program and let Optuna choose the next ones.

    Then train the best of them again on fresh seeds, choose the winner by those, and measure it on others.

    The same command again continues the study. Ctrl-C ends it cleanly: what is finished is kept.
    """
    given = dict(locals())
    if trials is None and time_budget is None and target_return is None:
        given["trials"] = 64
    sys.exit(_run({**given, "command": typed(SECRET)}, json_))


def _run(given: dict[str, Any], as_json: bool) -> int:
    started = process_started()
    stop = stop_on_signals(
        LEAVE_AFTER_S, f"left without waiting, and nothing is lost\ncontinue this study: {given['command']}"
    )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: the cores belong to the training

    with collecting_no_garbage():
        from jaxdqn import devices as hardware

        hardware.prepare()  # before gymnax is imported: that starts JAX's backend

        from rich.console import Console

        from jaxdqn.console import SweepConsole, show_result, title_of
        from jaxdqn.journal import LogError
        from jaxdqn.opening import open_plan
        from jaxdqn.plan import Settings, lanes_of, plan
        from jaxdqn.run import run

    console = Console(stderr=as_json)
    try:
        given["lanes"] = lanes_of(given["lanes"])
        planned = plan(Settings(**{field.name: given[field.name] for field in fields(Settings)}))
        with SweepConsole(console, title_of(planned)) as shown:
            opened = open_plan(planned, shown.show)
            shown.trials = opened.plan.settings.trials
            result = run(opened, shown.show, stop, started)
    except ValueError as error:
        refuse(str(error))
    except LogError as error:
        refuse(str(error), status=1)
    except OSError as error:
        refuse(f"{error.filename or 'a file'} can't be written: {error.strerror or error}", status=1)
    show_result(console, result, _resume_command(result), _from_environment(result.plan.settings))
    if as_json:
        print(json.dumps(result.summary(), allow_nan=False))
    return 130 if result.stopped else 0


def _resume_command(result: Result) -> str | None:
    """Return the command as it was typed; where it has nothing left to do, with more trials and no target.

    None: there is no more to do, every cell of a grid was trained.
    """
    words, settings = without_passwords(sys.orig_argv, SECRET), result.plan.settings
    finished = sum(result.counts.values()) - result.counts["running"]
    all_done = settings.trials is not None and finished >= settings.trials
    target, best = settings.target_return, result.best
    reached = target is not None and best is not None and best.value >= target and not result.plan.space.minimize
    if result.done and all_done and result.plan.sampler == "grid":
        return None
    if result.done and (all_done or reached):
        limits = ("--trials", "--target-return")
        words = [word for i, word in enumerate(words) if word not in limits and words[i - 1] not in limits]
        words = [word for word in words if not word.startswith(tuple(f"{limit}=" for limit in limits))]
        words += ["--trials", str(2 * finished)]
    return " ".join(map(shell_word, words))


def _from_environment(settings: Settings) -> list[str]:
    """Say which of a command's values are in no word of it, a line each."""
    words = {word.partition("=")[0] for word in without_passwords(sys.orig_argv, SECRET)}
    given = {"--storage": ("the storage's", settings.storage), "--tracking": ("MLflow's", settings.tracking)}
    lost = [(whose, SECRET[option]) for option, (whose, url) in given.items() if url and option not in words]
    return [f"with {whose} URL in {variable}" for whose, variable in lost]


if __name__ == "__main__":
    main(sweep, epilog=EXAMPLES)
