"""What a handful of numbers says: shares, means and how sure of them one may be.

Pure functions of sequences of floats; knows NumPy and SciPy. Nothing here is random: resamples have a fixed seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

NUM_RESAMPLES = 9_999
_SEED = 0


class Interval(NamedTuple):
    """A confidence interval, ends included."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a share (Wilson 1927); of nothing tried nothing is known: (0, 1).

    Raises:
        ValueError: there are more successes than tries, or an argument is out of range.
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are not possible")
    if n == 0:
        return Interval(0.0, 1.0)
    from scipy import stats  # a second

    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def interquartile_mean(values: Sequence[float] | Float[np.ndarray, "*shape"], axis: int = -1) -> Any:
    """Return the mean of the middle half: ⌊n / 4⌋ values are left out at either end (Agarwal et al. 2021).

    Raises:
        ValueError: there are no values, or one is not finite: how much a diverged agent is worth is for others to say.
    """
    ordered = np.sort(_finite(values), axis=axis)
    num = ordered.shape[axis]
    if not num:
        raise ValueError("no values: their interquartile mean is not known")
    return np.mean(np.take(ordered, range(num // 4, num - num // 4), axis=axis), axis=axis)


def bootstrap_interval(
    values: Sequence[float], statistic: Callable[..., Any], confidence: float = 0.95
) -> Interval | None:
    """Return the bootstrap's interval of a statistic (BCa, Efron 1987); None of fewer than two values.

    Where BCa is not defined, since leaving out a value changes nothing, it is that of the resamples' percentiles.
    Equal values have an interval of no width: the bootstrap sees nothing but them.

    Raises:
        ValueError: a value is not finite, or the confidence is out of range.
    """
    _check_confidence(confidence)
    sample = _finite(values)
    if len(sample) < 2:
        return None
    from scipy import stats

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that BCa is not defined
        result = stats.bootstrap(
            (sample,),
            statistic,
            n_resamples=NUM_RESAMPLES,
            batch=max(1, 10_000_000 // len(sample)),  # resamples in memory at once
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(_SEED),
        )
    ends = np.array(result.confidence_interval)
    if not np.all(np.isfinite(ends)):
        ends = np.quantile(result.bootstrap_distribution, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(ends[0]), float(ends[1]))


def _finite(values: Sequence[float] | Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    array = np.asarray(values, dtype=np.float64)
    wrong = array[~np.isfinite(array)]
    if len(wrong):
        raise ValueError(f"{wrong[0]} is among the values: only finite numbers are allowed")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r} is not allowed: a share between 0 and 1")
