"""A program that was traced before is the same program; one that is broken, foreign or changed is traced anew."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jaxtyping import Array

from jaxdqn import compile_cache, programs


class Both(NamedTuple):
    """What the program below returns."""

    total: Array
    scaled: Array


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compile_cache, "directory", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def traced() -> list[str]:
    """Grows by one entry each time that the program is traced."""
    return []


def run(traced: list[str], made_from: object | None, factor: float = 2.0) -> Both:
    def program(pair: tuple[Array, Array]) -> Both:
        traced.append("traced")
        return Both(pair[0].sum() + pair[1].sum(), pair[0] * factor)

    pair = (np.arange(3.0, dtype=np.float32), np.ones(2, np.float32))
    found = programs.exported(jax.jit(program), (pair,), Both(0, 0), made_from)  # type: ignore[arg-type]
    return jax.tree.map(np.asarray, jax.jit(found)(pair))


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.stablehlo"))


def test_a_program_is_traced_once_and_says_the_same_again(cache: Path, traced: list[str]) -> None:
    first, second = run(traced, "this"), run(traced, "this")
    assert len(traced) == 1
    assert first.total == second.total == 5.0
    assert np.array_equal(first.scaled, second.scaled)
    assert np.array_equal(second.scaled, [0.0, 2.0, 4.0])
    assert len(kept(cache)) == 1


def test_another_origin_is_another_program(cache: Path, traced: list[str]) -> None:
    run(traced, ("space", 2.0))
    assert np.array_equal(run(traced, ("space", 3.0), factor=3.0).scaled, [0.0, 3.0, 6.0])
    assert len(kept(cache)) == len(traced) == 2


def test_what_has_no_known_origin_is_not_kept(cache: Path, traced: list[str]) -> None:
    run(traced, None)
    run(traced, None)
    assert len(traced) == 2
    assert not kept(cache)


def test_nothing_is_written_where_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced: list[str]
) -> None:
    monkeypatch.setattr(compile_cache, "directory", lambda: None)
    assert run(traced, "this").total == 5.0
    assert not list(tmp_path.iterdir())


def other_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "agent.py").write_text("learning_rate = 1")
    monkeypatch.setattr(programs, "_SOURCES", tmp_path / "changed")


def other_versions(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setattr(programs, "version", lambda name: f"{name} of tomorrow")


def other_machine(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setattr(programs.fingerprint, "of_machine", lambda: {"device": "another"})


@pytest.mark.parametrize("change", [other_source, other_versions, other_machine])
def test_whatever_a_program_is_made_from_is_in_its_name(
    cache: Path,
    traced: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[pytest.MonkeyPatch, Path], None],
) -> None:
    run(traced, "this")
    change(monkeypatch, tmp_path)
    run(traced, "this")
    assert len(traced) == 2


@pytest.mark.parametrize("setting", ["jax_default_matmul_precision", "jax_numpy_rank_promotion"])
def test_settings_of_jax_are_in_its_name(cache: Path, traced: list[str], setting: str) -> None:
    value = {"jax_default_matmul_precision": "highest", "jax_numpy_rank_promotion": "allow"}[setting]
    before = getattr(jax.config, setting)
    run(traced, "this")
    try:
        jax.config.update(setting, value)
        run(traced, "this")
    finally:
        jax.config.update(setting, before)
    assert len(traced) == 2


@pytest.mark.parametrize("torn", [0, 31, 40, -1])
def test_a_file_that_is_not_whole_is_traced_anew_and_written_again(cache: Path, traced: list[str], torn: int) -> None:
    run(traced, "this")
    [path] = kept(cache)
    whole = path.read_bytes()
    path.write_bytes(whole[:torn])
    assert run(traced, "this").total == 5.0
    assert len(traced) == 2
    assert path.read_bytes()[32:] != b""
    run(traced, "this")
    assert len(traced) == 2


def test_a_place_that_can_not_be_written_to_costs_only_the_tracing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced: list[str]
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setattr(compile_cache, "directory", lambda: tmp_path / "file" / "cache")
    assert run(traced, "this").total == 5.0


CHILD = """
import hashlib, sys
from jaxdqn import compile_cache, devices
devices.prepare(2)
import jax, numpy as np
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
from jaxdqn.benchmark import UniformPopulation
from jaxdqn.workload import Uniform, go_on
from jaxdqn.config import Layout
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
assert compile_cache.use("gpu", wanted=sys.argv[1] == "cache") is None
trained = UniformPopulation(Uniform((8, 8), 4, 1, 1), Layout(1, 2, 2), "cpu")
go_on(trained._population, 0, trained._hyperparams, 100)
population = trained._population
assert population.read(0).updates.sum() > 0
bits = hashlib.sha256(b"".join(leaf.tobytes() for leaf in population.state(0))).hexdigest()
print(population.fingerprint["program"], bits)
print(bool(hits), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_reloaded_program_trains_to_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", CHILD, how], env=environment, capture_output=True, text=True, check=True)
        for how in ("no cache", "cache", "cache")
    ]
    assert len({one.stdout for one in runs}) == 1
    assert [one.stderr.split()[-1] for one in runs] == ["False", "False", "True"]
    assert list((tmp_path / "jaxdqn" / "xla").glob("*.stablehlo"))


def test_programs_traced_at_once_do_not_disturb_one_another(tmp_path: Path) -> None:
    code = (
        "import sys, jax, numpy as np; from pathlib import Path; from jaxdqn import compile_cache, programs\n"
        "compile_cache.directory = lambda: Path(sys.argv[1])\n"
        "x = np.ones(3, np.float32)\n"
        "for i in range(8): print(float(jax.jit(programs.exported(jax.jit(lambda x: x.sum()), (x,), 0, i))(x)))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [one.communicate()[0].split() for one in both] == [["3.0"] * 8] * 2
    assert len(kept(tmp_path)) == 8
    assert not list(tmp_path.glob(".*.tmp"))
