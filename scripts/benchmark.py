"""Measure how fast populations train on this machine, everything counted; compile time is kept apart."""

from __future__ import annotations

import json
import platform
import sys
from typing import Annotated

import typer


def train(
    lanes: Annotated[int, typer.Option(help="Agents that train at the same time.", min=1)] = 64,
    width: Annotated[int, typer.Option(help="Units of each of the two hidden layers.", min=1)] = 64,
    batch_size: Annotated[int, typer.Option(help="Transitions an update.", min=1)] = 64,
    train_period: Annotated[int, typer.Option(help="Environment steps between train events.", min=1)] = 1,
    gradient_steps: Annotated[int, typer.Option(help="Updates at a train event.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds of each of the 5 spans measured.", min=0.1)] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Train a uniform population and print environment steps and updates a second, and the share of peak.

    Example: python scripts/benchmark.py --lanes 64 --width 64 --batch-size 64
    """
    from jaxdqn import devices

    devices.prepare()

    import jax

    from jaxdqn.benchmark import Uniform, measure

    layout = devices.choose_layout(lanes)
    shape = Uniform((width, width), batch_size, train_period, gradient_steps)
    print(f"measuring 5 spans of {seconds:g} s after compiling", file=sys.stderr)
    row = measure(shape, layout, devices.platform(), seconds)
    row |= {"jax": jax.__version__, "python": platform.python_version(), "device": jax.devices()[0].device_kind}
    print(json.dumps(row) if as_json else "\n".join(f"{name:20} {value}" for name, value in row.items()))


if __name__ == "__main__":
    typer.run(train)
