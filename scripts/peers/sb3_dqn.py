"""Train hyperparameter sets one after another through Stable-Baselines3's DQN. Run by `scripts/benchmark.py peers`."""

from __future__ import annotations

import time
from typing import Any

import playing
import sb3_agent
from serving import serve


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Train and judge each set of the request; say what was done and how long it took."""
    sb3_agent.threads(request["threads"])
    agents: list[dict[str, Any]] = []
    begun = time.perf_counter()
    for hyperparams in request["sets"]:
        mean, std = playing.scale(request, hyperparams)
        agent = sb3_agent.make(hyperparams, request["env_steps"], mean, std, request["seed"])
        sb3_agent.learn(agent, request["env_steps"])
        returns = sb3_agent.greedy(agent, request["eval_episodes"], mean, std, request["seed"])
        agents.append({"env_steps": agent.num_timesteps, "updates": agent._n_updates, "returns": returns})
    return {"seconds": time.perf_counter() - begun, "agents": agents}


if __name__ == "__main__":
    serve(answer, "stable-baselines3", "torch", "gymnasium")
