"""Every cell once, in an order that is even at any time."""

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from jaxdqn.grid import MAX_CELLS, GridSampler, cells, check_grid

SPACE: dict[str, BaseDistribution] = {
    "optimiser": CategoricalDistribution(["adam", None, True]),
    "layers": IntDistribution(1, 3),
    "width": IntDistribution(16, 64, step=16),
    "gamma": FloatDistribution(0.1, 0.3, step=0.1),
    "batch": IntDistribution(1, 5, log=True),
    "tau": FloatDistribution(0.5, 0.5),
}
VALUES: dict[str, list[Any]] = {
    "optimiser": ["adam", None, True],
    "layers": [1, 2, 3],
    "width": [16, 32, 48, 64],
    "gamma": [0.1, 0.2, 0.3],
    "batch": [1, 2, 3, 4, 5],
    "tau": [0.5],
}
NUM_CELLS = 3 * 3 * 4 * 3 * 5 * 1


def proposed(seed: int, numbers: range) -> list[dict[str, Any]]:
    return GridSampler(SPACE, seed).propose(None, SPACE, numbers)


def cell(params: dict[str, Any]) -> tuple[int, ...]:
    """The indices of a proposal's values."""
    return tuple(VALUES[name].index(pytest.approx(value)) for name, value in params.items())


def test_the_cells_are_the_product_of_what_each_parameter_may_be() -> None:
    assert cells(SPACE) == GridSampler(SPACE, 0).num_cells == check_grid(SPACE, 1.0) == NUM_CELLS
    for name, values in VALUES.items():
        assert cells({name: SPACE[name]}) == len(values)


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7, 0.333, 1e-3])
@pytest.mark.parametrize("low", [0.0, -0.2, 0.1, 12.3])
@pytest.mark.parametrize("num", [2, 7, 50])
def test_awkward_steps_are_counted_exactly(low: float, step: float, num: int) -> None:
    distribution = FloatDistribution(low, round(low + (num - 1) * step, 12), step=round(step, 12))
    assert cells({"x": distribution}) == num


def test_a_high_that_no_step_reaches_is_no_cell() -> None:
    with pytest.warns(UserWarning, match="not divisible"):
        space = {"x": IntDistribution(16, 70, step=16), "y": FloatDistribution(0.0, 1.0, step=0.3)}
    assert cells(space) == 4 * 4
    assert max(params["x"] for params in GridSampler(space, 0).propose(None, space, range(16))) == 64


def test_the_count_of_a_huge_grid_is_exact() -> None:
    space = {f"x{i}": IntDistribution(1, 10**6 + 1) for i in range(4)}
    assert cells(space) == (10**6 + 1) ** 4


def test_each_cell_is_asked_for_once() -> None:
    assert len({cell(params) for params in proposed(0, range(NUM_CELLS))}) == NUM_CELLS


def test_proposals_lie_in_their_distributions_with_the_right_types() -> None:
    for params in proposed(1, range(NUM_CELLS)):
        assert list(params) == list(SPACE)
        for name, value in params.items():
            distribution = SPACE[name]
            assert distribution._contains(distribution.to_internal_repr(value))
            if isinstance(distribution, CategoricalDistribution):
                assert any(value is choice for choice in distribution.choices)
            else:
                assert type(value) is (int if isinstance(distribution, IntDistribution) else float)


def test_a_sweep_cut_short_has_seen_an_even_sample() -> None:
    seen = [cell(params) for params in proposed(2, range(NUM_CELLS // 3))]
    for axis, values in enumerate(VALUES.values()):
        share = np.bincount([indices[axis] for indices in seen], minlength=len(values)) / len(seen)
        assert np.all(np.abs(share - 1 / len(values)) < 0.1)


def test_a_cell_depends_on_seed_and_number_alone() -> None:
    whole = proposed(3, range(NUM_CELLS))
    assert proposed(3, range(40, 60)) == whole[40:60]
    sampler = GridSampler(SPACE, 3)
    assert [sampler.propose(None, SPACE, [number])[0] for number in (7, 7, 5)] == [whole[7], whole[7], whole[5]]
    assert proposed(4, range(NUM_CELLS)) != whole


def test_a_number_beyond_the_grid_is_refused() -> None:
    sampler = GridSampler({"x": IntDistribution(0, 1)}, 0)
    assert sampler.propose(None, {}, []) == []
    with pytest.raises(ValueError, match="trial 2 is beyond the grid: it has 2 cells"):
        sampler.propose(None, {}, [0, 2, 1])


@pytest.mark.parametrize("log", [False, True])
def test_the_first_continuous_parameter_is_named(log: bool) -> None:
    space = SPACE | {"learning_rate": FloatDistribution(1e-5, 1e-2, log=log), "later": FloatDistribution(0.0, 1.0)}
    with pytest.raises(ValueError, match=r"^learning_rate is continuous: a grid needs choices or a step$"):
        check_grid(space, 1.0)


def test_a_grid_too_large_is_refused_with_its_cells_and_its_time() -> None:
    counts = (100, 96, 144)
    space = {f"x{i}": IntDistribution(1, count) for i, count in enumerate(counts)}
    with pytest.raises(ValueError, match="1,382,400") as refused:
        check_grid(space, 8.0)
    assert str(refused.value) == (
        "a grid over this space has 1,382,400 cells, about 3,100 hours on this machine: at most 10,000 are allowed; "
        "use choices that are fewer, or another --sampler"
    )


def test_a_grid_of_the_largest_size_is_allowed_and_one_cell_more_is_not() -> None:
    assert check_grid({"x": IntDistribution(1, MAX_CELLS)}, 1e9) == MAX_CELLS
    with pytest.raises(ValueError, match="has 10,001 cells, about 1 hours"):
        check_grid({"x": IntDistribution(0, MAX_CELLS)}, 1e-9)


def test_a_grid_beyond_the_largest_float_is_refused_like_any_other() -> None:
    with pytest.raises(ValueError, match=r"cells, about [\d,]+ hours"):
        check_grid({f"x{i}": IntDistribution(1, 2**50) for i in range(30)}, 0.5)
