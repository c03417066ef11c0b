"""Draw a search of the article's space beside what its author's 53 trials came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from jaxdqn.command_line import main, refuse

EXAMPLES = """
Example:

  python scripts/article_figure.py --output runs/article-CartPole-v1
"""


def draw(
    output: Annotated[Path, typer.Option(help="Directory of a sweep of --space article.")],
    figure: Annotated[Path | None, typer.Option(help="The PNG.  \\[default: article.png in --output]")] = None,
) -> None:
    """Draw how many trials of a sweep reach a return, beside counts of the article's author.

    Of his trials there are only counts: 36 of 53 at or above 10, 6 at or above 400, 3 at or above 490, one at 500.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from jaxdqn import devices

    devices.prepare()  # before gymnax is imported: that starts JAX's backend

    from jaxdqn.history import read
    from jaxdqn.lesson_figures import article_figure

    path = figure or output / "article.png"
    try:
        history = read(output)
        trials = [(t.number, t.value) for t in history.trials if t.state == "complete" and t.value is not None]
        if not trials:
            raise ValueError(f"no trial in {str(output)!r} has finished")
        if history.space.env != "CartPole-v1":
            raise ValueError(f"{str(output)!r} searched {history.space.env}: the article is about CartPole-v1")
        failed = len(history.trials) - len(trials)
        title = f"{history.study_name}: {len(trials)} trials" + (f" ({failed} more did not finish)" if failed else "")
        article_figure(path, trials, title)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{str(path)!r} can't be written: {error.strerror or error}", status=1)
    print(path)


if __name__ == "__main__":
    main(draw, epilog=EXAMPLES)
