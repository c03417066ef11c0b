"""Many agents in one compiled program: lanes in blocks, blocks in rows, rows over all devices.

The only `jit` of the training. Devices share nothing and never wait for one another.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from jaxdqn import fingerprint, programs
from jaxdqn.block import Block, Placement, Progress, empty_block, train_block
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS
from jaxdqn.environment import make
from jaxdqn.hyperparams import KINDS, Hyperparams, defaults, stack
from jaxdqn.judging import Names
from jaxdqn.network import Params

# Each core is a device that computes alone: kernels in the order that saves memory, not for parallel execution (+2 %
# at [256, 256] × 128; from 0.9.1 on JAX takes the older option and ignores it).
# Vectors as wide as the core has them, not of 256 bits (+10 % at [256, 256] × 16, +4 % at [64, 64] × 64).
_SCHEDULER: dict[str, str | bool] = (
    {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if jax.__version_info__ >= (0, 9, 1)
    else {"xla_cpu_enable_concurrency_optimized_scheduler": False}
)
_COMPILER_OPTIONS: dict[str, dict[str, str | bool]] = {"cpu": {**_SCHEDULER, "xla_cpu_prefer_vector_width": "512"}}


class Population:
    """The rows of a sweep on the devices: dispatch a segment of one, read what another's brought."""

    def __init__(self, config: Config, layout: Layout, seed: int, among: Sequence[jax.Device] | None = None) -> None:
        """Lay out the population on the first of these devices (all of this process); `compile` makes it ready."""
        self.config, self.layout, self.seed = config, layout, np.uint32(seed)
        there = (among or jax.local_devices())[: layout.devices]
        on_cpu = there[0].platform == "cpu"
        self.speed = SPEEDS["cpu" if on_cpu else "gpu"]
        # A program over several CPU devices is launched as if they had to meet in it: none begins a segment before all
        # have ended the last one. So a core gets a program of its own, which XLA's first device runs as often at once
        # as it is launched; it is compiled once.
        each = 1 if on_cpu else layout.devices
        self._mesh = Mesh(np.array(there[:each]), ("device",))
        self._sharding = NamedSharding(self._mesh, PartitionSpec("device"))
        self._parts = [slice(first, first + each) for first in range(0, layout.devices, each)]  # of a row, by program
        # Whoever has ended a part takes the next that waits, of whatever row: no core is tied to a place in the rows.
        self._hands = ThreadPoolExecutor(len(self._parts), "trains blocks")
        self.rows: list[list[Block]] = []  # the states of their parts
        self._progress: list[list[Future[Progress]]] = [[] for _ in range(layout.rows)]
        self.compiled: jax.stages.Compiled | None = None
        self.fingerprint: dict[str, Any] = {}  # what the bits of results depend on; known once it is compiled

    def compile(self, options: dict[str, str | bool] | None = None) -> float:
        """Compile the program, with further options of XLA, and make the empty rows; return the seconds it took."""
        start = time.perf_counter()
        part_shape, arguments = self._part_shape(), self._arguments()
        own = make(self.config.env).shipped  # else its code may be anybody's, and change
        results = (part_shape, Progress(*range(len(Progress._fields))))
        kept = programs.exported(self.program(), arguments, results, (self.config, self.layout) if own else None)
        lowered = self._jitted(kept).lower(*arguments)
        usual = _COMPILER_OPTIONS.get(jax.default_backend(), {})
        self.compiled = lowered.compile(compiler_options={**usual, **(options or {})})
        empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), part_shape)
        self.rows = [[jax.device_put(empty, self._sharding) for _ in self._parts] for _ in range(self.layout.rows)]
        program = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        self.fingerprint = {**fingerprint.of_machine(), "program": program}
        for parts in self.rows:  # memory that is short is short now
            parts[:] = [self.compiled(self.seed, part, *self._no_work())[0] for part in parts]
        jax.block_until_ready(self.rows)
        return time.perf_counter() - start

    def lower(self) -> jax.stages.Lowered:
        """Return the program, traced and not yet compiled."""
        return self.program().lower(*self._arguments())

    def program(self) -> jax.stages.Wrapped:
        """Return the function that trains a part of a row for one segment, every device its own block."""
        spec = PartitionSpec("device")

        def one_device(seed: Array, *part: PyTree) -> PyTree:
            block, placement, num_ticks = jax.tree.map(lambda x: x[0], part)
            out = train_block(seed, block, _unpacked(placement), num_ticks, self.config, self.layout)
            return jax.tree.map(lambda x: x[None], out)

        sharded = jax.shard_map(
            one_device,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), spec, spec, spec),
            out_specs=(spec, spec),
            check_vma=False,
        )
        return self._jitted(sharded)

    def _jitted(self, program: Callable[..., PyTree]) -> jax.stages.Wrapped:
        shardings = (NamedSharding(self._mesh, PartitionSpec()), *[self._sharding] * 3)
        return jax.jit(program, in_shardings=shardings, out_shardings=self._sharding, donate_argnums=1)

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        """Queue a segment of row `row` on the devices; returns at once."""
        packed = _packed(placement)
        before: list[Future[Progress] | None] = [*self._progress[row]] or [None] * len(self._parts)
        self._progress[row] = [
            self._hands.submit(self._train, row, number, before[number], packed[part], num_ticks[part])
            for number, part in enumerate(self._parts)
        ]

    def _train(
        self, row: int, number: int, before: Future[Progress] | None, *work: Int[np.ndarray, "devices ..."]
    ) -> Progress:
        """Train a part of a row for a segment, after the one before; whoever does that then takes what waits next."""
        assert self.compiled is not None, "compile the population first"
        if before is not None:
            before.result()  # began earlier, so it is not behind this one
        arguments = jax.device_put(work, self._sharding)
        self.rows[row][number], progress = self.compiled(self.seed, self.rows[row][number], *arguments)
        return jax.block_until_ready(progress)

    def read(self, row: int) -> Progress:
        """Wait for the last segment of row `row` and return what it brought, as NumPy arrays."""
        segment = self._progress[row]
        assert segment, "dispatch a segment first"
        return _whole([part.result() for part in segment])

    def params(self, row: int) -> Params:
        """Return the parameters that the last scores of row `row` judged, of shape (devices, block, …), by NumPy.

        To be called between `read` and the next `dispatch` of the row.
        """
        best = self.config.keep_best
        return _whole([part.record.best_params if best else part.agents.learner.params for part in self.rows[row]])

    def state(self, row: int) -> list[np.ndarray]:
        """Return a copy of all that is on the devices of row `row`, between `read` and `dispatch`."""
        leaves = zip(*map(jax.tree.leaves, self.rows[row]), strict=True)
        return [np.concatenate(jax.device_get(parts)) for parts in leaves]

    def state_bytes(self, row: int) -> int:
        """Return the bytes of a row's state."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.rows[row]))

    def restore(self, row: int, state: list[np.ndarray]) -> None:
        """Put row `row` back into a state."""
        structure = jax.tree.structure(self.rows[row][0])
        whole = jax.tree.unflatten(structure, state)
        parts = (jax.tree.map(lambda x, its=part: x[its], whole) for part in self._parts)
        self.rows[row] = [jax.device_put(part, self._sharding) for part in parts]

    def _part_shape(self) -> Block:
        """Return the shapes of the state of a row's part."""
        block = jax.eval_shape(lambda: empty_block(self.config, self.layout))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self._mesh.size, *x.shape), x.dtype), block)

    def _arguments(self) -> tuple[Any, ...]:
        """Return the program's arguments: a seed, the shapes of a part's state, a placement of nobody, no ticks."""
        return self.seed, self._part_shape(), *self._no_work()

    def _no_work(self) -> tuple[Int[np.ndarray, "devices block fields"], Int[np.ndarray, " devices"]]:
        shape = (self._mesh.size, self.layout.block)
        zeros = np.zeros(shape, np.int32)
        one = stack([defaults()] * self.layout.block)
        hyperparams = jax.tree.map(lambda x: np.broadcast_to(x, shape), one)
        return _packed(Placement(zeros > 0, Names(zeros, zeros, zeros), hyperparams)), np.zeros(shape[0], np.int32)


