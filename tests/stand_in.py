"""A population without agents: lives and returns are computed from names and hyperparameters at once."""

import numpy as np

from jaxdqn.config import Config, Layout
from jaxdqn.population import Placement, Progress


class StandIn:
    """Keeps the scheduler's protocol, and checks that it is kept towards it."""

    def __init__(self, config: Config, layout: Layout, diverging: frozenset[int] = frozenset()) -> None:
        self.config, self.layout, self.diverging = config, layout, diverging
        lanes = (layout.rows, *layout.row_shape)
        self.step, self.trial, self.seed = (np.zeros(lanes, np.int64) for _ in range(3))
        self.alive, self.learning_rate = np.zeros(lanes, bool), np.zeros(lanes)
        self.placed: list[tuple[int, int]] = []  # (trial, seed index), in order
        self.segments = 0
        self._progress: list[Progress | None] = [None] * layout.rows

    def dispatch(self, row: int, placement: Placement, num_ticks: np.ndarray) -> None:
        assert self._progress[row] is None, "dispatched before it was read"
        fresh = placement.fresh
        assert not (fresh & self.alive[row]).any(), "a living agent was replaced"
        self.placed += list(zip(placement.trial[fresh].tolist(), placement.seed_index[fresh].tolist(), strict=True))
        self.step[row][fresh] = 0
        self.alive[row] |= fresh
        self.trial[row][fresh], self.seed[row][fresh] = placement.trial[fresh], placement.seed_index[fresh]
        self.learning_rate[row] = np.where(fresh, placement.hyperparams.learning_rate, self.learning_rate[row])
        started = self.alive[row].copy()
        lived = self.step[row] + num_ticks[:, None] * self.config.tick
        self.step[row] = np.where(started, np.minimum(lived, self.config.env_steps), self.step[row])
        self.alive[row] = started & (self.step[row] < self.config.env_steps)
        diverged = started & np.isin(self.trial[row], list(self.diverging))
        self.alive[row] &= ~diverged
        ended = started & ~self.alive[row] & ~diverged
        value = -(np.log10(np.maximum(self.learning_rate[row], 1e-9)) ** 2) + 0.01 * self.seed[row]
        returns = np.where(ended[..., None], value[..., None] + np.array([-1.0, 1.0]), np.nan)
        self.segments += 1
        rungs = np.array(self.config.rungs, np.int64)
        reached = self.step[row][..., None] >= rungs
        self._progress[row] = Progress(
            alive=self.alive[row].copy(),
            diverged=diverged,
            step=self.step[row].astype(np.int32),
            episodes=(self.step[row] // 10).astype(np.int32),
            updates=(self.step[row] // 4).astype(np.int32),
            return_sum=10 * (self.step[row] // 10).astype(np.float32),
            loss_sum=self.step[row].astype(np.float32) / 8,
            validation=np.where(reached, rungs + self.seed[row][..., None], np.nan).astype(np.float32),
            returns=returns.astype(np.float32),
        )

    def read(self, row: int) -> Progress:
        progress, self._progress[row] = self._progress[row], None
        assert progress is not None, "read before it was dispatched"
        return progress
