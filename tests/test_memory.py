"""Bytes counted from shapes are those that XLA reports."""

import math

import jax
import pytest

from jaxdqn import devices, host_memory, memory
from jaxdqn.block import empty_block
from jaxdqn.config import Config, Layout
from jaxdqn.hyperparams import defaults
from jaxdqn.memory import PARTS, argument_bytes, device_bytes, largest_block, part_bytes, progress_bytes
from tests.helpers import fixing, made

SMALL = Config(
    env_steps=400,
    eval_episodes=8,
    rungs=(100, 200),
    validation_episodes=4,
    keep_best=True,
    slots=400,
    batch_sizes=(8,),
    hidden_width=16,
    fixed=fixing(defaults(), "learning_rate"),
)
WIDE = Config(hidden_width=256, hidden_layers=2, slots=1_000, keep_best=True, rungs=(100,), batch_sizes=(64,))
PARAMETERS = 4 * 256 + 256 + 256 * 256 + 256 + 256 * 2 + 2


def test_parts_by_hand() -> None:
    parts = part_bytes(WIDE, 3)
    assert parts["online"] == parts["target"] == parts["best"] == 3 * 4 * PARAMETERS
    assert parts["optimiser"] == 3 * 4 * (2 * PARAMETERS + 1)  # two moments and a count
    assert parts["replay"] == 1_000 * 3 * 11 * 4 + 4  # two observations, action, reward, end; the cursor
    assert parts["validation"] == 3 * 4 * 3  # one rung, its worth, perfect ones in a row
    assert 0 < parts["environment"] < 3 * 300
    assert part_bytes(Config(), 1)["best"] == 0


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_every_byte_of_the_state_is_counted(block: int) -> None:
    state = jax.eval_shape(lambda: empty_block(SMALL, Layout(1, 1, block)))
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    parts = part_bytes(SMALL, block)
    assert sum(parts.values()) == whole
    assert tuple(parts) == PARTS


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 3])
def test_xla_reports_what_was_predicted(block: int) -> None:
    population = made(SMALL, Layout(rows=1, devices=2, block=block))
    assert population.compiled is not None
    reported = population.compiled.memory_analysis()
    assert reported.argument_size_in_bytes == argument_bytes(SMALL, block)
    assert reported.alias_size_in_bytes == sum(part_bytes(SMALL, block).values())
    results = reported.output_size_in_bytes - reported.alias_size_in_bytes
    assert progress_bytes(SMALL, block) <= results <= progress_bytes(SMALL, block) + 2_000  # a table of their places
    assert reported.temp_size_in_bytes <= memory.temporary_bytes(SMALL, block, 1)
    assert population.state_bytes(0) == 2 * sum(part_bytes(SMALL, block).values())


def test_as_many_lanes_fit_as_there_is_memory_for() -> None:
    needed = device_bytes(WIDE, Layout(2, 1, 37, 16))
    assert largest_block(WIDE, needed, 16) == 37
    assert largest_block(WIDE, needed - 1, 16) == 36
    assert largest_block(WIDE, device_bytes(WIDE, Layout(2, 1, 1, 1)), 16) == 1
    assert largest_block(WIDE, 1_000, 16) == 0
    assert largest_block(WIDE, math.inf, 16) > 10**6


def test_devices_that_are_cores_share_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "platform", lambda: "cpu")
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 8_000)
    assert memory.available_bytes(2) == 8_000 * 0.75 / 2
    monkeypatch.setattr(host_memory, "available_bytes", lambda: None)
    assert memory.available_bytes(2) == math.inf


def test_a_gpu_has_what_is_free_of_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, **stats: int) -> None:
            self.memory_stats = lambda: stats or None

    monkeypatch.setattr(devices, "platform", lambda: "gpu")
    there = [Device(bytes_limit=100, bytes_in_use=30), Device(bytes_limit=100, bytes_in_use=50), Device()]
    monkeypatch.setattr(jax, "local_devices", lambda: there)
    assert [memory.available_bytes(num) for num in (1, 2, 3)] == [70, 50, 50]
    monkeypatch.setattr(jax, "local_devices", lambda: there[2:])
    assert memory.available_bytes(1) == math.inf
