"""Compiled programs, read from their text: small ones, written by hand, with what they hold counted by hand."""

import pytest

from jaxdqn import hlo

LOOPS = """HloModule by_hand, is_scheduled=true

%added (param_0: f32[8,4], param_1: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  %param_1 = f32[8,4]{1,0} parameter(1)
  ROOT %add.1 = f32[8,4]{1,0} add(%param_0, %param_1), metadata={op_name="jit(f)/tick/while/body/add"}
}

%written (param_0.1: f32[1000,4], param_1.1: f32[1,4], param_2: s32[]) -> f32[1000,4] {
  %param_0.1 = f32[1000,4]{1,0} parameter(0)
  %param_1.1 = f32[1,4]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %dus = f32[1000,4]{1,0} dynamic-update-slice(%param_0.1, %param_1.1, %param_2, %zero)
}

%inner_body (arg: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %arg = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%arg), index=1
  %sum = f32[8,4]{1,0} fusion(%x, %x), kind=kLoop, calls=%added, metadata={op_name="jit(f)/tick/while/body/add"}
  %copy.1 = s32[] copy(%i)
  ROOT %tuple.1 = (s32[], /*index=1*/f32[8,4]{1,0}) tuple(%copy.1, %sum)
}

%inner_condition (arg.1: (s32[], f32[8,4])) -> pred[] {
  %arg.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  %four = s32[] constant(4)
  ROOT %less = pred[] compare(%i.1, %four), direction=LT
}

%buffered (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %doubled = f32[8,4]{1,0} fusion(%p, %p), kind=kLoop, calls=%added
}

ENTRY %main.1 (a: f32[8,4], ring: f32[1000,4], row: f32[1,4], at: s32[]) -> (f32[8,4], f32[1000,4]) {
  %a = f32[8,4]{1,0} parameter(0)
  %ring = f32[1000,4]{1,0} parameter(1)
  %row = f32[1,4]{1,0} parameter(2)
  %at = s32[] parameter(3)
  %called = f32[8,4]{1,0} call(%a), to_apply=%buffered
  %tuple.2 = (s32[], f32[8,4]{1,0}) tuple(%at, %called)
  %while.1 = (s32[], f32[8,4]{1,0}) while(%tuple.2), condition=%inner_condition, body=%inner_body, metadata={op_name="jit(f)/tick/while"}, backend_config={"known_trip_count":{"n":"4"},"dynamic_variables":[]}
  %while.2 = (s32[], f32[8,4]{1,0}) while(%while.1), condition=%inner_condition, body=%inner_body
  %out = f32[8,4]{1,0} get-tuple-element(%while.2), index=1
  %kept = f32[1000,4]{1,0} fusion(%ring, %row, %at), kind=kLoop, calls=%written
  %product = (f32[8,6]{1,0}, s8[4096]{0}) custom-call(%a, %right), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %right = f32[4,6]{1,0} constant({...})
  ROOT %tuple.3 = (f32[8,4]{1,0}, f32[1000,4]{1,0}) tuple(%out, %kept)
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def module() -> hlo.Module:
    return hlo.parse(LOOPS)


def named(module: hlo.Module, name: str) -> tuple[str, hlo.Instruction]:
    return next((home, each) for home in module.computations for each in module.computations[home] if each.name == name)


def test_computations_and_the_entry_are_found(module: hlo.Module) -> None:
    assert list(module.computations) == ["added", "written", "inner_body", "inner_condition", "buffered", "main.1"]
    assert module.entry == "main.1"


def test_a_loop_says_how_often_it_turns_only_where_xla_knows(module: hlo.Module) -> None:
    _, known = named(module, "while.1")
    _, asked = named(module, "while.2")
    assert (known.trips, asked.trips) == (4, None)
    assert known.called == {"condition": "inner_condition", "body": "inner_body"}
    assert known.scope == "jit(f)/tick/while"
    assert asked.scope == ""


def test_a_shape_is_read_with_all_its_parts(module: hlo.Module) -> None:
    _, root = named(module, "tuple.1")
    assert root.is_root
    assert root.operands == ("copy.1", "sum")
    assert hlo.arrays(root.shape) == [("s32", ()), ("f32", (8, 4))]
    assert root.bytes == 4 + 8 * 4 * 4
    assert hlo.shape_bytes("(pred[3]{0}, bf16[2,2]{1,0}, u64[], token[])") == 3 + 8 + 8


def test_a_plain_call_is_walked_into_and_loops_are_not(module: hlo.Module) -> None:
    walked = [(home, each.name) for home, each in module.walk("main.1")]
    assert ("buffered", "doubled") in walked
    assert not {"called", "copy.1"} & {name for _, name in walked}


def test_a_kernel_that_writes_a_slot_does_not_count_the_ring(module: hlo.Module) -> None:
    # the ring is neither read nor written as a whole: 16 bytes of the row and 4 of the index in, 16 out
    assert module.bytes_moved(*named(module, "kept")) == 16 + 4 + 16
    assert module.bytes_moved(*named(module, "sum")) == 3 * 8 * 4 * 4
    assert module.bytes_moved(*named(module, "copy.1")) == 8


def test_a_products_flops_are_two_for_each_multiply_add_and_its_workspace_is_no_traffic(module: hlo.Module) -> None:
    assert module.flops(*named(module, "product")) == 2 * 8 * 4 * 6
    assert module.bytes_moved(*named(module, "product")) == 4 * (8 * 4 + 4 * 6 + 8 * 6)
    assert module.flops(*named(module, "sum")) == 0


def test_both_branches_of_a_conditional_are_named() -> None:
    text = """HloModule choice
ENTRY %main (p: pred[], x: f32[]) -> f32[] {
  %p = pred[] parameter(0)
  %x = f32[] parameter(1)
  %old = f32[] conditional(%p, %x, %x), true_computation=%yes, false_computation=%no
  ROOT %new = f32[] conditional(%p, %x, %x), branch_computations={%no, %yes}
}
"""
    old, new = hlo.parse(text).computations["main"][2:]
    assert old.branches == ("yes", "no")
    assert new.branches == ("no", "yes")


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule nothing\n")
