"""Train a uniform population through rejax's DQN, vmapped over lanes. Run by `scripts/benchmark.py peers`.

One environment a lane, an update every step, no evaluation; what is compiled is compiled before the clock starts. Its
clipping is element by element where the others' is by norm; its network, [64, 64], is given ReLUs like theirs.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import jax
import rejax
from serving import serve

STEPS_A_CALL = 64  # environment steps of each lane


@cache
def prepared(lanes: int, batch_size: int) -> list[Any]:
    """Compile; return the program, the population after its warm-up, and the seconds compiling took."""
    algo = rejax.DQN.create(
        env="CartPole-v1",
        agent_kwargs={"activation": "relu"},
        num_envs=1,
        total_timesteps=STEPS_A_CALL,
        eval_freq=STEPS_A_CALL,
        skip_initial_evaluation=True,
        buffer_size=10_000,
        fill_buffer=STEPS_A_CALL,
        batch_size=batch_size,
        learning_rate=1e-3,
        gamma=0.99,
        max_grad_norm=10.0,
        target_update_freq=500,
        polyak=0.0,
        ddqn=False,
    ).replace(eval_callback=lambda algo, ts, rng: ())
    state = jax.jit(jax.vmap(algo.init_state))(jax.random.split(jax.random.key(0), lanes))
    begun = time.perf_counter()
    program = jax.jit(jax.vmap(lambda ts: algo.train(train_state=ts)[0])).lower(state).compile()
    compile_s = time.perf_counter() - begun
    for _ in range(2):  # the first fills the replay
        state = program(state)
    return [program, jax.block_until_ready(state), compile_s]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Train for so many seconds; say how many updates were made."""
    known = prepared(request["lanes"], request["batch_size"])
    program, state, compile_s = known
    before, begun = int(state.q_ts.step.sum()), time.perf_counter()
    while time.perf_counter() - begun < request["seconds"]:
        state = jax.block_until_ready(program(state))
    seconds = time.perf_counter() - begun
    known[1] = state
    return {
        "seconds": seconds,
        "updates": int(state.q_ts.step.sum()) - before,
        "compile_s": compile_s,
    }


if __name__ == "__main__":
    serve(answer, "rejax", "gymnax", "jax")
