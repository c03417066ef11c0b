"""Where a notebook runs, what it says about the GPU there, and what it takes over from the last session."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jaxdqn import hosted
from jaxdqn.hosted import Service, advice, carry_over, mount_drive, service

T4S = ["Tesla T4", "Tesla T4"]
PLUGIN = "jax-cuda12-plugin 0.7.2"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)


def left(directory: Path, records: int) -> Path:
    """A sweep's directory with a log of so many records, as a session left it."""
    (directory / "agents" / "trial-3").mkdir(parents=True)
    (directory / "study.log").write_text("record\n" * records)
    (directory / "agents" / "trial-3" / "verdict-0.json").write_text("{}")
    return directory


def test_kaggle_is_told_from_colab_though_its_image_descends_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert service() is Service.OTHER
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    assert service() is Service.COLAB
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert service() is Service.KAGGLE


@pytest.mark.parametrize("where", Service)
def test_nothing_is_advised_where_jax_computes_on_a_gpu(where: Service) -> None:
    assert advice(where, "gpu", T4S, PLUGIN) == []


@pytest.mark.parametrize(
    ("where", "backend", "gpus", "cuda", "words"),
    [
        (Service.COLAB, "cpu", [], PLUGIN, ["No GPU is chosen", "Runtime > Change runtime type > T4 GPU"]),
        (Service.KAGGLE, "cpu", [], PLUGIN, ["No GPU is chosen", "Settings > Accelerator > GPU T4 x2"]),
        (Service.OTHER, "cpu", [], None, ["No NVIDIA GPU was found"]),
        (Service.COLAB, "cpu", T4S, PLUGIN, ["(Tesla T4)", PLUGIN, "Runtime > Restart session", "Do not install"]),
        (Service.KAGGLE, "cpu", T4S, None, ["gone", "Power off", "Do not install another jax or jaxlib"]),
        (Service.OTHER, "cpu", T4S, PLUGIN, [PLUGIN, "Restart the session and run", "nvidia-smi", "Do not install"]),
        (Service.OTHER, "cpu", T4S, None, ["plug-in is missing", ".[cuda12]"]),
        (Service.COLAB, "tpu", [], None, ["TPU", "never tried", "T4 GPU"]),
    ],
)
def test_a_session_without_jax_on_a_gpu_is_told_what_to_do(
    where: Service, backend: str, gpus: list[str], cuda: str | None, words: list[str]
) -> None:
    said = " ".join(advice(where, backend, gpus, cuda))
    assert [word for word in words if word not in said] == []


def test_a_variable_that_keeps_jax_on_the_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert "JAX_PLATFORMS=cpu" in " ".join(advice(Service.KAGGLE, "cpu", T4S, PLUGIN))


def test_cards_are_those_the_driver_names_and_none_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(stdout="Tesla T4\nTesla T4\n\n")

    def fail(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("nvidia-smi")

    def refuse(*_: Any, **__: Any) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    for answer, cards in ((run, T4S), (fail, []), (refuse, [])):
        monkeypatch.setattr(subprocess, "run", answer)
        assert hosted.cards() == cards


def drive_that(monkeypatch: pytest.MonkeyPatch, mount: Any) -> None:
    """Put Colab's own package in place, with a drive that mounts so."""
    colab = ModuleType("google.colab")
    colab.drive = SimpleNamespace(mount=mount)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab", colab)


def test_the_drive_is_mounted_where_colab_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "DRIVE", tmp_path)
    drive_that(monkeypatch, lambda place: (Path(place) / "MyDrive").mkdir(exist_ok=True))
    for _ in range(2):
        assert mount_drive() == tmp_path / "MyDrive" / "jaxdqn"
        assert mount_drive().is_dir()  # a backup's own directory may be made, not the one above it


def test_a_drive_that_is_not_mounted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def declined(_: str) -> None:
        raise RuntimeError("credential propagation\nwas unsuccessful")

    monkeypatch.setattr(hosted, "DRIVE", tmp_path)
    drive_that(monkeypatch, declined)
    with pytest.raises(ValueError, match=r"^credential propagation was unsuccessful$"):
        mount_drive()
    drive_that(monkeypatch, lambda _: None)
    with pytest.raises(ValueError, match=r"No such file or directory: .*MyDrive"):
        mount_drive()


def test_the_sweeps_of_the_last_session_are_taken_over_with_the_longest_log(tmp_path: Path) -> None:
    inputs, runs = tmp_path / "input", tmp_path / "working" / "runs"
    left(inputs / "first" / "runs" / "default", 3)
    left(inputs / "notebooks" / "me" / "second" / "runs" / "default", 5)
    left(inputs / "first" / "runs" / "article", 2)
    left(inputs / "first" / "elsewhere" / "no-sweep-of-ours", 9)
    assert carry_over(inputs, runs) == [runs / "article", runs / "default"]
    assert (runs / "default" / "study.log").read_text().count("record") == 5
    assert (runs / "article" / "agents" / "trial-3" / "verdict-0.json").is_file()
    assert sorted(path.name for path in runs.iterdir()) == ["article", "default"]


def test_what_this_session_has_stays(tmp_path: Path) -> None:
    left(tmp_path / "input" / "a" / "runs" / "default", 9)
    here = left(tmp_path / "runs" / "default", 1)
    assert carry_over(tmp_path / "input", tmp_path / "runs") == []
    assert (here / "study.log").read_text().count("record") == 1
    assert carry_over(tmp_path / "nowhere", tmp_path / "runs") == []


def test_inputs_that_can_not_be_written_are_copied_so_that_they_can(tmp_path: Path) -> None:
    source = left(tmp_path / "input" / "a" / "runs" / "default", 1)
    for path in [*source.rglob("*"), source]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (copied,) = carry_over(tmp_path / "input", tmp_path / "runs")
    assert all(path.stat().st_mode & 0o200 for path in [copied, *copied.rglob("*")])
    for path in [source, *source.rglob("*")]:
        path.chmod(0o755)


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    left(tmp_path / "input" / "a" / "runs" / "default", 1)
    monkeypatch.setattr(hosted.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        carry_over(tmp_path / "input", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
