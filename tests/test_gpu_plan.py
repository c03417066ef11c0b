"""What a GPU would launch: counted in a small program written by hand, and in ours where the CUDA plug-in is."""

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from jaxdqn import gpu_plan, gpu_report, gpu_targets, hlo, space
from jaxdqn.config import Config, Layout
from jaxdqn.gpu_loops import Kernel, loops
from jaxdqn.gpu_plan import Compiled
from jaxdqn.gpu_targets import TARGETS
from jaxdqn.hyperparams import defaults

T4 = TARGETS["t4"]
CONFIG = Config(tick=4, slots=100, batch_sizes=(16,), hidden_width=8)
LAYOUT = Layout(rows=2, devices=1, block=3)
PROGRAM = """HloModule by_hand

%moved (param_0: f32[3,8,8]) -> f32[3,8,8] {
  %param_0 = f32[3,8,8]{2,1,0} parameter(0)
  ROOT %turned = f32[3,8,8]{2,1,0} transpose(%param_0), dimensions={0,2,1}
}

%doubled (param_1: f32[3]) -> f32[3] {
  %param_1 = f32[3]{0} parameter(0)
  ROOT %two = f32[3]{0} add(%param_1, %param_1)
}

%more (s: f32[3]) -> pred[] {
  %s = f32[3]{0} parameter(0)
  ROOT %asked = pred[] fusion(%s), kind=kLoop, calls=%doubled
}

%carried (t: f32[3]) -> pred[] {
  %t = f32[3]{0} parameter(0)
  ROOT %known = pred[] get-tuple-element(%t), index=0
}

%step (u: f32[3]) -> f32[3] {
  %u = f32[3]{0} parameter(0)
  %lived = f32[3]{0} fusion(%u), kind=kLoop, calls=%doubled
  ROOT %copied = f32[3]{0} copy(%lived)
}

%updated (v: f32[3]) -> f32[3] {
  %v = f32[3]{0} parameter(0)
  %kernel = f32[3,8,8]{2,1,0} broadcast(%v), dimensions={0}
  %turn = f32[3,8,8]{2,1,0} fusion(%kernel), kind=kInput, calls=%moved
  %q = (f32[3,8]{1,0}, s8[64]{0}) custom-call(%v, %turn), custom_call_target="__cublas$gemm"
  ROOT %new = f32[3]{0} fusion(%v), kind=kLoop, calls=%doubled
}

%quiet (w: f32[3]) -> f32[3] {
  %w = f32[3]{0} parameter(0)
  %drawn = f32[3]{0} fusion(%w), kind=kLoop, calls=%doubled
  ROOT %steps = f32[3]{0} while(%drawn), condition=%more, body=%step, metadata={op_name="j/due/while/body/tick/while/body/step/while"}, backend_config={"known_trip_count":{"n":"4"}}
}

%due (y: f32[3]) -> f32[3] {
  %y = f32[3]{0} parameter(0)
  %ticks = f32[3]{0} while(%y), condition=%more, body=%quiet, metadata={op_name="j/due/while/body/tick/while"}
  %updates = f32[3]{0} while(%ticks), condition=%carried, body=%updated, metadata={op_name="j/due/while/body/learn/update/while"}
  ROOT %target = f32[3]{0} while(%updates), condition=%more, body=%step, metadata={op_name="j/due/while/body/learn/copy/while"}
}

ENTRY %main (z: f32[3]) -> f32[3] {
  %z = f32[3]{0} parameter(0)
  %first = f32[3]{0} copy(%z)
  ROOT %all = f32[3]{0} while(%first), condition=%more, body=%due, metadata={op_name="j/due/while"}
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    compiled = Compiled(PROGRAM, loops(hlo.parse(PROGRAM)), row_bytes=2**30, temporary_bytes=2**20)
    return gpu_plan.counts(compiled, CONFIG, LAYOUT, T4)


def part(counted: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in counted["parts"] if each["part"] == name)


def test_a_tick_holds_all_turns_of_its_steps_and_asks_once(counted: dict[str, Any]) -> None:
    tick = part(counted, "tick, nothing due")
    assert tick["kernels"] == 1 + 1 + 4 * 2  # drawn, whether to go on, and two for each of four steps
    assert tick["copies"] == 4
    assert tick["waits"] == 1  # the steps' own loop is known to turn four times


def test_an_update_counts_its_kernels_and_a_loop_that_carries_its_answer_asks_without_one(
    counted: dict[str, Any],
) -> None:
    update = part(counted, "update of 16")
    assert (update["kernels"], update["products"], update["copies"], update["waits"]) == (4, 1, 1, 1)
    assert part(counted, "target copy")["kernels"] == 3


def test_a_copy_of_parameters_in_a_loop_is_found_and_one_of_something_small_is_none(counted: dict[str, Any]) -> None:
    assert [(each["loop"], each["kernel"], each["of"]) for each in counted["copies_in_loops"]] == [
        ("update", "turn", "parameters")
    ]


def test_what_is_due_asks_each_of_its_loops_once_more(counted: dict[str, Any]) -> None:
    due = part(counted, "what is due")
    # three questions with a kernel each: its own, the ticks' last one and the target's; the updates carry their answer
    assert (due["kernels"], due["waits"]) == (3, 4)


def test_bars_are_an_environment_steps_share_of_its_tick(counted: dict[str, Any]) -> None:
    assert gpu_plan.bars(counted) == {
        "kernels of an environment step": (10 / 4, 12),
        "kernels of an update of 16": (4, 30),
        "host waits of a tick with nothing due": (1, 1),
        "copies of replay or parameters in loops": (1, 0),
    }


def test_memory_is_that_of_all_rows_and_one_segment(counted: dict[str, Any]) -> None:
    assert counted["memory"]["bytes"] == 2 * 2**30 + 2**20
    assert counted["memory"]["fits"]


def test_a_kernel_takes_its_launch_its_bytes_or_its_flops_whichever_is_longest() -> None:
    idle, moving, computing = (
        Kernel("", "fusion", "", "", bytes=num_bytes, flops=flops)
        for num_bytes, flops in ((0, 0), (T4.bandwidth, 0), (8, int(2 * T4.flops)))
    )
    assert gpu_plan.seconds([idle] * 3, 2, T4) == pytest.approx((3 * 4e-6 + 2 * 10e-6, 3 * 8e-6 + 2 * 25e-6))
    assert gpu_plan.seconds([moving, computing], 0, T4) == pytest.approx((3.0, 3.0))


def test_speed_is_predicted_for_agents_of_one_kind(counted: dict[str, Any]) -> None:
    hyperparams = defaults()._replace(batch_size=16, train_period=8, gradient_steps=4, target_period=16)
    predicted = gpu_plan.speed(counted, hyperparams, CONFIG)
    for end in range(2):
        tick, due, update, copy = (
            part(counted, name)["predicted_s"][1 - end]
            for name in ("tick, nothing due", "what is due", "update of 16", "target copy")
        )
        every_other_tick_s = tick + 0.5 * due + 2 * update + 0.25 * copy
        assert predicted["env_steps_per_s"][end] == pytest.approx(4 * 3 / every_other_tick_s)
        assert predicted["updates_per_s"][end] == pytest.approx(2 * 3 / every_other_tick_s)


def test_the_report_is_drawn_and_named_compiled(counted: dict[str, Any], tmp_path: Path) -> None:
    result = {"space": "small", **counted}
    gpu_report.draw(result, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_a_device_at_hand_is_timed_and_named() -> None:
    hyperparams = defaults()._replace(hidden_width=8, batch_size=16, warmup_steps=16)
    timed = gpu_report.timed(CONFIG, hyperparams, LAYOUT, repeats=1)
    assert timed["device"] == "cpu"
    assert timed["env_steps_per_s"] > timed["updates_per_s"] > 0


@pytest.mark.skipif(util.find_spec("jax_plugins") is not None, reason="the CUDA plug-in may be installed")
def test_without_the_plug_in_it_says_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[cuda12\]"'):
        gpu_targets.described_devices(T4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lanes"), [("default", 1_024), ("article", 512)])
def test_on_a_t4_the_training_keeps_its_bars_and_fits(name: str, lanes: int) -> None:
    pytest.importorskip("jax_plugins.xla_cuda12", reason='needs JAX\'s CUDA plug-in: pip install -e ".[cuda12]"')
    result, _ = gpu_report.plan(T4, space.load(name), lanes, None, lambda _: None)
    assert not [bar for bar in result["bars"].items() if bar[1]["is"] > bar[1]["at_most"]]
    assert result["memory"]["fits"]
