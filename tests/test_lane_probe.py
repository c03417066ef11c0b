"""Blocks that are tried, and what a sweep makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdqn import auto_lanes, lane_probe, memory, opening, space, space_config
from jaxdqn.auto_lanes import Choice
from jaxdqn.config import Config, Layout
from jaxdqn.events import Resumed
from jaxdqn.lane_probe import Probe, typical
from jaxdqn.space import Space
from tests.test_run import ran, said

TINY = """
env_steps = 600
eval_episodes = 2
rungs = [400]
validation_episodes = 2
keep_best = true
[hyperparameters]
hidden_width = 4
hidden_layers = 1
batch_size = { choices = [4, 8] }
buffer_size = 64
train_period = { choices = [2, 4] }
warmup_steps = 16
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    (tmp_path / "tiny.toml").write_text(TINY)
    return space.load(str(tmp_path / "tiny.toml"))


@pytest.fixture
def no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file for choices that is not there yet."""
    monkeypatch.setattr(auto_lanes, "place", lambda: tmp_path / "lanes.json")
    return tmp_path / "lanes.json"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many devices lanes were tried on, each time; blocks of 3 come out."""
    asked: list[int] = []

    def choose(searched: Space, config: Config, num_devices: int, most: int, show: Callable[[str], None]) -> Choice:
        asked.append(num_devices)
        return Choice(3, {3: 1.0}, most)

    monkeypatch.setattr(lane_probe, "_tried", choose)
    return asked


def automatic(searched: Space, agents: int | None = None) -> tuple[Layout, list[str]]:
    shown: list[str] = []
    return lane_probe.automatic(searched, space_config.of(searched), 2, agents, shown.append), shown


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Probe, list[Any], list[tuple[float, float]], list[str]]:
    """A probe that has tried blocks of 1 and 2, its two runs, what it measured and what it told."""
    file = tmp_path_factory.mktemp("spaces") / "tiny.toml"
    file.write_text(TINY)
    searched, shown, runs = space.load(str(file)), [], []

    class Watched(lane_probe._Run):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            runs.append(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lane_probe, "AGENTS", 4)
        patched.setattr(lane_probe, "SPAN_S", 1e-3)
        patched.setattr(lane_probe, "_Run", Watched)
        probe = Probe(searched, space_config.of(searched), 2, shown.append)
        return probe, runs, probe.pairs(1), shown


@pytest.mark.slow
@pytest.mark.slow
def test_both_sizes_train_the_same_agents_for_the_same_steps(probed: Any) -> None:
    probe, (small, large), pairs, shown = probed
    assert len(pairs) == lane_probe.ROUNDS
    assert np.min(pairs) > 0
    assert [len(run._rows) for run in (small, large)] == [4, 2]
    assert small._total("step") == large._total("step") == 2 * 4 * small._tick * probe.config.tick
    assert small._total("updates") == large._total("updates") > 0
    assert shown == ["choosing lanes: compiling blocks of 1", "choosing lanes: compiling blocks of 2"]


