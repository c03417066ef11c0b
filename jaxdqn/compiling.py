"""A population made ready: compiled for as many lanes as fit into the devices' memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax

from jaxdqn import compile_cache, cost, devices, space_config
from jaxdqn.config import Config, Layout
from jaxdqn.lanes import Trainer
from jaxdqn.opening import Opened
from jaxdqn.startup import collecting_no_garbage


class Compiling(Trainer, Protocol):
    """A population that has to be made ready."""

    def compile(self) -> float:
        """Make it ready; return the seconds that took."""


MakePopulation = Callable[[Config, Layout, int], Compiling]


def compiled(opened: Opened, make_population: MakePopulation, show: Callable[[str], None]) -> tuple[Compiling, float]:
    """Compile the population, with half of the lanes for as long as the devices' memory is too small."""
    layout, seconds = opened.layout, 0.0
    largest_block = cost.largest_block(opened.config, space_config.is_mixed(opened.plan.space), devices.platform())
    if unused := compile_cache.use(devices.platform(), opened.plan.settings.cache):
        show(unused)
    while True:
        show(f"compiling one program for {layout.lanes} lanes on {layout.devices} {devices.platform()} devices")
        population = make_population(opened.config, layout, opened.plan.settings.seed)
        try:
            with collecting_no_garbage():
                return population, seconds + compile_cache.compiling(population.compile, show)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if layout.lanes == layout.devices:
                raise ValueError(
                    f"{layout.lanes} lanes do not fit into the memory of {layout.devices} {devices.platform()} devices:"
                    " a space with a smaller buffer_size, env_steps or hidden_width needs less"
                ) from error
            smaller = devices.choose_layout(layout.lanes // 2, layout.devices, largest_block)
        show(f"{layout.lanes} lanes do not fit into the devices' memory: {smaller.lanes} are tried")
        layout = smaller
        del population


class CompileCounter:
    """Counts JAX's own compile events while it is open."""

    def __init__(self) -> None:
        self.count, self._open = 0, False

    def __enter__(self) -> CompileCounter:
        self._open = True
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if self._open and event == "/jax/core/compile/backend_compile_duration":
            self.count += 1

    def __exit__(self, *_: object) -> None:
        self._open = False
