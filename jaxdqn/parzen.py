"""Parzen estimators over a search space: mixtures of product kernels, under which many points are scored at once.

A numerical parameter lives on the unit interval (of its logarithm, if it is searched there), one with few values on
the cells of that interval, a categorical one on its choices. The logarithm of a product kernel is a bilinear form:
features of the point times features of the kernel, so that all points under all kernels are one matrix product.
Knows distributions, nothing of trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.special import ndtr, ndtri

MAX_CELLS = 64  # a numerical parameter with more values is taken for continuous
MIN_WIDTH = 0.03  # of a kernel, in units of the interval: it never shrinks to its point
_CHUNK = 256  # points scored in one matrix product, which bounds memory
_TINY = 1e-12  # probability below which a cell is as good as impossible

Points = Float[np.ndarray, "points axes"]  # a coordinate in [0, 1], or the index of a cell


class Axis:
    """One parameter as a coordinate: a number in [0, 1], or the index of a cell where there are few values."""

    def __init__(self, distribution: BaseDistribution) -> None:
        """Lay a distribution out."""
        self.distribution = distribution
        self.categorical = isinstance(distribution, CategoricalDistribution)
        self.cells = 0  # 0: continuous
        self.edges: Float[np.ndarray, " edges"] | None = None  # of a numerical parameter's cells, on the interval
        if isinstance(distribution, CategoricalDistribution):
            self.cells = len(distribution.choices)
            return
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        self.low, self.high, self.log = float(distribution.low), float(distribution.high), distribution.log
        self.step = float(distribution.step or 0.0)
        start, end = self.low - self.step / 2, self.high + self.step / 2
        self.start, self.end = (math.log(start), math.log(end)) if self.log else (start, end)
        values = round((self.high - self.low) / self.step) + 1 if self.step else 0
        if self.start == self.end:  # one value, or several that are one to a logarithm
            self.cells, self.edges = 1, np.array([0.0, 1.0])
        elif 0 < values <= MAX_CELLS:
            borders = start + self.step * np.arange(values + 1)
            borders = np.log(borders) if self.log else borders
            self.cells, self.edges = values, (borders - self.start) / (self.end - self.start)

    @property
    def num_features(self) -> int:
        """Features of a point on this axis."""
        return self.cells or 2

    def holds(self, value: Any) -> bool:
        """Return whether the parameter may have this value."""
        if isinstance(self.distribution, CategoricalDistribution):
            return value in self.distribution.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def encode(self, value: Any) -> float:
        """Return the coordinate of a value."""
        if self.categorical:
            return self.distribution.to_internal_repr(value)
        if self.cells:
            return float(round((value - self.low) / self.step)) if self.cells > 1 else 0.0
        return ((math.log(value) if self.log else value) - self.start) / (self.end - self.start)

    def decode(self, coordinate: float) -> Any:
        """Return the value at a coordinate: inside the distribution, and of its Python type."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices[int(coordinate)]
        if self.cells:
            value = self.low + self.step * int(coordinate)
        else:
            value = self.start + coordinate * (self.end - self.start)
            value = math.exp(value) if self.log else value
            if self.step:
                value = self.low + self.step * round((value - self.low) / self.step)
        value = min(max(value, self.low), self.high)
        return round(value) if isinstance(self.distribution, IntDistribution) else value

    def prior(self, uniform: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Return the coordinates of uniform draws from [0, 1): every value (of the interval) is as likely."""
        if not self.cells:
            return uniform
        edges = np.arange(self.cells + 1) / self.cells if self.edges is None else self.edges
        return np.clip(np.searchsorted(edges, uniform, side="right") - 1, 0, self.cells - 1).astype(float)

    def centres(self, coordinates: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Return numerical coordinates on the interval: of a cell, its centre."""
        if self.edges is None:
            return coordinates
        return ((self.edges[1:] + self.edges[:-1]) / 2)[coordinates.astype(int)]


def axes_of(space: Mapping[str, BaseDistribution]) -> list[Axis]:
    """Return the axes of a search space, in its order."""
    return [Axis(distribution) for distribution in space.values()]


class Mixture(NamedTuple):
    """Kernels, all of the same weight."""

    axes: list[Axis]
    centres: Points
    widths: Float[np.ndarray, "kernels axes"]  # standard deviation, or the share a categorical kernel spreads evenly
    factors: Float[np.ndarray, "features kernels"]  # of a point's features …
    constants: Float[np.ndarray, " kernels"]  # … and what is added: the logarithms of the kernels' densities


def width(scale: float, num_points: int, num_axes: int) -> float:
    """Return the width of a mixture's kernels: scale · n^(−1/(d + 4)) (Watanabe 2023), at least `MIN_WIDTH`."""
    return max(scale * max(num_points, 1) ** (-1.0 / (num_axes + 4)), MIN_WIDTH)


def fit(axes: list[Axis], points: Points, scale: float, size: int, prior: bool = True) -> Mixture:
    """Return the mixture with one kernel a point, and one for the prior over the whole space.

    Args:
        axes: the search space.
        points: coordinates.
        scale: of the kernels' widths.
        size: number of points the widths are chosen for.
        prior: with the prior's kernel.
    """
    centres, widths = np.empty(points.shape), np.empty(points.shape)
    for i, axis in enumerate(axes):
        centres[:, i] = axis.centres(points[:, i])
        widths[:, i] = axis.cells / (axis.cells + size) if axis.categorical else width(scale, size, len(axes))
    if prior:
        centre = [0.0 if axis.categorical else 0.5 for axis in axes]
        centres, widths = np.vstack([centre, centres]), np.vstack([np.ones(len(axes)), widths])
    return Mixture(axes, centres, widths, *_kernels(axes, centres, widths))


def join(a: Mixture, b: Mixture) -> Mixture:
    """Return the mixture of all kernels of two."""
    return Mixture(
        axes=a.axes,
        centres=np.vstack([a.centres, b.centres]),
        widths=np.vstack([a.widths, b.widths]),
        factors=np.hstack([a.factors, b.factors]),
        constants=np.append(a.constants, b.constants),
    )


def _kernels(
    axes: list[Axis], centres: Points, widths: Float[np.ndarray, "kernels axes"]
) -> tuple[Float[np.ndarray, "features kernels"], Float[np.ndarray, " kernels"]]:
    """Return factors and constants of kernels: truncated normal distributions, and choices mixed with all others."""
    num = len(centres)
    factors, constants = np.empty((sum(axis.num_features for axis in axes), num)), np.zeros(num)
    at = 0
    for axis, centre, deviation in zip(axes, centres.T, widths.T, strict=True):
        rows = factors[at : at + axis.num_features]
        at += axis.num_features
        if axis.categorical:
            rows[:] = deviation / axis.cells
            rows[centre.astype(int), np.arange(num)] += 1 - deviation
            np.log(np.maximum(rows, _TINY), out=rows)
            continue
        inside = ndtr((1 - centre) / deviation) - ndtr(-centre / deviation)
        if axis.edges is not None:
            below = ndtr((axis.edges[:, None] - centre) / deviation)
            rows[:] = np.log(np.maximum((below[1:] - below[:-1]) / inside, _TINY))
        else:
            rows[0], rows[1] = -0.5 / deviation**2, centre / deviation**2
            constants -= 0.5 * (centre / deviation) ** 2 + np.log(math.sqrt(2 * math.pi) * deviation * inside)
    return factors, constants


def features(axes: list[Axis], points: Points) -> Float[np.ndarray, "points features"]:
    """Return what a mixture's factors are multiplied with: u², u, or a one for the cell."""
    out = np.zeros((len(points), sum(axis.num_features for axis in axes)))
    at = 0
    for axis, coordinates in zip(axes, points.T, strict=True):
        if axis.cells:
            out[np.arange(len(points)), at + coordinates.astype(int)] = 1.0
        else:
            out[:, at], out[:, at + 1] = coordinates**2, coordinates
        at += axis.num_features
    return out


def log_density(mixture: Mixture, of_points: Float[np.ndarray, "points features"]) -> Float[np.ndarray, " points"]:
    """Return the logarithm of the sum of all kernels at points given by their features."""
    out = np.full(len(of_points), -np.inf)
    if not mixture.constants.size:
        return out
    for start in range(0, len(of_points), _CHUNK):
        under = of_points[start : start + _CHUNK] @ mixture.factors
        under += mixture.constants
        highest = under.max(axis=1)
        under -= highest[:, None]
        np.exp(under, out=under)
        out[start : start + _CHUNK] = highest + np.log(under.sum(axis=1))
    return out


def sample(mixture: Mixture, uniform: Float[np.ndarray, "points axes+1"]) -> Points:
    """Draw points: the first uniform number of each chooses its kernel, each other one a coordinate."""
    kernel = (uniform[:, 0] * len(mixture.centres)).astype(int)
    out = np.empty((len(uniform), len(mixture.axes)))
    for i, axis in enumerate(mixture.axes):
        centre, deviation, draw = mixture.centres[kernel, i], mixture.widths[kernel, i], uniform[:, i + 1]
        if axis.categorical:
            other = axis.prior(np.clip((draw - (1 - deviation)) / deviation, 0.0, 1.0))
            out[:, i] = np.where(draw < 1 - deviation, centre, other)
            continue
        low, high = ndtr(-centre / deviation), ndtr((1 - centre) / deviation)
        coordinate = np.clip(centre + deviation * ndtri(low + draw * (high - low)), 0.0, 1.0)
        out[:, i] = axis.prior(coordinate) if axis.cells else coordinate
    return out


def encode(axes: Sequence[Axis], values: Sequence[Any]) -> Float[np.ndarray, " axes"]:
    """Return the coordinates of a point, given one value an axis."""
    return np.array([axis.encode(value) for axis, value in zip(axes, values, strict=True)])


def decode(axes: Sequence[Axis], point: Float[np.ndarray, " axes"]) -> list[Any]:
    """Return the values of a point, one an axis."""
    return [axis.decode(coordinate) for axis, coordinate in zip(axes, point.tolist(), strict=True)]
