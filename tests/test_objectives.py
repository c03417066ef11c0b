"""The functions samplers are compared on have the values and optima the literature gives them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

from jaxdqn.objectives import Objective, Params, objectives, table

DATA = Path(__file__).parent.parent / "scripts" / "data"
HOLLOW = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)
BEST_MIXED = {"learning_rate": 1e-3, "optimizer": "adam", "batch_size": 64, "layers": 2, "units": 12, "momentum": 0.9}


@pytest.fixture(scope="module")
def six() -> dict[str, Objective]:
    return objectives(DATA)


def point(*values: float) -> Params:
    return {f"x{i}": value for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("name", "params", "value"),
    [
        ("sphere", point(*[0.0] * 6), 0.0),
        ("sphere", point(1.0, -2.0, 0.0, 0.0, 0.0, 3.0), 14.0),
        ("rosenbrock", point(*[1.0] * 4), 0.0),
        ("rosenbrock", point(0.0, 0.0, 2.0, 0.0), 1 + (400 + 1) + (1_600 + 1)),
        ("hartmann6", point(*HOLLOW), -3.32237),
        ("ackley", point(*[0.0] * 6), 0.0),
        ("ackley", point(*[1.0] * 6), 20 - 20 * math.exp(-0.2)),
        ("mixed", BEST_MIXED, 0.0),
        ("mixed", BEST_MIXED | {"learning_rate": 1e-5, "optimizer": "sgd"}, 2**2 + 1 * (1 + 2)),
        ("mixed", BEST_MIXED | {"batch_size": 8, "layers": 0, "units": 22, "momentum": 0.4}, 0.9 + 0.5 + 2 + 1),
    ],
)
def test_a_function_has_its_known_value(six: dict[str, Objective], name: str, params: Params, value: float) -> None:
    assert six[name].value(params) == pytest.approx(value, abs=1e-5)
    assert set(six[name].space) == set(params)


@pytest.mark.parametrize("name", ["sphere", "rosenbrock", "hartmann6", "ackley"])
def test_no_random_point_is_below_the_optimum(six: dict[str, Objective], name: str) -> None:
    space, value = six[name]
    random = np.random.default_rng(0)
    bounds = [(d.low, d.high) for d in space.values() if isinstance(d, FloatDistribution)]
    values = [value(point(*(random.uniform(*bound) for bound in bounds))) for _ in range(500)]
    assert min(values) > {"hartmann6": -3.32237}.get(name, 0.0)


SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "width": CategoricalDistribution([32, 64, 128]),
    "layers": IntDistribution(1, 3),
}


def write(path: Path, *rows: str) -> Path:
    domains = [f"#:{name}\t{distribution_to_json(domain)}" for name, domain in SPACE.items()]
    path.write_text("\n".join(["# made by hand", *domains, *rows]) + "\n")
    return path


def test_a_table_has_the_return_of_a_row_at_its_place_and_a_mean_between_rows(tmp_path: Path) -> None:
    near = ["0.01\t64\t2\t100.0", "0.1\t64\t2\t200.0"]  # 0.25 of the logarithmic range apart
    far = ["1.0\t32\t1\t0.0"] * 3
    space, value = table(write(tmp_path / "t.tsv", "rate\twidth\tlayers\tmean_return", *near, *far))
    assert space == SPACE
    between = 1 / (0.125**2 + 0.01)
    others = 1 / (0.375**2 + 0.5**2 + 0.5**2 + 0.01)  # (10^-1.5, 64, 2) and (1, 32, 1)
    expected = -(100 + 200) * between / (2 * between + 3 * others)
    assert value({"rate": 10**-1.5, "width": 64, "layers": 2}) == pytest.approx(expected)


def test_at_a_row_of_a_table_its_own_return_weighs_most(tmp_path: Path) -> None:
    rows = ["0.0001\t32\t1\t400.0", *["1.0\t128\t3\t0.0"] * 4]  # at opposite corners
    _, value = table(write(tmp_path / "t.tsv", "rate\twidth\tlayers\tmean_return", *rows))
    assert value({"rate": 1e-4, "width": 32, "layers": 1}) == pytest.approx(-400 * 100 / (100 + 4 / 3.01))


def test_a_table_whose_columns_are_not_its_domains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['rate', 'layers', 'mean_return'\]"):
        table(write(tmp_path / "t.tsv", "rate\tlayers\tmean_return", "0.1\t2\t5.0"))


def test_the_stored_sweep_has_400_trials_of_13_parameters_in_their_domains(six: dict[str, Objective]) -> None:
    space, value = six["table"]
    lines = (DATA / "default_sweep.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")][1:]
    assert len(space) == 13
    assert len(rows) == 400
    returns = [float(row[-1]) for row in rows]
    assert all(0 < mean <= 500 for mean in returns)
    domains = [*space.values()]
    cells = [[json.loads(cell) for cell in row[:-1]] for row in rows]
    assert all(d._contains(d.to_internal_repr(x)) for row in cells for d, x in zip(domains, row, strict=True))
    best = cells[int(np.argmax(returns))]
    assert -500 <= value(dict(zip(space, best, strict=True))) < -400
