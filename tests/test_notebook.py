"""What the cells of the notebook for free GPUs call, and the notebook itself."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython.display
import jax
import nbformat
import pytest
from nbclient import NotebookClient

from jaxdqn import agent_directory, devices, hosted, inline, notebook, run, statistics
from jaxdqn.hosted import Service
from jaxdqn.notebook import Home, Refused
from tests.agents import balancing, falling
from tests.small_sweep import FRESH, TRIALS, loaded, score
from tests.stand_in import StandIn
from tests.test_evaluate_script import put
from tests.test_whole_sweep import TINY

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "scripts" / "free_gpu.ipynb"


class Shown:
    """What cells show: a bundle each, with how often it was drawn."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, str]] = []
        self.updates = 0

    def display(self, bundle: dict[str, str], raw: bool = False, display_id: bool = False) -> Any:
        assert raw
        place = len(self.bundles)
        self.bundles.append(bundle)

        def update(bundle: dict[str, str], raw: bool = False) -> None:
            assert raw
            self.bundles[place] = bundle
            self.updates += 1

        return SimpleNamespace(update=update) if display_id else None

    @property
    def text(self) -> str:
        return "\n".join(bundle["text/plain"] for bundle in self.bundles)

    @property
    def markup(self) -> str:
        return "\n".join(bundle["text/html"] for bundle in self.bundles)


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Show nothing but keep it; be in an empty directory of a machine of one's own."""
    kept = Shown()
    monkeypatch.setattr(IPython.display, "display", kept.display)
    monkeypatch.setattr(devices, "prepare", lambda: None)  # conftest.py has done it
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 199)
    monkeypatch.setattr(hosted, "service", lambda: Service.OTHER)
    monkeypatch.chdir(tmp_path)
    return kept


def stand_in(config: Any, layout: Any, _: int) -> StandIn:
    return StandIn(config, layout, score=score)


def small(monkeypatch: pytest.MonkeyPatch, make_population: Any = stand_in) -> dict[str, Any]:
    """Train no agents but their stand-in; return the settings of a small sweep."""
    loaded(Path())
    monkeypatch.setattr(run, "run", partial(run.run, make_population=make_population))
    off = {"storage": "off", "tracking": "off", "report": False}
    fresh = dict(zip(("confirm_top", "confirm_seeds", "verdict_seeds"), FRESH, strict=True))
    return {"space": "one.toml", "trials": TRIALS, "sampler": "random", **off, **fresh}


# A sweep


