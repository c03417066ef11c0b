"""What the memory benchmark says."""

import importlib.util
import json
from pathlib import Path

import pytest
from rich.console import Console

from jaxdqn import devices, memory_report
from jaxdqn.memory import PARTS
from jaxdqn.memory_report import draw, measure, memory_table

TINY = (
    "env_steps = 50\neval_episodes = 2\n[hyperparameters]\nhidden_width = 4\nbuffer_size = 64\nlearning_rate = 1e-3\n"
)
SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("spaces") / "tiny.toml"
    path.write_text(TINY)
    return measure(str(path), 8)


@pytest.mark.slow
def test_what_is_predicted_is_what_xla_reports(result: dict) -> None:
    assert result["predicted"]["arguments"] == result["xla"]["arguments"]
    assert result["predicted"]["temporaries"] >= result["xla"]["temporaries"]
    assert list(result["bytes_a_lane"]) == list(PARTS)
    assert 0 < result["fit"]["Tesla T4"] < result["fit"]["NVIDIA A100-SXM4-40GB"]
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_a_table_of_two_spaces_fits_80_columns(result: dict, capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(memory_table([result, result | {"space": "x" * 20}]))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "lanes that fit: Tesla T4" in shown


@pytest.mark.slow
def test_the_figure_is_written(result: dict, tmp_path: Path) -> None:
    draw([result, result | {"space": "another"}], tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"spaces": ["nope"]}, "'nope'"),
        ({"lanes": 0}, "--lanes 0"),
        ({"output": SCRIPT / "x"}, "no writable directory"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(devices, "prepare", lambda: None)
    monkeypatch.setattr(memory_report, "Population", lambda *_: pytest.fail("it was compiled"))
    with pytest.raises(SystemExit) as ended:
        script.memory(**{"output": tmp_path, **words})
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert said in error[0]
