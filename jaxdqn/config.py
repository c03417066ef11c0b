"""Static settings: what is compiled into the program. Everything traced is in `Hyperparams`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxdqn.hyperparams import Hyperparams


@dataclass(frozen=True)
class Config:
    """What every agent of a sweep shares. Steps are environment steps."""

    env: str = "CartPole-v1"
    env_steps: int = 50_000  # an agent's life in steps …
    episodes: int | None = None  # … or in episodes: the first reached ends it
    eval_episodes: int = 100  # greedy episodes of the score of an agent of the search …
    fresh_episodes: int = 0  # … and of one that is trained anew
    rungs: tuple[int, ...] = ()  # steps at which an agent is validated
    validation_episodes: int = 16  # greedy episodes of a validation
    proof_episodes: int = 0  # to count as perfect, an agent has to be so on as many (if more than of a validation)
    keep_best: bool = False  # score the best validated checkpoint, not the last parameters
    stop_when_perfect: bool = False  # end after two perfect validations in a row

    tick: int = 1  # steps between two looks at what is due: divides every train period and rung
    slots: int = 50_000  # transitions the replay of a lane can hold
    batch_sizes: tuple[int, ...] = (64,)  # the shapes of an update; a lane runs in the smallest that holds its batch
    hidden_width: int = 64  # the largest of the space
    hidden_layers: int = 2  # likewise
    linear: bool = False  # has the space the linear model (0 hidden layers)?
    fixed: tuple[tuple[str, float | int | bool], ...] = ()  # hyperparameters that do not vary: compiled in
    obs_mean: tuple[float, ...] = ()  # of the random policy, one an observed value; empty: never normalised
    obs_std: tuple[float, ...] = ()
    diverged_return: float = 0.0  # what a diverged agent counts beside others of its trial: the random policy's return

    def specialise(self, hyperparams: Hyperparams) -> Hyperparams:
        """Put Python numbers in place of the tracers of what is fixed, so that XLA folds the branches not taken."""
        return hyperparams._replace(**dict(self.fixed))


@dataclass(frozen=True)
class Layout:
    """How the population lies on the devices: `rows` rows of one block of `block` lanes a device."""

    rows: int
    devices: int
    block: int
    group: int = 1  # lanes that are validated or scored together

    @property
    def lanes(self) -> int:
        """Lanes in all."""
        return self.rows * self.devices * self.block

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of one value a lane, over a row: (devices, block)."""
        return self.devices, self.block


def bucket_of(batch_size: Any, config: Config) -> Any:
    """Index of the smallest shape in `config.batch_sizes` that holds `batch_size` (a number or an array)."""
    return sum((batch_size > size) * 1 for size in config.batch_sizes)
