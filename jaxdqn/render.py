"""Episodes of CartPole drawn with Pillow (the only file that knows it), in Gymnasium's proportions and colours.

No window, no SDL: frames are drawn at twice their size and made smaller, which smooths the edges.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxdqn.files import write_whole
from jaxdqn.play import Episode

WIDTH, HEIGHT = 600, 400
STEP_MS = 20  # between two steps of CartPole: animations run in real time
_ENV = "CartPole-v1"
_SCALE = WIDTH / (2 * 2.4)  # pixels a metre; the track ends at ±2.4 m
_TRACK_Y = 100  # above the lower edge
_CART, _POLE_LENGTH, _POLE_WIDTH = (50, 30), _SCALE * 2 * 0.5, 10
_AXLE_Y = _CART[1] / 4  # above the track
_WHITE, _BLACK, _POLE, _AXLE = (255, 255, 255), (0, 0, 0), (202, 152, 101), (129, 132, 203)
_ACTIONS = ("push left", "push right")
_SMOOTH = 2
_MIN_FRAME_MS = 20  # what is shorter browsers show at a tenth of a second
_LAST_FRAME_MS = 1_500


def check(env: str, path: Path) -> None:
    """Check that episodes of environment `env` can be drawn into file `path`.

    Raises:
        ValueError: they can't; says why.
    """
    if env != _ENV:
        raise ValueError(f"environment {env!r} can't be drawn: {_ENV} can")
    if path.suffix.lower() != ".gif":
        raise ValueError(f"{str(path)!r} is no name for an animation: it ends in .gif")
    if os.path.isdir(path):
        raise ValueError(f"{str(path)!r} can't be written: it is a directory")
    if not os.path.isdir(path.parent) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{str(path)!r} can't be written: {str(path.parent)!r} is no writable directory")


def animation(path: Path, episode: Episode, every: int = 2) -> None:
    """Write an episode as an animated GIF of every `every`-th step and the last.

    Raises:
        ValueError: the environment can't be drawn, or the file can't be written.
    """
    check(episode.env, path)
    if not 1 <= every <= 1_000:
        raise ValueError(f"every = {every!r} is not allowed: int in [1, 1000]")
    steps = sorted({*range(0, len(episode.observations), every), len(episode.observations) - 1})
    durations = [max(_MIN_FRAME_MS, every * STEP_MS)] * (len(steps) - 1) + [_LAST_FRAME_MS]
    frames = _indexed(frame(episode, step) for step in steps)
    content = io.BytesIO()
    next(frames).save(content, "GIF", save_all=True, append_images=frames, duration=durations, loop=0)
    write_whole(path, content.getvalue())


def frame(episode: Episode, step: int) -> Image.Image:
    """Draw what the agent sees before step `step`, and what it does then."""
    image = Image.new("RGB", (_SMOOTH * WIDTH, _SMOOTH * HEIGHT), _WHITE)
    _draw_cart_pole(ImageDraw.Draw(image), episode.observations[step])
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    num_steps = len(episode.actions)
    action = _ACTIONS[episode.actions[step]] if step < num_steps else "end"
    shown = (f"step {step}", f"return {episode.rewards[:step].sum():g}", action)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=18)
    for column, text in enumerate(shown):
        draw.text((20 + 200 * column, 20), text, _BLACK, font)
    return image


def _draw_cart_pole(draw: ImageDraw.ImageDraw, obs: np.ndarray) -> None:
    """Draw the track, the cart at obs[0], and the pole at angle obs[2], which leans to the right where positive."""
    x, angle = float(obs[0]) * _SCALE + WIDTH / 2, float(obs[2])
    axle = (x, _TRACK_Y + _AXLE_Y)

    def pixels(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(_SMOOTH * across, _SMOOTH * (HEIGHT - up)) for across, up in points]

    def turned(along: float, aside: float) -> tuple[float, float]:
        sin, cos = math.sin(angle), math.cos(angle)
        return axle[0] + along * sin + aside * cos, axle[1] + along * cos - aside * sin

    width, height, half = *_CART, _POLE_WIDTH / 2
    corners = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    draw.polygon(pixels([(x + i * width / 2, _TRACK_Y + j * height / 2) for i, j in corners]), _BLACK)
    bottom, top = -half, _POLE_LENGTH - half
    draw.polygon(pixels([turned(bottom, -half), turned(top, -half), turned(top, half), turned(bottom, half)]), _POLE)
    draw.ellipse(pixels([(axle[0] - half, axle[1] + half), (axle[0] + half, axle[1] - half)]), _AXLE)
    draw.line(pixels([(0, _TRACK_Y), (WIDTH, _TRACK_Y)]), _BLACK, _SMOOTH)


def _indexed(frames: Iterator[Image.Image]) -> Iterator[Image.Image]:
    """Give all frames the same table of colours: those that are drawn, greys for the text, and what lies between."""
    drawn = [(_WHITE, _BLACK, 16), (_WHITE, _POLE, 4), (_BLACK, _POLE, 4), (_BLACK, _AXLE, 4), (_POLE, _AXLE, 4)]
    table = [
        round(a + (b - a) * i / parts)
        for begin, end, parts in drawn
        for i in range(parts + 1)
        for a, b in zip(begin, end, strict=True)
    ]
    colours = Image.new("P", (1, 1))
    colours.putpalette(table)
    for image in frames:
        yield image.quantize(palette=colours, dither=Image.Dither.NONE)
