"""Where a segment's time goes: XLA's own trace of every kernel it runs, added up by the part of the program it serves.

A kernel belongs to the part its last instruction comes from, as the compiled text says; XLA fuses across parts here and
there. What kernels do not account for is what loops, calls and gaps take, and, of a traced segment, the tracing.
"""

from __future__ import annotations

import collections
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdqn import hlo
from jaxdqn.config import Layout
from jaxdqn.hyperparams import Hyperparams
from jaxdqn.population import Population
from jaxdqn.workload import WARMUP_STEPS, Uniform, fill, go_on, uniform

PARTS = {  # name -> what it is
    "random numbers": "a tick's, with the next episodes' starts",
    "acting": "forward passes of the agents",
    "environment": "actions chosen, steps, resets",
    "replay": "writing transitions",
    "sampling": "drawing and reading batches",
    "forward": "online and target network, loss",
    "backward": "gradients",
    "optimiser": "clipping, Adam, freezing",
    "target copy": "",
    "judging": "validation and score",
    "copies": "of XLA's own",
    "other": "what is due",
    "loops and gaps": "all else while nothing is traced",
    "tracing": "by how much the trace makes it longer",
}
_TRACED: dict[str, dict[str, str | bool]] = {"cpu": {"xla_cpu_enable_xprof_traceme": True}}
_NO_KERNELS = ("while", "conditional", "call")  # their time is that of what they hold
_SCOPES = {  # of `block.py`
    "draw": "random numbers",
    "add": "replay",
    "sample": "sampling",
    "copy": "target copy",
    "validate": "judging",
    "score": "judging",
}


class Spent(NamedTuple):
    """What an instruction took while it was traced."""

    name: str
    part: str
    calls: int
    ns: float


def measure(shape: Uniform, layout: Layout, platform: str, ticks: int = 200, repeats: int = 5) -> dict[str, Any]:
    """Trace segments of a uniform population's first row; return microseconds a tick by part, medians of `repeats`.

    Wall times stand beside them: of the program as it trains, of the one that can be traced, and while it is traced.
    """
    config, hyperparams = uniform(shape)
    plain, traceable = (Population(config, layout, seed=0) for _ in range(2))
    compile_s = plain.compile() + traceable.compile(_TRACED.get(platform, {}))
    for population in (plain, traceable):
        fill(population, hyperparams, 2 * WARMUP_STEPS)
        population.read(0)
        _wall(population, hyperparams, ticks)
    assert traceable.compiled is not None
    parts = parts_of(hlo.parse(traceable.compiled.as_text() or ""))
    wall_us: dict[str, list[float]] = {"plain": [], "traceable": [], "traced": []}
    traced: list[list[Spent]] = []
    for _ in range(repeats):
        wall_us["plain"].append(_wall(plain, hyperparams, ticks))
        before = _wall(traceable, hyperparams, ticks)
        spent, us = _trace(lambda: _wall(traceable, hyperparams, ticks), parts)
        wall_us["traceable"].append((before + _wall(traceable, hyperparams, ticks)) / 2)
        wall_us["traced"].append(us)
        traced.append(spent)
    middle = sorted(range(repeats), key=lambda i: wall_us["traced"][i])[repeats // 2]
    return {
        **shape._asdict(),
        "lanes": layout.block,
        "ticks": ticks,
        "compile_s": round(compile_s, 2),
        "wall_us": {name: _spread(values) for name, values in wall_us.items()},
        "parts": _by_part(traced, wall_us, layout.devices * ticks),
        "kernels": [_kernel(spent, layout.devices * ticks) for spent in _longest(traced[middle], 20)],
    }


def part_of(instruction: hlo.Instruction, users: Iterable[hlo.Instruction] = ()) -> str:
    """Return which part of the program an instruction serves, by its place in the source; without one its users'."""
    if instruction.opcode == "copy":
        return "copies"
    scope = instruction.scope or next((user.scope for user in users if user.scope), "")
    words = scope.split("/")[:-1]
    for word, part in _SCOPES.items():
        if word in words:
            return part
    if "step" in words:
        return "acting" if "QNetwork" in scope else "environment"
    if "update" in words:
        return "backward" if "transpose(" in scope else "forward" if "jvp(" in scope else "optimiser"
    return "other"


def _wall(population: Population, hyperparams: Hyperparams, ticks: int) -> float:
    """Return the microseconds a tick of a segment takes."""
    start = time.perf_counter()
    go_on(population, 0, hyperparams, ticks)
    population.read(0)
    return (time.perf_counter() - start) / ticks * 1e6


def _trace(run: Callable[[], float], parts: Mapping[str, str]) -> tuple[list[Spent], float]:
    """Return what each instruction took while `run` ran, and what that returned."""
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            returned = run()
        (file,) = Path(directory).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        events = [(event.name, event.duration_ns) for plane in planes for line in plane.lines for event in line.events]
    return added_up(events, parts), returned


def parts_of(module: hlo.Module) -> dict[str, str]:
    """Return the part that each instruction of a program serves, but for those that only hold others."""
    found = {}
    for computation, instructions in module.computations.items():
        for each in instructions:
            if each.opcode not in _NO_KERNELS:
                users = [user for user, _ in module.users(computation, each.name)] if not each.scope else []
                found[each.name] = part_of(each, users)
    return found


def added_up(events: Iterable[tuple[str, float]], parts: Mapping[str, str]) -> list[Spent]:
    """Add up the events of a trace, name and nanoseconds, by the instructions they are of.

    Raises:
        ValueError: none of them is of an instruction.
    """
    calls: collections.Counter[str] = collections.Counter()
    ns: collections.defaultdict[str, float] = collections.defaultdict(float)
    for name, duration in events:
        if name in parts:
            calls[name] += 1
            ns[name] += duration
    if not calls:
        raise ValueError("the trace of this device names no kernel of the program")
    return [Spent(name, parts[name], calls[name], ns[name]) for name in calls]


def _by_part(traced: list[list[Spent]], wall_us: dict[str, list[float]], ticks: int) -> list[dict[str, Any]]:
    """Return medians of microseconds a tick by part, and what is left of the wall."""
    us: dict[str, list[float]] = {part: [] for part in PARTS}
    calls = dict.fromkeys(PARTS, 0.0)
    for spent, untraced, wall in zip(traced, wall_us["traceable"], wall_us["traced"], strict=True):
        of_part: collections.defaultdict[str, float] = collections.defaultdict(float)
        for each in spent:
            of_part[each.part] += each.ns / 1e3 / ticks
            calls[each.part] += each.calls / ticks / len(traced)
        of_part["loops and gaps"] = untraced - sum(of_part.values())
        of_part["tracing"] = wall - untraced
        for part, values in us.items():
            values.append(of_part[part])
    medians = {part: statistics.median(values) for part, values in us.items()}
    whole = sum(medians.values()) - medians["tracing"]
    return [
        {
            "part": part,
            "us": round(value, 2),
            "share": None if part == "tracing" else round(value / whole, 4),
            "calls": round(calls[part], 2),
        }
        for part, value in medians.items()
    ]


def _longest(spent: list[Spent], num: int) -> list[Spent]:
    return sorted(spent, key=lambda each: -each.ns)[:num]


def _kernel(spent: Spent, ticks: int) -> dict[str, Any]:
    return {
        "name": spent.name,
        "part": spent.part,
        "us": round(spent.ns / 1e3 / ticks, 2),
        "calls": round(spent.calls / ticks, 2),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "low": round(min(values), 1),
        "high": round(max(values), 1),
    }
