"""Write the report of a sweep: one page that opens from disk, and its main pictures as PNGs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from jaxdqn.command_line import main, refuse

EXAMPLES = """
Example:

  python scripts/report.py --output runs/default-CartPole-v1
"""


def report(
    output: Annotated[Path, typer.Option(help="Directory of a sweep; it may still be running, or have been killed.")],
) -> None:
    """Write report.html and report/*.png into the directory of a sweep, from its log.

    A sweep does this at its end by itself.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from jaxdqn.history import read
    from jaxdqn.reporting import report_on

    try:
        for path in report_on(read(output), output):
            print(path)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"the report can't be written: {error}", status=1)


if __name__ == "__main__":
    main(report, epilog=EXAMPLES)
