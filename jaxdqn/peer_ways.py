"""Ways to run a peer that trains agents one after another: in one process, or in a process a core.

A program that trains one agent at a time leaves cores idle that ours uses; a second process, started by hand, would
not. What a peer is asked is the same either way.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from jaxdqn import devices
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.peer_sets import Sets, updates_in
from jaxdqn.peers import Peer, PeerError, Running, prepare

TORCH, SB3, REJAX = "PyTorch loop", "SB3", "rejax"
SCRIPTS = {TORCH: "torch_dqn.py", SB3: "sb3_dqn.py", REJAX: "rejax_dqn.py"}
_TRIED_STEPS = 1_280  # of the one set with which numbers of threads are tried …
_TRIALS = 3  # … so often: on a busy machine a number that wins once may lose every time after

Progress = Callable[[str], None]


class Way(NamedTuple):
    """A way to run a peer: some processes of it, which share what is to be trained."""

    peer: str
    processes: list[Running]
    threads: int  # of each
    tried: dict[int, float]  # seconds of a short run, by number of threads
    versions: dict[str, str]  # of what it runs

    @property
    def name(self) -> str:
        """Its row in the tables."""
        num = len(self.processes)
        return f"{self.peer}, {num} processes" if num > 1 else self.peer


def start(
    directory: Path,
    environments: Path,
    names: Sequence[str],
    sets: Sets,
    limit_s: float,
    stack: ExitStack,
    progress: Progress,
) -> dict[str, list[Way]]:
    """Make environments, start the peers, find their best number of threads; return the ways to run each peer.

    Raises:
        PeerError: a peer can't be had.
    """
    cores, found = devices.cores(), {}
    for name in names:
        kind = "rejax" if name == REJAX else "torch"
        peer = Peer(directory / SCRIPTS[name], directory / f"requirements-{kind}.txt")
        progress(f"{name}: the environment {peer.python(environments).parents[1]} (made once, that takes minutes)")
        python = prepare(peer, environments)
        alone = Way(name, [stack.enter_context(Running(python, peer))], cores, {}, {})
        alone = alone._replace(versions=alone.processes[0].ask({}, limit_s)["versions"])
        if name != REJAX:  # XLA chooses for itself
            progress(f"{name}: trying numbers of threads")
            tried = _try_threads(alone, sets, limit_s)
            alone = alone._replace(threads=min(tried, key=lambda num: tried[num]), tried=tried)
            progress(f"{name}: {', '.join(f'{s:.2f} s with {num}' for num, s in tried.items())} threads")
        found[name] = [alone]
        if cores > 1:
            each = [stack.enter_context(Running(python, peer, [core])) for core in _core_numbers()]
            found[name].append(alone._replace(processes=each, threads=1, tried={}))
            ask(found[name][1], [{}] * len(each), limit_s)  # their imports are over
    return found


def _try_threads(way: Way, sets: Sets, limit_s: float) -> dict[int, float]:
    """Return the seconds of a short run with 1, 2, 4, … threads: the median of three each, in turns."""
    most = max(sets.hyperparams, key=lambda one: updates_in(one, _TRIED_STEPS) * one.batch_size)
    cores = way.threads
    numbers = sorted({*(2**i for i in range(cores.bit_length())), cores})
    request = request_of([most], _TRIED_STEPS, 0, way, 0)
    took: dict[int, list[float]] = {num: [] for num in numbers}
    for num in numbers * _TRIALS:
        best = min((statistics.median(its) for its in took.values() if its), default=0.0)
        if not took[num] or statistics.median(took[num]) <= 2 * best:  # else there is no hope for it
            took[num].append(way.processes[0].ask({**request, "threads": num}, limit_s)["seconds"])
    return {num: round(statistics.median(its), 3) for num, its in took.items()}


def train(way: Way, sets: Sets, seed: int, limit_s: float) -> dict[str, Any]:
    """Let the processes of a way share the sets, the longest first to whoever has least."""
    shares: list[list[int]] = [[] for _ in way.processes]
    loads = [0.0] * len(shares)
    works = sets.works()
    for index in sorted(range(len(works)), key=lambda i: -works[i]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += works[index]
    config = sets.config
    requests = []
    for share in shares:
        chosen = [sets.hyperparams[i] for i in share]
        request = request_of(chosen, config.env_steps, config.eval_episodes, way, seed)
        requests.append({**request, "obs_mean": config.obs_mean, "obs_std": config.obs_std})
    begun = time.perf_counter()
    answers = ask(way, requests, limit_s)
    seconds = time.perf_counter() - begun if len(answers) > 1 else answers[0]["seconds"]
    agents = {
        i: agent
        for share, one in zip(shares, answers, strict=True)
        for i, agent in zip(share, one["agents"], strict=True)
    }
    return {"seconds": seconds, "agents": [agents[i] for i in range(len(works))]}


def ask(way: Way, requests: Sequence[dict[str, Any]], limit_s: float) -> list[dict[str, Any]]:
    """Ask all processes of a way at once."""
    with ThreadPoolExecutor(len(way.processes)) as pool:
        asked = [pool.submit(one.ask, request, limit_s) for one, request in zip(way.processes, requests, strict=True)]
        try:
            return [one.result() for one in asked]
        except PeerError:
            for one in way.processes:  # nobody waits for the others
                one.end()
            raise


def request_of(
    hyperparams: Sequence[Hyperparams], env_steps: int, episodes: int, way: Way, seed: int
) -> dict[str, Any]:
    """Return what a peer that knows no lanes is asked to train, one after another."""
    return {
        "sets": [one._asdict() for one in hyperparams],
        "env_steps": env_steps,
        "eval_episodes": episodes,
        "seed": seed,
        "threads": way.threads,
        "obs_mean": [0.0] * 4,
        "obs_std": [1.0] * 4,
    }


def _core_numbers() -> list[int]:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(devices.cores()))
