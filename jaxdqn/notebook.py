"""What the cells of scripts/free_gpu.ipynb call: the machine, a sweep with a live table, its report, its winner.

A sweep runs in the notebook's own process: another one would find the GPU's memory taken, and has no terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxdqn import devices, hosted
from jaxdqn.command_line import shell_word
from jaxdqn.hosted import Service
from jaxdqn.inline import Table, display, image, page, plain, say, table_of
from jaxdqn.redact import hide_password

if TYPE_CHECKING:
    from jaxdqn.plan import Settings

EPISODES = 1_000
MAX_PAGE_BYTES = 12_000_000  # of a report shown inline: services refuse to keep much larger notebooks
_PATHS = ("output", "backup_to")


class Home(NamedTuple):
    """Where results live."""

    runs: Path = Path("runs")  # a directory for each study
    backup: Path | None = None  # what outlives the session


class Refused(Exception):
    """What can't be done: a notebook shows its one line without a traceback, and runs no further cell."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback."""
        return [f"error: {self}"]


def machine() -> None:
    """Show what JAX computes on, and what to do if that is no GPU."""
    _prepare()
    import jax

    try:
        found = Counter(device.device_kind for device in jax.local_devices())
    except RuntimeError as error:
        raise _refused(f"JAX can't start: {error}") from None
    shown = ", ".join(f"{number} × {kind}" for kind, number in found.items())
    say(f"JAX {jax.__version__} on {hosted.service().value} computes on {shown}")
    backend = jax.default_backend()
    sentences = [] if backend == "gpu" else hosted.advice(hosted.service(), backend, hosted.cards(), hosted.plugin())
    if sentences:
        say(*filter(None, sentences), loud=True)


def home(use_drive: bool = True) -> Home:
    """Choose where results live, and say so; on Kaggle, take over what the last session left."""
    where, made = hosted.service(), Home()
    if where is Service.COLAB and use_drive:
        try:
            made = Home(backup=hosted.mount_drive())
            say(f"Results are copied to your drive while they come: {made.backup}")
        except ValueError as error:
            say(f"The drive was not mounted ({error}): results end with this session.", loud=True)
    elif where is Service.COLAB:
        say("Results end with this session: the drive is not used.")
    elif where is Service.KAGGLE:
        try:
            copied = hosted.carry_over(hosted.INPUTS, made.runs)
        except OSError as error:
            raise _refused(f"the last session's results can't be copied: {error}") from None
        names = ", ".join(path.name for path in copied)
        say(f"Taken over from the last session: {names}" if copied else "Nothing was taken over from another session.")
    else:
        say(f"Results live in {made.runs.absolute()}")
    return made


