"""Small sweeps of a population that is none, confirmed on fresh seeds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxdqn import opening, plan, run, space
from jaxdqn.config import Config, Layout
from jaxdqn.confirm import Confirmation, Fresh
from jaxdqn.evaluate import Phase
from jaxdqn.events import Retrained
from jaxdqn.lanes import Lanes
from jaxdqn.plan import Settings
from jaxdqn.result import Result
from jaxdqn.space import Space
from jaxdqn.stages import Stages
from jaxdqn.study import Study, open_study
from jaxdqn.trials import Limits
from tests.stand_in import StandIn

LAYOUT = Layout(rows=2, devices=2, block=3)
CONFIG = Config(env_steps=20_000, tick=4)
LUCKY, GOOD, TRIALS = 3, 5, 8
FRESH = Fresh(top=2, seeds=5, verdict_seeds=4)

Score = Callable[[int, int, int], float]


def score(phase: int, trial: int, seed: int) -> float:
    """One trial was lucky in the search, another is good."""
    if phase == Phase.SEARCH:
        return {LUCKY: 500.0, GOOD: 495.0}.get(trial, 50.0 + trial)
    if trial == LUCKY:
        return 100.0 + seed
    return 490.0 + seed if phase == Phase.VERDICT else 500.0


def spoken(phase: int, trial: int, seed: int) -> float:
    """Agents that all differ."""
    return 400.0 + 20 * phase + trial + seed / 8


def loaded(directory: Path, settings: str = "solved_return = 475") -> Space:
    file = directory / "one.toml"
    file.write_text(
        f"env_steps = 20_000\n{settings}\n[hyperparameters]\nhidden_layers = 0\n"
        "learning_rate = { low = 1e-5, high = 1e-1, log = true }\n"
    )
    return space.load(str(file))


def opened(searched: Space, directory: Path) -> Study:
    return open_study(directory / "study.log", "s", searched, {**searched.identity(), "seed": 0}, "random", 0)


class Sweep:
    """A sweep of a few trials and its confirmation."""

    def __init__(
        self, directory: Path, score: Score = score, fresh: Fresh = FRESH, layout: Layout = LAYOUT, **changes: Any
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.searched = replace(loaded(directory), **changes)
        self.study, self.trainer = opened(self.searched, directory), StandIn(CONFIG, layout, score=score)
        limits = Limits(trials=TRIALS)
        self.stages = Stages(self.study, self.searched, CONFIG, limits, fresh, 0, directory)
        self.events: list[Retrained] = []

    def run(self, until: Callable[[Retrained], bool] = lambda event: False) -> list[Confirmation]:
        """Run to the end, or until an event, as if the process were killed then."""
        for event in self.stages.run(Lanes(self.trainer), lambda: False, 0.0):
            if isinstance(event, Retrained):
                self.events.append(event)
                if until(event):
                    break
        return self.stages.confirmed

    @property
    def trained(self) -> list[tuple[int, int, int]]:
        """The phase, trial and seed index of all agents that were put into a lane, in order."""
        return [(phase, *name) for phase, name in zip(self.trainer.phases, self.trainer.placed, strict=True)]

    def trained_in(self, phase: Phase) -> list[tuple[int, int]]:
        return sorted((trial, seed) for of, trial, seed in self.trained if of == phase)


def planned(directory: Path, **settings: Any) -> plan.Plan:
    """The plan of a small sweep, with what else the settings ask for."""
    directory.mkdir(exist_ok=True)
    loaded(directory)
    off = {"storage": "off", "tracking": "off", "report": False}
    fresh = dict(zip(("confirm_top", "confirm_seeds", "verdict_seeds"), FRESH, strict=True))
    known = {"space": str(directory / "one.toml"), "output": directory, "trials": TRIALS, "sampler": "random"}
    return plan.plan(Settings(**{**known, **off, **fresh, **settings}))


def swept(directory: Path, score: Score = score, **settings: Any) -> Result:
    """The result of the whole command but for JAX, with its log, and what else the settings ask for."""
    opened = opening.open_plan(planned(directory, **settings))
    return run.run(
        opened, lambda _: None, make_population=lambda config, layout, _: StandIn(config, layout, score=score)
    )
