"""Stable-Baselines3's DQN with our hyperparameters, as near as it comes.

It has Huber's loss alone and no double Q; before the first update it acts at random; it copies to its target network
every `target_period` steps, where ours copies at the next train event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import playing
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback


def make(hyperparams: dict[str, Any], env_steps: int, mean: np.ndarray, std: np.ndarray, seed: int) -> DQN:
    """Return an agent that has not begun to learn."""
    one = hyperparams
    final, decay = one["learning_rate_final_fraction"], one["learning_rate_decay_steps"]

    def learning_rate(remaining: float) -> float:
        share = min((1.0 - remaining) * env_steps / decay, 1.0)
        return one["learning_rate"] * (1.0 - share * (1.0 - final))

    return DQN(
        "MlpPolicy",
        playing.make(mean, std),
        learning_rate=one["learning_rate"] if final == 1.0 else learning_rate,
        buffer_size=one["buffer_size"],
        learning_starts=max(one["warmup_steps"] - 1, 0),  # it begins after that step, ours at it
        batch_size=one["batch_size"],
        tau=one["tau"],
        gamma=one["gamma"],
        train_freq=one["train_period"],
        gradient_steps=one["gradient_steps"],
        target_update_interval=one["target_period"],
        exploration_initial_eps=one["epsilon_start"],
        exploration_final_eps=one["epsilon_end"],
        exploration_fraction=one["epsilon_decay_steps"] / env_steps,
        max_grad_norm=one["max_grad_norm"],
        policy_kwargs={"net_arch": [one["hidden_width"]] * one["hidden_layers"]},
        seed=seed,
        device="cpu",
    )


def greedy(agent: DQN, episodes: int, mean: np.ndarray, std: np.ndarray, seed: int) -> list[float]:
    """Return the returns of greedy episodes."""
    return playing.greedy_returns(
        lambda obs: agent.predict(obs.astype(np.float32), deterministic=True)[0], episodes, mean, std, seed
    )


def learn(agent: DQN, env_steps: int, callback: BaseCallback | None = None) -> None:
    """Let it take so many environment steps and make the updates that are then due."""
    agent.learn(env_steps, callback=callback, log_interval=None)


def threads(num: int) -> None:
    """Let PyTorch use so many threads."""
    torch.set_num_threads(num)
