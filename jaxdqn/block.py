"""A block of lanes: agents that are vmapped together and share one ring of replay memory.

Under `vmap` a condition on an agent turns into a selection that pays for both branches; a block of a few lanes is
therefore the unit of control flow: what no lane of a block needs is not computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxdqn import acting, agent, evaluate, prng, replay
from jaxdqn.acting import Due
from jaxdqn.agent import Actor, AgentState, Learner
from jaxdqn.config import Config, Layout, bucket_of
from jaxdqn.environment import make
from jaxdqn.evaluate import Stream
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.judging import NOBODY, Names, Record, score, validate
from jaxdqn.masks import all_finite, if_any, over
from jaxdqn.replay import Replay


class Placement(NamedTuple):
    """What the host writes into the lanes of a row at a visit; arrays of shape (devices, block)."""

    fresh: Bool[Array | np.ndarray, "devices block"]  # lanes that get a new agent, or are emptied …
    names: Names  # … this one
    hyperparams: Hyperparams


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


def train_block(
    seed: Int[Array, ""], block: Block, placement: Placement, num_ticks: Int[Array, ""], config: Config, layout: Layout
) -> tuple[Block, Progress]:
    """Place fresh agents, run a segment of `num_ticks` ticks (fewer if nobody lives), score who ended in it."""
    root = prng.root(seed)
    with jax.named_scope("place"):
        block = _place(root, block, placement, config)
    keys = _agent_keys(root, block.names)
    started = block.agents.actor.alive

    def running(carry: tuple[Array, Block]) -> Array:
        return (carry[0] < num_ticks) & jnp.any(carry[1].agents.actor.alive)

    def advance(carry: tuple[Array, Block]) -> tuple[Array, Block]:
        """Let ticks pass until something is due (one look at the device a tick), and do that."""

        def quiet(state: tuple[Array, Actor, Replay, Due]) -> Array:
            num, actor, _, due = state
            return (num < num_ticks) & jnp.any(actor.alive) & ~jnp.any(due.learn | due.judge)

        def act(state: tuple[Array, Actor, Replay, Due]) -> tuple[Array, Actor, Replay, Due]:
            num, actor, ring, _ = state
            return num + 1, *acting.act(keys.act, actor, ring, block.agents.learner.params, block.hyperparams, config)

        num, block = carry
        nothing = jnp.zeros_like(started)
        with jax.named_scope("tick"):
            num, actor, ring, due = jax.lax.while_loop(
                quiet, act, (num, block.agents.actor, block.replay, Due(nothing, nothing))
            )
        block = block._replace(agents=block.agents._replace(actor=actor), replay=ring)
        return num, _do(root, keys, block, due, config, layout)

    with jax.named_scope("due"):
        _, block = jax.lax.while_loop(running, advance, (jnp.zeros((), jnp.int32), block))
    actor, learner = block.agents
    params = block.record.best_params if config.keep_best else learner.params
    ended = started & ~actor.alive & ~actor.diverged
    broken = ended & ~all_finite(params, ended.shape[0])  # by its last update, which no step followed
    actor, ended = actor._replace(diverged=actor.diverged | broken), ended & ~broken
    block = block._replace(agents=AgentState(actor, learner))
    with jax.named_scope("score"):
        returns = score(root, ended, params, block.hyperparams, block.names, config, layout)
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
        return over(now.fresh, (agents, now.hyperparams, now.names, record), old)

    all_but_ring = (block.agents, block.hyperparams, block.names, block.record)
    agents, hyperparams, names, record = if_any(placement.fresh, write, all_but_ring)
    return Block(agents, hyperparams, names, record, block.replay)


def _do(root: prng.Key, keys: agent.Keys, block: Block, due: Due, config: Config, layout: Layout) -> Block:
    """Make the updates and validations that are due."""
    actor = block.agents.actor
    with jax.named_scope("learn"):
        learner = _learn(keys, actor, due.learn, block, block.replay, config)
    actor = actor._replace(alive=actor.alive & learner.finite, diverged=actor.diverged | ~learner.finite)
    block = block._replace(agents=AgentState(actor, learner))
    if not config.rungs:
        return block
    pending = due.judge & ~actor.diverged
    with jax.named_scope("validate"):
        actor, record = validate(
            root, pending, block.agents, block.hyperparams, block.names, block.record, config, layout
        )
    return block._replace(agents=block.agents._replace(actor=actor), record=record)


def _learn(
    keys: agent.Keys, actor: agent.Actor, due: Bool[Array, " lanes"], block: Block, ring: Replay, config: Config
) -> Learner:
    """Make the updates that are due, each lane in the shape of its own batch size, then copy to the targets."""
    learner = block.agents.learner
    hyperparams = config.specialise(block.hyperparams)
    window = jnp.minimum(actor.step, hyperparams.buffer_size)
    own_bucket = bucket_of(hyperparams.batch_size, config)
    passed = actor.step - learner.last_copy

    def learn_one(
        learner: Learner, due: Array, step: Array, batch: replay.Transition, hyperparams: Hyperparams
    ) -> Learner:
        return agent.learn(learner, due, step, batch, config.specialise(hyperparams), config)

    def copy_one(learner: Learner, due: Array, step: Array, hyperparams: Hyperparams) -> Learner:
        return agent.copy_to_target(learner, due, step, config.specialise(hyperparams))

    def copy(learner: Learner) -> Learner:
        return jax.vmap(copy_one)(learner, due, actor.step, block.hyperparams)

    for bucket, size in enumerate(config.batch_sizes):
        num_updates = jnp.where(due & (own_bucket == bucket), hyperparams.gradient_steps, 0)

        def update(i: Int[Array, ""], learner: Learner, size: int = size, num: Array = num_updates) -> Learner:
            with jax.named_scope("sample"):
                slots = jax.vmap(partial(replay.draw_slots, ring, num=size))(keys.sample, learner.updates, window)
                batch = replay.read(ring, slots)
            return jax.vmap(learn_one)(learner, i < num, actor.step, batch, block.hyperparams)

        with jax.named_scope("update"):
            learner = _repeat(jnp.max(num_updates), update, learner)
    with jax.named_scope("copy"):
        return if_any(due & (passed >= hyperparams.target_period), copy, learner)


def _repeat(num: Int[Array, ""], change: Callable[[Array, Learner], Learner], learner: Learner) -> Learner:
    """Apply `change` `num` times. Whether it goes on is carried along: a GPU then needs no kernel to ask."""

    def turn(carry: tuple[Array, Array, Learner]) -> tuple[Array, Array, Learner]:
        i, _, learner = carry
        return i + 1, i + 1 < num, change(i, learner)

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda carry: carry[1], turn, (zero, zero < num, learner))[2]