@pytest.mark.slow
def test_agents_begin_anew_before_they_come_to_a_rung(probed: Any) -> None:
    run = probed[1][1]
    for _ in range(4):
        assert run.span(run.room // 2) > 0
    assert np.isnan(run.population.read(0).validation).all()
    assert run.population.read(0).step.max() < 400


def test_typical_agents_are_spread_over_the_space_and_always_the_same() -> None:
    article = space.load("article")
    agents = typical(article, 16)
    assert agents == typical(article, 16) == typical(article, 32)[:16]
    assert {agent.batch_size for agent in agents} == {16, 32, 64, 128}
    assert {agent.warmup_steps for agent in agents} == {0}
    assert {agent.warmup_steps for agent in typical(space.load("default"), 4)} == {500}
    assert typical(space.load("linear-good"), 3) == [space.load("linear-good").hyperparams({})] * 3


def test_a_memory_that_is_too_small_for_both_sizes_brings_no_pairs(
    tiny: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(block: int) -> None:
        raise MemoryError

    probe = Probe(tiny, space_config.of(tiny), 1, lambda _: None)
    monkeypatch.setattr(probe, "_compiled", full)
    assert probe.pairs(4) == []


def test_lanes_are_tried_once_and_then_remembered(tiny: Space, no_file: Path, tried: list[int]) -> None:
    (first, said_first), (second, said_second) = automatic(tiny), automatic(tiny)
    assert first == second == Layout(rows=2, devices=2, block=3)
    assert tried == [2]
    assert "12 lanes in 2 rows, blocks of 3 (tried" in said_first[-1]
    assert f"(remembered in {no_file})" in said_second[-1]
    assert [len(said_first), len(said_second)] == [1, 1]
    assert automatic(tiny, agents=4)[0].lanes == 4
    assert tried == [2]


@pytest.mark.parametrize("content", ["", '{"format": 1, "choices": {"KEY": {"block": "3", "gains": {}, "most": 9}}}'])
def test_a_damaged_file_is_said_in_a_line_and_lanes_are_tried_anew(
    tiny: Space, no_file: Path, tried: list[int], content: str
) -> None:
    key = auto_lanes.key(tiny.identity(), space_config.of(tiny), 2)
    no_file.write_text(content.replace("KEY", key))
    layout, shown = automatic(tiny)
    assert layout.block == 3
    assert len(shown) == 2
    assert shown[0].startswith(f"{no_file} can't be used: ")
    assert shown[0].endswith("; lanes are chosen anew")
    assert automatic(tiny)[0] == layout
    assert tried == [2]


def test_remembered_lanes_that_no_longer_fit_are_chosen_anew(
    tiny: Space, no_file: Path, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic(tiny)
    needed = memory.device_bytes(space_config.of(tiny), Layout(2, 1, 3, 3))
    monkeypatch.setattr(memory, "available_bytes", lambda num_devices: needed - 1)
    _, shown = automatic(tiny)
    assert tried == [2, 2]
    assert "blocks of 3 do not fit into the memory that is free" in shown[0]


def test_devices_without_memory_for_a_lane_are_refused(
    tiny: Space, no_file: Path, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda num_devices: 1_000.0)
    with pytest.raises(ValueError, match="not a single lane fits"):
        automatic(tiny)
    assert tried == []


def test_a_file_that_can_not_be_written_is_said_and_costs_nothing_else(
    tiny: Space, monkeypatch: pytest.MonkeyPatch, tried: list[int], tmp_path: Path
) -> None:
    monkeypatch.setattr(auto_lanes, "place", lambda: tmp_path / "missing" / "lanes.json")
    layout, shown = automatic(tiny)
    assert layout.block == 3
    assert shown[0].startswith("the choice of lanes is not remembered: No such file")


def test_a_resumed_study_keeps_its_layout_and_tries_nothing(tmp_path: Path, no_file: Path, tried: list[int]) -> None:
    result, shown = ran(tmp_path / "s", lanes="auto", trials=12, devices=1)
    assert result.layout.block == 3
    assert any("(tried" in line for line in said(shown)) is False  # it is told while the study is opened
    no_file.unlink()
    for settings in ({"lanes": "auto", "devices": 1}, {"lanes": "auto"}, {}):
        again, shown = ran(tmp_path / "s", trials=again_trials(result), **settings)
        assert again.layout == result.layout
        assert not [event for event in shown if isinstance(event, Resumed) and event.changed]
        result = again
    assert tried == [1]
    other, _ = ran(tmp_path / "s", trials=again_trials(result), lanes="auto", devices=2)
    assert other.layout.devices == 2
    assert tried == [1, 2]


def again_trials(result: Any) -> int:
    """A few more than a sweep had."""
    return int(sum(result.counts.values())) + 4


def test_a_study_without_a_wish_has_the_computed_layout(tmp_path: Path, no_file: Path, tried: list[int]) -> None:
    assert opening.devices.choose_layout().lanes == ran(tmp_path / "s")[0].layout.lanes
    assert tried == []
