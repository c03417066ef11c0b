"""Two CPU devices on any machine, and strict JAX, before anything starts its backend."""

from jaxdqn import devices

devices.prepare(2)

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
