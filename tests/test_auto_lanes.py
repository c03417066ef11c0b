"""The choice of lanes from made-up figures, and what is remembered of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdqn import auto_lanes
from jaxdqn.auto_lanes import LARGEST_BLOCK, PAYS, Choice, explain, gain, knee, launch_bound, layout, recall, remember
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS, Speed
from jaxdqn.hyperparams import defaults

CHOICE = Choice(4, {2: 1.21, 4: 0.98}, 4_096)
NAME = "a" * 64

Rate = Callable[[int], float]


def saturating(at: int) -> Rate:
    """Launches cost as much as `at` lanes' work."""
    return lambda block: block / (at + block)


def peaked(at: int) -> Rate:
    """Blocks beyond `at` fall out of a cache."""
    return lambda block: min(block, at) ** 0.5 / max(1.0, block / at) ** 0.2


def noisy(rate: Rate, seed: int = 0, rounds: int = 5) -> Callable[[int], list[tuple[float, float]]]:
    """A machine that drifts by half between rounds, and is interrupted in one span of ten."""
    random = np.random.default_rng(seed)

    def measure(block: int) -> list[tuple[float, float]]:
        drift = random.uniform(0.67, 1.5, rounds)
        spans = random.normal(1, 0.01, (rounds, 2)) * np.where(random.random((rounds, 2)) < 0.1, 0.5, 1.0)
        return [(rate(block) * d * a, rate(2 * block) * d * b) for d, (a, b) in zip(drift, spans, strict=True)]

    return measure


def exact(rate: Rate) -> Callable[[int], list[tuple[float, float]]]:
    return lambda block: [(rate(block), rate(2 * block))]


@pytest.mark.parametrize("start", [1, 2, 4, 16, 64, 4_096])
@pytest.mark.parametrize("best", [1, 4, 64])
def test_the_knee_is_found_from_below_and_from_above(start: int, best: int) -> None:
    assert knee(exact(peaked(best)), start, LARGEST_BLOCK).block == best


