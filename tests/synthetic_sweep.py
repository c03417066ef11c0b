"""Sweeps that never ran, made up to look like real ones: lanes refilled as they fall free, pruning, divergence."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from jaxdqn.follower import Trial
from jaxdqn.report_data import ReportData
from jaxdqn.space import Space

STARTED = datetime(2025, 3, 1, 9, 30).timestamp()
PAUSE_S = 7_200.0  # between its two runs
PERFECT, SOLVED = 500.0, 475.0
SEARCHED: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "learning_rate_final_fraction": CategoricalDistribution([0.01, 0.1, 1.0]),
    "gamma": CategoricalDistribution([0.97, 0.98, 0.99, 0.995]),
    "epsilon_end": FloatDistribution(0.01, 0.2),
    "epsilon_decay_steps": IntDistribution(1_000, 10_000, step=1_000),
    "batch_size": CategoricalDistribution([32, 64]),
    "gradient_steps": CategoricalDistribution([1, 2, 4]),
    "target_period": IntDistribution(20, 1_000, log=True),
    "max_grad_norm": FloatDistribution(0.5, 20.0, log=True),
    "double_q": CategoricalDistribution([True, False]),
    "huber_loss": CategoricalDistribution([True, False]),
    "hidden_width": CategoricalDistribution([32, 64]),
    "hidden_layers": IntDistribution(1, 2),
}


def synthetic_sweep(
    num_trials: int = 60, num_seeds: int = 2, num_lanes: int = 16, seed: int = 0, **changes: Any
) -> ReportData:
    """A sweep of the default space: two runs with a pause, confirmation and verdict."""
    random = np.random.default_rng(seed)
    space = Space("default", env_steps=20_000, rungs=tuple(range(2_000, 20_001, 2_000)), searched=SEARCHED)
    lanes = [(STARTED + 3.0 * (i % 4), i) for i in range(num_lanes)]
    heapq.heapify(lanes)
    trials = []
    for number in range(num_trials):
        if number == num_trials // 2:  # the second run
            later = max(lanes)[0] + PAUSE_S
            lanes = [(later, i) for i in range(num_lanes)]
        params = {name: _draw(random, domain, number / num_trials) for name, domain in space.searched.items()}
        trials.append(_trial(random, number, num_seeds, params, space.rungs, lanes))
    complete = sorted((t for t in trials if t.state == "complete"), key=lambda t: (-(t.value or 0), t.number))
    now = max(lanes)[0]
    confirm = [_confirmed(random, trial, 8, num_lanes, now, 8 * i) for i, trial in enumerate(complete[:6])]
    confirm.sort(key=lambda entry: -entry["mean_return"])
    verdict = None
    if confirm:
        chosen = next(trial for trial in complete if trial.number == confirm[0]["number"])
        verdict = _confirmed(random, chosen, 16, num_lanes, now + 16.0 * math.ceil(48 / num_lanes))
    made = ReportData(
        study_name="default-CartPole-v1",
        space=space,
        command=f"python scripts/sweep.py --trials {num_trials} --seeds {num_seeds}",
        seed=0,
        solved_return=SOLVED,
        trials=trials,
        confirm=confirm,
        verdict=verdict,
    )
    return replace(made, **changes)


def pareto(data: ReportData) -> list[tuple[int, float, float]]:
    """Mean return and network size of the complete trials."""
    sized = []
    for trial in data.trials:
        if trial.state == "complete" and trial.value is not None:
            width, layers = trial.params["hidden_width"], trial.params["hidden_layers"]
            sized.append((trial.number, trial.value, float(4 * width + (layers - 1) * width * width + 2 * width)))
    return sized


def _draw(random: np.random.Generator, domain: BaseDistribution, progress: float) -> Any:
    """A value that comes closer to a third of the range as the search goes on."""
    u = float(np.clip(random.normal(0.35, 0.1), 0, 1) if random.random() < progress else random.random())
    if isinstance(domain, CategoricalDistribution):
        return domain.choices[min(int(u * len(domain.choices)), len(domain.choices) - 1)]
    assert isinstance(domain, FloatDistribution | IntDistribution)
    value = domain.low + u * (domain.high - domain.low)
    if domain.log:
        value = math.exp(math.log(domain.low) + u * math.log(domain.high / domain.low))
    if isinstance(domain, IntDistribution):
        return domain.low + round((value - domain.low) / domain.step) * domain.step
    return float(value)


def _trial(
    random: np.random.Generator,
    number: int,
    num_seeds: int,
    params: dict[str, Any],
    rungs: tuple[int, ...],
    lanes: list[tuple[float, int]],
) -> Trial:
    speed = abs(math.log10(params["learning_rate"]) + 3.0) + 30.0 * abs(params["gamma"] - 0.99)
    quality = PERFECT / (1 + math.exp(5.0 * speed - 2.2 + random.normal(0, 0.6)))
    rise = random.uniform(2_500, 8_000)
    curve = {}
    for rung in rungs:
        noise = random.normal(0, 0.09)
        curve[rung] = float(np.clip(20 + quality * (1 - math.exp(-((rung / rise) ** 2))) * (1 + noise), 9, PERFECT))
    pruned = quality < 180 and random.random() < 0.7
    perfect = next((rung for rung in rungs if curve[rung] == PERFECT), rungs[-1])
    last = int(random.choice(rungs[1:5])) if pruned else perfect
    curve = {rung: value for rung, value in curve.items() if rung <= last}
    diverged = [not pruned and random.random() < 0.03 for _ in range(num_seeds)]
    held, steps, updates, returns = [], [], [], []
    for i in range(num_seeds):
        free, lane = heapq.heappop(lanes)
        life = last * (0.3 if diverged[i] else 1.0)
        ended = free + life / 1_500 * float(random.uniform(0.8, 1.2)) * params["gradient_steps"] ** 0.5
        held.append([lane, free, ended, "diverged" if diverged[i] else "pruned" if pruned else "ended"])
        heapq.heappush(lanes, (ended + float(random.exponential(0.15)), lane))
        steps.append(int(life))
        updates.append(int(life / 4 * params["gradient_steps"]))
        score = float(np.clip(max(curve.values()) + random.normal(0, 12), 9, PERFECT))
        returns.append(None if diverged[i] else score)
    state = "pruned" if pruned else "failed" if any(diverged) else "complete"
    values = [value for value in returns if value is not None]
    attributes: dict[str, Any] = {
        "lanes": held,
        "env_steps": steps,
        "updates": updates,
        "returns": [None] * num_seeds if pruned else returns,  # a pruned trial has no score
        "std_return": float(np.std(values)) if values and not pruned else None,
    }
    return Trial(
        number=number,
        state=state,
        value=float(np.mean(values)) if state == "complete" else None,
        params=params,
        attributes=attributes,
        intermediate=curve,
        started=datetime.fromtimestamp(min(began for _, began, _, _ in held)),
        ended=datetime.fromtimestamp(max(ended for _, _, ended, _ in held)),
    )


def _confirmed(
    random: np.random.Generator, trial: Trial, num: int, num_lanes: int, now: float, first: int = 0
) -> dict[str, Any]:
    assert trial.value is not None
    lost = float(random.exponential(6))
    returns: list[float | None] = [
        float(np.clip(trial.value - lost * random.exponential(1.5), 9, PERFECT)) for _ in range(num)
    ]
    if random.random() < 0.2:
        returns[-1] = None
    known = np.array([value for value in returns if value is not None])
    mean, spread = float(known.mean()), 2 * float(known.std()) / math.sqrt(num)
    share = sum(value is not None and value >= SOLVED for value in returns) / num
    quarter = np.sort(known)[len(known) // 4 : -(len(known) // 4)]
    return {
        "number": trial.number,
        "seeds": num,
        "returns": returns,
        "solved_share": share,
        "solved_interval": _wilson(share, num),
        "mean_return": mean,
        "mean_interval": [mean - spread, min(mean + spread, PERFECT)],
        "iqm_return": float(quarter.mean()),
        "iqm_interval": [float(quarter.min()), float(quarter.max())],
        "worst_seed_return": None if None in returns else float(known.min()),
        "search_return": trial.value,
        "env_steps": [20_000] * num,
        "updates": [10_000] * num,
        "hyperparameters": dict(trial.params),
        "lanes": [
            [
                i % num_lanes,
                now + 16 * (i // num_lanes),
                now + 16 * (i // num_lanes) + 13 + i % 3,
                "diverged" if returns[i - first] is None else "ended",
            ]
            for i in range(first, first + num)
        ],
    }


def _wilson(share: float, num: int, z: float = 1.96) -> list[float]:
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return [max(middle - half, 0.0), min(middle + half, 1.0)]
