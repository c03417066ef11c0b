"""Ours beside other programs that train DQN, in turns and in one run: 16 hyperparameter sets; a uniform population.

*The sets* were drawn once from the article's space. Everybody trains each for the same environment steps and updates,
which are counted and compared, and plays the same number of greedy episodes; all of that is timed, compiling apart.
All use Huber's loss, the only one Stable-Baselines3 has.
*The uniform population*: [64, 64], an update of 64 transitions every environment step. rejax trains as many lanes as
we do; Stable-Baselines3 and a plain PyTorch loop, which know no lanes, one agent.

A program that trains one agent after another leaves cores idle that ours uses. So each peer is run a second time with
a process a core, as one would start it by hand; the bars are those of one process.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from jaxdqn import devices
from jaxdqn.benchmark import measure
from jaxdqn.hyperparams import Hyperparams, defaults
from jaxdqn.peer_sets import Ours, Sets, load_sets
from jaxdqn.peer_ways import REJAX, SB3, TORCH, Progress, Way, ask, request_of, start, train
from jaxdqn.statistics import bootstrap_interval
from jaxdqn.workload import Uniform, laid_out

OURS = "ours"
BARS = {"sets": {TORCH: 8.0, SB3: 15.0}, "uniform": {REJAX: 5.0, SB3: 60.0}}  # ours is to be so many times as fast
LANES, AGENT_STEPS = 64, 2_000  # of the uniform population; of the one agent of who has no lanes
_WARMUP_STEPS = 64


def compare(
    directory: Path,
    environments: Path,
    parts: Sequence[str],
    rounds: int,
    seconds: float,
    limit_s: float,
    progress: Progress,
) -> dict[str, Any]:
    """Start the peers whose scripts lie in `directory` and compare ours with them, part by part.

    Raises:
        PeerError: a peer can't be had, failed or took too long.
    """
    names = [name for name in (TORCH, SB3, REJAX) if name != REJAX or "uniform" in parts]
    result: dict[str, Any] = {}
    sets = load_sets(directory / "sets.json")
    with ExitStack() as stack:
        ways = start(directory, environments, names, sets, limit_s, stack, progress)
        result["peers"] = {key: version for its in ways.values() for key, version in its[0].versions.items()}
        if "sets" in parts:
            both = [way for name in (TORCH, SB3) for way in ways[name]]
            result["sets"] = compare_sets(sets, both, rounds, limit_s, progress)
        if "uniform" in parts:
            every = [way for name in (REJAX, SB3, TORCH) for way in ways[name]]
            result["uniform"] = compare_uniform(every, rounds, seconds, limit_s, progress)
    return result


def compare_sets(sets: Sets, ways: Sequence[Way], rounds: int, limit_s: float, progress: Progress) -> dict[str, Any]:
    """Train all sets through ours and through every way, in turns; return medians, their spread, and what was done.

    Ours runs before and after each way, which takes longer: how fast the machine was meanwhile is between the two.
    """
    progress(f"sets: compiling one program for {len(sets.hyperparams)} sets")
    ours = Ours(sets)
    ours.train()  # the first run touches memory for the first time
    answers: dict[str, list[dict[str, Any]]] = {OURS: [ours.train()], **{way.name: [] for way in ways}}
    ratios: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            answers[way.name].append(train(way, sets, number, limit_s))
            answers[OURS].append(ours.train())
            before, after = (one["seconds"] for one in answers[OURS][-2:])
            took = answers[way.name][-1]["seconds"]
            ratios[way.name].append(took / statistics.mean((before, after)))
            progress(f"sets, round {number + 1}: ours {before:.1f} and {after:.1f} s, {way.name} {took:.1f} s")
    expected = {"env_steps": [sets.config.env_steps] * len(sets.hyperparams), "updates": sets.updates()}
    by = {}
    for name, got in answers.items():
        returns = np.mean([[np.mean(agent["returns"]) for agent in one["agents"]] for one in got], axis=0)
        made = [{key: [agent[key] for agent in one["agents"]] for key in expected} for one in got]
        by[name] = {
            **_spread("seconds", [one["seconds"] for one in got], 4),
            "same_work": all(one == expected for one in made),
            "env_steps": sum(made[-1]["env_steps"]),
            "updates": sum(made[-1]["updates"]),
            "mean_return": round(float(np.mean(returns)), 1),
            "mean_returns": [round(float(value), 1) for value in returns],
        }
    for way in ways:
        differences = np.subtract(by[way.name]["mean_returns"], by[OURS]["mean_returns"]).tolist()
        interval = bootstrap_interval(differences, np.mean)
        by[way.name] |= {
            **_spread("times_as_fast", ratios[way.name], 2),
            "return_beyond_ours": round(float(np.mean(differences)), 1),
            "return_beyond_ours_interval": [round(x, 1) for x in interval] if interval else None,
            **_how(way),
        }
    return {
        "sets": len(sets.hyperparams),
        "env_steps": sets.config.env_steps,
        "updates": expected["updates"],
        "eval_episodes": sets.config.eval_episodes,
        "rounds": rounds,
        "compile_s": round(ours.compile_s, 2),
        "by": by,
        **_judged("sets", by, all(row["same_work"] for row in by.values())),
    }


def compare_uniform(
    ways: Sequence[Way], rounds: int, seconds: float, limit_s: float, progress: Progress
) -> dict[str, Any]:
    """Train the uniform population through ours, and through every way, in turns; return updates a second."""
    speeds: dict[str, list[float]] = {OURS: [], **{way.name: [] for way in ways}}
    compile_s: dict[str, float] = {}
    shape = Uniform((64, 64), 64, 1, 1)
    for number in range(rounds):
        measured = measure(shape, laid_out(shape, LANES), devices.platform(), seconds, 1)
        speeds[OURS].append(measured["updates_per_s"])
        compile_s.setdefault(OURS, measured["compile_s"])
        for way in ways:
            if way.peer == REJAX:
                share = LANES // len(way.processes)
                request = {"lanes": share, "batch_size": 64, "seconds": seconds}
                if not number:
                    ask(way, [{**request, "seconds": 0.0}] * len(way.processes), limit_s)  # it compiles
                got = ask(way, [request] * len(way.processes), limit_s)
                compile_s[way.name] = round(max(one["compile_s"] for one in got), 2)
                speeds[way.name].append(sum(one["updates"] / one["seconds"] for one in got))
            else:
                got = ask(
                    way, [request_of([_uniform_agent()], AGENT_STEPS, 0, way, number)] * len(way.processes), limit_s
                )
                speeds[way.name].append(sum(one["agents"][0]["updates"] / one["seconds"] for one in got))
        shown = ", ".join(f"{name} {its[-1]:,.0f}" for name, its in speeds.items())
        progress(f"uniform, round {number + 1}, updates/s: {shown}")
    by = {name: _spread("updates_per_s", its, 0) for name, its in speeds.items()}
    for way in ways:
        ratios = [a / b for a, b in zip(speeds[OURS], speeds[way.name], strict=True)]
        by[way.name] |= {**_spread("times_as_fast", ratios, 2), **_how(way)}
    return {
        "lanes": LANES,
        "rounds": rounds,
        "seconds": seconds,
        "compile_s": compile_s,
        "by": by,
        **_judged("uniform", by),
    }


def _uniform_agent() -> Hyperparams:
    return defaults()._replace(
        train_period=1,
        warmup_steps=_WARMUP_STEPS,
        epsilon_start=defaults().epsilon_end,  # as ours
        buffer_size=10_000,
        huber_loss=True,
    )


def _spread(name: str, values: Sequence[float], digits: int) -> dict[str, Any]:
    """Return the median of runs, their range and all of them."""
    rounded = [round(value, digits) for value in values]
    return {
        name: round(statistics.median(values), digits),
        f"{name}_range": [min(rounded), max(rounded)],
        f"{name}_all": rounded,
    }


def _how(way: Way) -> dict[str, Any]:
    return {"processes": len(way.processes), "threads": way.threads, "threads_tried_s": way.tried}


def _judged(part: str, by: dict[str, dict[str, Any]], fair: bool = True) -> dict[str, Any]:
    """Return the bars and whether all of those whose peer was run are kept."""
    bars = {name: bar for name, bar in BARS[part].items() if name in by}
    return {"bars": bars, "reached": fair and all(by[name]["times_as_fast"] >= bar for name, bar in bars.items())}
