"""Many agents in one compiled program: lanes in blocks, blocks in rows, rows over all devices.

The only file with a `vmap` over agents, and the only `jit` of the training. Under `vmap` a condition on an agent turns
into a selection that pays for both branches; a block of a few lanes is therefore the unit of control flow: what no
lane of a block needs is not computed. Devices share nothing and never wait for one another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from jaxdqn import agent, evaluate, prng, replay
from jaxdqn.agent import AgentState, Learner
from jaxdqn.config import Config, Layout, bucket_of
from jaxdqn.environment import make
from jaxdqn.evaluate import Flawless, Phase, Stream
from jaxdqn.hyperparams import KINDS, Hyperparams, defaults, stack
from jaxdqn.network import Params
from jaxdqn.replay import Replay

# Each core is a device that computes alone: kernels in the order that saves memory, not for parallel execution (+5 %).
_COMPILER_OPTIONS: dict[str, dict[str, str | bool]] = {"cpu": {"xla_cpu_enable_concurrency_optimized_scheduler": False}}


State = TypeVar("State")


class Names(NamedTuple):
    """Who the agents in the lanes are: their random keys are a function of the study's seed and of these."""

    phase: Int[Array | np.ndarray, " lanes"]  # an `evaluate.Phase`
    trial: Int[Array | np.ndarray, " lanes"]  # number; `NOBODY` in a lane that shall be empty
    seed_index: Int[Array | np.ndarray, " lanes"]


NOBODY = -1


class Placement(NamedTuple):
    """What the host writes into the lanes of a row at a visit; arrays of shape (devices, block)."""

    fresh: Bool[Array | np.ndarray, "devices block"]  # lanes that get a new agent, or are emptied …
    names: Names  # … this one
    hyperparams: Hyperparams


class Record(NamedTuple):
    """What validations leave behind, a lane each.

    A validation is worth its mean return; one without a single flaw goes on for as long as that holds, up to
    `config.proof_episodes`, and is worth the more the longer it did. Those that held to the end are perfect.
    """

    validation: Float[Array, "lanes rungs"]  # mean return at each rung; NaN: not reached
    best_worth: Float[Array, " lanes"]  # of the best of them
    best_params: Params | None  # and the parameters then, if the space keeps them
    perfect: Int[Array, " lanes"]  # perfect validations in a row


class Block(NamedTuple):
    """A block of lanes. Lanes share a ring; everything else is their own."""

    agents: AgentState
    hyperparams: Hyperparams
    names: Names
    record: Record
    replay: Replay


class Progress(NamedTuple):
    """What the host reads after a segment; arrays of shape (devices, block, …)."""

    alive: Bool[Array | np.ndarray, " lanes"]
    diverged: Bool[Array | np.ndarray, " lanes"]
    step: Int[Array | np.ndarray, " lanes"]
    episodes: Int[Array | np.ndarray, " lanes"]
    updates: Int[Array | np.ndarray, " lanes"]
    return_sum: Float[Array | np.ndarray, " lanes"]  # over the finished episodes
    loss_sum: Float[Array | np.ndarray, " lanes"]  # over the updates
    validation: Float[Array | np.ndarray, "lanes rungs"]
    returns: Float[Array | np.ndarray, "lanes episodes"]  # of the score, if the agent ended in this segment, else NaN


def _over(lanes: Bool[Array | np.ndarray, " lanes"], new: PyTree, old: PyTree) -> PyTree:
    """Take `new` in the lanes marked and `old` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(lanes.reshape(lanes.shape + (1,) * (a.ndim - 1)), a, b), new, old)


def _if_any(lanes: Bool[Array | np.ndarray, " lanes"], change: Callable[[State], State], state: State) -> State:
    """Apply `change` if any lane is marked: a loop of at most one turn, whose state XLA keeps in place.

    A `cond` would copy its whole state in each of its branches.
    """
    return jax.lax.fori_loop(0, jnp.any(lanes).astype(jnp.int32), lambda _, state: change(state), state)


def _all_finite(params: Params, lanes: int) -> Bool[Array, " lanes"]:
    """Return in which lanes all parameters are finite."""
    leaves = [jnp.all(jnp.isfinite(leaf).reshape(lanes, -1), axis=1) for leaf in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(leaves), axis=0)


def _agent_keys(root: prng.Key, names: Names) -> agent.Keys:
    """Return the streams of each lane's agent: a function of the study's seed and the agent's name alone."""

    def of_agent(phase: Int[Array, ""], trial: Int[Array, ""], seed_index: Int[Array, ""]) -> agent.Keys:
        return agent.keys(prng.fold(evaluate.family(root, Stream.TRAIN, phase), trial, seed_index))

    return jax.vmap(of_agent)(*map(jnp.asarray, names))