def tune(home: Home | None = None, **settings: Any) -> Path:
    """Run a sweep in this process, or go on with it, under a live table; return its directory.

    `settings` are those of `jaxdqn.plan.Settings`, the options of scripts/sweep.py. The stop button ends the sweep
    cleanly after its segment; the same call goes on.

    Raises:
        Refused: a setting is not allowed, or the results can't be written.
    """
    started = time.monotonic()
    _prepare()
    from rich.console import Console

    from jaxdqn.console import SweepConsole, show_outcome, title_of
    from jaxdqn.journal import LogError
    from jaxdqn.opening import open_plan
    from jaxdqn.plan import plan
    from jaxdqn.run import run

    console = Console(width=100, force_terminal=False, force_jupyter=False)
    try:
        planned = plan(_settings(home or Home(), settings))
        with _stop_button() as stop, Table() as table:
            shown = SweepConsole(console, title_of(planned), draw=table.draw)
            opened = open_plan(planned, shown.show)
            shown.trials = opened.plan.settings.trials
            result = run(opened, shown.show, stop, started)
    except (ValueError, LogError) as error:
        raise _refused(str(error)) from None
    except OSError as error:
        raise _refused(f"{error.filename or 'a file'} can't be written: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise _refused("stopped at once; run this cell again, and it goes on where it was") from None
    show_outcome(console, result)
    if result.stopped:
        say("Stopped. Run this cell again, and it goes on where it ended.", loud=True)
    else:
        say("All that was asked for is done. To search on, raise the limits and run this cell again.")
    return result.plan.output


def show_report(output: Path, height: int = 800) -> None:
    """Show the report of a sweep: the page, or its pictures where it is too large to be kept in a notebook."""
    path = output / "report.html"
    if not path.is_file():
        say(f"There is no report in {output} yet.", loud=True)
    elif path.stat().st_size <= MAX_PAGE_BYTES:
        display(page(path.read_text("utf-8"), height), f"the report: {path}")
    else:
        for picture in sorted((output / "report").glob("*.png")):
            display(image(picture), str(picture))
        say(f"The page is too large to be shown here: download {path}.")


def show_winner(output: Path, episodes: int = EPISODES) -> None:
    """Let the winner of a sweep play fresh episodes: what it returns, and how it looks."""
    _prepare()
    from jaxdqn import agent_directory, environment, play, render, saved_agent
    from jaxdqn.reporting import ANIMATION

    try:
        agent = max(map(saved_agent.load, agent_directory.find(output)), key=lambda agent: agent.mean_return)
    except ValueError as error:
        say(f"No winner yet: {_in_python(str(error))}", loud=True)
        return
    returns = play.play(agent, 0, episodes)
    figures = {
        "agent": f"the best of trial {agent.key.get('trial')}",
        "greedy episodes": f"{episodes:,}",
        "mean return": f"{returns.mean():.2f}",
        "standard deviation": f"{returns.std():.2f}",
        "worst": f"{returns.min():g}",
        "best": f"{returns.max():g}",
    }
    perfect = environment.make(agent.env).perfect_return
    if perfect is not None:
        figures["perfect"] = f"{(returns >= perfect).mean():.1%}"
    display(table_of(figures), plain(figures))
    path = output / "agents" / ANIMATION
    try:
        render.check(agent.env, path)
    except ValueError as error:
        say(f"No animation: {error}")
        return
    render.animation(path, play.episode(agent, seed=0))
    display(image(path), f"an episode of the winner: {path}")


@contextlib.contextmanager
def _stop_button() -> Iterator[threading.Event]:
    """Let the stop button set an event; pressed once more it interrupts as ever."""
    stop, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def handle(_: int, __: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        os.write(2, b"ending after this segment; once more to leave at once\n")  # print may be in use right now

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare() -> None:
    warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, where there are no widgets: nothing needs them
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the cores belong to the training
    devices.prepare()  # before gymnax is imported: that starts JAX's backend


def _settings(home: Home, given: dict[str, Any]) -> Settings:
    """Return the settings of a sweep, its output and its backup at home unless something else is given.

    Raises:
        ValueError: there is no such setting.
    """
    from jaxdqn.plan import Settings, plan, slug

    known = [field.name for field in dataclasses.fields(Settings)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise ValueError(f"setting {name!r} is unknown" + (f"; did you mean {close[0]}?" if close else ""))
    given = {name: Path(value) if name in _PATHS and value else value for name, value in given.items()}
    words = [word for name, value in given.items() for word in _option(name, value)]
    settings = Settings(**{"command": " ".join(["python scripts/sweep.py", *words]), **given})
    try:
        directory = slug(plan(settings).study_name)
    except TypeError as error:
        raise ValueError(f"a setting is of a wrong type: {error}") from error
    backup = home.backup and home.backup / directory
    return dataclasses.replace(
        settings, output=settings.output or home.runs / directory, backup_to=settings.backup_to or backup
    )


def _option(name: str, value: Any) -> list[str]:
    """Return what is typed for a setting on the command line."""
    if isinstance(value, bool):
        return [] if value else [f"--no-{name}"]
    return [] if value is None else [f"--{name.replace('_', '-')}", shell_word(value)]


def _refused(reason: str) -> Refused:
    return Refused(_in_python(hide_password(" ".join(reason.split()))))


def _in_python(reason: str) -> str:
    """Call options by the names they have here."""
    return re.sub(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), reason)
