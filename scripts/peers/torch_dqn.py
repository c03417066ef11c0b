"""A plain DQN in PyTorch, as one would write it by hand: one agent, one environment, one loop.

Nothing that costs time is left in it: replay lies in tensors, nothing is logged, Adam is PyTorch's fused one, and no
network is asked where the action is random. It is neither compiled nor batched over agents: that would be our program
written again. Run by `scripts/benchmark.py peers`.
"""

from __future__ import annotations

import copy
import itertools
import random
import time
from typing import Any

import numpy as np
import playing
import torch
from serving import serve
from torch import nn
from torch.nn import functional


class Replay:
    """The last `capacity` transitions."""

    def __init__(self, capacity: int, obs_size: int) -> None:
        """Make room."""
        self.obs, self.next_obs = torch.zeros(capacity, obs_size), torch.zeros(capacity, obs_size)
        self.action = torch.zeros(capacity, 1, dtype=torch.int64)
        self.reward, self.terminated = torch.zeros(capacity), torch.zeros(capacity)
        self.capacity, self.added = capacity, 0

    def add(self, obs: np.ndarray, action: int, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Write one transition over the oldest."""
        at = self.added % self.capacity
        self.obs[at], self.next_obs[at] = torch.from_numpy(obs), torch.from_numpy(next_obs)
        self.action[at, 0], self.reward[at], self.terminated[at] = action, reward, float(terminated)
        self.added += 1

    def sample(self, num: int) -> tuple[torch.Tensor, ...]:
        """Draw `num` transitions with replacement."""
        at = torch.randint(min(self.added, self.capacity), (num,))
        return self.obs[at], self.action[at], self.reward[at], self.next_obs[at], self.terminated[at]


def network(sizes: list[int]) -> nn.Sequential:
    """Return a multilayer perceptron with ReLUs."""
    layers: list[nn.Module] = []
    for num_in, num_out in itertools.pairwise(sizes):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(
    hp: dict[str, Any], env_steps: int, mean: np.ndarray, std: np.ndarray, seed: int
) -> tuple[nn.Sequential, int, int]:
    """Train one agent; return its network, its environment steps and its updates."""
    torch.manual_seed(seed)
    random.seed(seed)
    env = playing.make(mean, std)
    obs, _ = env.reset(seed=seed)
    num_actions = int(env.action_space.n)
    online = network([len(obs), *[hp["hidden_width"]] * hp["hidden_layers"], num_actions])
    target = copy.deepcopy(online)
    optimizer = torch.optim.Adam(online.parameters(), lr=hp["learning_rate"], fused=True)
    replay = Replay(min(hp["buffer_size"], env_steps), len(obs))
    loss_of = functional.smooth_l1_loss if hp["huber_loss"] else functional.mse_loss
    updates = last_copy = 0

    def update() -> None:
        seen, action, reward, next_obs, terminated = replay.sample(hp["batch_size"])
        with torch.no_grad():
            next_q = target(next_obs).max(dim=1).values
            wanted = reward + hp["gamma"] * (1.0 - terminated) * next_q
        loss = loss_of(online(seen).gather(1, action).squeeze(1), wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), hp["max_grad_norm"])
        optimizer.step()

    for step in range(1, env_steps + 1):
        share = min((step - 1) / hp["epsilon_decay_steps"], 1.0)
        if random.random() < hp["epsilon_start"] + share * (hp["epsilon_end"] - hp["epsilon_start"]):
            action = random.randrange(num_actions)
        else:
            with torch.inference_mode():
                action = int(online(torch.from_numpy(obs)).argmax())
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, float(reward), next_obs, terminated)
        obs = env.reset()[0] if terminated or truncated else next_obs
        if step % hp["train_period"] or step < hp["warmup_steps"]:
            continue
        for _ in range(hp["gradient_steps"]):
            update()
            updates += 1
        if step - last_copy >= hp["target_period"]:
            target.load_state_dict(online.state_dict())
            last_copy = step
    return online, step, updates


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Train and judge each set of the request; say what was done and how long it took."""
    torch.set_num_threads(request["threads"])
    agents: list[dict[str, Any]] = []
    begun = time.perf_counter()
    for hyperparams in request["sets"]:
        mean, std = playing.scale(request, hyperparams)
        online, steps, updates = train(hyperparams, request["env_steps"], mean, std, request["seed"])

        def act(obs: np.ndarray, online: nn.Sequential = online) -> np.ndarray:
            with torch.inference_mode():
                return online(torch.from_numpy(obs.astype(np.float32))).argmax(dim=1).numpy()

        returns = playing.greedy_returns(act, request["eval_episodes"], mean, std, request["seed"])
        agents.append({"env_steps": steps, "updates": updates, "returns": returns})
    return {"seconds": time.perf_counter() - begun, "agents": agents}


if __name__ == "__main__":
    serve(answer, "torch", "gymnasium")
