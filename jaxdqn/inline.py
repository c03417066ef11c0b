"""What a notebook shows below a cell, as HTML beside plain text. The only file that knows IPython.

Plain HTML and display ids need no widgets, so they work alike on Colab, on Kaggle and in Jupyter.
"""

from __future__ import annotations

import html
import time
from base64 import b64encode
from pathlib import Path

_DRAW_EVERY_S = 1.0
_COLOUR, _LOUD = "#0072b2", "#d55e00"


class Table:
    """Figures in one output of a cell, drawn anew at most once a second."""

    def __enter__(self) -> Table:
        """Take the place in which they are drawn."""
        import IPython.display

        self._figures: dict[str, str] = {}
        self._drawn = -_DRAW_EVERY_S
        self._handle = IPython.display.display(_bundle("", ""), raw=True, display_id=True)
        return self

    def draw(self, figures: dict[str, str]) -> None:
        """Show figures, now or with the next ones."""
        self._figures = figures
        if time.monotonic() - self._drawn >= _DRAW_EVERY_S:
            self._update()

    def __exit__(self, *_: object) -> None:
        """Leave the last figures."""
        if self._figures:
            self._update()

    def _update(self) -> None:
        self._handle.update(_bundle(table_of(self._figures), plain(self._figures)), raw=True)
        self._drawn = time.monotonic()


def say(*sentences: str, loud: bool = False) -> None:
    """Show sentences, a line each, with a bar at their left."""
    colour, weight = (_LOUD, "bold") if loud else (_COLOUR, "normal")
    style = f"border-left:4px solid {colour};padding:0.4em 0.8em;margin:0.4em 0;font-weight:{weight}"
    display(f'<div style="{style}">{"<br>".join(map(html.escape, sentences))}</div>', "\n".join(sentences))


def display(markup: str, plain: str) -> None:
    """Show HTML; where none can be shown, plain text."""
    import IPython.display

    IPython.display.display(_bundle(markup, plain), raw=True)


def table_of(figures: dict[str, str]) -> str:
    """Return HTML of figures, a row each."""
    cell = "text-align:left;padding:0.1em 1.2em 0.1em 0"
    rows = (
        f'<tr><td style="{cell};opacity:0.65">{html.escape(name)}</td><td style="{cell}">{html.escape(value)}</td></tr>'
        for name, value in figures.items()
    )
    return f'<table style="margin:0.4em 0">{"".join(rows)}</table>'


def plain(figures: dict[str, str]) -> str:
    """Return figures in a line."""
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def image(path: Path) -> str:
    """Return HTML of a picture that holds its file."""
    kind, content = path.suffix.removeprefix("."), b64encode(path.read_bytes()).decode()
    style = "max-width:100%;background:white"
    return f'<img src="data:image/{kind};base64,{content}" style="{style}" alt="{html.escape(path.stem)}">'


def page(content: str, height: int) -> str:
    """Return HTML of a whole page within this one, which keeps its own style, scripts and links into itself."""
    inside = content.replace("<head>", '<head><base href="about:srcdoc">', 1)  # else its links lead to the outer page
    inside = inside.replace("&", "&amp;").replace('"', "&quot;")
    style = f"box-sizing:border-box;width:100%;height:{height}px;border:1px solid #8888"
    return f'<iframe srcdoc="{inside}" style="{style}"></iframe>'


def _bundle(markup: str, plain: str) -> dict[str, str]:
    return {"text/html": markup, "text/plain": plain}
