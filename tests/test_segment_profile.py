"""Where time goes: a trace's kernels are added up by the part of the program they serve."""

import json
from pathlib import Path

import pytest

from jaxdqn import hlo, profile_report, segment_profile
from jaxdqn.config import Layout
from jaxdqn.hlo import Instruction
from jaxdqn.workload import Uniform

INSIDE = "jit(one_device)/due/while/body"
PLACES = {
    f"{INSIDE}/tick/while/body/draw/vmap(vmap())/mul": "random numbers",
    f"{INSIDE}/tick/while/body/step/closed_call/vmap(QNetwork)/head/add": "acting",
    f"{INSIDE}/tick/while/body/step/closed_call/vmap()/cos": "environment",
    f"{INSIDE}/tick/while/body/add/dynamic_update_slice": "replay",
    f"{INSIDE}/learn/update/while/body/sample/gather": "sampling",
    f"{INSIDE}/learn/update/while/body/vmap(jvp(QNetwork))/head/dot_general": "forward",
    f"{INSIDE}/learn/update/while/body/vmap(transpose(jvp(QNetwork)))/head/dot_general": "backward",
    f"{INSIDE}/learn/update/while/body/vmap(jit(_where))/select_n": "optimiser",
    f"{INSIDE}/learn/update/while/body/vmap()/add": "optimiser",  # an addition, not the write of a slot
    f"{INSIDE}/learn/copy/while/body/vmap(jit(_where))/select_n": "target copy",
    f"{INSIDE}/validate/while/body/vmap()/while/body/while/body/QNetwork/head/dot_general": "judging",
    "jit(one_device)/score/while/body/gather": "judging",
    f"{INSIDE}/learn/reduce_max": "other",
}


def instruction(scope: str, opcode: str = "fusion") -> Instruction:
    return Instruction("it", opcode, "f32[]", (), scope, {}, (), "", False)


@pytest.mark.parametrize("scope", PLACES)
def test_a_kernel_belongs_to_the_part_its_place_in_the_source_says(scope: str) -> None:
    assert segment_profile.part_of(instruction(scope)) == PLACES[scope]


def test_a_kernel_without_a_place_belongs_to_who_uses_it_and_a_copy_to_xla() -> None:
    user = instruction(next(iter(PLACES)))
    assert segment_profile.part_of(instruction(""), [instruction(""), user]) == "random numbers"
    assert segment_profile.part_of(instruction(""), []) == "other"
    assert segment_profile.part_of(instruction(user.scope, "copy"), [user]) == "copies"


def test_events_are_added_up_by_kernel_and_loops_are_none() -> None:
    text = """HloModule small
%body (p: f32[]) -> f32[] {
  %p = f32[] parameter(0)
  ROOT %sum = f32[] add(%p, %p), metadata={op_name="a/update/b"}
}
ENTRY %main (x: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %loop = f32[] while(%x), condition=%body, body=%body
}
"""
    parts = segment_profile.parts_of(hlo.parse(text))
    spent = segment_profile.added_up([("sum", 10.0), ("loop", 99.0), ("sum", 5.0), ("python", 7.0)], parts)
    assert [(each.name, each.part, each.calls, each.ns) for each in spent] == [("sum", "optimiser", 2, 15.0)]
    with pytest.raises(ValueError, match="names no kernel"):
        segment_profile.added_up([("loop", 99.0), ("python", 7.0)], parts)


@pytest.mark.slow
def test_the_parts_of_a_traced_segment_make_up_its_time(tmp_path: Path) -> None:
    result = segment_profile.measure(Uniform((8, 8), 16, 1, 2), Layout(1, 1, 2), "cpu", ticks=4, repeats=1)
    us = {part["part"]: part["us"] for part in result["parts"]}
    assert sum(us.values()) == pytest.approx(result["wall_us"]["traced"]["median"], abs=0.5)
    assert sum(part["share"] for part in result["parts"] if part["part"] != "tracing") == pytest.approx(1, abs=0.01)
    assert all(us[part] > 0 for part in ("acting", "environment", "sampling", "forward", "backward", "optimiser"))
    assert us["judging"] <= us["forward"] + us["backward"] + us["optimiser"]
    profile_report.draw(result, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(result, allow_nan=False)
