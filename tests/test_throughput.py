"""What `benchmark.py train` measures, at tiny sizes: the figures are made of what really happened."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from rich.console import Console, Group

from jaxdqn import benchmark, space, throughput, throughput_figures
from jaxdqn.benchmark import Rates, UniformPopulation, row_of
from jaxdqn.config import Config, Layout
from jaxdqn.cost import update_flops
from jaxdqn.mixed import MixedPopulation, Work, _hardly_exploring, _Turn, expected_s, mixed
from jaxdqn.peak import Peak
from jaxdqn.surroundings import surroundings
from jaxdqn.workload import Uniform, uniform

TINY = Uniform((8, 8), 4, 2, 3)
ASKED = {
    "hidden",
    "batch_size",
    "train_period",
    "gradient_steps",
    "lanes",
    "devices",
    "env_steps_per_s",
    "updates_per_s",
    "gflops",
    "share_of_peak",
    "compile_s",
}


class FixedPeak(Peak):
    """Samples that are known before."""

    def __init__(self, samples: list[float]) -> None:
        self.samples, self._coming = [], iter(samples)

    def sample(self) -> float:
        self.samples.append(next(self._coming))
        return self.samples[-1]


@pytest.fixture(scope="module")
def tiny() -> UniformPopulation:
    return UniformPopulation(TINY, Layout(rows=2, devices=2, block=2), "cpu", 0.1)


def test_a_population_past_its_warm_up_makes_the_updates_its_shape_asks_for(tiny: UniformPopulation) -> None:
    rates = tiny.span(0.1)
    assert rates.env_steps > 0
    assert rates.updates == pytest.approx(rates.env_steps * TINY.gradient_steps / TINY.train_period)


def test_a_span_counts_all_it_dispatched_and_nothing_twice(tiny: UniformPopulation) -> None:
    def total() -> int:
        rows = [tiny._population.read(row) for row in range(tiny.layout.rows)]
        return sum(int(np.sum(row.step)) for row in rows)

    before, counted = total(), 0.0
    for _ in range(3):
        known = [row.copy() for row in tiny._known]
        tiny.span(0.05)
        counted += sum(float((now - then)[0]) for now, then in zip(tiny._known, known, strict=True))
    assert total() - before == counted > 0


@pytest.mark.slow
def test_the_agents_of_a_benchmark_ask_their_networks_from_the_beginning() -> None:
    assert uniform(Uniform((8,), 8, 1, 1))[1].epsilon_start <= 0.05
    assert _hardly_exploring(space.load("article")).fixed["epsilon_start"] <= 0.05
    searched = space.load("lesson")
    searched = dataclasses.replace(searched, searched={"epsilon_start": FloatDistribution(0.5, 1.0)}, fixed={})
    assert "epsilon_start" not in _hardly_exploring(searched).fixed


def test_a_population_that_only_acts_makes_no_update() -> None:
    acting = UniformPopulation(TINY._replace(learning=False), Layout(1, 1, 1), "cpu", 0.1)
    rates = acting.span(0.05)
    assert rates.updates == 0
    assert rates.env_steps > 0


def test_useful_flops_by_hand() -> None:
    config, macs = Config(hidden_width=64, hidden_layers=2), 4 * 64 + 64 * 64 + 64 * 2
    assert update_flops(64, config) == 8 * 64 * macs
    assert update_flops(64, config, double_q=True) == 10 * 64 * macs


def test_a_row_is_made_of_medians_and_its_share_of_the_neighbouring_peaks(tiny: UniformPopulation) -> None:
    per_update = tiny.flops / 1e9
    rates = [Rates(10.0, 1 / per_update), Rates(30.0, 4 / per_update), Rates(20.0, 3 / per_update)]
    row = row_of(tiny, rates, [9.0, 11.0, 5.0, 7.0])
    assert row["hidden"] == [8, 8]
    assert (row["lanes"], row["devices"], row["env_steps_per_s"]) == (8, 2, 20)
    assert row["gflops"] == 3.0
    assert (row["share_of_peak"], row["share_of_peak_range"]) == (0.5, [0.1, 0.5])  # of 1/10, 4/8 and 3/6
    assert (row["peak_gflops"], row["peak_gflops_range"]) == (8.0, [5.0, 11.0])
    assert set(row) >= ASKED


def test_the_peak_is_sampled_around_every_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "UniformPopulation", StandIn)
    peak = FixedPeak([float(i) for i in range(1, 9)])
    row = benchmark.measure(TINY, Layout(1, 1, 1), "cpu", 0.05, 3, peak)
    assert len(peak.samples) == 4
    assert row["peak_gflops_range"] == [1.0, 4.0]


def test_a_peak_is_no_less_than_each_of_its_rivals() -> None:
    peak = Peak(2, size=64)
    assert len(peak._rivals) == 2
    assert Peak(1, size=64)._rivals[0][0] == 1
    assert len(Peak(1, size=64)._rivals) == 1  # NumPy's threads are not one device's
    assert peak.sample() > 0
    assert peak.samples == [pytest.approx(peak.samples[0])]


class StandIn:
    """A population of known speed: a thousand updates a second for each of up to 4 lanes, on each device."""

    compile_s, flops, lane_bytes = 1.0, 10**6, 100.0

    def __init__(self, shape: Uniform, layout: Layout, platform: str, longest_s: float) -> None:
        self.shape, self.layout = shape, layout

    def span(self, seconds: float) -> Rates:
        updates = 1_000.0 * min(self.layout.lanes, 4 * self.layout.devices)
        return Rates(updates, updates)


def rows_at(rates: list[float]) -> list[dict[str, Any]]:
    return [{"lanes": 2**i, "relative": rate} for i, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "knee", "linear"),
    [
        ([0.1, 0.2, 0.5, 0.95, 1.0, 0.98], 8, True),
        ([0.1, 0.2, 0.5, 0.95, 1.0, 0.7], 8, False),  # beyond some lanes a lane costs more
        ([1.0], 1, True),
        ([0.25, 0.5, 1.0], 4, True),
    ],
)
def test_the_knee_is_where_more_lanes_bring_less_than_a_tenth_more(rates: list[float], knee: int, linear: bool) -> None:
    found = throughput.knee_of(rows_at(rates))
    assert (found["knee"], found["linear"]) == (knee, linear)


def test_lanes_that_do_not_fit_are_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "UniformPopulation", StandIn)
    monkeypatch.setattr(throughput, "free_bytes", lambda: 2 * 32 * StandIn.lane_bytes)
    said: list[str] = []
    found = throughput.over_lanes((2, 3, 4, 8, 16, 32, 64), 0.05, 2, FixedPeak([1.0] * 99), said.append)
    assert [row["lanes"] for row in found["rows"]] == [2, 4, 8, 16, 32]  # two devices do not share three lanes
    assert [row["relative"] for row in found["rows"]] == [0.25, 0.5, 1.0, 1.0, 1.0]  # to 64 lanes
    assert found["do_not_fit"] == [64]
    assert (found["knee"], found["linear"], found["reference_updates_per_s"]) == (8, True, 8_000)
    assert all(set(row) >= ASKED for row in found["rows"])
    assert len(said) == 5


def test_lanes_that_the_device_refuses_are_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(StandIn):
        def __init__(self, shape: Uniform, layout: Layout, platform: str, longest_s: float) -> None:
            super().__init__(shape, layout, platform, longest_s)
            if layout.lanes > throughput.REFERENCE_LANES:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(throughput, "UniformPopulation", Small)
    found = throughput.over_lanes((4, 128), 0.05, 2, FixedPeak([1.0] * 99), lambda _: None)
    assert ([row["lanes"] for row in found["rows"]], found["do_not_fit"]) == ([4], [128])


def test_one_device_and_all_train_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "UniformPopulation", StandIn)
    monkeypatch.setattr(throughput, "Peak", lambda _: FixedPeak([1.0] * 99))
    found = throughput.over_devices(16, 0.05, 2, lambda _: None)
    assert [row["devices"] for row in found["rows"]] == [1, len(jax.local_devices())]
    assert [row["lanes"] for row in found["rows"]] == [8, 16]
    assert [row["relative"] for row in found["rows"]] == [1.0, 2.0]
    assert (found["ratio"], found["ratio_range"]) == (2.0, [2.0, 2.0])


def test_what_uniform_populations_take_by_hand() -> None:
    work = Work(seconds=4.0, env_steps=1_000, updates={16: 100, 32: 10})
    assert expected_s(work, 1e-3, {16: 5e-3, 32: 5e-2}) == pytest.approx(2.0)
    assert _Turn(work, 100.0, 1e-3, {16: 5e-3, 32: 5e-2}).ratio == pytest.approx(2.0)


@pytest.fixture
def small_space(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(
        'env = "CartPole-v1"\nenv_steps = 400\neval_episodes = 2\n[hyperparameters]\n'
        "batch_size = { choices = [2, 4] }\ntrain_period = { choices = [4, 8] }\n"
        "gradient_steps = { choices = [1, 2] }\n"
        "warmup_steps = 8\nbuffer_size = 64\nhidden_width = 8\n"
    )
    return str(path)


@pytest.mark.slow
def test_a_search_that_stands_still_between_spans_counts_what_its_agents_do(small_space: str) -> None:
    searched = MixedPopulation(small_space, "cpu")
    first, second = searched.span(0.2), searched.span(0.2)
    searched.close()
    for work in (first, second):
        assert work.seconds >= 0.2
        assert work.env_steps > 0
        assert set(work.updates) == {2, 4}
        assert 0 < sum(work.updates.values()) <= work.env_steps / 4 * 2


@pytest.mark.slow
def test_the_mixed_space_is_compared_with_uniform_populations_of_its_shapes(small_space: str) -> None:
    said: list[str] = []
    found = mixed(0.1, 2, said.append, name=small_space)
    assert set(found) >= ASKED
    assert found["batch_size"] == [2, 4]
    assert found["gradient_steps"] == [1, 2]
    assert found["share_of_uniform"] == pytest.approx(1 / found["ratio"], abs=2e-3)
    assert found["share_of_uniform_range"][0] <= found["share_of_uniform"] <= found["share_of_uniform_range"][1]
    assert sum(found["updates"].values()) > 0
    assert any("turn 2 of 2" in line for line in said)


ROW = {
    "hidden": [256, 256],
    "batch_size": 128,
    "train_period": 8,
    "gradient_steps": 1,
    "lanes": 4096,
    "devices": 2,
    "block": 4,
    "env_steps_per_s": 1_234_567,
    "updates_per_s": 123_456,
    "updates_per_s_range": [100_000, 200_000],
    "gflops": 123.4,
    "peak_gflops": 321.0,
    "peak_gflops_range": [300.0, 340.0],
    "share_of_peak": 0.384,
    "share_of_peak_range": [0.3, 1.05],
    "compile_s": 123.45,
    "relative": 1.93,
    "relative_range": [1.8, 2.0],
    "share_of_uniform_range": [0.7, 0.8],
}
MEASURED: dict[str, dict[str, Any]] = {
    "uniform": {"rows": [ROW, ROW | {"train_period": 1, "gradient_steps": 16}]},
    "mixed": {"rows": [ROW | {"batch_size": [16, 32, 64, 128]}], "share_of_uniform": 0.75},
    "devices": {"rows": [ROW | {"devices": 1}, ROW], "ratio": 1.93, "ratio_range": [1.8, 2.0]},
    "lanes": {
        "rows": [ROW | {"lanes": 2**i, "updates_per_s_range": [2**i, 2 ** (i + 1)]} for i in range(13)],
        "knee": 64,
        "differs_past_knee": 0.04,
        "linear": True,
        "reference_lanes": 64,
        "reference_updates_per_s": 20_000,
        "do_not_fit": [8192],
    },
}


@pytest.mark.parametrize("part", MEASURED)
def test_tables_fit_80_columns_and_say_what_was_measured(part: str) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(Group(throughput_figures.shown(part, MEASURED[part])))
    text = console.export_text()
    assert "123,456" in text
    assert "…" not in text
    assert {"uniform": "8", "mixed": "75%", "devices": "1.93 (1.80-2.00)", "lanes": "knee: 64 lanes"}[part] in text


def test_figures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    throughput_figures.draw({}, tmp_path)
    assert not list(tmp_path.iterdir())
    throughput_figures.draw(MEASURED, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-lanes.png", "train-share.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_a_summary_has_every_row_with_its_part() -> None:
    peak = FixedPeak([3.0, 1.0, 2.0])
    for _ in range(3):
        peak.sample()
    found = throughput.summary(surroundings(), peak, MEASURED)
    assert [row["part"] for row in found["rows"]] == ["uniform"] * 2 + ["mixed"] + ["devices"] * 2 + ["lanes"] * 13
    assert (found["peak_gflops"], found["peak_gflops_range"]) == (2.0, [1.0, 3.0])
    assert found["lanes"]["knee"] == 64
    assert found["versions"]["jax"] == jax.__version__
