"""How the agents of a block are judged: validated at rungs, and scored when they have ended."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxdqn import evaluate, prng
from jaxdqn.agent import Actor, AgentState
from jaxdqn.config import Config, Layout
from jaxdqn.environment import make
from jaxdqn.evaluate import Flawless, Phase, Stream
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.masks import if_any, over
from jaxdqn.network import Params


class Names(NamedTuple):
    """Who the agents in the lanes are: their random keys are a function of the study's seed and of these."""

    phase: Int[Array | np.ndarray, " lanes"]  # an `evaluate.Phase`
    trial: Int[Array | np.ndarray, " lanes"]  # number; `NOBODY` in a lane that shall be empty
    seed_index: Int[Array | np.ndarray, " lanes"]


NOBODY = -1


class Record(NamedTuple):
    """What validations leave behind, a lane each.

    A validation is worth its mean return; one without a single flaw goes on for as long as that holds, up to
    `config.proof_episodes`, and is worth the more the longer it did. Those that held to the end are perfect.
    """

    validation: Float[Array, "lanes rungs"]  # mean return at each rung; NaN: not reached
    best_worth: Float[Array, " lanes"]  # of the best of them
    best_params: Params | None  # and the parameters then, if the space keeps them
    perfect: Int[Array, " lanes"]  # perfect validations in a row


def validate(
    root: prng.Key,
    pending: Bool[Array, " lanes"],
    agents: AgentState,
    hyperparams: Hyperparams,
    names: Names,
    record: Record,
    config: Config,
    layout: Layout,
) -> tuple[Actor, Record]:
    """Validate the lanes that stand at a rung (or end): keep the best parameters, end who is perfect twice in a row."""
    perfect_return = make(config.env).perfect_return

    def run(carry: tuple[Actor, Record]) -> tuple[Actor, Record]:
        actor, record = carry
        params = agents.learner.params
        rung = jnp.sum(actor.step[:, None] > jnp.array(config.rungs)[None], axis=1)  # index of the rung here, or next
        families = jax.vmap(lambda phase: evaluate.family(root, Stream.VALIDATION, phase))(names.phase)
        keys, num = jax.vmap(prng.fold)(families, rung), config.validation_episodes
        most = num if perfect_return is None else max(num, config.proof_episodes)
        chunk = evaluate.chunk_of(num)
        flawless = None if most == num or perfect_return is None else Flawless(num, perfect_return)
        returns = _greedy(
            keys, pending, params, hyperparams, jnp.full_like(rung, most), most, chunk, config, layout, flawless
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
            best_params=over(improved, params, record.best_params) if config.keep_best else None,
            perfect=perfect,
        )
        if config.stop_when_perfect:
            actor = actor._replace(alive=actor.alive & (perfect < 2))
        return actor, record

    return if_any(pending, run, (agents.actor, record))


def score(
    root: prng.Key,
    pending: Bool[Array, " lanes"],
    params: Params,
    hyperparams: Hyperparams,
    names: Names,
    config: Config,
    layout: Layout,
) -> Float[Array, "lanes episodes"]:
    """Returns of the greedy episodes that judge an agent: more of them if it is trained anew, to confirm.

    The seeds of one index start from the same states in all trials.
    """

    def key_of(phase: Int[Array, ""], seed_index: Int[Array, ""]) -> prng.Key:
        return prng.fold(evaluate.family(root, Stream.SCORE, phase), seed_index)

    keys = jax.vmap(key_of)(jnp.asarray(names.phase), jnp.asarray(names.seed_index))
    num = jnp.where(names.phase == Phase.SEARCH, config.eval_episodes, config.fresh_episodes)
    most = max(config.eval_episodes, config.fresh_episodes)
    chunk = evaluate.chunk_of(max(config.eval_episodes, evaluate.MIN_CHUNK))
    return _greedy(keys, pending, params, hyperparams, num, most, chunk, config, layout)


def _greedy(
    key: UInt32[Array, "lanes 2"],
    pending: Bool[Array, " lanes"],
    params: Params,
    hyperparams: Hyperparams,
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
        of_group = jax.tree.map(lambda x: x[lanes], (key, params, hyperparams, num_episodes))
        # Tied to the loop: else XLA takes what a single lane needs out of it, and does it whether anyone is pending.
        _, of_group = jax.lax.optimization_barrier((i, of_group))
        kept = jnp.where(pending[lanes], lanes, pending.shape[0])
        return returns.at[kept].set(jax.vmap(evaluate_one)(*of_group), mode="drop")

    groups = -(-jnp.sum(pending) // layout.group)
    nothing = jnp.full((pending.shape[0], max_episodes), jnp.nan)
    return jax.lax.fori_loop(0, groups, evaluate_group, nothing)
