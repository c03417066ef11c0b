"""Six functions on which samplers are compared, with their search spaces; all are minimised.

Five are standard or made by hand, with known optima; the sixth, `table`, is interpolated from a finished sweep of real
agents. They know distributions, nothing of samplers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)

Params = dict[str, Any]

NEIGHBOURS = 5  # rows of the table that make up a value
_SOFTENING = 0.01  # squared distance at which a row has half the weight it has at its own place
_DOMAIN = "#:"  # begins the line of a parameter's domain in a table

_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_A = np.array(
    [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


class Objective(NamedTuple):
    """A function of hyperparameters and the space it is searched in."""

    space: dict[str, BaseDistribution]
    value: Callable[[Params], float]  # the lower the better


def sphere(params: Params) -> float:
    """Σ xᵢ²: 0 at the origin."""
    return float(np.sum(_vector(params) ** 2))


def rosenbrock(params: Params) -> float:
    """Σ 100 (xᵢ₊₁ − xᵢ²)² + (1 − xᵢ)² (Rosenbrock 1960): a bent valley, 0 at (1, …, 1)."""
    x = _vector(params)
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def hartmann6(params: Params) -> float:
    """−Σ αᵢ exp(−Σ Aᵢⱼ (xⱼ − Pᵢⱼ)²) (Dixon and Szegő 1978): −3.32237 in one of its six hollows."""
    return float(-np.sum(_ALPHA * np.exp(-np.sum(_A * (_vector(params) - _P) ** 2, axis=1))))


def ackley(params: Params) -> float:
    """−20 exp(−√(Σ xᵢ² / n) / 5) − exp(Σ cos 2πxᵢ / n) + 20 + e (Ackley 1987): rippled, 0 at the origin."""
    x = _vector(params)
    ripples = np.exp(np.mean(np.cos(2 * np.pi * x)))
    return float(-20 * np.exp(-0.2 * np.sqrt(np.mean(x**2))) - ripples + 20 + math.e)


def mixed(params: Params) -> float:
    """Return 0 at (1e-3, adam, 64, 2 layers, 12 units, 0.9), more elsewhere; a wrong optimizer scales one slope up."""
    decades = abs(math.log10(params["learning_rate"]) + 3)
    optimizer = {"adam": 0.0, "sgd": 1.0, "rmsprop": 2.0}[params["optimizer"]]
    return float(
        decades**2
        + optimizer * (1 + decades)
        + 0.3 * abs(math.log2(params["batch_size"]) - 6)
        + (params["units"] - 12) ** 2 / 50
        + 2 * abs(params["momentum"] - 0.9)
        + 0.5 * (params["layers"] != 2)
    )


def table(path: Path) -> Objective:
    """Read a finished sweep; a value is −(mean return), weighted over the nearest rows by 1 / (distance² + 0.01).

    A table is tab-separated JSON below a line of names, the last of which is `mean_return`; `#:name<tab>domain` gives
    each parameter's distribution. Distances are taken on the unit cube, along logarithms where the search is.
    """
    lines = path.read_text("utf-8").splitlines()
    domains = (line.removeprefix(_DOMAIN).split("\t") for line in lines if line.startswith(_DOMAIN))
    space = {name: json_to_distribution(domain) for name, domain in domains}
    names, *rows = (line.split("\t") for line in lines if not line.startswith("#"))
    if names != [*space, "mean_return"]:
        raise ValueError(f"the columns of {path} are {names}: its domains say {[*space, 'mean_return']}")
    cells = [[json.loads(cell) for cell in row] for row in rows]
    points = np.array([_place(space, dict(zip(space, row[:-1], strict=True))) for row in cells])
    returns = np.array([row[-1] for row in cells])

    def value(params: Params) -> float:
        distances = np.sum((points - _place(space, params)) ** 2, axis=1)
        nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
        return -float(np.average(returns[nearest], weights=1 / (distances[nearest] + _SOFTENING)))

    return Objective(space, value)


def objectives(data: Path) -> dict[str, Objective]:
    """Return the six; the table is `default_sweep.tsv` in `data`."""
    return {
        "sphere": Objective(_cube(6, -5, 5), sphere),
        "rosenbrock": Objective(_cube(4, -2, 2), rosenbrock),
        "hartmann6": Objective(_cube(6, 0, 1), hartmann6),
        "ackley": Objective(_cube(6, -32, 32), ackley),
        "mixed": Objective(
            {
                "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
                "optimizer": CategoricalDistribution(["adam", "sgd", "rmsprop"]),
                "batch_size": CategoricalDistribution([8, 16, 32, 64, 128, 256]),
                "layers": CategoricalDistribution([0, 1, 2, 3]),
                "units": IntDistribution(1, 40),
                "momentum": FloatDistribution(0, 1, step=0.05),
            },
            mixed,
        ),
        "table": table(data / "default_sweep.tsv"),
    }


def _cube(num_axes: int, low: float, high: float) -> dict[str, BaseDistribution]:
    return {f"x{i}": FloatDistribution(low, high) for i in range(num_axes)}


def _vector(params: Params) -> Float[np.ndarray, " axes"]:
    return np.array([params[name] for name in sorted(params)])


def _place(space: dict[str, BaseDistribution], params: Params) -> Float[np.ndarray, " axes"]:
    return np.array([_coordinate(domain, params[name]) for name, domain in space.items()])


def _coordinate(domain: BaseDistribution, value: Any) -> float:
    """Return where in [0, 1] a value lies in its domain; choices lie in their order, evenly."""
    if isinstance(domain, CategoricalDistribution):
        return domain.choices.index(value) / max(len(domain.choices) - 1, 1)
    assert isinstance(domain, FloatDistribution | IntDistribution)
    low, high, value = (math.log(x) if domain.log else float(x) for x in (domain.low, domain.high, value))
    return (value - low) / (high - low)
