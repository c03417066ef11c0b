"""The structure of the project: imports go down, and one file knows each foreign library."""

import ast
from pathlib import Path

import pytest

FLOORS = [
    "startup",
    "redact",
    "files",
    "host_memory",
    "command_line",
    "statistics",
    "hyperparams",
    "config",
    "compile_cache",
    "devices",
    "fingerprint",
    "programs",
    "prng",
    "environment",
    "network",
    "replay",
    "q_learning",
    "optimiser",
    "agent",
    "evaluate",
    "masks",
    "packing",
    "acting",
    "judging",
    "block",
    "cost",
    "population",
    "workload",
    "peak",
    "surroundings",
    "memory",
    "auto_lanes",
    "benchmark",
    "hlo",
    "gpu_targets",
    "gpu_loops",
    "gpu_plan",
    "segment_profile",
    "profile_report",
    "space",
    "space_config",
    "gpu_report",
    "checked_json",
    "saved_agent",
    "agent_directory",
    "play",
    "gymnasium_play",
    "render",
    "host_agent",
    "placement",
    "accounts",
    "lanes",
    "recovery",
    "snapshot",
    "parzen",
    "sampler",
    "grid",
    "pruner",
    "journal",
    "follower",
    "mirror",
    "restoring",
    "backup",
    "database",
    "storage",
    "storage_sink",
    "tracking",
    "samplers",
    "records",
    "study",
    "trials",
    "events",
    "sweep",
    "confirm",
    "stages",
    "history",
    "report_data",
    "optuna_figures",
    "figures",
    "confirm_figures",
    "pictures",
    "report_markup",
    "report_result",
    "report_sections",
    "report",
    "reporting",
    "retrain",
    "lane_probe",
    "plan",
    "recording",
    "opening",
    "compiling",
    "result",
    "run",
    "console",
    "hosted",
    "inline",
    "notebook",
    "objectives",
    "quality",
    "comparison",
    "lesson_figures",
    "host_benchmark",
    "host_load",
    "mixed",
    "throughput",
    "throughput_figures",
    "memory_report",
    "peers",
    "peer_sets",
    "peer_ways",
    "peer_benchmark",
    "peer_figures",
    "sweep_benchmark",
    "sweep_figures",
]
KNOWN_BY = {
    "gymnax": {"environment"},
    "gymnasium": {"gymnasium_play"},
    "safetensors": {"saved_agent"},
    "PIL": {"render"},
    "plotly": {"figures"},
    "mlflow": {"tracking"},
    "flax": {"network"},
    "IPython": {"inline"},
    "google": {"hosted"},
    "optuna": {
        "space",
        "space_config",
        "parzen",
        "sampler",
        "grid",
        "pruner",
        "journal",
        "storage",
        "storage_sink",
        "samplers",
        "records",
        "study",
        "history",
        "optuna_figures",
        "objectives",
        "quality",
        "host_benchmark",
        "sweep_benchmark",
    },
}
ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxdqn"
SOURCES = [path.relative_to(ROOT) for name in ("jaxdqn", "scripts") for path in sorted((ROOT / name).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_every_module_has_its_floor() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("module", FLOORS)
def test_a_module_imports_only_from_below(module: str) -> None:
    below = set(FLOORS[: FLOORS.index(module)])
    ours = {name.split(".")[1] for name in imports(PACKAGE / f"{module}.py") if name.startswith("jaxdqn.")}
    assert ours <= below | {"spaces"}


@pytest.mark.parametrize("library", KNOWN_BY)
def test_a_foreign_library_is_known_by_few(library: str) -> None:
    knowing = {p.stem for p in PACKAGE.glob("*.py") if any(n.split(".")[0] == library for n in imports(p))}
    assert knowing == KNOWN_BY[library]


RUNNING = {"eval", "exec", "compile", "__import__"}  # what would run something that was read
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch"}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_that_is_read_is_run(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {call.func.id for call in calls if isinstance(call.func, ast.Name)} & RUNNING
    assert not {keyword.arg for call in calls for keyword in call.keywords} & {"allow_pickle", "shell"}
    # PyTorch is banned for its `torch.load`; the benchmark's peers are programs of PyTorch, and load nothing.
    exempt = {"torch"} if path.parent == Path("scripts/peers") else set()
    assert not {name.split(".")[0] for name in imports(ROOT / path)} & (UNSAFE - exempt)
    assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & {"read_pickle", "to_pickle"}


def test_the_population_alone_compiles_agents() -> None:
    jitting = {
        path.stem for path in PACKAGE.glob("*.py") if "jax.jit(" in path.read_text() or "@jax.jit" in path.read_text()
    }
    assert jitting == {"population", "programs", "peak", "play"}  # traced; a matrix product; one agent at play
