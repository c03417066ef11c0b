"""What the optimiser computes in its own way: the reciprocal that a CPU makes without a division."""

import jax
import numpy as np
import pytest

from jaxdqn import optimiser


@pytest.mark.parametrize("power", [-122, -60, -30, -1, 0, 1, 60, 122])
def test_a_reciprocal_is_right_to_two_in_ten_million_for_every_fraction(power: int) -> None:
    fractions = np.arange(2**23, dtype=np.int32) + np.int32((power + 127) << 23)  # all floats from 2ᵖ to 2ᵖ⁺¹
    x = fractions.view(np.float32)
    found = np.asarray(jax.jit(optimiser.reciprocal)(x), np.float64)
    assert np.max(np.abs(found * x - 1.0)) < 2e-7
