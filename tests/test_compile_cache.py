"""Compiled programs are kept where only their user can write, or not at all."""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from jaxdqn import compile_cache

CHILD = """
import jax, sys
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
from jaxdqn import compile_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
assert compile_cache.use(sys.argv[1]) is None
print(float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((3, 3)))), bool(hits))
"""


TORN = """
import jax, sys
from jaxdqn import compile_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
assert compile_cache.use("gpu") is None
def make_ready():
    print(float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((3, 3)))))
    return 0.0
compile_cache.compiling(make_ready, lambda line: print(line, file=sys.stderr))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """JAX's settings, switched on, and what was set of them; nothing reaches JAX."""
    known: dict[str, object] = {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": True}

    class Config:
        def __getattr__(self, name: str) -> object:
            return known[name]

        def update(self, name: str, value: object) -> None:
            known[name] = value

    monkeypatch.setattr(jax, "config", Config())
    return known


def test_programs_are_kept_in_a_directory_that_only_the_user_can_open(home: Path, settings: dict[str, object]) -> None:
    assert compile_cache.use("gpu") is None
    assert settings["jax_compilation_cache_dir"] == str(home / "jaxdqn" / "xla")
    for path in (home / "jaxdqn", home / "jaxdqn" / "xla"):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_write_to_is_not_used_and_said(home: Path, settings: dict[str, object]) -> None:
    (home / "jaxdqn").mkdir(parents=True)
    (home / "jaxdqn").chmod(0o777)
    said = compile_cache.use("gpu")
    assert said is not None
    assert said.startswith("compiled programs are not kept for the next time: ")
    assert str(home / "jaxdqn") in said
    assert settings["jax_compilation_cache_dir"] is None


def test_a_link_is_not_followed(home: Path, settings: dict[str, object], tmp_path: Path) -> None:
    (home / "jaxdqn").mkdir(parents=True, mode=0o700)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (home / "jaxdqn" / "xla").symlink_to(tmp_path / "elsewhere")
    assert "is not a directory that only this user can open" in str(compile_cache.use("gpu"))
    assert settings["jax_compilation_cache_dir"] is None


def test_a_place_that_cannot_be_made_is_said(tmp_path: Path, home: Path, settings: dict[str, object]) -> None:
    home.write_text("no directory")
    assert str(home) in str(compile_cache.use("gpu"))
    assert settings["jax_compilation_cache_dir"] is None


def test_a_relative_place_is_the_home_directory(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_cache.use("gpu") is None
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / ".cache" / "jaxdqn" / "xla")


@pytest.mark.parametrize(
    ("name", "value"), [("jax_compilation_cache_dir", "gs://their/own"), ("jax_enable_compilation_cache", False)]
)
def test_what_the_user_has_chosen_stays(home: Path, settings: dict[str, object], name: str, value: object) -> None:
    settings[name] = value
    before = dict(settings)
    assert compile_cache.use("gpu") is None
    assert settings == before
    assert not home.exists()


@pytest.mark.parametrize(
    ("version", "noisy"), [((0, 7, 0), False), ((0, 8, 3), True), ((0, 10, 1), True), ((0, 10, 2), False)]
)
def test_versions_that_reload_with_false_alarms_go_without_and_say_so(
    home: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], noisy: bool
) -> None:
    monkeypatch.setattr(jax, "__version_info__", version)
    monkeypatch.setattr(Path, "read_text", lambda _: "flags : avx512dq avx512f avx512bw")
    said = compile_cache.use("cpu")
    assert (said is not None) == noisy
    assert (settings["jax_compilation_cache_dir"] is None) == noisy
    assert "false alarms" in (said or "false alarms")


def test_nothing_is_kept_where_that_is_not_wanted(home: Path, settings: dict[str, object]) -> None:
    settings["jax_compilation_cache_dir"] = "/their/own"
    assert compile_cache.use("cpu", wanted=False) is None
    assert settings["jax_enable_compilation_cache"] is False
    assert compile_cache.directory() is None
    assert not home.exists()


