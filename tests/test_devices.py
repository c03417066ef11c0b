"""A GPU that JAX ignores is noticed, with its cause."""

import io
from typing import Any

import pytest
from rich.console import Console

from jaxdqn import devices
from jaxdqn.console import SweepConsole
from jaxdqn.devices import Surroundings, why_ignored

WELL = Surroundings({"jax-cuda12-plugin": "0.10.2", "jax-cuda12-pjrt": "0.10.2"}, "0.10.2", True, True, {}, "")
IGNORED = "a CUDA plug-in for JAX is installed, but the CPU is used: "
CAUSES: dict[str, tuple[dict[str, Any], str]] = {
    "the user's platforms": ({"environment": {"JAX_PLATFORMS": "cpu"}}, "JAX_PLATFORMS=cpu is set"),
    "the user's platform": ({"environment": {"JAX_PLATFORM_NAME": "cpu"}}, "JAX_PLATFORM_NAME=cpu is set"),
    "no driver": ({"gpu": False, "driver": False}, "no NVIDIA driver or device is visible here (in a notebook, choose"),
    "a driver without a device": ({"gpu": False}, "an NVIDIA driver is loaded, but no device is visible"),
    "nothing visible": ({"environment": {"CUDA_VISIBLE_DEVICES": ""}}, "CUDA_VISIBLE_DEVICES= hides all GPUs"),
    "none visible": ({"environment": {"CUDA_VISIBLE_DEVICES": "-1"}}, "CUDA_VISIBLE_DEVICES=-1 hides all GPUs"),
    "another version": (
        {"plugins": {"jax-cuda12-plugin": "0.7.2"}},
        "jax-cuda12-plugin is 0.7.2, jaxlib is 0.10.2; install matching ones",
    ),
    "JAX's own error": ({"error": "no cuDNN found"}, "no cuDNN found"),
    "nothing known": ({}, "JAX does not say why"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_an_ignored_gpu_is_said_with_its_cause(cause: str) -> None:
    changes, words = CAUSES[cause]
    said = why_ignored(WELL._replace(**changes))
    assert said is not None
    assert said.startswith(IGNORED + words)
    assert "\n" not in said


def test_a_gpu_without_a_plug_in_is_said_with_the_command_that_helps() -> None:
    said = why_ignored(WELL._replace(plugins={}))
    assert said is not None
    assert said.startswith("a GPU is there, but JAX has no CUDA plug-in")
    assert said.endswith("pip install -e '.[cuda12]'")


def test_a_machine_without_gpu_and_plug_in_is_not_worth_a_word() -> None:
    assert why_ignored(WELL._replace(plugins={}, gpu=False)) is None
    assert why_ignored(WELL._replace(plugins={}, gpu=False, driver=False)) is None


def test_local_builds_of_a_version_are_that_version() -> None:
    same = WELL._replace(plugins={"jax-cuda12-plugin": "0.10.2+cuda12"}, error="broken")
    assert why_ignored(same) == f"{IGNORED}broken"


def test_what_jax_says_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"jax-cuda12-plugin": "0.10.2", "jaxlib": "0.10.2"}

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        raise devices.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(devices.metadata, "version", version)
    around = devices._surroundings()
    assert around.plugins == {"jax-cuda12-plugin": "0.10.2"}
    assert around.jaxlib == "0.10.2"
    assert "cuda" in around.error or around.gpu


def test_a_gpu_that_is_used_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "platform", lambda: "gpu")
    monkeypatch.setattr(devices, "_surroundings", lambda: pytest.fail("looked around"))
    assert devices.ignored_gpu() is None


@pytest.mark.parametrize("terminal", [False, True])
def test_a_warning_is_bold_and_red_on_a_terminal_and_plain_elsewhere(terminal: bool) -> None:
    out = io.StringIO()
    colours = "standard" if terminal else None
    console = Console(file=out, force_terminal=terminal, color_system=colours, width=200)
    with SweepConsole(console, "title") as shown:
        shown.show("warning: a GPU [is] there")
        shown.show("a message")
    assert ("\x1b[1;31mwarning: a GPU [is] there\x1b[0m\n" in out.getvalue()) == terminal
    assert "warning: a GPU [is] there" in out.getvalue()
    assert "31ma message" not in out.getvalue()
