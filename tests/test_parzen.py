"""Coordinates, densities and draws, against slow direct computations."""

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import integrate, stats

from jaxdqn import parzen
from jaxdqn.parzen import Axis, Mixture

CHOICES: list[Any] = [None, True, False, 2, -3, 0.5, 1e-4, "adam", "relu", ""]
MIXED: dict[str, BaseDistribution] = {
    "continuous": FloatDistribution(-3.0, 5.0),
    "log": FloatDistribution(1e-5, 1e-1, log=True),
    "stepped": FloatDistribution(0.0, 1.0, step=0.1),
    "int": IntDistribution(0, 3),
    "log int": IntDistribution(1, 20, log=True),
    "many ints": IntDistribution(0, 1000),
    "choice": CategoricalDistribution(["a", None, 3]),
    "single": FloatDistribution(0.3, 0.3),
}


@st.composite
def distributions(draw: st.DrawFn) -> BaseDistribution:
    """A distribution of any kind: with awkward steps, highs that no step reaches, single values."""
    kind = draw(st.sampled_from(["float", "log", "step", "int", "log int", "int step", "choices"]))
    if kind == "choices":
        return CategoricalDistribution(draw(st.lists(st.sampled_from(CHOICES), min_size=1, unique=True)))
    if kind == "float":
        low = draw(st.floats(-1e6, 1e6))
        return FloatDistribution(low, low + draw(st.one_of(st.floats(0.0, 1e-3), st.floats(0.0, 1e9))))
    if kind == "log":
        low = 10.0 ** draw(st.floats(-12, 6))
        return FloatDistribution(low, low * 10.0 ** draw(st.one_of(st.floats(0, 1e-12), st.floats(0, 12))), log=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the high is lowered to what a step reaches
        if kind == "step":
            low, step = draw(st.integers(-50, 50)) / 10, draw(st.sampled_from([1e-3, 0.1, 0.25, 0.3, 0.7, 3.0]))
            return FloatDistribution(low, low + step * draw(st.floats(0, 300)), step=step)
        low_int, width = draw(st.integers(-1000, 1000)), draw(st.one_of(st.integers(0, 8), st.integers(0, 10**6)))
        if kind == "int":
            return IntDistribution(low_int, low_int + width)
        if kind == "log int":
            return IntDistribution(abs(low_int) + 1, abs(low_int) + 1 + width, log=True)
        return IntDistribution(low_int, low_int + width, step=draw(st.sampled_from([2, 3, 7, 100])))


def value_at(distribution: BaseDistribution, share: float) -> Any:
    """A value of a distribution, this share of the way through its values."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(share * len(distribution.choices)), len(distribution.choices) - 1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None:
        return min(low + share * (high - low), high)
    return min(low + step * round(share * (high - low) / step), high)


def is_inside(distribution: BaseDistribution, value: Any) -> bool:
    """Whether Optuna would take this value, and whether it has the right Python type."""
    if isinstance(distribution, CategoricalDistribution):
        return any(value is choice for choice in distribution.choices)
    kind = int if isinstance(distribution, IntDistribution) else float
    return type(value) is kind and distribution._contains(distribution.to_internal_repr(value))


def some_points(axes: list[Axis], num: int, seed: int) -> parzen.Points:
    """Points that are even over the values."""
    uniform = np.random.default_rng(seed).random((num, len(axes)))
    return np.stack([axis.prior(uniform[:, i]) for i, axis in enumerate(axes)], axis=1)


def direct_density(mixture: Mixture, point: list[float]) -> float:
    """The sum over kernels of the product over axes, as it is written in books."""
    total = 0.0
    for centre, deviation in zip(mixture.centres, mixture.widths, strict=True):
        product = 1.0
        for axis, c, d, u in zip(mixture.axes, centre, deviation, point, strict=True):
            if axis.categorical:
                product *= d / axis.cells + (1 - d) * (u == c)
                continue
            normal = stats.truncnorm(-c / d, (1 - c) / d, loc=c, scale=d)
            if axis.edges is None:
                product *= normal.pdf(u)
            else:
                product *= normal.cdf(axis.edges[int(u) + 1]) - normal.cdf(axis.edges[int(u)])
        total += product
    return total


def density(mixture: Mixture, points: parzen.Points) -> Any:
    return np.exp(parzen.log_density(mixture, parzen.features(mixture.axes, points)))


@given(distributions(), st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_a_value_survives_its_coordinate(distribution: BaseDistribution, share: float) -> None:
    axis, value = Axis(distribution), value_at(distribution, share)
    coordinate = axis.encode(value)
    assert axis.holds(value)
    assert 0 <= coordinate <= (axis.cells - 1 if axis.cells else 1)
    decoded = axis.decode(coordinate)
    assert is_inside(distribution, decoded)
    assert decoded == value or decoded == pytest.approx(value, rel=1e-9, abs=1e-9)


@given(distributions(), st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_every_coordinate_is_a_value_of_the_distribution(distribution: BaseDistribution, uniform: float) -> None:
    axis = Axis(distribution)
    assert is_inside(distribution, axis.decode(float(axis.prior(np.array([uniform]))[0])))


@pytest.mark.parametrize(
    ("distribution", "value", "coordinate"),
    [
        (FloatDistribution(-1.0, 3.0), 0.0, 0.25),
        (FloatDistribution(1e-4, 1.0, log=True), 1e-1, 0.75),
        (FloatDistribution(0.0, 1.0, step=0.1), 0.3, 3.0),
        (FloatDistribution(0.0, 99.0, step=1.0), 12.0, 0.125),  # the interval is [−½, 99½], as every value has a cell
        (IntDistribution(5, 11, step=2), 9, 2.0),
        (IntDistribution(1, 8, log=True), 4, 3.0),
        (IntDistribution(0, 999), 499, 0.4995),
        (CategoricalDistribution(["a", None, 3]), None, 1.0),
        (FloatDistribution(7.0, 7.0), 7.0, 0.0),
    ],
)
def test_coordinates_computed_by_hand(distribution: BaseDistribution, value: Any, coordinate: float) -> None:
    assert Axis(distribution).encode(value) == pytest.approx(coordinate)
    assert Axis(distribution).decode(coordinate) == pytest.approx(value)


def test_a_value_elsewhere_is_not_held() -> None:
    assert not Axis(FloatDistribution(0.0, 1.0)).holds(1.5)
    assert not Axis(IntDistribution(1, 4)).holds("2")
    assert not Axis(IntDistribution(1, 4)).holds(None)
    assert not Axis(CategoricalDistribution(["a", "b"])).holds("c")


def test_two_values_that_are_one_to_a_logarithm_are_one_cell() -> None:
    distribution = FloatDistribution(1e10, math.nextafter(1e10, math.inf), log=True)
    axis = Axis(distribution)
    assert axis.cells == 1
    assert axis.encode(distribution.high) == 0.0
    assert is_inside(distribution, axis.decode(0.0))


def test_points_of_a_whole_space_are_encoded_and_decoded_in_its_order() -> None:
    axes = parzen.axes_of(MIXED)
    values = [1.0, 1e-3, 0.3, 2, 7, 500, None, 0.3]
    coordinates = parzen.encode(axes, values)
    assert coordinates.tolist() == pytest.approx([0.5, 0.5, 3, 2, 6, 500.5 / 1001, 1, 0])
    assert parzen.decode(axes, coordinates) == [
        pytest.approx(value) if value is not None else value for value in values
    ]


def test_the_cells_of_a_logarithmic_integer_are_even_on_its_logarithm() -> None:
    axis = Axis(IntDistribution(1, 4, log=True))
    assert axis.edges is not None
    expected = [math.log(ratio) / math.log(9) for ratio in (1, 3, 5, 7, 9)]  # ½, 1½, 2½, 3½, 4½ over ½
    assert axis.edges.tolist() == pytest.approx(expected)
    assert axis.prior(np.array([0.0, 0.49, 0.51, 0.74, 0.999])).tolist() == [0, 0, 1, 2, 3]


def test_widths_shrink_with_the_points_to_a_least_width() -> None:
    assert parzen.width(1.0, 32, 1) == pytest.approx(0.5)  # 32^(−1/5)
    assert parzen.width(1.0, 64, 2) == pytest.approx(0.5)  # 64^(−1/6)
    assert parzen.width(0.12, 0, 3) == 0.12
    assert parzen.width(0.12, 10**9, 1) == parzen.MIN_WIDTH


def test_a_kernel_of_choices_computed_by_hand() -> None:
    axes = [Axis(CategoricalDistribution(["a", "b"]))]
    mixture = parzen.fit(axes, np.array([[0.0]]), 1.0, size=2, prior=False)
    assert mixture.widths.tolist() == [[0.5]]  # 2 choices / (2 choices + 2 points)
    assert density(mixture, np.array([[0.0], [1.0]])) == pytest.approx([0.75, 0.25])


def test_a_kernel_of_cells_computed_by_hand() -> None:
    axes = [Axis(IntDistribution(0, 1))]
    mixture = parzen.fit(axes, np.array([[0.0]]), 0.25, size=1, prior=False)
    assert mixture.centres.tolist() == [[0.25]]
    normal = stats.norm(0.25, 0.25)  # one deviation to the edges 0 and ½, three to 1
    inside = normal.cdf(1.0) - normal.cdf(0.0)
    expected = [(0.841345 - 0.158655) / inside, (0.998650 - 0.841345) / inside]
    assert density(mixture, np.array([[0.0], [1.0]])) == pytest.approx(expected, rel=1e-5)


def test_a_continuous_kernel_computed_by_hand() -> None:
    mixture = parzen.fit([Axis(FloatDistribution(0.0, 1.0))], np.array([[0.0]]), 0.1, size=1, prior=False)
    at_centre = 2 / (0.1 * math.sqrt(2 * math.pi))  # half of the normal distribution is inside
    assert density(mixture, np.array([[0.0], [0.1]])) == pytest.approx([at_centre, at_centre * math.exp(-0.5)])


def test_the_prior_is_one_more_kernel_over_the_whole_space() -> None:
    axes = parzen.axes_of(MIXED)
    mixture = parzen.fit(axes, np.empty((0, len(axes))), 0.1, size=0)
    assert len(mixture.centres) == 1
    choice = parzen.fit(axes[6:7], np.empty((0, 1)), 0.1, size=0)
    assert density(choice, np.array([[0.0], [1.0], [2.0]])) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("distribution", [MIXED["continuous"], MIXED["log"], MIXED["many ints"]])
@pytest.mark.parametrize("centre", [0.0, 0.01, 0.4, 1.0])
@pytest.mark.parametrize("scale", [0.0, 0.25, 5.0])
def test_a_continuous_kernel_integrates_to_one(distribution: BaseDistribution, centre: float, scale: float) -> None:
    mixture = parzen.fit([Axis(distribution)], np.array([[centre]]), scale, size=10, prior=False)
    grid = np.linspace(0, 1, 4001)
    assert integrate.trapezoid(density(mixture, grid[:, None]), grid) == pytest.approx(1.0, abs=1e-5)


@given(distributions(), st.floats(0, 1), st.floats(0.05, 2), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_the_masses_of_a_kernel_s_cells_sum_to_one(
    distribution: BaseDistribution, share: float, scale: float, size: int
) -> None:
    axis = Axis(distribution)
    if not axis.cells:
        return
    point = np.array([[axis.encode(value_at(distribution, share))]])
    mixture = parzen.fit([axis], point, scale, size, prior=False)
    cells = np.arange(float(axis.cells))[:, None]
    assert density(mixture, cells).sum() == pytest.approx(1.0, abs=1e-8)


def test_the_density_of_a_mixed_space_is_the_sum_over_kernels_of_products() -> None:
    axes = parzen.axes_of(MIXED)
    mixture = parzen.fit(axes, some_points(axes, 7, seed=0), 0.25, size=7)
    points = some_points(axes, 20, seed=1)
    assert density(mixture, points) == pytest.approx([direct_density(mixture, p) for p in points.tolist()], rel=1e-9)


def test_more_points_than_one_chunk_are_scored_alike() -> None:
    axes = parzen.axes_of(MIXED)
    mixture = parzen.fit(axes, some_points(axes, 5, seed=0), 0.25, size=5)
    of_points = parzen.features(axes, some_points(axes, 600, seed=1))
    singly = [parzen.log_density(mixture, of_points[i : i + 1])[0] for i in range(600)]
    assert parzen.log_density(mixture, of_points) == pytest.approx(singly)


def test_two_joined_mixtures_are_one() -> None:
    axes = parzen.axes_of(MIXED)
    points, at = some_points(axes, 9, seed=0), some_points(axes, 5, seed=1)
    whole = parzen.fit(axes, points, 0.25, size=9)
    parts = parzen.join(
        parzen.fit(axes, points[:4], 0.25, size=9), parzen.fit(axes, points[4:], 0.25, size=9, prior=False)
    )
    assert density(parts, at) == pytest.approx(density(whole, at), rel=1e-12)
    nothing = parzen.fit(axes, points[:0], 0.25, size=9, prior=False)
    assert density(parzen.join(nothing, whole), at) == pytest.approx(density(whole, at), rel=1e-12)


def test_the_density_of_no_kernels_is_nothing() -> None:
    axes = parzen.axes_of(MIXED)
    nothing = parzen.fit(axes, np.empty((0, len(axes))), 0.25, size=3, prior=False)
    assert parzen.log_density(nothing, parzen.features(axes, some_points(axes, 3, seed=0))).tolist() == [-math.inf] * 3


def test_far_kernels_neither_overflow_nor_vanish() -> None:
    axes = [Axis(FloatDistribution(0.0, 1.0)) for _ in range(50)]
    mixture = parzen.fit(axes, np.zeros((3, 50)), 0.0, size=3, prior=False)
    far = parzen.log_density(mixture, parzen.features(axes, np.ones((1, 50))))
    assert np.isfinite(far).all()
    assert far[0] < -10_000


def test_draws_follow_the_mixture() -> None:
    space = {"choice": CategoricalDistribution("abc"), "cells": IntDistribution(1, 5, log=True)}
    axes = parzen.axes_of(space | {"float": FloatDistribution(0.0, 1.0)})
    points = np.array([[0.0, 4.0, 0.1], [2.0, 0.0, 1.0]])
    mixture = parzen.fit(axes, points, 0.2, size=2)
    num, edges, grid = 40_000, np.linspace(0, 1, 9), np.linspace(0, 1, 801)
    drawn = parzen.sample(mixture, np.random.default_rng(0).random((num, 4)))
    for choice, cell in itertools.product(range(3), range(5)):
        here = drawn[(drawn[:, 0] == choice) & (drawn[:, 1] == cell), 2]
        shares = np.histogram(here, edges)[0] / num
        along = density(mixture, np.column_stack([np.full(801, choice), np.full(801, cell), grid])) / 3  # kernels
        mass = integrate.cumulative_trapezoid(along, grid, initial=0)[::100]
        expected = np.diff(mass)
        assert np.all(np.abs(shares - expected) < 5 * np.sqrt(expected / num) + 1e-4)


def test_draws_from_the_ends_of_the_unit_interval_stay_in_the_space() -> None:
    axes = parzen.axes_of(MIXED)
    mixture = parzen.fit(axes, some_points(axes, 17, seed=3), 0.01, size=1000)
    ends = np.array([0.0, math.nextafter(1.0, 0.0)])
    for first in ends:
        for other in ends:
            uniform = np.full((1, len(axes) + 1), other)
            uniform[0, 0] = first
            for value, distribution in zip(
                parzen.decode(axes, parzen.sample(mixture, uniform)[0]), MIXED.values(), strict=True
            ):
                assert is_inside(distribution, value)
