"""Which versions the project takes: the lowest ones are those it is tested with, and what is there is left alone."""

import json
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

CHECKOUT = Path(__file__).parent.parent
LEFT_ALONE = {"jax", "jaxlib", "flax", "optax", "numpy"}


def bounds(lines: list[str], operator: str) -> dict[str, Version]:
    """Return by name the one version that each requirement compares with so."""
    found = {}
    for requirement in map(Requirement, lines):
        (version,) = [bound.version for bound in requirement.specifier if bound.operator == operator]
        found[requirement.name] = Version(version)
    return found


def project() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    """Let pip say what it would install here."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_oldest_environment_has_the_lowest_versions_that_are_declared() -> None:
    declared = [*project()["dependencies"], *project()["optional-dependencies"]["test"]]
    pinned = [line for line in (CHECKOUT / ".ci" / "oldest.txt").read_text().splitlines() if not line.startswith("#")]
    assert bounds(pinned, "==") == bounds(declared, ">=")


def test_a_gpu_takes_the_versions_of_jax_that_a_cpu_takes() -> None:
    (jax,) = [line for line in project()["dependencies"] if Requirement(line).name == "jax"]
    (plug_in,) = project()["optional-dependencies"]["cuda12"]
    assert Requirement(plug_in).specifier == Requirement(jax).specifier


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pip") is None, reason="this environment has no pip")
def test_installing_the_project_changes_no_jax_that_is_there() -> None:
    done = pip("--report", "-", "--editable", str(CHECKOUT))
    if done.returncode and pip("--retries", "0", "--ignore-installed", "--no-deps", "setuptools").returncode:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    changed = {item["metadata"]["name"].lower() for item in json.loads(done.stdout)["install"]}
    assert "jaxdqn" in changed
    assert not changed & LEFT_ALONE
