"""Two CPU devices on any machine, and strict JAX, before anything starts its backend."""

import os

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # the user's; of the processes that tests start too

from jaxdqn import devices

devices.prepare(2)

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