def test_twice_as_many_lanes_have_to_bring_some_per_cent() -> None:
    at = 100
    block = knee(exact(saturating(at)), 1, LARGEST_BLOCK).block
    assert saturating(at)(block) / saturating(at)(block // 2) >= 1 + PAYS
    assert saturating(at)(2 * block) / saturating(at)(block) < 1 + PAYS


def test_noise_hardly_moves_the_choice() -> None:
    chosen = [knee(noisy(peaked(8), seed), 4, LARGEST_BLOCK).block for seed in range(50)]
    assert chosen.count(8) >= 45


def test_no_block_beyond_the_memory_is_tried() -> None:
    tried = []

    def measure(block: int) -> list[tuple[float, float]]:
        tried.append(2 * block)
        return [(1.0, 2.0)]

    assert knee(measure, 4, 100) == Choice(64, {4: 2.0, 8: 2.0, 16: 2.0, 32: 2.0}, 100)
    assert max(tried) == 64
    assert knee(measure, 256, 100).block == 64


def test_a_block_that_does_not_fit_after_all_ends_the_search_below_it() -> None:
    choice = knee(lambda block: [(1.0, 2.0)] if block < 32 else [], 8, LARGEST_BLOCK)
    assert (choice.block, choice.gains[32]) == (32, 0.0)
    assert knee(lambda block: [(1.0, 2.0)] if block < 4 else [], 16, LARGEST_BLOCK).block == 4


def test_neighbours_in_time_are_compared_not_their_medians() -> None:
    assert gain([(1.0, 1.2), (10.0, 12.0), (100.0, 50.0)]) == pytest.approx(1.2)
    assert gain([]) == 0.0


def test_launches_bound_small_networks_longer_than_large_ones() -> None:
    wide, narrow = Config(hidden_width=256), Config(hidden_width=64)
    agents, gpu = [defaults()._replace(batch_size=64, train_period=1, warmup_steps=0)], SPEEDS["gpu"]
    assert launch_bound(agents, wide, gpu) < launch_bound(agents, narrow, gpu)
    assert launch_bound(agents, narrow, gpu._replace(step_s=4 * gpu.step_s, pass_s=4 * gpu.pass_s)) == 4 * launch_bound(
        agents, narrow, gpu
    )


def test_the_launch_bound_limit_by_hand() -> None:
    # A step and an update: 2 launches of 1 s. A lane adds 2 × 4,480 FLOPs for the step, 10 × 64 × 4,480 for the update.
    agents = [defaults()._replace(batch_size=64, train_period=1, warmup_steps=0)]
    a_lane = 642 * (4 * 64 + 64 * 64 + 64 * 2)
    speed = Speed(
        step_s=1.0, pass_s=1.0, weight_s=0.0, flops_per_s=a_lane * 10
    )  # a lane's work takes a tenth of a second
    assert launch_bound(agents, Config(), speed) == 16  # 1.6 s of work to 2 s of launches; at 32 it would be 3.2
    assert launch_bound(agents, Config(), speed._replace(step_s=1e-9, pass_s=1e-9)) == 1
    assert launch_bound(agents, Config(), speed._replace(flops_per_s=1e30)) == LARGEST_BLOCK


def test_two_rows_are_laid_out_and_no_more_lanes_than_agents() -> None:
    assert layout(4, 2) == Layout(rows=2, devices=2, block=4)
    assert layout(256, 1, agents=64).lanes == 64
    assert layout(256, 2, agents=65).block == 17
    assert layout(4, 2, agents=1) == Layout(rows=2, devices=1, block=1)


def test_what_was_chosen_is_said_in_a_line_with_its_reasons() -> None:
    said = explain(CHOICE, layout(4, 2), "tried for 9 s")
    assert said == (
        "16 lanes in 2 rows, blocks of 4 (tried for 9 s): blocks of 4 make 21 % more updates/s than of 2; "
        "blocks of 8 make 2 % fewer updates/s than of 4"
    )
    assert "blocks of 64 don't fit" in explain(Choice(32, {32: 0.0}, 4_096), layout(32, 1), "")
    assert "memory holds no blocks above 40" in explain(Choice(32, {16: 1.5}, 40), layout(32, 1), "")
    assert "agents for blocks of 2 only" in explain(CHOICE, layout(4, 2, 8), "")


def test_a_choice_is_remembered_under_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "lanes.json"
    assert recall(path, NAME) is None
    remember(path, NAME, CHOICE)
    remember(path, "b", Choice(1, {1: 0.0}, 9))
    assert recall(path, NAME) == CHOICE
    assert recall(path, "b") == Choice(1, {1: 0.0}, 9)
    assert recall(path, "c") is None
    assert recall(None, NAME) is None
    remember(None, NAME, CHOICE)


def test_the_oldest_choices_go(tmp_path: Path) -> None:
    path = tmp_path / "lanes.json"
    for i in range(130):
        remember(path, str(i), CHOICE)
    assert [recall(path, str(i)) for i in (29, 30, 129)] == [None, CHOICE, CHOICE]


ENTRY = {"block": 4, "gains": {"2": 1.2}, "most": 64}
DAMAGED = {
    "empty": "",
    "half": '{"format": 1, "choices": {"a',
    "no object": "[]",
    "another format": json.dumps({"format": 2, "choices": {}}),
    "no choices": json.dumps({"format": 1}),
    "deep": "[" * 60_000,
    "large": json.dumps({"format": 1, "choices": {"x": "y" * 70_000}}),
    "no text": "\udcff",
    **{
        f"entry {i}": json.dumps({"format": 1, "choices": {NAME: entry}})
        for i, entry in enumerate(
            [
                7,
                ENTRY | {"block": 0},
                ENTRY | {"block": "4"},
                ENTRY | {"block": True},
                ENTRY | {"block": 2.0},
                ENTRY | {"block": LARGEST_BLOCK + 1},
                ENTRY | {"most": None},
                ENTRY | {"gains": [1.2]},
                ENTRY | {"gains": {"2": "1.2"}},
                ENTRY | {"gains": {"2": float("nan")}},
                ENTRY | {"gains": {"2": -1.0}},
                ENTRY | {"gains": {"2": 10**400}},
                ENTRY | {"gains": {"two": 1.2}},
                ENTRY | {"gains": {"9" * 5_000: 1.2}},
                ENTRY | {"gains": {str(i): 1.0 for i in range(1, 99)}},
                {"block": 4},
            ]
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_is_not_ours_is_refused_in_a_line_and_written_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "lanes.json"
    path.write_bytes(DAMAGED[damage].encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(f"{path} can't be used: ")) as refused:
        recall(path, NAME)
    assert len(str(refused.value).splitlines()) == 1
    remember(path, NAME, CHOICE)
    assert recall(path, NAME) == CHOICE


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be used"):
        recall(tmp_path, NAME)
    with pytest.raises(OSError, match="directory"):
        remember(tmp_path, NAME, CHOICE)


def test_a_choice_is_of_one_space_one_machine_and_one_number_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {auto_lanes.key({"a": 1}, Config(), 2), auto_lanes.key({"a": 2}, Config(), 2)}
    keys |= {auto_lanes.key({"a": 1}, Config(slots=8), 2), auto_lanes.key({"a": 1}, Config(), 1)}
    same = auto_lanes.key({"a": 1}, Config(), 2)
    monkeypatch.setattr(auto_lanes.fingerprint, "of_machine", lambda: {"device": "another"})
    keys.add(auto_lanes.key({"a": 1}, Config(), 2))
    assert len(keys) == 5
    assert same in keys


def test_without_kept_programs_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert auto_lanes.place() is None  # the tests' own setting
    try:
        jax.config.update("jax_enable_compilation_cache", True)
        assert auto_lanes.place() == tmp_path / "jaxdqn" / "lanes.json"
        (tmp_path / "jaxdqn").chmod(0o777)
        assert auto_lanes.place() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", False)
