"""Lanes: whatever an agent becomes depends on its name, its hyperparameters and its own steps alone."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from jaxdqn import evaluate, network, prng
from jaxdqn.config import Config, Layout
from jaxdqn.evaluate import Phase
from jaxdqn.hyperparams import Hyperparams, defaults
from jaxdqn.judging import NOBODY
from jaxdqn.masks import all_finite
from jaxdqn.population import _SCHEDULER, Population
from tests.helpers import Lane, Named, agent_at, fixing, made, place, same, train

BASE = defaults()._replace(
    hidden_width=256, warmup_steps=32, train_period=8, epsilon_decay_steps=200, buffer_size=64, target_period=16
)
VARIED = (
    "batch_size",
    "gradient_steps",
    "train_period",
    "learning_rate",
    "hidden_width",
    "buffer_size",
    "max_grad_norm",
)
CONFIG = Config(
    env_steps=200,
    eval_episodes=5,
    fresh_episodes=9,
    tick=8,
    slots=160,
    batch_sizes=(16, 128),
    hidden_width=256,
    fixed=fixing(BASE, *VARIED),
)
LAYOUT = Layout(rows=1, devices=2, block=4)

X: Named = (3, 1, BASE._replace(batch_size=16, gradient_steps=4))
OTHERS: list[Named] = [
    (4, 0, BASE._replace(batch_size=128, gradient_steps=1, hidden_width=40)),
    (5, 0, BASE._replace(batch_size=16, gradient_steps=2, train_period=16, buffer_size=150)),
    (6, 2, BASE._replace(batch_size=128, gradient_steps=4, learning_rate=1e-2)),
]
WILD: Named = (9, 0, BASE._replace(batch_size=16, learning_rate=1e3, max_grad_norm=1e6, gradient_steps=4))


@pytest.fixture(scope="module")
def population() -> Population:
    return made(CONFIG, LAYOUT)


@pytest.fixture(scope="module")
def alone(population: Population) -> Any:
    train(population, {(0, 0): X}, [25])
    return agent_at(population, (0, 0))


def lanes(*named: Named, first: Lane = (0, 0)) -> dict[Lane, Named]:
    return {(first[0], first[1] + i): name for i, name in enumerate(named)}


def test_an_agent_alone_learns(alone: Any) -> None:
    (actor, learner), _ = alone
    assert int(actor.step) == 200
    assert int(learner.updates) == 4 * (1 + (200 - 32) // 8)
    assert not bool(actor.alive)


def test_neighbours_with_other_batch_sizes_change_no_bit(population: Population, alone: Any) -> None:
    train(population, lanes(X, *OTHERS), [25])
    assert same(agent_at(population, (0, 0)), alone)


def test_another_lane_of_another_device_changes_no_bit(population: Population, alone: Any) -> None:
    train(population, {**lanes(*OTHERS, X, first=(1, 0)), **lanes(OTHERS[0])}, [25])
    assert same(agent_at(population, (1, 3)), alone)


def test_the_length_of_segments_changes_no_bit(population: Population, alone: Any) -> None:
    train(population, lanes(X, *OTHERS), [1, 7, 2, 15])
    assert same(agent_at(population, (0, 0)), alone)


def test_an_agent_that_starts_late_in_a_used_lane_changes_no_bit(population: Population, alone: Any) -> None:
    train(population, lanes(*OTHERS, OTHERS[1]), [11])
    train(population, lanes(X, first=(0, 2)), [25])
    assert same(agent_at(population, (0, 2)), alone)


def test_a_diverging_neighbour_ends_marked_and_changes_no_bit(population: Population, alone: Any) -> None:
    progress = train(population, lanes(X, WILD, *OTHERS[:2]), [25])
    assert same(agent_at(population, (0, 0)), alone)
    assert progress.diverged.tolist() == [[False, True, False, False], [False] * 4]
    assert progress.step[0, 1] < 200
    assert np.isnan(progress.returns[0, 1]).all()
    assert np.isfinite(progress.returns[0, [0, 2, 3], :5]).all()
    finite = jax.tree.map(lambda x: np.isfinite(x).all(), agent_at(population, (0, 1))[0].learner.params)
    assert all(jax.tree.leaves(finite))


def test_one_device_and_another_block_size_train_the_same_agent(alone: Any) -> None:
    one = made(CONFIG, Layout(rows=1, devices=1, block=4))
    train(one, lanes(OTHERS[0], X), [25])
    assert same(agent_at(one, (0, 1)), alone)


def test_two_seeds_of_a_trial_differ_and_the_same_seed_repeats(population: Population) -> None:
    progress = train(population, {(0, 0): X, (0, 1): (3, 2, X[2]), (1, 0): X}, [25])
    assert progress.loss_sum[0, 0] != progress.loss_sum[0, 1]
    assert progress.loss_sum[0, 0] == progress.loss_sum[1, 0]


def test_agents_of_two_phases_with_the_same_name_differ(population: Population) -> None:
    phases = {(0, i): phase for i, phase in enumerate(Phase)}
    progress = train(population, dict.fromkeys(phases, X), [25], phases)
    assert len(set(progress.loss_sum[0].tolist())) == len(Phase) == 4
    assert len({tuple(returns[:5]) for returns in progress.returns[0].tolist()}) == 4
    again = train(population, {(1, 2): X}, [25], {(1, 2): Phase.VERDICT})
    assert again.loss_sum[1, 2] == progress.loss_sum[0, Phase.VERDICT]
    assert np.array_equal(again.returns[1, 2], progress.returns[0, Phase.VERDICT], equal_nan=True)


def test_neighbours_of_another_phase_change_no_bit(population: Population, alone: Any) -> None:
    phases = {(0, 1): Phase.CONFIRM, (0, 2): Phase.VERDICT, (0, 3): Phase.RETRAIN}
    train(population, lanes(X, X, *OTHERS[:2]), [25], phases)
    assert same(agent_at(population, (0, 0)), alone)


def test_an_agent_that_is_trained_anew_is_scored_on_episodes_of_its_own_number(population: Population) -> None:
    phases = {(0, 1): Phase.CONFIRM, (1, 0): Phase.VERDICT}
    returns = train(population, {(0, 0): X, (0, 1): X, (1, 0): OTHERS[0]}, [25], phases).returns
    scored = np.isfinite(returns).sum(axis=-1)
    assert (scored[0, 0], scored[0, 1], scored[1, 0]) == (5, 9, 9)
    assert scored.sum() == 23
    assert np.isfinite(returns[0, 0, :5]).all()  # then NaN


def test_more_episodes_begin_with_the_same_ones() -> None:
    params = network.init(prng.root(0), SMALL, small())
    key = prng.root(1)

    @jax.jit
    def returns(num: int) -> Any:
        return evaluate.greedy_returns(key, params, SMALL, small(), num, 12, 5)

    all_of_them = returns(12)
    assert np.isfinite(all_of_them).all()
    for num in (0, 4, 5, 7):
        some = returns(num)
        assert np.array_equal(some[:num], all_of_them[:num])
        assert np.isnan(some[num:]).all()


def test_a_lane_that_is_emptied_is_dead_is_not_scored_and_changes_no_bit(population: Population, alone: Any) -> None:
    train(population, lanes(X, *OTHERS), [11])
    progress = train(population, {(0, 1): (NOBODY, 0, BASE), (0, 3): (NOBODY, 0, BASE)}, [14])
    assert same(agent_at(population, (0, 0)), alone)
    assert progress.step.tolist() == [[200, 0, 200, 0], [200] * 4]
    assert not progress.alive[0].any()
    assert not progress.diverged[0].any()
    assert np.isfinite(progress.returns[0]).any(axis=-1).tolist() == [True, False, True, False]
    assert not train(population, {}, [25]).alive.any()
    train(population, lanes(X, first=(0, 1)), [25])  # the lane is as good as new
    assert same(agent_at(population, (0, 1)), alone)


def test_the_parameters_of_a_row_are_those_its_agents_ended_with(population: Population) -> None:
    train(population, lanes(X, *OTHERS), [25])
    params = population.params(0)
    for lane in ((0, 0), (0, 2)):
        (_, learner), _ = agent_at(population, lane)
        assert same(jax.tree.map(lambda x, at=lane: x[at], params), learner.params)
    assert not same(*(jax.tree.map(lambda x, i=i: x[0, i], params) for i in (0, 2)))


def test_nothing_is_compiled_after_the_start(population: Population) -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: compiled.append(name))
    train(population, lanes(X, *OTHERS), [3, 2])
    train(population, lanes(OTHERS[1], WILD), [30])
    assert not [name for name in compiled if "compile" in name]


def test_a_lane_that_is_not_refilled_stays_frozen(population: Population) -> None:
    train(population, lanes(X), [25])
    ended = agent_at(population, (0, 0))
    train(population, {(0, 1): OTHERS[0]}, [25])
    assert same(agent_at(population, (0, 0)), ended)


SMALL = BASE._replace(hidden_width=8, batch_size=16)


def small(**settings: Any) -> Config:
    known = {"env_steps": 100, "eval_episodes": 4, "slots": 104, "batch_sizes": (16,), "hidden_width": 8}
    return Config(**{**known, "fixed": fixing(SMALL), **settings})


def named(trial: int, hyperparams: Hyperparams = SMALL) -> Named:
    return trial, 0, hyperparams


def test_an_agent_freezes_at_the_exact_step_or_episode_of_its_budget() -> None:
    population = made(small(tick=8, env_steps=101, episodes=4), Layout(rows=1, devices=1, block=4))
    progress = train(population, {(0, i): named(i) for i in range(4)}, [50])
    assert not progress.alive.any()
    assert (progress.step <= 101).all()
    assert ((progress.step == 101) | (progress.episodes == 4)).all()
    assert ((progress.episodes == 4) & (progress.step % 8 != 0)).any()  # within a tick


def test_scores_use_the_same_episodes_for_every_trial() -> None:
    population = made(small(eval_episodes=300), Layout(rows=1, devices=1, block=2))
    first = train(population, {(0, 0): named(0), (0, 1): named(1)}, [200]).returns.copy()
    again = train(population, {(0, 1): named(0)}, [200]).returns
    assert np.array_equal(first[0, 0], again[0, 1])
    assert np.isfinite(first).all()
    assert first.shape == (1, 2, 300)


@pytest.mark.slow
def test_no_loop_of_the_program_copies_the_replay() -> None:
    population = made(small(slots=1_000), Layout(rows=1, devices=1, block=4))
    assert population.compiled is not None
    ring = f"f32[1000,4,{2 * 4 + 3}]"
    copies = [line for line in population.compiled.as_text().splitlines() if f"= {ring}" in line and " copy(" in line]
    assert any(ring in line for line in population.compiled.as_text().splitlines())
    assert not copies


@pytest.mark.slow
def test_a_core_runs_its_kernels_in_the_order_that_saves_memory() -> None:
    def memory(options: dict[str, str | bool]) -> int:
        population = Population(small(hidden_width=256, batch_sizes=(128,)), Layout(rows=1, devices=1, block=1), 0)
        population.compile(options)
        assert population.compiled is not None
        return population.compiled.memory_analysis().temp_size_in_bytes  # type: ignore[no-any-return]

    side_by_side = {"xla_cpu_enable_concurrency_optimized_scheduler": True}
    if "xla_cpu_scheduler_type" in _SCHEDULER:
        side_by_side = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED"}
    assert memory({}) < memory(side_by_side)


def test_a_lane_with_one_parameter_that_is_not_finite_is_found() -> None:
    params = {"kernel": np.ones((3, 2, 2), np.float32), "bias": np.zeros((3, 2), np.float32)}
    params["kernel"][1, 0, 1] = np.inf
    params["bias"][2, 1] = np.nan
    assert all_finite(jax.tree.map(jax.numpy.asarray, params), 3).tolist() == [True, False, False]


def test_a_core_goes_on_with_all_that_waits_while_another_still_trains() -> None:
    layout = Layout(rows=2, devices=2, block=1)
    population = made(replace(CONFIG, env_steps=10**9), layout)
    both = {(0, 0): X, (1, 0): (4, 0, X[2])}
    population.dispatch(0, place(layout, both), np.array([3_000, 1], np.int32))
    population.dispatch(1, place(layout, both), np.array([1, 1], np.int32))
    (long, short), next_row = population._progress
    for part in next_row:
        part.result()
    assert short.done()
    assert not long.done()
    assert population.read(0).step[:, 0].tolist() == [3_000 * CONFIG.tick, CONFIG.tick]
    assert population.read(1).step[:, 0].tolist() == [CONFIG.tick] * 2


def test_a_row_that_is_put_back_goes_on_as_it_did() -> None:
    layout = Layout(rows=1, devices=2, block=2)
    population = made(CONFIG, layout)
    train(population, {(0, 1): X, (1, 0): OTHERS[0]}, [10])
    kept = population.state(0)
    assert {leaf.shape[0] for leaf in kept} == {layout.devices}
    first = train(population, {}, [10])
    population.restore(0, kept)
    assert same(train(population, {}, [10]), first)