def test_a_full_disk_is_said_in_one_line(
    home: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    said = str(compile_cache.use("gpu"))
    assert said.endswith("is full")
    assert "\n" not in said
    assert settings["jax_compilation_cache_dir"] is None


def test_a_place_of_the_users_that_is_no_directory_is_said(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "file").write_text("no directory")
    settings["jax_compilation_cache_dir"] = str(tmp_path / "file" / "cache")
    assert "is no directory that can be written to" in str(compile_cache.use("gpu"))


def test_several_processes_may_delete_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program").write_bytes(bytes(100))
    found = list(os.scandir(tmp_path))
    (tmp_path / "program").unlink()
    monkeypatch.setattr(os, "scandir", lambda _: found)
    compile_cache.bound(tmp_path, 10)


def test_the_oldest_programs_are_deleted_when_there_are_too_many(tmp_path: Path) -> None:
    for age in range(6):
        (tmp_path / f"program-{age}").write_bytes(bytes(100))
        os.utime(tmp_path / f"program-{age}", (1_000 - age, 1_000 - age))
    compile_cache.bound(tmp_path, 350)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program-0", "program-1", "program-2"]


def test_what_is_kept_and_can_not_be_read_is_said_and_forgotten(
    home: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compile_cache.use("gpu") is None
    kept = home / "jaxdqn" / "xla" / "jit_program-cache"
    kept.write_bytes(b"torn")
    said: list[str] = []

    def make_ready() -> float:
        if settings["jax_enable_compilation_cache"]:
            assert settings["jax_raise_persistent_cache_errors"] is True
            raise zlib.error("incomplete stream\nof many lines")
        return 1.5

    assert compile_cache.compiling(make_ready, said.append) == 1.5
    assert said == [f"compiled without the programs in {kept.parent}, which can't be used: incomplete stream"]
    assert settings["jax_raise_persistent_cache_errors"] is False
    assert not kept.exists()


def test_programs_of_the_users_own_place_are_left_alone(tmp_path: Path, settings: dict[str, object]) -> None:
    settings["jax_compilation_cache_dir"] = str(tmp_path)
    (tmp_path / "program").write_bytes(b"torn")

    def make_ready() -> float:
        if settings["jax_enable_compilation_cache"]:
            raise ValueError("torn")
        return 0.5

    assert compile_cache.compiling(make_ready, lambda _: None) == 0.5
    assert (tmp_path / "program").exists()


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")])
def test_memory_that_is_short_is_not_taken_for_a_broken_cache(
    home: Path, settings: dict[str, object], error: Exception
) -> None:
    compile_cache.use("gpu")

    def make_ready() -> float:
        raise error

    with pytest.raises(type(error)):
        compile_cache.compiling(make_ready, lambda _: pytest.fail("said"))
    assert settings["jax_enable_compilation_cache"] is True


def test_an_error_of_the_program_itself_is_raised(home: Path, settings: dict[str, object]) -> None:
    compile_cache.use("gpu")

    def make_ready() -> float:
        raise ZeroDivisionError("its own")

    with pytest.raises(ZeroDivisionError, match="its own"):
        compile_cache.compiling(make_ready, lambda _: None)


@pytest.mark.slow
def test_a_file_that_was_cut_off_is_no_obstacle_for_long(home: Path) -> None:
    def child() -> tuple[str, str]:
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true"}
        done = subprocess.run([sys.executable, "-c", TORN], env=environment, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    assert child() == ("27.0\n", "")
    kept = list((home / "jaxdqn" / "xla").glob("*-cache"))
    for path in kept:
        path.write_bytes(path.read_bytes()[:-9])
    out, said = child()
    assert out == "27.0\n"
    assert len(said.splitlines()) == 1
    assert "which can't be used" in said
    assert child() == ("27.0\n", "")
    assert list((home / "jaxdqn" / "xla").glob("*-cache"))


@pytest.mark.slow
def test_a_second_process_finds_the_program_of_the_first(home: Path) -> None:
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true"}
    noisy = compile_cache._reloads_with_noise(jax.__version_info__)
    platform = "gpu" if noisy else "cpu"  # here all the same
    done = [
        subprocess.run([sys.executable, "-c", CHILD, platform], env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [one.stdout for one in done] == ["27.0 False\n", "27.0 True\n"]
    assert noisy or [one.stderr for one in done] == ["", ""]
