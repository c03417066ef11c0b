"""Hyperparameter sets that everybody trains: how they are read, what they cost, and how our population trains them.

They were drawn once from the article's space (`jaxdqn.host_benchmark.random_trials`, seed 0) and chosen by nobody. All
are given Huber's loss, the only one Stable-Baselines3 has, and a budget of environment steps instead of episodes.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxdqn import cost, devices, space, space_config
from jaxdqn.config import Config, bucket_of
from jaxdqn.cost import Speed
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.lanes import Lanes
from jaxdqn.population import Population
from jaxdqn.space import Space


class Sets(NamedTuple):
    """Hyperparameter sets, with what an agent is given."""

    space: Space  # they are from, with the budget and the evaluation of an agent
    config: Config  # that our population is compiled for
    hyperparams: list[Hyperparams]

    def updates(self) -> list[int]:
        """Return how many updates each set makes."""
        return [updates_in(one, self.config.env_steps) for one in self.hyperparams]

    def works(self) -> list[float]:
        """Return roughly what each set costs a peer: an update has a price of its own, and one a transition."""
        return [n * (64.0 + one.batch_size) for n, one in zip(self.updates(), self.hyperparams, strict=True)]

    def seconds(self, speed: Speed) -> list[float]:
        """Return roughly how long one of our devices trains an agent of each set; its evaluation is not in it."""
        steps = self.config.env_steps * cost.step_cost(1, self.config, speed)
        update = cost.update_costs(1, self.config, speed)
        sizes = [bucket_of(one.batch_size, self.config) for one in self.hyperparams]
        return [steps + n * float(update[size]) for n, size in zip(self.updates(), sizes, strict=True)]


def load_sets(path: Path) -> Sets:
    """Load sets and budgets from a JSON file.

    Raises:
        ValueError: a value is none of the space.
    """
    content = json.loads(path.read_text("utf-8"))
    base = space.load(content["space"], eval_episodes=content["eval_episodes"])
    own = replace(base, episodes=None, env_steps=content["env_steps"], fixed={**base.fixed, **content["fixed"]})
    for number, params in enumerate(content["sets"]):
        for name, domain in own.searched.items():
            if not domain._contains(domain.to_internal_repr(params[name])):
                raise ValueError(f"set {number}: {name} = {params[name]} is none of space {base.name!r}")
    return Sets(own, space_config.of(own), [own.hyperparams(params) for params in content["sets"]])


def updates_in(hyperparams: Hyperparams, env_steps: int) -> int:
    """Return how many updates an agent makes: at every step from the warm-up on that its train period divides."""
    period = hyperparams.train_period
    events = env_steps // period - max(hyperparams.warmup_steps - 1, 0) // period
    return max(events, 0) * hyperparams.gradient_steps


class Ours:
    """The sets as one population, compiled once."""

    def __init__(self, sets: Sets) -> None:
        """Compile it."""
        self.sets, self.runs = sets, 0
        largest = cost.largest_block(sets.config, space_config.is_mixed(sets.space), devices.platform())
        # Two rows, as a sweep has: whoever ends makes room for the next, and nobody waits while the host reads a row.
        lanes = min(len(sets.hyperparams), 2 * devices.num_devices())
        layout = devices.choose_layout(lanes, largest_block=largest)
        self.population = Population(sets.config, layout, seed=0)
        self.compile_s = self.population.compile()

    def train(self) -> dict[str, Any]:
        """Train and judge all sets at once, each time on other seeds; answer as a peer does."""
        numbered = [Agent(i, self.runs, one) for i, one in enumerate(self.sets.hyperparams)]
        self.runs += 1
        lanes = Lanes(self.population, space_config.common_period(self.sets.space))
        # The longest first: the last ones to begin are short, and the devices are done at the same time.
        seconds = self.sets.seconds(self.population.speed)
        lanes.queue = sorted(numbered, key=lambda agent: -seconds[agent.trial])
        begin = time.perf_counter()
        while not all(agent.ended for agent in numbered):
            for row in range(len(lanes.rows)):
                if progress := lanes.read(row):
                    lanes.take_in(row, progress)
                if lanes.queue or lanes.num_free(row) < lanes.lanes_a_row:
                    lanes.dispatch(row)
        took = time.perf_counter() - begin
        agents = [{"env_steps": a.step, "updates": a.updates, "returns": a.returns.tolist()} for a in numbered]
        return {"seconds": took, "agents": agents}