def _whole(parts: list[PyTree]) -> PyTree:
    """Return the arrays of a row of those of its parts, by NumPy."""
    if len(parts) == 1:
        return jax.device_get(parts[0])
    return jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(parts))


def _packed(placement: Placement) -> Int[np.ndarray, "devices block fields"]:
    """Return a placement as one array of bits: one transfer to a device costs what 20 small ones would cost each."""
    fields = [np.asarray(x) for x in (placement.fresh, *placement.names, *placement.hyperparams)]
    bits = [x.view(np.int32) if x.dtype == np.float32 else x.astype(np.int32) for x in fields]
    return np.stack(bits, axis=-1)


def _unpacked(packed: Int[Array, "block fields"]) -> Placement:
    """Undo `_packed`."""
    fresh, phase, trial, seed_index, *rest = (packed[:, i] for i in range(packed.shape[1]))
    convert: dict[type, Callable[[Array], Array]] = {
        bool: lambda x: x != 0,
        int: lambda x: x,
        float: lambda x: jax.lax.bitcast_convert_type(x, jnp.float32),
    }
    hyperparams = (convert[kind.type](x) for kind, x in zip(KINDS.values(), rest, strict=True))
    return Placement(fresh != 0, Names(phase, trial, seed_index), Hyperparams(*hyperparams))
