"""What the host does while agents train, measured beside stock Optuna in the same run: how long asking takes.

Whole asks are timed, with Optuna's own bookkeeping, on storage in memory that holds finished random trials.
"""

from __future__ import annotations

import atexit
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from rich.console import Group
from rich.table import Table

from jaxdqn import parzen
from jaxdqn.journal import Journal
from jaxdqn.quality import SAMPLERS, Progress
from jaxdqn.space import load
from jaxdqn.study import Asked, open_study

Space = dict[str, BaseDistribution]

REPEATS = 5  # batches timed, after one that is not
LIMIT_S = 20.0  # no further batch of somebody slow is begun that would end later than this
BARS_MS = {  # a trial, by trials and batch
    (1_000, 1): 5.0,
    (1_000, 8): 2.0,
    (1_000, 128): 1.5,
    (10_000, 1): 20.0,
    (10_000, 8): 6.0,
    (10_000, 128): 4.0,
}


class Contender(NamedTuple):
    """Somebody to be asked, who has not looked at the finished trials yet."""

    ask: Callable[[int], Sequence[Any]]  # for so many trials, before any of them is told
    tell: Callable[[Sequence[Any]], None]  # all of them, some value each


def optuna_contender(sampler: Callable[[int], BaseSampler], space: Space, finished: Sequence[FrozenTrial]) -> Contender:
    """Return an Optuna study in memory, asked trial by trial."""
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), sampler=sampler(0), direction=StudyDirection.MAXIMIZE
    )
    study.add_trials(finished)
    values = np.random.default_rng(1)

    def tell(trials: Sequence[optuna.Trial]) -> None:
        for trial in trials:
            study.tell(trial, values.normal())

    return Contender(lambda num: [study.ask(fixed_distributions=space) for _ in range(num)], tell)


def study_contender(space: Space, finished: Sequence[FrozenTrial]) -> Contender:
    """Return a study of ours on its log, asked for whole batches; each is committed, with an fsync."""
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    log = Path(directory) / "study.log"
    journal = Journal(log)
    optuna.create_study(storage=JournalStorage(journal), study_name="ask", direction="maximize").add_trials(finished)
    journal.close()
    study = open_study(log, "ask", replace(load("article"), searched=space), {}, "tpe", 0)
    values = np.random.default_rng(1)

    def ask(num: int) -> list[Asked]:
        asked = study.ask(num)
        study.commit()
        return asked

    def tell(trials: Sequence[Asked]) -> None:
        for trial in trials:
            study.tell(trial.number, values.normal(), {})

    return Contender(ask, tell)


CONTENDERS: dict[str, Callable[[Space, Sequence[FrozenTrial]], Contender]] = {
    name: partial(optuna_contender, sampler) for name, sampler in SAMPLERS.items()
} | {"our study": study_contender}


def random_trials(space: Space, num: int, seed: int = 0) -> list[FrozenTrial]:
    """Return finished trials at random points with random values."""
    random, axes = np.random.default_rng(seed), parzen.axes_of(space)
    points = np.stack([axis.prior(random.random(num)) for axis in axes], axis=1)
    params = (dict(zip(space, parzen.decode(axes, point), strict=True)) for point in points)
    return [create_trial(params=p, distributions=space, value=random.normal()) for p in params]


def ask_times(
    space: Space,
    sizes: Sequence[int] = (1_000, 10_000),
    batches: Sequence[int] = (1, 8, 128),
    contenders: Mapping[str, Callable[[Space, Sequence[FrozenTrial]], Contender]] = CONTENDERS,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Time asking for batches after so many finished trials; return medians of milliseconds a trial.

    The batches of one study are told in between, so that it grows: by less than a thousand trials in all. A sampler's
    first look at a study, one ask, stands apart.
    """
    rows: list[dict[str, Any]] = []
    first_looks: list[dict[str, Any]] = []
    for size in sizes:
        progress(f"preparing {size:,} finished trials")
        finished = random_trials(space, size)
        asked = {name: contender(space, finished) for name, contender in contenders.items()}
        first_looks.append({"trials": size, "ms": {name: round(_ask_ms(who, 1), 3) for name, who in asked.items()}})
        for batch in batches:
            progress(f"asking for {batch} after {size:,} trials")
            by_name = _cells(asked, batch)
            bar = BARS_MS.get((size, batch))
            reached = bar is None or "ours" not in by_name or by_name["ours"]["ms"] <= bar
            rows.append({"trials": size, "batch": batch, "bar_ms": bar, "reached": reached, "by": by_name})
    return {
        "parameters": len(space),
        "stock": f"Optuna {optuna.__version__}",
        "first_looks": first_looks,
        "reached": all(row["reached"] for row in rows),
        "rows": rows,
    }


def _cells(asked: Mapping[str, Contender], batch: int) -> dict[str, dict[str, Any]]:
    """Return everybody's median and range of milliseconds a trial; they take turns, so that all meet the same noise."""
    times_ms: dict[str, list[float]] = {name: [] for name in asked}
    for repeat in range(REPEATS + 1):
        for name, who in asked.items():
            known = times_ms[name]
            if repeat < 2 or (sum(known) + known[-1]) * batch <= LIMIT_S * 1e3:
                elapsed_ms = _ask_ms(who, batch)
                known += [elapsed_ms / batch] if repeat else []  # the first is not timed
    return {
        name: {
            "ms": round(statistics.median(known), 3),
            "range_ms": [round(min(known), 3), round(max(known), 3)],
            "batches_timed": len(known),
        }
        for name, known in times_ms.items()
    }


def _ask_ms(asked: Contender, batch: int) -> float:
    """Ask for a batch and tell it; return the milliseconds of asking."""
    start = time.perf_counter()
    trials = asked.ask(batch)
    elapsed_ms = (time.perf_counter() - start) * 1e3
    asked.tell(trials)
    return elapsed_ms


def ask_table(result: dict[str, Any]) -> Group:
    """Show the times of asking; it fits 80 columns."""
    names = list(result["rows"][0]["by"])
    table = Table(box=None, pad_edge=False)
    for name in ("trials", "batch", *names, "asked", "reached"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result["rows"]:
        cells = [f"{c['ms']:.3g}" + _few(c["batches_timed"]) for c in (row["by"][name] for name in names)]
        verdict = "✓ yes" if row["reached"] else "✗ no"
        asked = ("-", "-") if row["bar_ms"] is None else (f"≤ {row['bar_ms']:g}", verdict)
        table.add_row(f"{row['trials']:,}", str(row["batch"]), *cells, *asked)
    looks = (", ".join(f"{name} {ms:.3g}" for name, ms in look["ms"].items()) for look in result["first_looks"])
    first = [f"first look at {row['trials']:,}: {look}" for row, look in zip(result["first_looks"], looks, strict=True)]
    return Group(
        f"Asking, ms a trial: {result['parameters']} parameters, medians of {REPEATS} batches, n if (n)",
        f"(in turns; stock and random: {result['stock']}; a first look: one ask)",
        table,
        *first,
    )


def _few(batches_timed: int) -> str:
    return "" if batches_timed >= REPEATS else f" ({batches_timed})"
