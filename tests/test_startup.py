"""A start imports what it needs and no more, and says when it began."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdqn import startup

ROOT = Path(__file__).parent.parent
HEAVY = {"mlflow", "matplotlib", "plotly", "pandas", "seaborn", "PIL", "alembic", "safetensors.torch"}
SECOND = HEAVY | {"jax", "numpy", "optuna", "scipy", "flax", "optax", "sqlalchemy"}
PROBE = """
import atexit, runpy, sys
def show():
    print("MODULES", *sorted(sys.modules))
atexit.register(show)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
STARTED = """
import sys
sys.argv = ["sweep.py"]
from jaxdqn import devices
devices.prepare()
import jaxdqn.console
from pathlib import Path
from jaxdqn.opening import open_plan
from jaxdqn.plan import Settings, plan
from jaxdqn import run
opened = open_plan(plan(Settings(trials=1, output=Path(sys.argv[-1]) / "out", tracking="off", storage="off")))
opened.study.ask(1)
print("MODULES", *sorted(sys.modules))
"""


def modules(arguments: list[str], directory: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=directory, env={**os.environ}, check=True
    )
    return set(done.stdout.split("MODULES", 1)[1].split())


@pytest.mark.parametrize("script", ["sweep", "train", "evaluate", "report", "benchmark"])
def test_help_imports_no_library_of_the_training(script: str, tmp_path: Path) -> None:
    found = modules(["-c", PROBE, str(ROOT / "scripts" / f"{script}.py"), "--help"], tmp_path)
    assert not {name.split(".")[0] for name in found} & SECOND


def test_a_sweep_starts_without_what_only_its_end_or_a_follower_needs(tmp_path: Path) -> None:
    found = modules(["-c", STARTED.replace("sys.argv[-1]", repr(str(tmp_path)))], tmp_path)
    assert "gymnax.environments.classic_control.cartpole" in found
    assert not {name.split(".")[0] for name in found} & HEAVY
    assert not {"scipy.stats._stats_py", "scipy.optimize", "optuna.visualization", "gymnax.registration"} & found


LEAN = """
from jaxdqn.startup import lean_import
import sys
from scipy.special import ndtr
qmc = lean_import("scipy.stats.qmc")
assert "scipy.stats._stats_py" not in sys.modules
from scipy import stats
assert stats.binomtest(1, 2).pvalue == 1.0 and stats.qmc is qmc
cartpole = lean_import("gymnax.environments.classic_control.cartpole")
assert "gymnax.registration" not in sys.modules
import gymnax
from gymnax.environments import spaces
assert gymnax.make("CartPole-v1")[0].__class__ is cartpole.CartPole
assert "Pong-misc" in gymnax.registered_envs
assert gymnax.environments.classic_control.cartpole is cartpole
assert isinstance(cartpole.CartPole().action_space(), spaces.Discrete)
"""


def test_a_package_whose_init_did_not_run_is_whole_for_whoever_asks_later() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LEAN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_a_package_lacks_is_an_attribute_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leanly").mkdir()
    (tmp_path / "leanly" / "__init__.py").write_text("import leanly.other\nvalue = 3\n")
    (tmp_path / "leanly" / "part.py").write_text("number = 1\n")
    (tmp_path / "leanly" / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    part = startup.lean_import("leanly.part")
    package = sys.modules["leanly"]
    assert part.number == 1
    assert "leanly.other" not in sys.modules
    assert not hasattr(package, "__wrapped__")
    assert "leanly.other" not in sys.modules
    assert package.value == 3
    assert "leanly.other" in sys.modules
    assert not hasattr(package, "nothing")
    assert startup.lean_import("leanly.part") is part
    with pytest.raises(ModuleNotFoundError, match="'nowhere'"):
        startup.lean_import("nowhere.part")


def test_a_process_began_before_it_asked() -> None:
    before = time.monotonic()
    script = "import time; now = time.monotonic(); from jaxdqn import startup; print(now - startup.process_started())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert -0.02 < float(done.stdout) <= time.monotonic() - before + 0.02  # the kernel counts in hundredths


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_before_after_its_rest(enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with startup.collecting_no_garbage():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
        gc.unfreeze()
