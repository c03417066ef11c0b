"""Two CPU devices on any machine, and strict JAX, before anything starts its backend."""

import os
import signal
from collections.abc import Iterator

import pytest

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # the user's; of the processes that tests start too

from jaxdqn import devices

devices.prepare(2)

import jax  # noqa: E402

HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Commands that run in this process listen to its signals: not beyond their tests."""
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
