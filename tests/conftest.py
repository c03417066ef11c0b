"""Two CPU devices on any machine, and strict JAX, before anything starts its backend."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # the user's; of the processes that tests start too

from jaxdqn import devices

devices.prepare(2)

with contextlib.redirect_stderr(sys.__stderr__):
    import optax  # noqa: F401  # its logging keeps the stream it finds; MLflow's would close one that is pytest's

import jax  # noqa: E402

HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Commands that run in this process listen to its signals and freeze its objects: not beyond their tests."""
    yield
    gc.unfreeze()
    signal.set_wakeup_fd(-1)
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
