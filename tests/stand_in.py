"""A population without agents: lives and returns are computed from names and hyperparameters at once."""

from collections.abc import Callable

import numpy as np

from jaxdqn.block import Placement, Progress
from jaxdqn.config import Config, Layout
from jaxdqn.cost import Speed
from jaxdqn.judging import NOBODY


class StandIn:
    """Keeps the scheduler's protocol, and checks that it is kept towards it.

    `score` says what an agent of a phase, a trial and a seed index is worth; nan: it diverges. `life` says how many
    steps it lives.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout,
        diverging: frozenset[int] = frozenset(),
        score: Callable[[int, int, int], float] | None = None,
        life: Callable[[int, int], int] | None = None,
    ) -> None:
        # Of its own: segments are short and visits many, however fast the machine is.
        self.speed = Speed(step_s=50e-6, pass_s=50e-6, weight_s=0.0, flops_per_s=40e9)
        self.fingerprint = {"device": "none", "program": "a stand-in"}
        self.life = life or (lambda trial, seed: config.env_steps)
        self.config, self.layout, self.diverging, self.score = config, layout, diverging, score
        lanes = (layout.rows, *layout.row_shape)
        self.step, self.trial, self.seed, self.phase = (np.zeros(lanes, np.int64) for _ in range(4))
        self.alive, self.learning_rate = np.zeros(lanes, bool), np.zeros(lanes)
        self.placed: list[tuple[int, int]] = []  # (trial, seed index), in order
        self.phases: list[int] = []  # theirs
        self.replaced = self.emptied = 0  # living agents whose lane was given to another, lanes that were emptied
        self.restored: list[int] = []  # rows that were put back into a state
        self.segments = self.fetched = 0  # fetched: how often parameters were asked for
        self._progress: list[Progress | None] = [None] * layout.rows

    def compile(self) -> float:
        return 0.0

    def state(self, row: int) -> list[np.ndarray]:
        """A copy of all that is known of a row's agents."""
        assert self._progress[row] is None, "it is under way"
        return [each[row].copy() for each in self._each]

    def state_bytes(self, row: int) -> int:
        return sum(each[row].nbytes for each in self._each)

    def restore(self, row: int, state: list[np.ndarray]) -> None:
        self.restored.append(row)
        for each, saved in zip(self._each, state, strict=True):
            each[row] = saved

    @property
    def _each(self) -> list[np.ndarray]:
        return [self.step, self.trial, self.seed, self.phase, self.alive, self.learning_rate]

    def dispatch(self, row: int, placement: Placement, num_ticks: np.ndarray) -> None:
        assert self._progress[row] is None, "dispatched before it was read"
        fresh = placement.fresh
        names = placement.names
        somebody = fresh & (names.trial != NOBODY)
        self.emptied += int((fresh & ~somebody).sum())
        self.replaced += int((somebody & self.alive[row]).sum())
        self.placed += list(zip(names.trial[somebody].tolist(), names.seed_index[somebody].tolist(), strict=True))
        self.phases += names.phase[somebody].tolist()
        self.step[row][fresh] = 0
        self.alive[row] = np.where(fresh, somebody, self.alive[row])
        self.trial[row][fresh], self.seed[row][fresh] = names.trial[fresh], names.seed_index[fresh]
        self.phase[row][fresh] = names.phase[fresh]
        self.learning_rate[row] = np.where(fresh, placement.hyperparams.learning_rate, self.learning_rate[row])
        started = self.alive[row].copy()
        lived = self.step[row] + num_ticks[:, None] * self.config.tick
        lives = np.vectorize(self.life, otypes=[np.int64])(np.maximum(self.trial[row], 0), self.seed[row])
        self.step[row] = np.where(started, np.minimum(lived, lives), self.step[row])
        self.alive[row] = started & (self.step[row] < lives)
        value = self._values(row)
        diverged = started & (np.isin(self.trial[row], list(self.diverging)) | np.isnan(value))
        self.alive[row] &= ~diverged
        ended = started & ~self.alive[row] & ~diverged
        returns = np.where(ended[..., None], value[..., None] + np.array([-1.0, 1.0]), np.nan)
        self.segments += 1
        rungs = np.array(self.config.rungs, np.int64)
        reached = self.step[row][..., None] >= rungs
        validation = (rungs + self.seed[row][..., None]) if self.score is None else value[..., None] + 0 * rungs
        self._progress[row] = Progress(
            alive=self.alive[row].copy(),
            diverged=diverged,
            step=self.step[row].astype(np.int32),
            episodes=(self.step[row] // 10).astype(np.int32),
            updates=(self.step[row] // 4).astype(np.int32),
            return_sum=10 * (self.step[row] // 10).astype(np.float32),
            loss_sum=self.step[row].astype(np.float32) / 8,
            validation=np.where(reached, validation, np.nan).astype(np.float32),
            returns=returns.astype(np.float32),
        )

    def read(self, row: int) -> Progress:
        progress, self._progress[row] = self._progress[row], None
        assert progress is not None, "read before it was dispatched"
        return progress

    def _values(self, row: int) -> np.ndarray:
        if self.score is None:
            return -(np.log10(np.maximum(self.learning_rate[row], 1e-9)) ** 2) + 0.01 * self.seed[row]
        return np.vectorize(self.score, otypes=[float])(self.phase[row], np.maximum(self.trial[row], 0), self.seed[row])

    def params(self, row: int) -> dict[str, dict[str, np.ndarray]]:
        """A linear model of four observed values, whose biases say whose it is: its trial and its phase."""
        self.fetched += 1
        bias = np.stack([self.trial[row], self.phase[row]], axis=-1).astype(np.float32)
        return {"linear": {"kernel": np.zeros((*self.layout.row_shape, 4, 2), np.float32), "bias": bias}}