def _newborn(root: prng.Key, placement: Placement, config: Config) -> tuple[AgentState, Record]:
    """Return a fresh agent with an empty record for every lane of a block."""
    keys = _agent_keys(root, placement.names)

    def init(key: prng.Key, hyperparams: Hyperparams) -> AgentState:
        return agent.init(key, config.specialise(hyperparams), config)

    agents = jax.vmap(init)(keys.init, placement.hyperparams)
    agents = agents._replace(actor=agents.actor._replace(alive=jnp.asarray(placement.names.trial) != NOBODY))
    lanes = placement.fresh.shape[0]
    record = Record(
        validation=jnp.full((lanes, len(config.rungs)), jnp.nan),
        best_worth=jnp.full(lanes, -jnp.inf),
        best_params=agents.learner.params if config.keep_best else None,
        perfect=jnp.zeros(lanes, jnp.int32),
    )
    return agents, record


def _place(root: prng.Key, block: Block, placement: Placement, config: Config) -> Block:
    """Write fresh agents into the lanes the host names. The ring stays: their windows are empty."""

    def write(old: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
        # Tied to what the loop changes: else XLA takes the agents out of it and makes them in every segment.
        now, _ = jax.lax.optimization_barrier((placement, old[2].trial))
        agents, record = _newborn(root, now, config)
        return _over(now.fresh, (agents, now.hyperparams, now.names, record), old)

    all_but_ring = (block.agents, block.hyperparams, block.names, block.record)
    agents, hyperparams, names, record = _if_any(placement.fresh, write, all_but_ring)
    return Block(agents, hyperparams, names, record, block.replay)


def _tick(root: prng.Key, keys: agent.Keys, block: Block, config: Config, layout: Layout) -> Block:
    """Let every living agent of a block take `config.tick` environment steps and make the updates then due."""

    def chances(key: prng.Key, first_step: Int[Array, ""], hyperparams: Hyperparams) -> agent.Chance:
        given = config.specialise(hyperparams)
        return jax.vmap(lambda i: agent.chance(key, first_step + i, given, config))(jnp.arange(config.tick))

    def act_one(
        chance: agent.Chance, actor: agent.Actor, params: Params, hyperparams: Hyperparams
    ) -> tuple[agent.Actor, replay.Transition]:
        return agent.act(chance, actor, params, config.specialise(hyperparams), config)

    def act(actor: agent.Actor, chance: agent.Chance) -> tuple[agent.Actor, replay.Transition]:
        return jax.vmap(act_one)(chance, actor, block.agents.learner.params, block.hyperparams)

    before = block.agents.actor
    drawn = jax.vmap(chances, out_axes=1)(keys.act, before.step, block.hyperparams)
    actor, transitions = jax.lax.scan(act, before, drawn)
    ring = replay.add(block.replay, transitions)
    whole = (actor.step - before.step == config.tick) & ~actor.diverged
    learner = _learn(keys, actor, whole, block, ring, config)
    actor = actor._replace(alive=actor.alive & learner.finite, diverged=actor.diverged | ~learner.finite)
    block = block._replace(agents=AgentState(actor, learner), replay=ring)
    if not config.rungs:
        return block
    at_rung = whole & jnp.any(actor.step[:, None] == jnp.array(config.rungs)[None], axis=1)
    ended = before.alive & ~actor.alive if config.keep_best else jnp.zeros_like(at_rung)
    return _validate(root, (at_rung | ended) & ~actor.diverged, block, config, layout)


def _learn(
    keys: agent.Keys, actor: agent.Actor, whole: Bool[Array, " lanes"], block: Block, ring: Replay, config: Config
) -> Learner:
    """Make the updates that are due, each lane in the shape of its own batch size, then copy to the targets."""
    learner = block.agents.learner
    hyperparams = config.specialise(block.hyperparams)
    due = whole & (actor.step % hyperparams.train_period == 0) & (actor.step >= hyperparams.warmup_steps)
    window = jnp.minimum(actor.step, hyperparams.buffer_size)
    own_bucket = bucket_of(hyperparams.batch_size, config)
    passed = actor.step - learner.last_copy

    def learn_one(
        learner: Learner, due: Array, step: Array, batch: replay.Transition, hyperparams: Hyperparams
    ) -> Learner:
        return agent.learn(learner, due, step, batch, config.specialise(hyperparams), config)

    def copy_one(learner: Learner, due: Array, step: Array, hyperparams: Hyperparams) -> Learner:
        return agent.copy_to_target(learner, due, step, config.specialise(hyperparams))

    def make_updates(learner: Learner) -> Learner:
        for bucket, size in enumerate(config.batch_sizes):
            num_updates = jnp.where(due & (own_bucket == bucket), hyperparams.gradient_steps, 0)

            def update(i: Int[Array, ""], learner: Learner, size: int = size, num: Array = num_updates) -> Learner:
                offsets = jax.vmap(partial(replay.draw_offsets, num=size))(keys.sample, learner.updates, window)
                batch = replay.sample(ring, offsets)
                return jax.vmap(learn_one)(learner, i < num, actor.step, batch, block.hyperparams)

            learner = jax.lax.fori_loop(0, jnp.max(num_updates), update, learner)
        return _if_any(due & (passed >= hyperparams.target_period), copy, learner)

    def copy(learner: Learner) -> Learner:
        return jax.vmap(copy_one)(learner, due, actor.step, block.hyperparams)

    return _if_any(due, make_updates, learner)


def _greedy(
    key: UInt32[Array, "lanes 2"],
    pending: Bool[Array, " lanes"],
    params: Params,
    block: Block,
    num_episodes: Int[Array, " lanes"],
    max_episodes: int,
    chunk: int,
    config: Config,
    layout: Layout,
    flawless: Flawless | None = None,
) -> Float[Array, "lanes max_episodes"]:
    """Greedy returns of the pending lanes, `layout.group` of them at a time; NaN elsewhere."""
    order = jnp.argsort(~pending, stable=True)

    def evaluate_one(key: prng.Key, params: Params, hyperparams: Hyperparams, num: Int[Array, ""]) -> Array:
        given = config.specialise(hyperparams)
        return evaluate.greedy_returns(key, params, given, config, num, max_episodes, chunk, flawless)

    def evaluate_group(i: Int[Array, ""], returns: Array) -> Array:
        lanes = jax.lax.dynamic_slice(order, (i * layout.group,), (layout.group,))
        of_group = jax.tree.map(lambda x: x[lanes], (key, params, block.hyperparams, num_episodes))
        # Tied to the loop: else XLA takes what a single lane needs out of it, and does it whether anyone is pending.
        _, of_group = jax.lax.optimization_barrier((i, of_group))
        kept = jnp.where(pending[lanes], lanes, pending.shape[0])
        return returns.at[kept].set(jax.vmap(evaluate_one)(*of_group), mode="drop")

    groups = -(-jnp.sum(pending) // layout.group)
    nothing = jnp.full((pending.shape[0], max_episodes), jnp.nan)
    return jax.lax.fori_loop(0, groups, evaluate_group, nothing)


def _validate(root: prng.Key, pending: Bool[Array, " lanes"], block: Block, config: Config, layout: Layout) -> Block:
    """Validate the lanes that stand at a rung (or end): keep the best parameters, end who is perfect twice in a row."""
    perfect_return = make(config.env).perfect_return

    def run(carry: tuple[agent.Actor, Record]) -> tuple[agent.Actor, Record]:
        actor, record = carry
        params = block.agents.learner.params
        rung = jnp.sum(actor.step[:, None] > jnp.array(config.rungs)[None], axis=1)  # index of the rung here, or next
        families = jax.vmap(lambda phase: evaluate.family(root, Stream.VALIDATION, phase))(block.names.phase)
        keys, num = jax.vmap(prng.fold)(families, rung), config.validation_episodes
        most = num if perfect_return is None else max(num, config.proof_episodes)
        chunk = evaluate.chunk_of(num)
        flawless = None if most == num or perfect_return is None else Flawless(num, perfect_return)
        returns = _greedy(
            keys, pending, params, block, jnp.full_like(rung, most), most, chunk, config, layout, flawless
        )
        mean = jnp.mean(returns[:, :num], axis=1)
        here = pending & (actor.step == jnp.array(config.rungs)[jnp.minimum(rung, len(config.rungs) - 1)])
        lanes = jnp.arange(pending.shape[0])
        worth = mean if flawless is None else mean + jnp.mean(returns[:, num:] >= flawless.perfect_return, axis=1)
        improved = pending & (worth >= record.best_worth)
        is_perfect = False if perfect_return is None else jnp.all(returns >= perfect_return, axis=1)
        perfect = jnp.where(pending, jnp.where(is_perfect, record.perfect + 1, 0), record.perfect)
        record = Record(
            validation=record.validation.at[jnp.where(here, lanes, lanes.size), rung].set(mean, mode="drop"),
            best_worth=jnp.where(improved, worth, record.best_worth),
            best_params=_over(improved, params, record.best_params) if config.keep_best else None,
            perfect=perfect,
        )
        if config.stop_when_perfect:
            actor = actor._replace(alive=actor.alive & (perfect < 2))
        return actor, record

    actor, record = _if_any(pending, run, (block.agents.actor, block.record))
    return block._replace(agents=block.agents._replace(actor=actor), record=record)


def _score(
    root: prng.Key, pending: Bool[Array, " lanes"], params: Params, block: Block, config: Config, layout: Layout
) -> Float[Array, "lanes episodes"]:
    """Returns of the greedy episodes that judge an agent: more of them if it is trained anew, to confirm.

    The seeds of one index start from the same states in all trials.
    """

    def key_of(phase: Int[Array, ""], seed_index: Int[Array, ""]) -> prng.Key:
        return prng.fold(evaluate.family(root, Stream.SCORE, phase), seed_index)

    keys = jax.vmap(key_of)(jnp.asarray(block.names.phase), jnp.asarray(block.names.seed_index))
    num = jnp.where(block.names.phase == Phase.SEARCH, config.eval_episodes, config.fresh_episodes)
    most = max(config.eval_episodes, config.fresh_episodes)
    chunk = evaluate.chunk_of(max(config.eval_episodes, evaluate.MIN_CHUNK))
    return _greedy(keys, pending, params, block, num, most, chunk, config, layout)


def train_block(
    seed: Int[Array, ""], block: Block, placement: Placement, num_ticks: Int[Array, ""], config: Config, layout: Layout
) -> tuple[Block, Progress]:
    """Place fresh agents, run a segment of `num_ticks` ticks (fewer if nobody lives), score who ended in it."""
    root = prng.root(seed)
    block = _place(root, block, placement, config)
    keys = _agent_keys(root, block.names)
    started = block.agents.actor.alive

    def running(carry: tuple[Array, Block]) -> Array:
        return (carry[0] < num_ticks) & jnp.any(carry[1].agents.actor.alive)

    def advance(carry: tuple[Array, Block]) -> tuple[Array, Block]:
        return carry[0] + 1, _tick(root, keys, carry[1], config, layout)

    _, block = jax.lax.while_loop(running, advance, (jnp.zeros((), jnp.int32), block))
    actor, learner = block.agents
    params = block.record.best_params if config.keep_best else learner.params
    ended = started & ~actor.alive & ~actor.diverged
    broken = ended & ~_all_finite(params, ended.shape[0])  # by its last update, which no step followed
    actor, ended = actor._replace(diverged=actor.diverged | broken), ended & ~broken
    block = block._replace(agents=AgentState(actor, learner))
    returns = _score(root, ended, params, block, config, layout)
    return block, Progress(
        alive=actor.alive,
        diverged=actor.diverged,
        step=actor.step,
        episodes=actor.episodes,
        updates=learner.updates,
        return_sum=actor.return_sum,
        loss_sum=learner.loss_sum,
        validation=block.record.validation,
        returns=returns,
    )


def empty_block(config: Config, layout: Layout) -> Block:
    """Return a block of frozen lanes that wait for their first agents."""
    lanes = layout.block
    zeros = np.zeros(lanes, np.int32)
    placement = Placement(zeros, Names(zeros, zeros, zeros), stack([defaults()] * lanes))
    agents, record = jax.eval_shape(lambda: _newborn(prng.root(0), placement, config))
    shapes = Block(
        agents=agents,
        hyperparams=placement.hyperparams,
        names=placement.names,
        record=record,
        replay=jax.eval_shape(lambda: replay.init(config.slots, lanes, make(config.env).obs_size)),
    )
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


class Population:
    """The rows of a sweep on the devices: dispatch a segment of one, read what another's brought."""

    def __init__(self, config: Config, layout: Layout, seed: int) -> None:
        """Lay out the population; `compile` makes it ready."""
        self.config, self.layout, self.seed = config, layout, np.uint32(seed)
        self._mesh = Mesh(np.array(jax.local_devices()[: layout.devices]), ("device",))
        self._sharding = NamedSharding(self._mesh, PartitionSpec("device"))
        self.rows: list[Block] = []  # their states on the devices
        self._progress: list[Progress | None] = [None] * layout.rows
        self.compiled: jax.stages.Compiled | None = None

    def compile(self) -> float:
        """Compile the program and make the empty rows; return the seconds it took."""
        start = time.perf_counter()
        devices = self.layout.devices

        def stacked() -> Block:
            block = empty_block(self.config, self.layout)
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (devices, *x.shape)), block)

        make_row = jax.jit(stacked, out_shardings=self._sharding)
        row_shape = jax.eval_shape(make_row)
        lowered = self.program().lower(self.seed, row_shape, *self._no_work())
        self.compiled = lowered.compile(compiler_options=_COMPILER_OPTIONS.get(jax.default_backend()))
        made = make_row.lower().compile()
        self.rows = [made() for _ in range(self.layout.rows)]
        return time.perf_counter() - start

    def program(self) -> jax.stages.Wrapped:
        """Return the function that trains one row for one segment, every device its own block."""
        spec = PartitionSpec("device")

        def one_device(seed: Array, *row: PyTree) -> PyTree:
            block, placement, num_ticks = jax.tree.map(lambda x: x[0], row)
            out = train_block(seed, block, _unpacked(placement), num_ticks, self.config, self.layout)
            return jax.tree.map(lambda x: x[None], out)

        sharded = jax.shard_map(
            one_device,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), spec, spec, spec),
            out_specs=(spec, spec),
            check_vma=False,
        )
        shardings = (NamedSharding(self._mesh, PartitionSpec()), *[self._sharding] * 3)
        return jax.jit(sharded, in_shardings=shardings, out_shardings=self._sharding, donate_argnums=1)

    def dispatch(self, row: int, placement: Placement, num_ticks: Int[np.ndarray, " devices"]) -> None:
        """Queue a segment of row `row` on the devices; returns at once."""
        assert self.compiled is not None, "compile the population first"
        work = jax.device_put((_packed(placement), num_ticks), self._sharding)
        self.rows[row], self._progress[row] = self.compiled(self.seed, self.rows[row], *work)

    def read(self, row: int) -> Progress:
        """Wait for the last segment of row `row` and return what it brought, as NumPy arrays."""
        return jax.device_get(self._progress[row])

    def params(self, row: int) -> Params:
        """Return the parameters that the last scores of row `row` judged, of shape (devices, block, …), by NumPy.

        To be called between `read` and the next `dispatch` of the row.
        """
        block = self.rows[row]
        return jax.device_get(block.record.best_params if self.config.keep_best else block.agents.learner.params)

    def _no_work(self) -> tuple[Int[np.ndarray, "devices block fields"], Int[np.ndarray, " devices"]]:
        shape = self.layout.row_shape
        zeros = np.zeros(shape, np.int32)
        one = stack([defaults()] * self.layout.block)
        hyperparams = jax.tree.map(lambda x: np.broadcast_to(x, shape), one)
        return _packed(Placement(zeros > 0, Names(zeros, zeros, zeros), hyperparams)), np.zeros(
            self.layout.devices, np.int32
        )


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
