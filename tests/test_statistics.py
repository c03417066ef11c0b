"""Intervals and means: known numbers, outliers, and data that leaves nothing to resample."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxdqn.statistics import Interval, bootstrap_interval, interquartile_mean, wilson

NUMBERS = st.floats(-1e6, 1e6)
SYMMETRICAL = [500.0 + x for x in range(-20, 21)]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_score_interval_is_that_of_the_literature(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, method 3."""
    assert wilson(successes, n) == pytest.approx(Interval(low, high), abs=5e-5)


def test_the_score_interval_is_its_formula() -> None:
    z, share, n = 1.6448536269514722, 0.3, 10
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    expected = Interval((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    assert wilson(3, 10, confidence=0.9) == pytest.approx(expected)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_the_share_lies_in_its_interval_and_failures_mirror_successes(
    tried: tuple[int, int], confidence: float
) -> None:
    successes, n = tried
    low, high = wilson(successes, n, confidence)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high
    assert wilson(n - successes, n, confidence) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_all_or_nothing_leaves_room_for_doubt_on_one_side() -> None:
    assert wilson(16, 16).high == 1.0
    assert wilson(16, 16).low == pytest.approx(0.8064, abs=5e-5)
    assert wilson(0, 16).low == 0.0


def test_of_nothing_tried_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (0, -1)])
def test_impossible_counts_are_quoted(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {n} are not possible"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5, math.nan])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match=f"confidence = {confidence} is not allowed"):
        wilson(1, 2, confidence)
    with pytest.raises(ValueError, match=f"confidence = {confidence} is not allowed"):
        bootstrap_interval([1.0, 2.0], np.mean, confidence)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([4.0], 4.0),
        ([1.0, 3.0], 2.0),
        ([9.0, 1.0, 2.0], 4.0),  # ⌊3 / 4⌋ = 0 are left out
        ([100.0, 2.0, -100.0, 4.0], 3.0),
        ([5.0, 100.0, 1.0, -100.0, 3.0], 3.0),
        ([1e9, 1e9, 10.0, 20.0, 30.0, 40.0, -1e9, -1e9], 25.0),
    ],
)
def test_the_outer_quarters_are_left_out(values: list[float], mean: float) -> None:
    assert interquartile_mean(values) == mean


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_interquartile_mean_is_a_trimmed_one_in_any_order(values: list[float], random: object) -> None:
    expected = pytest.approx(float(stats.trim_mean(values, 0.25)), rel=1e-9, abs=1e-6)
    assert interquartile_mean(values) == expected
    random.shuffle(values)  # type: ignore[attr-defined]
    assert interquartile_mean(values) == expected


def test_an_outlier_is_no_matter_however_far_it_lies() -> None:
    assert interquartile_mean([*SYMMETRICAL, 1e9]) == interquartile_mean([*SYMMETRICAL, 521.0])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"{wrong} is among the values"):
        interquartile_mean([1.0, wrong, 2.0])
    with pytest.raises(ValueError, match=f"{wrong} is among the values"):
        bootstrap_interval([1.0, wrong, 2.0], np.mean)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        interquartile_mean([])


@pytest.mark.parametrize("statistic", [np.mean, np.median, interquartile_mean])
def test_the_middle_of_symmetrical_data_lies_in_its_interval(statistic: object) -> None:
    interval = bootstrap_interval(SYMMETRICAL, statistic)  # type: ignore[arg-type]
    assert interval is not None
    assert 490 < interval.low < 500 < interval.high < 510
    narrower = bootstrap_interval(SYMMETRICAL, statistic, confidence=0.5)  # type: ignore[arg-type]
    assert narrower is not None
    assert interval.low < narrower.low < narrower.high < interval.high


def test_the_interval_of_a_mean_is_about_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(7).normal(100.0, 10.0, 200)
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    expected = (values.mean() - half, values.mean() + half)
    assert bootstrap_interval(list(values), np.mean) == pytest.approx(expected, abs=0.15)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    intervals = [bootstrap_interval(list(generator.normal(size=30)), np.mean, 0.8) for _ in range(100)]
    assert 70 <= sum(interval is not None and interval.low < 0 < interval.high for interval in intervals) <= 90


def test_the_same_values_have_the_same_interval_and_it_is_plain_json() -> None:
    values = [float(value) for value in np.random.default_rng(5).normal(size=20)]
    first = bootstrap_interval(values, interquartile_mean)
    assert first == bootstrap_interval(values, interquartile_mean)
    assert json.loads(json.dumps(first)) == list(first or ())


@pytest.mark.parametrize("values", [[], [500.0]])
def test_of_fewer_than_two_values_no_interval_is_known(values: list[float]) -> None:
    assert bootstrap_interval(values, np.mean) is None


@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
@pytest.mark.parametrize("value", [0.1, 500.0])
def test_equal_values_have_an_interval_of_no_width(statistic: object, value: float) -> None:
    interval = bootstrap_interval([value] * 7, statistic)  # type: ignore[arg-type]
    assert interval == pytest.approx(Interval(value, value))


@pytest.mark.parametrize("values", [[500.0] * 15 + [9.0], [500.0] * 13 + [9.0] * 3, [1.0, 2.0], [0.0, 0.0, 1e300]])
@pytest.mark.parametrize("statistic", [np.mean, np.median, interquartile_mean])
def test_nearly_equal_values_give_an_ordered_interval_and_no_warning(values: list[float], statistic: object) -> None:
    """Warnings are errors here; leaving out one value often changes nothing, so that BCa is not defined."""
    interval = bootstrap_interval(values, statistic)  # type: ignore[arg-type]
    assert interval is not None
    assert min(values) <= interval.low <= interval.high <= max(values)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([9.0, 100.0, 487.5, 500.0]), min_size=2, max_size=16))
def test_an_interval_never_leaves_the_data(values: list[float]) -> None:
    interval = bootstrap_interval(values, interquartile_mean)
    assert interval is not None
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
