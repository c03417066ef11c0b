"""Probe environments whose Q-values are known, registered with gymnax (Andy Jones, "Debugging RL", 2021)."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

CONSTANT, OBSERVATION, DISCOUNT, ACTION, TIME_LIMIT = (
    f"Probe{name}-test" for name in ("Constant", "Observation", "Discount", "Action", "TimeLimit")
)


@struct.dataclass
class State(environment.EnvState):
    seen: jax.Array
    time: jax.Array


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 10


class Probe(environment.Environment[State, Params]):
    """One-step episodes that pay 1."""

    length, limit = 1, 10

    @property
    def default_params(self) -> Params:
        return Params(max_steps_in_episode=self.limit)

    @property
    def num_actions(self) -> int:
        return 2

    def start(self, key: jax.Array) -> jax.Array:
        return jnp.zeros(())

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return jnp.ones(())

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        state = State(seen=self.start(key), time=jnp.int32(0))
        return self.see(state), state

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> Any:
        after = state.replace(seen=self.next_seen(state), time=state.time + 1)
        return self.see(after), after, self.reward(state, action), after.time >= self.length, {}

    def next_seen(self, state: State) -> jax.Array:
        return state.seen

    def see(self, state: State) -> jax.Array:
        return state.seen[None]

    def action_space(self, params: Params | None = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Params) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)


class Observation(Probe):
    """Pays the ±1 it showed."""

    def start(self, key: jax.Array) -> jax.Array:
        return jax.random.rademacher(key, (), jnp.float32)

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return state.seen


class Discount(Probe):
    """Shows 0, then 1, and pays 1 at the end of its two steps."""

    length = 2

    def next_seen(self, state: State) -> jax.Array:
        return jnp.ones(())

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return state.time.astype(jnp.float32)


class Action(Probe):
    """Pays 1 for action 1 and −1 for action 0."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return 2.0 * action - 1.0


class TimeLimit(Probe):
    """Never ends of itself; pays 1 a step and is cut off after two."""

    length, limit = 1_000, 2


for name, factory in (
    (CONSTANT, Probe),
    (OBSERVATION, Observation),
    (DISCOUNT, Discount),
    (ACTION, Action),
    (TIME_LIMIT, TimeLimit),
):
    gymnax.register(name, factory)
