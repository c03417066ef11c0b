"""Search hyperparameters with Stable-Baselines3's DQN under stock Optuna. Run by `scripts/benchmark.py sweep`.

Optuna is as it comes: its default sampler and pruner, storage in memory, one trial after another. Budgets, rungs,
validations, the proof, keeping the best parameters, ending early and the score are those of the space, played in
Gymnasium's vectorised CartPole. What differs: `sb3_agent.py`, and that an agent is validated at a rung before the
updates of that step, not after them.
"""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import numpy as np
import optuna
import playing
import sb3_agent
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState
from serving import serve
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

PERFECT = 500.0

Scale = tuple[np.ndarray, np.ndarray]  # mean and deviation


class TimeIsUp(Exception):
    """The budget of the search is spent."""


class Life(BaseCallback):
    """What a space does with an agent: its budget of episodes, validations at rungs, the end of a perfect one."""

    def __init__(self, request: dict[str, Any], trial: optuna.Trial, scale: Scale, reports: bool) -> None:
        """Begin. Of several agents of a trial the first one reports to Optuna, which may prune the trial."""
        super().__init__()
        self.request, self.trial, self.scale, self.reports = request, trial, scale, reports
        self.rungs = set(request["rungs"])
        self.episodes = self.perfect = self.played = 0
        self.best_worth: float = -np.inf
        self.best: dict[str, Any] = {}
        self.pruned = False

    def _on_step(self) -> bool:
        if time.monotonic() >= self.request["ends"]:
            raise TimeIsUp
        self.episodes += int(self.locals["dones"].sum())
        if self.num_timesteps in self.rungs:
            value = self.validate()
            if self.reports:
                self.trial.report(value, self.num_timesteps)
                self.pruned = self.trial.should_prune()
        allowed = self.request["episodes"]
        perfect = self.request["stop_when_perfect"] and self.perfect >= 2
        return not (self.pruned or perfect or (allowed is not None and self.episodes >= allowed))

    def validate(self) -> float:
        """Judge the agent, remember its parameters if none were better; return its mean return."""
        num, proof = self.request["validation_episodes"], self.request["proof_episodes"]
        returns = self.play(num)
        mean, further = float(np.mean(returns)), []
        if min(returns) >= PERFECT and proof > num:
            further = self.play(proof - num)
        self.perfect = self.perfect + 1 if min(returns + further) >= PERFECT else 0
        worth = mean + (float(np.mean(np.array(further) >= PERFECT)) if further else 0.0)
        if self.request["keep_best"] and worth >= self.best_worth:
            self.best_worth, self.best = worth, copy.deepcopy(self.model.q_net.state_dict())
        return mean

    def play(self, num: int) -> list[float]:
        """Play greedy episodes that nobody has played before."""
        self.played += 1
        agent: DQN = self.model
        return sb3_agent.greedy(agent, num, *self.scale, 1_000 * (self.trial.number + 1) + self.played)


def train(request: dict[str, Any], trial: optuna.Trial) -> float | None:
    """Train the agents of a trial; return their mean score, or nothing if the trial was pruned."""
    hyperparams, values = {**request["fixed"], **trial.params}, []
    scale = playing.scale(request, hyperparams)
    for seed_index in range(request["seeds"]):
        seed = 10_000 * request["seed"] + 100 * trial.number + seed_index
        agent = sb3_agent.make(hyperparams, request["env_steps"], *scale, seed)
        life = Life(request, trial, scale, reports=seed_index == 0)
        sb3_agent.learn(agent, request["env_steps"], life)
        if life.pruned:
            return None
        if request["keep_best"]:
            if agent.num_timesteps not in life.rungs:
                life.validate()
            agent.q_net.load_state_dict(life.best)
        values.append(float(np.mean(life.play(request["eval_episodes"]))))
    return float(np.mean(values))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Search until the time or the trials are spent; return when each trial ended and its value."""
    sb3_agent.threads(request["threads"])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    begun = time.monotonic()
    request["ends"] = begun + request["budget_s"]
    searched = {name: json_to_distribution(json.dumps(domain)) for name, domain in request["searched"].items()}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=request["seed"]))
    trials: list[dict[str, Any]] = []
    while len(trials) < request["trials"]:
        began_s = time.monotonic() - begun
        trial = study.ask(searched)
        try:
            value = train(request, trial)
        except TimeIsUp:
            break
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        study.tell(trial, value, state)
        ended_s = time.monotonic() - begun
        trials.append({"began_s": began_s, "ended_s": ended_s, "state": state.name.lower(), "value": value})
    return {"trials": trials}


if __name__ == "__main__":
    serve(answer, "stable-baselines3", "torch", "gymnasium", "optuna")
