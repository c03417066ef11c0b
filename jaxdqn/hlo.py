"""Optimised HLO, read as text: what a compiled program runs, loop by loop, without running it.

XLA's own words: a *computation* is a list of instructions; loops and conditionals call others. On a GPU an instruction
of the entry, or of a loop's body, is a kernel to be launched; what stands inside a fusion is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|token|[suf]\d+\w*|bf16|c64|c128)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)|(?<![\w.\-\[])([A-Za-z_][\w\-]*(?:\.[\w\-]+)*)(?![\w\[])")
_BITS = re.compile(r"\d+")
_SLICES = ("dynamic-slice", "slice", "gather")  # they read a part of their first operand
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}  # they write a part of their first operand: this one's size


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    shape: str  # as written, tuples in parentheses
    operands: tuple[str, ...]  # names
    scope: str  # where in the source it comes from: JAX's op_name, "" where XLA made it up
    called: dict[str, str]  # "body" and "condition" of a loop, "calls" of a fusion, … -> computation
    branches: tuple[str, ...]  # computations of a conditional
    attributes: str  # what follows the operands, as written; of a parameter or constant, what stands in their place
    is_root: bool

    @property
    def bytes(self) -> int:
        """Bytes of the result, all parts of a tuple together."""
        return shape_bytes(self.shape)

    @property
    def trips(self) -> int | None:
        """How often a loop turns, if XLA knows; else the host asks before each turn."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else None

    @property
    def target(self) -> str:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""


class Module(NamedTuple):
    """A compiled program."""

    computations: dict[str, list[Instruction]]
    entry: str

    def walk(self, computation: str) -> Iterator[tuple[str, Instruction]]:
        """Yield the instructions of a computation, each after its home; in place of a plain call what it calls."""
        for instruction in self.computations[computation]:
            if instruction.opcode in ("call", "async-start") and instruction.called:
                yield from self.walk(next(iter(instruction.called.values())))
            else:
                yield computation, instruction

    def users(self, computation: str, name: str) -> Iterator[tuple[Instruction, int]]:
        """Yield which instructions take a value, and as which operand; a bitcast is the value itself."""
        for instruction in self.computations[computation]:
            for position, operand in enumerate(instruction.operands):
                if operand == name and instruction.opcode == "bitcast":
                    yield from self.users(computation, instruction.name)
                elif operand == name:
                    yield instruction, position

    def bytes_moved(self, computation: str, instruction: Instruction) -> int:
        """Bytes a kernel reads and writes: of a buffer that is only sliced or written in part, that part."""
        shapes = {other.name: other.shape for other in self.computations[computation]}
        read = [_shape_bytes_moved(shapes[operand]) for operand in instruction.operands]
        if instruction.opcode != "fusion":
            return sum(read) + _shape_bytes_moved(instruction.shape)
        inner = instruction.called["calls"]
        for parameter in self.computations[inner]:
            if parameter.opcode == "parameter":
                number = int(parameter.attributes.split(",")[0])
                read[number] = self._bytes_read(inner, parameter, read[number])
        return sum(read) + sum(self._bytes_written(inner, root) for root in self._results(inner))

    def flops(self, computation: str, instruction: Instruction) -> int:
        """Floating-point operations of the matrix products in a kernel; all else is not counted."""
        if instruction.opcode == "fusion":
            inner = instruction.called["calls"]
            return sum(self.flops(inner, each) for each in self.computations[inner])
        contracting = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([\d,"]*)[}\]]', instruction.attributes)
        if not contracting or instruction.opcode not in ("dot", "custom-call"):
            return 0
        left = next(other for other in self.computations[computation] if other.name == instruction.operands[0])
        sizes = arrays(left.shape)[0][1]
        summed = math.prod(sizes[int(d)] for d in contracting[1].replace('"', "").split(",") if d)
        return 2 * summed * math.prod(arrays(instruction.shape)[0][1])

    def _results(self, computation: str) -> list[Instruction]:
        named = {instruction.name: instruction for instruction in self.computations[computation]}
        root = next(instruction for instruction in named.values() if instruction.is_root)
        return [named[name] for name in root.operands] if root.opcode == "tuple" else [root]

    def _bytes_read(self, computation: str, parameter: Instruction, whole: int) -> int:
        parts = 0
        for user, position in self.users(computation, parameter.name):
            if user.opcode in _SLICES and position == 0:
                parts += user.bytes
            elif user.opcode not in _IN_PLACE or position > 0:
                return whole
        return min(parts, whole)

    def _bytes_written(self, computation: str, root: Instruction) -> int:
        while root.opcode == "bitcast":
            root = next(other for other in self.computations[computation] if other.name == root.operands[0])
        if root.opcode not in _IN_PLACE:
            return root.bytes
        update = root.operands[_IN_PLACE[root.opcode]]
        return next(other.bytes for other in self.computations[computation] if other.name == update)


def parse(text: str) -> Module:
    """Read the text of an optimised module, as `compiled.as_text()` gives it.

    Raises:
        ValueError: there is no entry computation in it.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = _HEAD.match(_COMMENT.sub("", line).rstrip())
            if head and not line.startswith((" ", "HloModule")):
                current = head[2]
                computations[current] = []
                entry = current if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif found := _LINE.match(_COMMENT.sub("", line)):
            computations[current].append(_instruction(found[2], found[3], bool(found[1])))
    if not entry:
        raise ValueError("the text is no compiled HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def shape_bytes(shape: str) -> int:
    """Return the bytes of a shape: `f32[4,64]{1,0}`, or a tuple of such."""
    return sum(_item_bytes(kind) * math.prod(dimensions) for kind, dimensions in arrays(shape))


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return element type and dimensions of each array in a shape."""
    return [(kind, tuple(int(d) for d in sizes.split(",") if d)) for kind, sizes in _ARRAY.findall(shape)]


def _shape_bytes_moved(shape: str) -> int:
    """Return the bytes of a shape without the workspace of a library's call, which is an array of s8."""
    return sum(_item_bytes(kind) * math.prod(sizes) for kind, sizes in arrays(shape) if kind != "s8")


def _item_bytes(kind: str) -> int:
    if kind == "token":
        return 0
    if kind == "pred":
        return 1
    bits = _BITS.search(kind)
    assert bits is not None
    return max(int(bits[0]) // 8, 1)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest, 0) - 1
    inside, attributes = rest[:end], rest[end + 1 :].lstrip(", ")
    scope = re.search(r'op_name="((?:[^"\\]|\\.)*)"', attributes)
    branches = _BRANCHES.search(attributes)
    named = {match[0].partition("=")[0]: match[1] for match in _CALLED.finditer(attributes)}
    if not branches and "true_computation" in named:
        ways: tuple[str, ...] = (named["true_computation"], named["false_computation"])
    else:
        ways = tuple(word.strip().lstrip("%") for word in branches[1].split(",")) if branches else ()
    literal = opcode in ("constant", "parameter")
    return Instruction(
        name=name,
        opcode=opcode,
        shape=shape,
        operands=() if literal else tuple(a or b for a, b in _NAME.findall(inside)),
        scope=scope[1] if scope else "",
        called=named,
        branches=ways,
        attributes=f"{inside}, {attributes}" if literal else attributes,
        is_root=is_root,
    )


def _closing(text: str, start: int) -> int:
    """Return where the parenthesis that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"a parenthesis is never closed: {text[start : start + 80]}")
