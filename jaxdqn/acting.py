"""A tick of a block's lanes: every living agent takes steps in its environment, and what is then due is told.

A platform is given the program that it runs fastest. A CPU pays for each kernel and each array that a loop carries, and
may look before it goes on; a GPU pays for a loop's turns, and a look at it costs as much as several kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import layout as memory
from jaxtyping import Array, Bool, Float, Int

from jaxdqn import agent, network, prng, replay
from jaxdqn.agent import Actor, Chance
from jaxdqn.config import Config
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.network import Params
from jaxdqn.packing import Packed, pack, unpack
from jaxdqn.replay import Replay, Transition


class Due(NamedTuple):
    """What a tick leaves to do."""

    learn: Bool[Array, " lanes"]  # updates
    judge: Bool[Array, " lanes"]  # a validation


def act(
    keys: prng.Key, before: Actor, ring: Replay, params: Params, hyperparams: Hyperparams, config: Config
) -> tuple[Actor, Replay, Due]:
    """Let every living agent of a block take `config.tick` environment steps; return what is then due.

    All but the ring have a leading axis of lanes; `keys` are of the streams that draw the agents' actions.
    """

    def chances(key: prng.Key, first_step: Int[Array, ""], hyperparams: Hyperparams) -> Chance:
        given = config.specialise(hyperparams)
        return jax.vmap(lambda i: agent.chance(key, first_step + i, given, config))(jnp.arange(config.tick))

    with jax.named_scope("draw"):
        drawn = jax.vmap(chances, out_axes=1)(keys, before.step, hyperparams)
    with jax.named_scope("step"):
        steps = _Steps(params, hyperparams, config)
        actor, rows = jax.lax.platform_dependent(before, drawn, cpu=steps.on_cpu, default=steps.on_gpu)
    with jax.named_scope("add"):
        ring = replay.add(ring, rows)
    whole = (actor.step - before.step == config.tick) & ~actor.diverged
    given = config.specialise(hyperparams)
    learn = whole & (actor.step % given.train_period == 0) & (actor.step >= given.warmup_steps)
    if not config.rungs:
        return actor, ring, Due(learn, jnp.zeros_like(learn))
    at_rung = whole & jnp.any(actor.step[:, None] == jnp.array(config.rungs)[None], axis=1)
    ended = before.alive & ~actor.alive if config.keep_best else jnp.zeros_like(at_rung)
    return actor, ring, Due(learn, (at_rung | ended) & ~actor.diverged)


class _Steps(NamedTuple):
    """The environment steps of a tick, in which this does not change."""

    params: Params
    hyperparams: Hyperparams
    config: Config

    def on_cpu(self, before: Actor, drawn: Chance) -> tuple[Actor, Float[Array, "tick lanes features"]]:
        """Take the steps in turns that carry few arrays; where all agents explore their networks are not asked."""

        def turn(packed: Packed, chance: Chance) -> tuple[Packed, Array]:
            actor, transitions = self._explore_or_ask(unpack(packed, before), chance)
            return pack(actor), replay.rows(transitions)

        if self.config.tick == 1:  # a loop of one turn is none, and nothing is carried
            actor, transitions = jax.lax.scan(self._explore_or_ask, before, drawn)
            return actor, replay.rows(transitions)
        packed, rows = jax.lax.scan(turn, pack(before), drawn)
        return unpack(packed, before), rows

    def on_gpu(self, before: Actor, drawn: Chance) -> tuple[Actor, Float[Array, "tick lanes features"]]:
        """Take the steps in as few turns as pay: what is not carried over costs nothing.

        On a CPU XLA would compute each step's state anew for all that needs it.
        """
        unroll = max(steps for steps in range(1, 9) if self.config.tick % steps == 0)
        actor, transitions = jax.lax.scan(self._ask, before, drawn, unroll=unroll)
        return actor, replay.rows(transitions)

    def _ask(self, actor: Actor, chance: Chance) -> tuple[Actor, Transition]:
        return self._act(actor, chance, self._q_values(actor))

    def _explore_or_ask(self, actor: Actor, chance: Chance) -> tuple[Actor, Transition]:
        def explores(chance: Chance, actor: Actor, hyperparams: Hyperparams) -> Bool[Array, ""]:
            return agent.explores(chance, actor, self.config.specialise(hyperparams))

        asking = actor.alive & ~jax.vmap(explores)(chance, actor, self.hyperparams)
        unasked = jnp.zeros((len(asking), make(self.config.env).num_actions))
        return self._act(actor, chance, jax.lax.cond(asking.any(), self._q_values, lambda _: unasked, actor))

    def _q_values(self, actor: Actor) -> Float[Array, "lanes a"]:
        def of_one(params: Params, obs: Float[Array, " obs"], hyperparams: Hyperparams) -> Float[Array, " a"]:
            return network.q_values(params, obs, self.config.specialise(hyperparams), self.config)

        return jax.vmap(of_one)(jax.tree.map(_as_stored, self.params), actor.obs, self.hyperparams)

    def _act(self, actor: Actor, chance: Chance, q_values: Float[Array, "lanes a"]) -> tuple[Actor, Transition]:
        def one(
            chance: Chance, actor: Actor, q_values: Float[Array, " a"], hyperparams: Hyperparams
        ) -> tuple[Actor, Transition]:
            return agent.act(chance, actor, q_values, self.config.specialise(hyperparams), self.config)

        return jax.vmap(one)(chance, actor, q_values, self.hyperparams)


def _as_stored(leaf: Array) -> Array:
    """Keep XLA from turning an array around for one reader: on a GPU that copied the parameters in every tick."""
    return memory.with_layout_constraint(leaf, memory.Layout(major_to_minor=tuple(range(leaf.ndim))))