def test_a_sweep_runs_in_this_process_and_the_same_call_has_nothing_left_to_do(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small(monkeypatch)
    output = notebook.tune(Home(Path("here")), **settings)
    assert output == Path("here/one-CartPole-v1")
    said = capsys.readouterr().out
    assert "confirming: the best trials on fresh seeds" in said
    assert f"{TRIALS} complete" in said
    assert re.search(r"trial \d: \d of 4 fresh seeds solve it", said)
    assert "scripts/" not in said
    assert shown.markup.count("<table") == 1
    assert "agents done 4 of 4" in shown.text
    assert "All that was asked for is done" in shown.text
    assert notebook.tune(Home(Path("here")), **settings) == output
    assert "nothing to train" in capsys.readouterr().out


def test_the_log_keeps_the_command_that_does_the_same(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    output = notebook.tune(**small(monkeypatch), time_budget=None)
    log = (output / "study.log").read_text()
    assert f"python scripts/sweep.py --space one.toml --trials {TRIALS} --sampler random" in log
    assert "--no-report" in log
    assert "--time-budget" not in log


def test_results_go_home_unless_something_else_is_said(shown: Shown) -> None:
    backed = notebook._settings(Home(Path("r"), Path("d")), {"env_steps": 1_000})
    assert (backed.output, backed.backup_to) == (Path("r/default-CartPole-v1"), Path("d/default-CartPole-v1"))
    assert notebook._settings(Home(), {}).backup_to is None
    said = notebook._settings(Home(Path("r"), Path("d")), {"output": "mine", "backup_to": "there"})
    assert (said.output, said.backup_to) == (Path("mine"), Path("there"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": "artikel"}, "did you mean article?"),
        ({"trails": 3}, "setting 'trails' is unknown; did you mean trials?"),
        ({"trials": 0}, "trials 0 is not allowed: int in"),
        ({"time_budget": -60}, "time_budget -60 is not allowed"),
        ({"trials": "many"}, "a setting is of a wrong type"),
        ({"storage": "postgresql://me:secretword@nowhere.invalid/x"}, "storage"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line_in_the_words_of_python(
    shown: Shown, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused) as refused:
        notebook.tune(**settings)
    (line,) = refused.value._render_traceback_()
    assert words in line
    assert line.startswith("error: ")
    assert "--" not in line
    assert "\n" not in line
    assert "secretword" not in line


def test_a_file_that_can_not_be_written_is_one_line(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a regular file")
    with pytest.raises(Refused, match="no writable directory"):
        notebook.tune()


def test_the_table_is_drawn_when_it_is_due_and_at_its_end(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "_DRAW_EVERY_S", 1e9)
    with inline.Table() as table:
        for number in range(1_000):
            table.draw({"best": f"{number} <b>"})
    assert shown.updates == 2
    assert len(shown.bundles) == 1
    assert "999 &lt;b&gt;" in shown.markup
    assert shown.text == "best 999 <b>"


# The stop button


def pressing(times: int) -> Any:
    """A population in whose first segments somebody presses the stop button."""

    class Pressed(StandIn):
        def dispatch(self, *arguments: Any) -> None:
            super().dispatch(*arguments)
            if self.segments <= times:
                os.kill(os.getpid(), signal.SIGINT)

    return lambda config, layout, _: Pressed(config, layout, score=score)


def test_the_stop_button_ends_a_sweep_cleanly_and_the_same_call_goes_on(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, original = signal.getsignal(signal.SIGINT), run.run
    settings = {**small(monkeypatch, pressing(1)), "lanes": 2}
    notebook.tune(**settings)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Stopped. Run this cell again" in shown.text
    assert f"{TRIALS} complete" not in capsys.readouterr().out
    monkeypatch.setattr(run, "run", partial(original, make_population=stand_in))
    notebook.tune(**settings)
    assert f"{TRIALS} complete" in capsys.readouterr().out


def test_pressed_twice_it_ends_at_once_and_the_same_call_goes_on(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, original = signal.getsignal(signal.SIGINT), run.run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel does
    try:
        settings = {**small(monkeypatch, pressing(2)), "lanes": 4}
        with pytest.raises(Refused, match="run this cell again"):
            notebook.tune(**settings)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(run, "run", partial(original, make_population=stand_in))
    notebook.tune(**settings)
    assert f"{TRIALS} complete" in capsys.readouterr().out


# The machine, and where results live


def test_the_machine_is_what_jax_computes_on_with_advice_where_that_is_no_gpu(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "service", lambda: Service.COLAB)
    monkeypatch.setattr(hosted, "cards", list)
    notebook.machine()
    assert "on Colab computes on 2 × cpu" in shown.text
    assert "Runtime > Change runtime type > T4 GPU" in shown.text
    assert "font-weight:bold" in shown.markup


def test_a_backend_that_has_started_keeps_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "3")
    there = jax.local_devices()
    devices.prepare(len(there) + 1)
    assert jax.local_devices() == there


def test_on_colab_results_are_copied_to_the_drive_or_it_is_said_why_not(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def declined() -> Path:
        raise ValueError("credential propagation was unsuccessful")

    monkeypatch.setattr(hosted, "service", lambda: Service.COLAB)
    monkeypatch.setattr(hosted, "mount_drive", lambda: Path("MyDrive/jaxdqn"))
    assert notebook.home() == Home(Path("runs"), Path("MyDrive/jaxdqn"))
    assert notebook.home(use_drive=False) == Home()
    monkeypatch.setattr(hosted, "mount_drive", declined)
    assert notebook.home() == Home()
    assert "The drive was not mounted (credential propagation was unsuccessful)" in shown.text


def test_on_kaggle_the_last_session_is_taken_over(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hosted, "service", lambda: Service.KAGGLE)
    monkeypatch.setattr(hosted, "INPUTS", tmp_path / "input")
    notebook.home()
    assert "Nothing was taken over" in shown.text
    (tmp_path / "input" / "last" / "runs" / "default").mkdir(parents=True)
    (tmp_path / "input" / "last" / "runs" / "default" / "study.log").write_text("")
    assert notebook.home() == Home()
    assert "Taken over from the last session: default" in shown.text
    assert Path("runs/default/study.log").is_file()


# Report and winner


def test_the_report_is_a_page_in_the_page(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text('<head><title>é & "x"</title></head><a href="#best">', "utf-8")
    notebook.show_report(tmp_path)
    assert shown.markup.startswith('<iframe srcdoc="<head><base href=&quot;about:srcdoc&quot;><title>é &amp; &quot;x')
    assert shown.markup.count('"') == 4


def test_a_report_that_is_too_large_is_shown_as_its_pictures(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "MAX_PAGE_BYTES", 3)
    (tmp_path / "report.html").write_text("page")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "confirm.png").write_bytes(b"png")
    notebook.show_report(tmp_path)
    assert 'src="data:image/png;base64,cG5n"' in shown.markup
    assert "download" in shown.text


def test_what_is_not_there_yet_is_said(shown: Shown, tmp_path: Path) -> None:
    notebook.show_report(tmp_path)
    notebook.show_winner(tmp_path)
    assert "There is no report" in shown.text
    assert "No winner yet: no saved agents" in shown.text


def test_the_winner_plays_and_moves(shown: Shown, tmp_path: Path) -> None:
    put(tmp_path, 24, "verdict", 0, falling(mean_return=40.0))
    put(tmp_path, 24, "verdict", 1, balancing(mean_return=500.0))
    agent_directory.mark_winner(tmp_path, 24)
    notebook.show_winner(tmp_path, episodes=8)
    assert "the best of trial 24, greedy episodes 8, mean return 500.00, standard deviation 0.00" in shown.text
    assert "perfect 100.0%" in shown.text
    assert 'src="data:image/gif;base64,R0lGOD' in shown.markup


# The notebook itself


def cells() -> dict[str, str]:
    """Return the code cells by id."""
    return {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"}


def test_the_notebook_is_valid_and_holds_no_results() -> None:
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    nbformat.validate(content)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_a_cell_is_explained_before_it_stands() -> None:
    kinds = [cell.cell_type for cell in nbformat.read(NOTEBOOK, 4).cells]
    assert kinds[0] == "markdown"
    assert ("code", "code") not in list(pairwise(kinds))


def test_its_cells_compile_and_call_what_there_is() -> None:
    called = set()
    for source in cells().values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "notebook":
                called.add(node.attr)
    assert called == {"machine", "home", "tune", "show_report", "show_winner"}
    assert [name for name in called if not callable(getattr(notebook, name, None))] == []


def install(source: str, monkeypatch: pytest.MonkeyPatch, packages: dict[str, str], after: dict[str, str]) -> list[str]:
    """Run the cell that installs, with a pip that leaves `after`; return its constraints and what it installs."""
    there, done = dict(packages), []

    def pip(command: list[str], **_: Any) -> SimpleNamespace:
        assert command[:5] == [sys.executable, "-m", "pip", "install", "-q"]
        done.extend([*Path(command[6]).read_text().split(), command[7]])
        there.update(after)
        return SimpleNamespace(returncode=0, stderr="")

    def distributions() -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, version=version) for name, version in there.items()]

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(metadata, "distributions", distributions)
    exec(compile(cells()["install"].replace('SOURCE = ""', f"SOURCE = {source!r}"), "install", "exec"), {})
    return done


COLAB = {"jax": "0.7.2", "jaxlib": "0.7.2", "jax_cuda12_plugin": "0.7.2", "jaxtyping": "0.3.0", "flax": "0.11.2"}


def test_pip_may_not_change_the_jax_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = install("git+https://host.invalid/jaxdqn", monkeypatch, COLAB, {"jaxdqn": "0.1.0", "jaxtyping": "0.3.11"})
    assert done == ["jax==0.7.2", "jax-cuda12-plugin==0.7.2", "jaxlib==0.7.2", "git+https://host.invalid/jaxdqn"]
    assert "JAX is as it was: jax 0.7.2, jax-cuda12-plugin 0.7.2, jaxlib 0.7.2" in capsys.readouterr().out


def test_a_jax_that_was_changed_all_the_same_ends_the_run_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="JAX WAS CHANGED"):
        install("x", monkeypatch, COLAB, {"jaxdqn": "0.1.0", "jaxlib": "0.10.0"})


def test_a_checkout_around_the_notebook_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "scripts")
    done = install("", monkeypatch, {"jax": "0.7.2"}, {"jaxdqn": "0.1.0"})
    assert done[0] == "jax==0.7.2"
    assert (Path(done[1]) / "pyproject.toml").is_file()
    assert (Path(done[1]) / "jaxdqn" / "notebook.py").is_file()
    assert Path(done[1]) != ROOT  # a copy: pip builds inside


def test_what_is_installed_is_left_and_nothing_to_install_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert install("anything", monkeypatch, {**COLAB, "jaxdqn": "0.1.0"}, {}) == []
    with pytest.raises(SystemExit, match="SOURCE is empty"):
        install("", monkeypatch, COLAB, {})


def executed(directory: Path, parameters: str, allow_errors: bool = False) -> dict[str, list[Any]]:
    """Run the whole notebook in a directory, with other parameters; return its outputs by the ids of cells."""
    content = nbformat.read(NOTEBOOK, 4)
    (chosen,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    chosen.source = parameters
    where = {"metadata": {"path": str(directory)}}
    client = NotebookClient(content, timeout=900, kernel_name="python3", resources=where, allow_errors=allow_errors)
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    return {cell.id: cell.outputs for cell in content.cells if cell.cell_type == "code"}


def words(outputs: list[Any]) -> str:
    return "".join(output.get("text", "") + output.get("data", {}).get("text/html", "") for output in outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_whole_notebook_runs_on_a_cpu_and_run_again_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    parameters = 'SPACE, TRIALS, MINUTES = "tiny.toml", 5, 0'
    first = executed(tmp_path, parameters)
    assert "jaxdqn is installed already" in words(first["install"])
    assert "cpu" in words(first["machine"])
    assert "No NVIDIA GPU was found" in words(first["machine"]) or "There is a GPU" in words(first["machine"])
    assert "<table" in words(first["tune"])
    assert "compiling one program" in words(first["tune"])
    assert "of 16 fresh seeds solve it" in words(first["tune"])
    assert len(first["tune"]) < 50
    assert '<iframe srcdoc="' in words(first["report"])
    assert "data:image/gif;base64," in words(first["winner"])
    assert "mean return" in words(first["winner"])
    errors = [o for outputs in first.values() for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert errors == []

    again = executed(tmp_path, parameters)
    assert "nothing to train" in words(again["tune"])
    assert "compiling one program" not in words(again["tune"])
    assert "data:image/gif;base64," in words(again["winner"])

    refused = executed(tmp_path, 'SPACE, TRIALS, MINUTES = "tinny.toml", 5, 0', allow_errors=True)
    (error,) = [output for output in refused["tune"] if output.output_type == "error"]
    assert len(error.traceback) == 1
    assert error.traceback[0].startswith("error: ")
    assert "'tinny.toml'" in error.traceback[0]
