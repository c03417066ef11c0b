"""Sweeps of the stand-in by the command itself, in a process whose files can't grow beyond a limit.

`python -m tests.limited_sweep JOBS` with a JSON list of [limit in bytes or null, keyword arguments of the command]; it
prints a JSON list of [exit status, stdout, stderr]. Python ignores the signal, so that a write says EFBIG.
"""

import contextlib
import functools
import importlib.util
import io
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from jaxdqn import devices

devices.prepare(2)

from jaxdqn import run  # noqa: E402
from tests.small_sweep import score  # noqa: E402
from tests.stand_in import StandIn  # noqa: E402

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"


def main(jobs: list[tuple[int | None, dict[str, Any]]]) -> list[tuple[int, str, str]]:
    spec = importlib.util.spec_from_file_location("sweep_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    devices.prepare = lambda *_: None  # the backend starts once
    time.sleep = lambda _: None  # Optuna's, between its own tries
    trained = functools.partial(run.run, make_population=lambda config, layout, _: StandIn(config, layout, score=score))
    run.run = trained  # type: ignore[assignment]
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    ended = []
    for limit, arguments in jobs:
        out, err, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most if limit is None else limit, most))
            try:
                script.sweep(**{**arguments, "output": Path(arguments["output"])})
            except SystemExit as exited:
                status = int(exited.code or 0)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        ended.append((status, out.getvalue(), err.getvalue()))
    return ended


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
