"""The command as its user types it, from a first run to a resumed one."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.browser import opened

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"
SEARCH_ONLY = ("--confirm-top", "0", "--no-report")
TINY = """
env_steps = 400
eval_episodes = 10
rungs = [200]
[hyperparameters]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
batch_size = { choices = [8, 16] }
hidden_width = { low = 4, high = 8 }
hidden_layers = { low = 0, high = 2 }
buffer_size = 300
warmup_steps = 50
"""


def swept(directory: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run the command; return its summary and what it said."""
    command = [sys.executable, str(SCRIPT), "--json", *options]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    return json.loads(lines[0]), done.stderr


def stored(directory: Path) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{next(directory.glob('runs/*/study.db'))}"
    return optuna.load_study(study_name=None, storage=url).get_trials()


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_recorded_alike_everywhere_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    options = ("--space", "tiny.toml", "--seeds", "2", "--lanes", "8", *SEARCH_ONLY, "--trials")
    summary, said = swept(tmp_path, *options, "5")
    assert summary["trials"] == {"complete": 5, "pruned": 0, "failed": 0, "running": 0}
    assert summary["compiles_after_start"] == 0
    assert summary["env_steps"] == 5 * 2 * 400
    assert summary["lanes"] == summary["rows"] * summary["block"] * summary["devices"] == 8
    assert "mlflow ui --backend-store-uri" in said

    again, _ = swept(tmp_path, *options, "5")
    assert (again["env_steps"], again["best"]) == (0, summary["best"])
    next(tmp_path.glob("runs/*/study.db")).unlink()  # what follows the log can be lost: it is written anew
    more, said = swept(tmp_path, *options, "7")
    trials = stored(tmp_path)
    assert [trial.number for trial in trials] == list(range(7))
    assert more["best"]["mean_return"] == max(trial.value for trial in trials)
    assert f"trial {more['best']['number']}" in said

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{next(tmp_path.glob('runs/*/mlflow.db'))}")
    experiment = client.search_experiments(filter_string="name = 'tiny-CartPole-v1'")[0]
    runs = client.search_runs([experiment.experiment_id])
    children = {int(run.data.tags["jaxdqn.trial"]): run for run in runs if "jaxdqn.trial" in run.data.tags}
    assert sorted(children) == list(range(7))
    for trial in trials:
        run = children[trial.number]
        assert run.data.metrics["mean_return"] == pytest.approx(trial.value)
        assert run.data.metrics["std_return"] == pytest.approx(trial.user_attrs["std_return"])
        returns = [run.data.metrics[f"return_seed_{i}"] for i in range(2)]
        assert returns == pytest.approx(trial.user_attrs["returns"])
        assert trial.value == pytest.approx(sum(returns) / 2)
        for name, value in trial.params.items():
            assert float(run.data.params[name]) == pytest.approx(value)
        assert "loss_seed_1" in run.data.metrics
        assert "training_return_seed_0" in run.data.metrics
        assert "validation_return_seed_0" in run.data.metrics


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_prints_the_command_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("env_steps = 400", "env_steps = 20_000"))
    command = [sys.executable, str(SCRIPT), "--space", "tiny.toml", *SEARCH_ONLY, "--trials", "60"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "the best so far" in line:
                process.send_signal(signal.SIGINT)
                break
        said += process.stdout.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    before = {trial.number: trial.value for trial in stored(tmp_path) if trial.state.is_finished()}
    assert 0 < len(before) < 60

    printed = re.search(r"continue this study: (.+)", said)
    assert printed is not None, said
    done = subprocess.run(shlex.split(printed[1]), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = stored(tmp_path)
    assert [trial.number for trial in after] == list(range(60))
    assert all(trial.state.is_finished() for trial in after)
    assert {number: after[number].value for number in before} == before


@pytest.mark.slow
def test_the_default_sweep_solves_cartpole_without_compiling_again(tmp_path: Path) -> None:
    summary, _ = swept(tmp_path)
    assert summary["best"]["mean_return"] >= 475
    assert sum(summary["trials"].values()) == 64
    assert summary["trials"]["running"] == 0
    assert summary["verdict"]["number"] == summary["confirm"][0]["number"]
    assert summary["verdict"]["mean_return"] >= 475
    assert summary["compiles_after_start"] == 0
    output = tmp_path / summary["output"]
    pictures = ("best_so_far", "learning_curves", "timeline", "confirm", "search_and_fresh")
    assert {path.stem for path in (output / "report").glob("*.png")} == set(pictures)
    document = opened(output / "report.html", tmp_path / "profile")
    assert "data:image/gif;base64," in document


@pytest.mark.slow
def test_the_search_of_the_article_takes_one_compile(tmp_path: Path) -> None:
    summary, _ = swept(tmp_path, "--space", "article", "--trials", "32", *SEARCH_ONLY)
    assert sum(summary["trials"].values()) == 32
    assert summary["trials"]["running"] == 0
    assert summary["compiles_after_start"] == 0
