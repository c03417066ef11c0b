"""One DQN agent (Mnih et al. 2015): its state, and how it starts, acts and learns.

Written for a single agent with scalars. Whatever it becomes depends on its keys, its hyperparameters and its own step
count alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxdqn import network, optimiser, prng, q_learning
from jaxdqn.config import Config
from jaxdqn.environment import EnvState, make
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.network import Params
from jaxdqn.replay import Transition


class Actor(NamedTuple):
    """The agent's life in its environment."""

    env_state: EnvState
    obs: Float[Array, " obs"]  # as the network sees it (normalised or not)
    step: Int[Array, ""]  # environment steps lived
    episodes: Int[Array, ""]  # episodes finished
    episode_return: Float[Array, ""]  # of the running episode
    return_sum: Float[Array, ""]  # of the finished episodes
    alive: Bool[Array, ""]  # false: frozen for good
    diverged: Bool[Array, ""]  # a Q-value that it went by, or a loss, was not finite


class Learner(NamedTuple):
    """What an update changes."""

    params: Params
    target_params: Params
    opt_state: optax.ScaleByAdamState
    updates: Int[Array, ""]
    loss_sum: Float[Array, ""]  # over the updates
    last_copy: Int[Array, ""]  # step of the last copy to the target network
    finite: Bool[Array, ""]  # false: an update was not finite, and not made


class Keys(NamedTuple):
    """The random streams of one agent."""

    init: prng.Key
    act: prng.Key  # its counter is the environment step
    sample: prng.Key  # its counter is the number of the update


class Chance(NamedTuple):
    """All that is random in one environment step, drawn beforehand: a tick's draws are made together."""

    explore: Float[Array, ""]  # a random action is taken if this is below ε …
    action: Int[Array, ""]  # … and it is this one
    key_step: Array
    reset_state: EnvState  # where the next episode starts, should this one end
    reset_obs: Float[Array, " obs"]


class AgentState(NamedTuple):
    """All of one agent but its replay."""

    actor: Actor
    learner: Learner


def keys(key: prng.Key) -> Keys:
    """Split an agent's key into its streams."""
    return Keys(prng.fold(key, 0), prng.fold(key, 1), prng.fold(key, 2))


def chance(key: prng.Key, step: Int[Array, ""], hyperparams: Hyperparams, config: Config) -> Chance:
    """Draw what is random in environment step `step`."""
    env = make(config.env)
    explore, action = prng.words(key, step, 0)
    reset_state, reset_obs = env.reset(prng.jax_key(prng.fold(key, step, 1)))
    return Chance(
        explore=prng.uniform(explore),
        action=prng.below(action, jnp.int32(env.num_actions)),
        key_step=prng.jax_key(prng.fold(key, step, 2)),
        reset_state=reset_state,
        reset_obs=observe(reset_obs, hyperparams, config),
    )


def init(key: prng.Key, hyperparams: Hyperparams, config: Config) -> AgentState:
    """Return a newborn agent: fresh parameters, an empty window, the first observation."""
    params = network.init(prng.fold(key, 0), hyperparams, config)
    env_state, obs = make(config.env).reset(prng.jax_key(prng.fold(key, 1)))
    zero, one = jnp.zeros((), jnp.int32), jnp.ones((), bool)
    return AgentState(
        actor=Actor(
            env_state=env_state,
            obs=observe(obs, hyperparams, config),
            step=zero,
            episodes=zero,
            episode_return=jnp.zeros(()),
            return_sum=jnp.zeros(()),
            alive=one,
            diverged=~one,
        ),
        learner=Learner(
            params=params,
            target_params=params,
            opt_state=optimiser.init(params),
            updates=zero,
            loss_sum=jnp.zeros(()),
            last_copy=zero,
            finite=one,
        ),
    )


def observe(obs: Float[Array, " obs"], hyperparams: Hyperparams, config: Config) -> Float[Array, " obs"]:
    """Normalise an observation, if the agent does."""
    if not config.obs_mean:
        return obs
    normal = (obs - jnp.array(config.obs_mean)) / jnp.array(config.obs_std)
    return jnp.where(hyperparams.normalize_obs, normal, obs)


def explores(chance: Chance, actor: Actor, hyperparams: Hyperparams) -> Bool[Array, ""]:
    """Return whether the next action is a random one, whatever the Q-values are."""
    return chance.explore < q_learning.epsilon(actor.step, hyperparams)


