"""Let a saved agent play: what it returns over many fresh episodes, how that is distributed, and how it looks."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jaxdqn.command_line import main, refuse

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxdqn.saved_agent import SavedAgent

WHO, HOW, WHERE = "Who plays", "How", "What is shown"
MAX_EPISODES, MAX_SEED = 100_000, 2**31 - 1
MAX_BARS, BAR_WIDTH = 10, 40

EXAMPLES = """
Examples:

  python scripts/evaluate.py --output runs/default-CartPole-v1

  python scripts/evaluate.py --output runs/default-CartPole-v1 --trial 24 --gif cartpole.gif

  python scripts/evaluate.py --agent verdict-3.json --episodes 10000 --gymnasium

  python scripts/evaluate.py --random --env CartPole-v1
"""


def evaluate(
    output: Annotated[
        Path | None,
        typer.Option(help="Directory of a sweep: its winner plays, or the agent of --trial.", rich_help_panel=WHO),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(
            help="Trial whose saved agent with the best score plays.  \\[default: the winner]", rich_help_panel=WHO
        ),
    ] = None,
    agent: Annotated[
        Path | None, typer.Option(help="One saved agent: its .json or .safetensors file.", rich_help_panel=WHO)
    ] = None,
    random: Annotated[
        bool,
        typer.Option("--random", help="The random policy too, as a baseline; alone with --env.", rich_help_panel=WHO),
    ] = False,
    env: Annotated[
        str | None, typer.Option(help="gymnax environment of --random, where no agent plays.", rich_help_panel=WHO)
    ] = None,
    episodes: Annotated[int, typer.Option(help="Greedy episodes.", rich_help_panel=HOW)] = 1_000,
    seed: Annotated[
        int, typer.Option(help="Seed of the episodes; no training and no score has any of them.", rich_help_panel=HOW)
    ] = 0,
    gymnasium: Annotated[
        bool,
        typer.Option(
            "--gymnasium", help="Play in Gymnasium's environment too, from the same starts.", rich_help_panel=HOW
        ),
    ] = False,
    gif: Annotated[
        Path | None, typer.Option(help="Draw one episode of CartPole into this file.", rich_help_panel=WHERE)
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One object on stdout, all else on stderr.", rich_help_panel=WHERE)
    ] = False,
) -> None:
    """Let a saved agent play greedily on fresh episodes, and show what it returns.

    Give --output, the directory of a sweep; or --agent, a file; or --random with --env.
    """
    if not 1 <= episodes <= MAX_EPISODES:
        refuse(f"--episodes {episodes} is not allowed: int in [1, {MAX_EPISODES}]")
    if not 0 <= seed <= MAX_SEED:
        refuse(f"--seed {seed} is not allowed: int in [0, {MAX_SEED}]")
    if trial is not None and trial < 0:
        refuse(f"--trial {trial} is not allowed: int from 0 on")
    if trial is not None and output is None:
        refuse("--trial needs --output, the directory of its sweep")
    if output is not None and agent is not None:
        refuse("--output and --agent are not allowed together: both say which agent plays")
    nobody = output is None and agent is None
    if nobody and not (random and env):
        refuse("nobody plays: give --output DIR (of a sweep), --agent FILE, or --random --env NAME")
    if nobody and (gymnasium or gif):
        refuse(f"{'--gymnasium' if gymnasium else '--gif'} needs an agent: give --output or --agent")
    if env is not None and not nobody:
        refuse(f"--env {env!r} is not allowed here: the agent's environment is the one it was trained in")
    options = Options(output, trial, agent, random, env, episodes, seed, gymnasium, gif, json_)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from rich.console import Console

    try:
        figures = _run(options, Console(stderr=json_))
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{str(gif)!r} can't be written: {error.strerror or error}", status=1)
    if json_:
        print(json.dumps(figures, allow_nan=False))


class Options(NamedTuple):
    """What was asked for."""

    output: Path | None
    trial: int | None
    agent: Path | None
    random: bool
    env: str | None
    episodes: int
    seed: int
    gymnasium: bool
    gif: Path | None
    json: bool


def _run(options: Options, console: Console) -> dict[str, Any]:
    from jaxdqn import environment, play

    path, agent = _chosen(options)
    env = agent.env if agent else str(options.env)
    perfect = environment.make(env).perfect_return
    figures: dict[str, Any] = {"env": env, "agent": str(path) if path else None, "trial": None}
    figures["episodes"] = options.episodes
    if agent:
        _check_extras(options, env)
        figures["trial"] = options.trial if options.trial is not None else agent.key.get("trial")
        layers = "linear" if len(agent.sizes) == 2 else " × ".join(map(str, agent.sizes[1:-1]))
        _say(console, f"{path}: {env}, {layers}, trial {figures['trial']}")
        returns = play.play(agent, options.seed, options.episodes)
        figures |= _figures(returns, perfect)
        _say(console, _line(f"{options.episodes:,} greedy episodes", figures))
        _say(console, *_histogram(returns, console.encoding))
        if options.gymnasium:
            figures["gymnasium"] = _in_gymnasium(options, agent, returns, perfect)
            equal = f"  {figures['gymnasium']['equal_share']:.2%} of the returns are the same"
            _say(console, _line("in Gymnasium", figures["gymnasium"]), equal)
    if options.random:
        figures["random"] = _figures(play.random_returns(env, options.seed, options.episodes), perfect)
        _say(console, _line("the random policy", figures["random"]))
    if agent and options.gif:
        _draw(options.gif, agent, options.seed, console)
    return figures


def _chosen(options: Options) -> tuple[Path | None, SavedAgent | None]:
    """Return the agent that plays: the one given, or of those of a trial the first that has the best score."""
    from jaxdqn import agent_directory, saved_agent

    if options.output is None:
        return options.agent, saved_agent.load(options.agent) if options.agent else None
    found = [(path, saved_agent.load(path)) for path in agent_directory.find(options.output, options.trial)]
    return max(found, key=lambda one: one[1].mean_return)


def _check_extras(options: Options, env: str) -> None:
    """Refuse before the work what would fail after it."""
    from jaxdqn import gymnasium_play, render

    if options.gymnasium:
        gymnasium_play.check(env)
    if options.gif:
        render.check(env, options.gif)


def _in_gymnasium(options: Options, agent: SavedAgent, returns: np.ndarray, perfect: float | None) -> dict[str, Any]:
    from jaxdqn import gymnasium_play, play

    starts = play.starts(agent.env, options.seed, options.episodes)
    theirs = gymnasium_play.gymnasium_returns(agent, options.seed, options.episodes, starts)
    return {**_figures(theirs, perfect), "equal_share": float((theirs == returns).mean())}


def _draw(path: Path, agent: SavedAgent, seed: int, console: Console) -> None:
    from jaxdqn import play, render

    episode = play.episode(agent, seed)
    render.animation(path, episode)
    _say(console, f"{path}: an episode of return {episode.total:g}")


def _figures(returns: np.ndarray, perfect: float | None) -> dict[str, float]:
    share = {} if perfect is None else {"perfect_share": float((returns >= perfect).mean())}
    return {
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
        **share,
        "min_return": float(returns.min()),
        "max_return": float(returns.max()),
    }


def _line(who: str, figures: dict[str, Any]) -> str:
    perfect = f", {figures['perfect_share']:.2%} perfect" if "perfect_share" in figures else ""
    return (
        f"{who}: mean return {figures['mean_return']:.2f}, standard deviation {figures['std_return']:.2f}, "
        f"from {figures['min_return']:g} to {figures['max_return']:g}{perfect}"
    )


def _histogram(returns: np.ndarray, encoding: str) -> list[str]:
    """Return a bar for each return where these are few, else for each of equal ranges; at most 80 columns."""
    import numpy as np

    values, counts = np.unique(returns, return_counts=True)
    labels = [f"{value:g}" for value in values]
    if len(values) > MAX_BARS:
        counts, edges = np.histogram(returns, MAX_BARS)
        labels = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    block = "█" if encoding.lower().startswith("utf") else "#"
    width = max(map(len, labels))
    bars = [block * -(-BAR_WIDTH * int(count) // int(counts.max())) for count in counts]
    return [f"  {label:>{width}} {bar} {count}" for label, bar, count in zip(labels, bars, counts, strict=True)]


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(evaluate, epilog=EXAMPLES)
