"""Fresh seeds: the best trials of a search are trained anew to choose the winner, and the winner once more.

The search's score of its best trial is optimistic twice over: the best of many was chosen by it, on few seeds. Here
every candidate is trained on seeds, and judged on episodes, that chose nothing. The figure of the winner, which was
chosen by those, is then measured on a third set: the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxdqn.evaluate import Phase
from jaxdqn.events import Retrained
from jaxdqn.follower import Trial
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.lanes import Lanes
from jaxdqn.space import Space
from jaxdqn.statistics import Interval, bootstrap_interval, interquartile_mean, wilson


class Fresh(NamedTuple):
    """How the winner is chosen and judged."""

    top: int  # best trials of the search that are trained anew; 0: none
    seeds: int  # fresh seeds of each
    verdict_seeds: int  # and of the winner, fresh again; 0: none


class Candidate(NamedTuple):
    """A trial that may be trained anew."""

    number: int
    hyperparams: Hyperparams
    search_return: float | None  # its score in the search


class Results(Protocol):
    """Where the results of agents that were trained anew are found."""

    def recorded(self, phase: str) -> dict[tuple[int, int], dict[str, Any]]:
        """Return all results of a phase, by trial and seed index."""


class Records(Results, Protocol):
    """Where they are kept, too."""

    def at(self, visit: int) -> None:
        """Say at which visit the following happens."""

    def record(self, phase: str, number: int, seed_index: int, result: dict[str, Any]) -> None:
        """Keep the result of one agent."""

    def commit(self) -> object:
        """Put them on the disk."""


@dataclass(frozen=True)
class Confirmation:
    """How often hyperparameters work on fresh seeds. An agent that diverged solves nothing and has no return."""

    number: int
    hyperparameters: dict[str, Any]
    num_parameters: int  # of its network
    seeds: int
    solved_share: float | None  # of the seeds: those that reach what counts as solved; None: nothing does
    solved_interval: Interval | None  # Wilson's, 95 %
    mean_return: float | None  # over the seeds that did not diverge; None: all did
    mean_interval: Interval | None  # of the bootstrap, 95 %
    iqm_return: float | None  # interquartile mean over the seeds
    iqm_interval: Interval | None
    worst_seed_return: float | None
    search_return: float | None
    returns: list[float | None]  # of each seed, None: it diverged
    env_steps: list[int]
    updates: list[int]
    lanes: list[Any]  # of each agent: its lane, from when, to when, and how it ended

    def summary(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def candidates(trials: Sequence[Trial], space: Space, top: int) -> list[Candidate]:
    """Return the best trials of a search; of equals those that took fewer environment steps, then the earlier.

    Where the network should be small, one trial of each size.
    """

    def order(trial: Trial) -> tuple[float, ...]:
        worth = space.worth(trial.params, trial.value if trial.value is not None else -np.inf)
        return *(-x for x in worth), float(np.mean(trial.attributes.get("env_steps") or [0])), trial.number

    best = sorted((trial for trial in trials if trial.state == "complete" and trial.value is not None), key=order)
    if space.minimize:
        sizes = {space.num_parameters(trial.params): trial for trial in reversed(best)}  # the best of each stays
        best = [trial for trial in best if sizes[space.num_parameters(trial.params)] is trial]
    return [Candidate(t.number, space.hyperparams(t.params), t.value) for t in best[:top]]


def rivals(records: Results, trials: Sequence[Trial], space: Space, fresh: Fresh) -> list[Candidate]:
    """Return the candidates, and the trials that an earlier sweep of the study confirmed: none of them is forgotten.

    While new candidates are still being trained, an earlier sweep's verdict stands: then they are not among them.
    """
    best = candidates(trials, space, fresh.top)
    known, judged = (records.recorded(phase.name.lower()) for phase in (Phase.CONFIRM, Phase.VERDICT))
    done = [t for t in trials if fresh.top and all((t.number, seed) in known for seed in range(fresh.seeds))]
    earlier = candidates(done, space, len(done))
    if missing(records, best, Phase.CONFIRM, fresh.seeds) and any((one.number, 0) in judged for one in earlier):
        return earlier
    return best + [one for one in earlier if one not in best]


def missing(records: Results, chosen: Sequence[Candidate], phase: Phase, seeds: int) -> list[Agent]:
    """Return the agents of a phase that have no result yet, in the order in which they are trained."""
    known = records.recorded(phase.name.lower())
    named = [(one, seed) for one in chosen for seed in range(seeds) if (one.number, seed) not in known]
    return [Agent(one.number, seed, one.hyperparams, phase, keeps_params=True) for one, seed in named]


def train_anew(
    lanes: Lanes,
    records: Records,
    chosen: Sequence[Candidate],
    phase: Phase,
    seeds: int,
    stopped: Callable[[], bool] = lambda: False,
    keep: Callable[[Agent], None] = lambda agent: None,
) -> Iterator[Retrained]:
    """Train the agents of a phase that have no result yet, in the lanes of the search.

    `keep` is given each agent with its parameters before its result is recorded; an agent whose result is on the disk
    is not trained again.
    """
    agents = missing(records, chosen, phase, seeds)
    total, left = len(chosen) * seeds, len(agents)
    started, steps, updates = time.monotonic(), lanes.env_steps, lanes.accounts.updates
    lanes.queue.extend(agents)
    while left and not stopped():
        for row in range(len(lanes.rows)):
            progress = lanes.read(row)
            ended = [agent for agent in lanes.take_in(row, progress) if agent.ended] if progress else []
            left -= len(ended)
            if lanes.queue or lanes.num_free(row) < lanes.lanes_a_row:
                lanes.dispatch(row)
            if not progress:
                continue
            records.at(lanes.visits)
            for agent in ended:
                keep(agent)
                records.record(phase.name.lower(), agent.trial, agent.seed_index, _result(agent))
                agent.params = None
            records.commit()
            yield Retrained(
                phase=phase,
                ended=ended,
                done=total - left,
                total=total,
                lanes_busy=lanes.num_busy,
                env_steps=lanes.env_steps - steps,
                updates=lanes.accounts.updates - updates,
                seconds=time.monotonic() - started,
            )
            if stopped():
                break
    lanes.clear()


def confirmation(records: Results, candidate: Candidate, phase: Phase, seeds: int, space: Space) -> Confirmation | None:
    """Return what the fresh seeds say of a candidate; None before all of them have been trained."""
    known = records.recorded(phase.name.lower())
    results = [known.get((candidate.number, seed)) for seed in range(seeds)]
    there = [result for result in results if result is not None]
    if not seeds or len(there) < seeds:
        return None
    returns = [result["mean_return"] for result in there]
    finite = [value for value in returns if value is not None]
    bar = space.solved
    solved = None if bar is None else sum(value >= bar for value in finite)
    return Confirmation(
        number=candidate.number,
        hyperparameters=candidate.hyperparams._asdict(),
        num_parameters=space.num_parameters(candidate.hyperparams._asdict()),
        seeds=seeds,
        solved_share=None if solved is None else solved / seeds,
        solved_interval=None if solved is None else wilson(solved, seeds),
        mean_return=float(np.mean(finite)) if finite else None,
        mean_interval=bootstrap_interval(finite, np.mean) if finite else None,
        iqm_return=float(interquartile_mean(finite)) if finite else None,
        iqm_interval=bootstrap_interval(finite, interquartile_mean) if finite else None,
        worst_seed_return=min(finite, default=None),
        search_return=candidate.search_return,
        returns=returns,
        env_steps=[result["env_steps"] for result in there],
        updates=[result["updates"] for result in there],
        lanes=[result["lanes"] for result in there],
    )


def ranked(confirmed: Sequence[Confirmation], small: bool = False) -> list[Confirmation]:
    """Return confirmed trials, the winner first: by the lower bounds of the solved share, then of the mean return.

    The mean leaves out seeds that diverged, so fewer of those come before it. Of equals the one whose agents took fewer
    environment steps. Where the network should be `small`, first of all come those that at least half of the seeds
    solve, the smallest first.
    """

    def order(one: Confirmation) -> tuple[float, ...]:
        solved_low = one.solved_interval.low if one.solved_interval else 0.0
        alone = one.mean_return if one.seeds == 1 else None  # a single seed has no interval
        mean_low = one.mean_interval.low if one.mean_interval else -np.inf if alone is None else alone
        size = one.num_parameters if small and (one.solved_share or 0.0) >= 0.5 else np.inf
        diverged = sum(value is None for value in one.returns)
        return size, -solved_low, diverged, -mean_low, float(np.mean(one.env_steps)), one.number

    return sorted(confirmed, key=order)


def confirmed(records: Results, chosen: Sequence[Candidate], seeds: int, space: Space) -> list[Confirmation]:
    """Return what the fresh seeds say of the candidates, the winner first; nothing before all have been trained."""
    found = [confirmation(records, one, Phase.CONFIRM, seeds, space) for one in chosen]
    return ranked([one for one in found if one], small=bool(space.minimize)) if all(found) else []


def winner(records: Results, chosen: Sequence[Candidate], seeds: int, space: Space) -> Candidate | None:
    """Return the candidate that the fresh seeds have chosen, if they have."""
    best = confirmed(records, chosen, seeds, space)[:1]
    return next((one for one in chosen if best and one.number == best[0].number), None)


def verdict(records: Results, chosen: Sequence[Candidate], fresh: Fresh, space: Space) -> Confirmation | None:
    """Return what seeds that chose nothing say of the winner, once they have been trained."""
    best = winner(records, chosen, fresh.seeds, space)
    return confirmation(records, best, Phase.VERDICT, fresh.verdict_seeds, space) if best else None


def _result(agent: Agent) -> dict[str, Any]:
    std = None if agent.diverged else float(np.std(agent.returns, dtype=np.float64))
    return {
        "mean_return": None if agent.diverged else agent.mean_return,
        "std_return": std,
        "env_steps": agent.step,
        "updates": agent.updates,
        "lanes": agent.span,
    }