def act(
    chance: Chance, actor: Actor, q_values: Float[Array, " a"], hyperparams: Hyperparams, config: Config
) -> tuple[Actor, Transition]:
    """Take one ε-greedy environment step; start a new episode where this one ends. A frozen agent stays as it is.

    `q_values` are those of what the agent observes; if it explores they may be anything.
    """
    env = make(config.env)
    greedy_action = jnp.argmax(q_values).astype(jnp.int32)
    explore = explores(chance, actor, hyperparams)
    action = jnp.where(explore, chance.action, greedy_action)

    after = env.step(chance.key_step, actor.env_state, action)
    next_obs = observe(after.obs, hyperparams, config)
    done = after.terminated | after.truncated
    step, episodes = actor.step + 1, actor.episodes + done
    episode_return = actor.episode_return + after.reward
    diverged = ~jnp.all(explore | jnp.isfinite(q_values))
    ended = diverged | (step >= config.env_steps)
    if config.episodes is not None:
        ended |= episodes >= config.episodes
    moved = Actor(
        env_state=jax.tree.map(lambda new, old: jnp.where(done, new, old), chance.reset_state, after.state),
        obs=jnp.where(done, chance.reset_obs, next_obs),
        step=step,
        episodes=episodes,
        episode_return=jnp.where(done, 0.0, episode_return),
        return_sum=actor.return_sum + jnp.where(done, episode_return, 0.0),
        alive=~ended,
        diverged=diverged,
    )
    transition = Transition(
        obs=actor.obs, action=action, reward=after.reward, next_obs=next_obs, terminated=after.terminated
    )
    return jax.tree.map(lambda new, old: jnp.where(actor.alive, new, old), moved, actor), transition


def loss(
    params: Params, target_params: Params, batch: Transition, hyperparams: Hyperparams, config: Config
) -> Float[Array, ""]:
    """Mean loss over the first `batch_size` transitions of a batch; the rest only fills the shape."""
    num = batch.reward.shape[0]
    q_values = network.q_values(params, batch.obs, hyperparams, config)
    next_target_q = network.q_values(target_params, batch.next_obs, hyperparams, config)
    next_q = network.q_values(jax.lax.stop_gradient(params), batch.next_obs, hyperparams, config)
    value = jax.vmap(q_learning.next_value, (0, 0, None))(next_q, next_target_q, hyperparams.double_q)
    target = jax.vmap(q_learning.td_target, (0, 0, 0, None))(batch.reward, batch.terminated, value, hyperparams.gamma)
    chosen = q_values[:, 0]
    for action in range(1, q_values.shape[-1]):  # not a sum over a mask, which would be a kernel of its own
        chosen = jnp.where(batch.action == action, q_values[:, action], chosen)
    td_error = chosen - jax.lax.stop_gradient(target)
    losses = jax.vmap(q_learning.td_loss, (0, None))(td_error, hyperparams.huber_loss)
    used = jnp.arange(num) < hyperparams.batch_size
    return jnp.sum(jnp.where(used, losses, 0.0)) / hyperparams.batch_size


def learn(
    learner: Learner,
    due: Bool[Array, ""],
    step: Int[Array, ""],
    batch: Transition,
    hyperparams: Hyperparams,
    config: Config,
) -> Learner:
    """Make one gradient step with Adam (Kingma & Ba 2015) at environment step `step`, if it is `due` and finite."""
    value, gradient = jax.value_and_grad(loss)(learner.params, learner.target_params, batch, hyperparams, config)
    norm = optimiser.global_norm(gradient)
    scale = hyperparams.max_grad_norm / jnp.maximum(norm, hyperparams.max_grad_norm)
    clipped = jax.tree.map(lambda g: g * scale, gradient)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    keep = due & finite & learner.finite
    rate = q_learning.learning_rate(step, hyperparams)
    params, opt_state = optimiser.step(learner.params, learner.opt_state, clipped, rate, keep)
    return learner._replace(
        params=params,
        opt_state=opt_state,
        updates=learner.updates + keep,
        loss_sum=learner.loss_sum + jnp.where(keep, value, 0.0),
        finite=learner.finite & (finite | ~due),
    )


def copy_to_target(learner: Learner, due: Bool[Array, ""], step: Int[Array, ""], hyperparams: Hyperparams) -> Learner:
    """At a train event: target ← τ · online + (1 − τ) · target, if `target_period` steps have passed since the last."""
    copy = due & (step - learner.last_copy >= hyperparams.target_period)
    mixed = optax.incremental_update(learner.params, learner.target_params, hyperparams.tau)
    return learner._replace(
        target_params=jax.tree.map(lambda new, old: jnp.where(copy, new, old), mixed, learner.target_params),
        last_copy=jnp.where(copy, step, learner.last_copy),
    )
