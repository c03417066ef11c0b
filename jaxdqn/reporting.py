"""From a study's log to its report: the winner's animation, the page and the pictures."""

from __future__ import annotations

from pathlib import Path

from jaxdqn import agent_directory, play, render, saved_agent
from jaxdqn.history import History, fresh_seeds
from jaxdqn.report import write_report
from jaxdqn.report_data import ReportData

ANIMATION = "winner.gif"


def report_on(history: History, output: Path) -> list[Path]:
    """Write the report of a study into its directory; return its files, the page first."""
    confirmed, verdict = fresh_seeds(history)
    winner = confirmed[0].number if confirmed else None
    return write_report(
        output,
        ReportData(
            study_name=history.study_name,
            space=history.space,
            command="\n".join(map(str, history.description.get("commands", []))),
            seed=history.seed,
            solved_return=history.space.solved,
            trials=history.trials,
            confirm=[one.summary() for one in confirmed],
            verdict=verdict.summary() if verdict else None,
            pareto=_networks(history) if history.space.minimize else None,
            animation=None if winner is None else _animation(output, winner, history.space.env),
        ),
    )


def _networks(history: History) -> list[tuple[int, float, float]]:
    """Return number, mean return and parameters of the trials that are complete."""
    complete = [trial for trial in history.trials if trial.state == "complete" and trial.value is not None]
    return [(trial.number, trial.value or 0.0, float(trial.attributes["num_parameters"])) for trial in complete]


def _animation(output: Path, trial: int, env: str) -> Path | None:
    """Draw an episode of a trial's best agent, where there is one and its environment can be drawn."""
    path = output / "agents" / ANIMATION
    try:
        render.check(env, path)
        agent = max(map(saved_agent.load, agent_directory.find(output, trial)), key=lambda agent: agent.mean_return)
    except ValueError:  # none was saved, or can't be drawn, or was changed: evaluate.py says what is wrong
        return None
    render.animation(path, play.episode(agent, seed=0))
    return path
