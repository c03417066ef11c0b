"""The stages of a sweep: the search, the confirmation of its best trials, the verdict on the winner.

All of them fill the same lanes of the same compiled program. Agents that are trained anew are saved as they end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxdqn import agent_directory, confirm, saved_agent
from jaxdqn.config import Config
from jaxdqn.confirm import Candidate, Confirmation, Fresh, missing, train_anew
from jaxdqn.evaluate import Phase
from jaxdqn.events import Event, Retrained, Visited
from jaxdqn.host_agent import Agent
from jaxdqn.lanes import Lanes
from jaxdqn.saved_agent import SavedAgent
from jaxdqn.snapshot import Snapshots
from jaxdqn.space import Space
from jaxdqn.study import Study
from jaxdqn.sweep import sweep
from jaxdqn.trials import Limits, satisfied

_LATEST = 64  # trials whose lives say how long the next ones will be
_REPORT_S = 10.0  # that the report may take


class Stages:
    """What is left to do in a study, and what has come of it."""

    def __init__(
        self,
        study: Study,
        space: Space,
        config: Config,
        limits: Limits,
        fresh: Fresh,
        seed: int,
        output: Path,
        save_all: bool = False,
        budget_s: float | None = None,
    ) -> None:
        """Agents are saved below `output`; those of the search only where `save_all` says so.

        All of it ends within `budget_s`, if that is given: the search leaves what the other stages should take, but
        has half of what is left when it begins, and visits each row at least once.
        """
        self.budget_s = budget_s
        self.study, self.space, self.config, self.limits, self.fresh = study, space, config, limits, fresh
        self.seed, self.output, self.save_all = seed, output, save_all

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return satisfied(self.study, self.limits) and not self._missing()

    def run(
        self, lanes: Lanes, stopped: Callable[[], bool], started: float, snapshots: Snapshots | None = None
    ) -> Iterator[Event]:
        """Do what is left, from `started` on (by `time.monotonic`)."""
        keep = self._save if self.save_all else None
        began, visits = time.monotonic(), 0
        ends = np.inf if self.budget_s is None else started + self.budget_s

        def enough() -> bool:
            left_s = ends - time.monotonic()
            late = left_s <= min(self._needed_s(lanes, began), (ends - began) / 2)
            return stopped() or (late and visits >= len(lanes.rows))

        def over() -> bool:
            return stopped() or time.monotonic() >= ends

        try:
            for event in sweep(lanes, self.study, self.space, self.limits, self.space.seeds, enough, keep, snapshots):
                visits += isinstance(event, Visited)
                yield event
        except BaseException:
            if snapshots:
                snapshots.close(keep=True)
            raise
        if snapshots:
            snapshots.close(keep=not satisfied(self.study, self.limits))
        if over():
            return
        yield from self._train(lanes, self._candidates(), Phase.CONFIRM, self.fresh.seeds, over)
        winner = self._winner()
        if winner is not None:
            agent_directory.mark_winner(self.output, winner.number)
            yield from self._train(lanes, [winner], Phase.VERDICT, self.fresh.verdict_seeds, over)

    def _needed_s(self, lanes: Lanes, began: float) -> float:
        """Return roughly the seconds that confirmation, verdict and report will take, by the search's own speed."""
        complete = [trial for trial in self.study.trials()[-_LATEST:] if trial.state == "complete"]
        lives = [steps for trial in complete for steps in trial.attributes.get("env_steps", [])]
        agents = self.fresh.top * self.fresh.seeds + self.fresh.verdict_seeds if self.fresh.top else 0
        speed = lanes.env_steps / (time.monotonic() - began + 1e-9)
        life = float(np.mean(lives)) if lives else self.config.env_steps
        return _REPORT_S + (agents * life / speed if speed else 0.0)

    @property
    def confirmed(self) -> list[Confirmation]:
        """The best trials on fresh seeds, the winner first; nobody before all of them are there."""
        return confirm.confirmed(self.study, self._rivals(), self.fresh.seeds, self.space)

    @property
    def verdict(self) -> Confirmation | None:
        """The winner on seeds that chose nothing."""
        return confirm.verdict(self.study, self._rivals(), self.fresh, self.space)

    def _candidates(self) -> list[Candidate]:
        return confirm.candidates(self.study.trials(), self.space, self.fresh.top)

    def _rivals(self) -> list[Candidate]:
        return confirm.rivals(self.study, self.study.trials(), self.space, self.fresh)

    def _winner(self) -> Candidate | None:
        return confirm.winner(self.study, self._rivals(), self.fresh.seeds, self.space)

    def _missing(self) -> list[Agent]:
        winner = self._winner()
        return [
            *missing(self.study, self._candidates(), Phase.CONFIRM, self.fresh.seeds),
            *(missing(self.study, [winner], Phase.VERDICT, self.fresh.verdict_seeds) if winner else []),
        ]

    def _train(
        self, lanes: Lanes, chosen: list[Candidate], phase: Phase, seeds: int, stopped: Callable[[], bool]
    ) -> Iterator[Retrained]:
        yield from train_anew(lanes, self.study, chosen, phase, seeds, stopped, self._save)

    def _save(self, agent: Agent) -> None:
        save_agent(self.output, agent, agent.phase.name.lower(), self.config, self.seed, self.space.solved)


def save_agent(output: Path, agent: Agent, name: str, config: Config, seed: int, solved_return: float | None) -> None:
    """Save an agent that has ended with the parameters that were scored; one that diverged has none.

    Args:
        output: directory of a sweep, or of agents trained anew.
        agent: whose parameters were kept.
        name: of its file, which the seed index follows.
        config: of the population.
        seed: of all random keys.
        solved_return: mean return from which on it counts as solved.
    """
    if agent.params is None:
        return
    normalises = bool(agent.hyperparams.normalize_obs)
    saved = SavedAgent(
        env=config.env,
        params=saved_agent.trim(agent.params, agent.hyperparams),
        hyperparams=agent.hyperparams,
        obs_mean=config.obs_mean if normalises else (),
        obs_std=config.obs_std if normalises else (),
        key={
            "study_seed": seed,
            "phase": agent.phase.name.lower(),
            "trial": agent.trial,
            "seed_index": agent.seed_index,
        },
        scores={
            "mean_return": agent.mean_return,
            "std_return": float(np.std(agent.returns, dtype=np.float64)),
            "num_episodes": len(agent.returns),
            "env_steps": agent.step,
            "updates": agent.updates,
            "solved": None if solved_return is None else agent.mean_return >= solved_return,
        },
    )
    saved_agent.save(agent_directory.path_of(output, agent.trial, name, agent.seed_index), saved)
