"""A program compiled for a GPU as the loops it consists of: what one turn of each launches.

Small kernels cost their launch, whatever they compute, and a loop whose turns depend on values makes the host wait
before each of them: so it is loops that are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jaxdqn import hlo

SCOPES = {  # the scopes of `block.py` and `acting.py` -> what a turn of the loop made there is called
    "place": "placing agents",
    "due": "what is due",
    "tick": "tick",
    "step": "environment step",
    "learn": "learning",
    "update": "update",
    "copy": "target copy",
    "validate": "validation",
    "score": "score",
}
_NOTHING = {  # instructions that launch nothing
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional"),
    *("opt-barrier", "copy-done", "async-done"),
}
_MOVES = {"copy", "transpose", "bitcast", "reshape", "parameter", "tuple"}


class Kernel(NamedTuple):
    """What one launch does."""

    name: str
    kind: str  # "copy", "product" or "fusion"
    scope: str
    shape: str
    bytes: int  # moved
    flops: int


class Loop(NamedTuple):
    """A loop as the host sees it: what one turn launches."""

    label: str
    trips: int | None  # None: the host asks before each turn
    kernels: list[Kernel]  # of a turn, without inner loops
    asking: list[Kernel]  # to know whether there is another turn; none where XLA knows
    inner: list[Loop]  # of a conditional each branch is one

    @property
    def turn(self) -> list[Kernel]:
        """Kernels of a turn, without inner loops."""
        return self.kernels + (self.asking if self.trips is None else [])

    def all(self) -> Iterator[tuple[int, Loop]]:
        """Yield this loop and all that are in it, with their depth."""
        yield 0, self
        for loop in self.inner:
            for depth, each in loop.all():
                yield depth + 1, each

    def entered(self) -> tuple[list[Kernel], int]:
        """Return the kernels and host waits that a loop without a turn costs."""
        return (self.asking, 1) if self.trips is None else ([], 0)


def loops(module: hlo.Module) -> Loop:
    """Return the program as the loops it consists of."""
    return _loop(module, "segment", 1, module.entry, None)


def _loop(module: hlo.Module, label: str, trips: int | None, body: str, condition: str | None) -> Loop:
    inner = []
    for _, instruction in module.walk(body):
        if instruction.opcode == "while":
            called = instruction.called
            inner.append(
                _loop(module, _label(instruction.scope), instruction.trips, called["body"], called["condition"])
            )
        elif instruction.opcode == "conditional":
            branches = [_loop(module, "branch", 1, branch, None) for branch in instruction.branches]
            inner.append(Loop(f"choice in {_label(instruction.scope)}", None, [], [], branches))
    asking = list(_kernels(module, condition)) if condition else []
    return Loop(label, trips, list(_kernels(module, body)), asking, inner)


def _kernels(module: hlo.Module, computation: str) -> Iterator[Kernel]:
    for home, instruction in module.walk(computation):
        if instruction.opcode in _NOTHING:
            continue
        yield Kernel(
            instruction.name,
            _kind(module, instruction),
            instruction.scope,
            instruction.shape,
            module.bytes_moved(home, instruction),
            module.flops(home, instruction),
        )


def _kind(module: hlo.Module, instruction: hlo.Instruction) -> str:
    if instruction.opcode == "fusion":
        inside = {each.opcode for each in module.computations[instruction.called["calls"]]}
        if inside <= _MOVES:
            return "copy"
        return "product" if "dot" in inside else "fusion"
    if instruction.opcode in ("copy", "transpose"):
        return "copy"
    return "product" if "matmul" in instruction.target or "gemm" in instruction.target else "fusion"


def _label(scope: str) -> str:
    """Return what a turn of the loop with this scope is called."""
    words = [word for word in scope.split("/") if word in SCOPES]
    nested = scope.rsplit(words[-1], 1)[1].count("while") > 1 if words else False
    name = SCOPES[words[-1]] if words else "loop"
    return "loop in it" if nested else name
