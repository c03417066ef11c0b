"""Episodes as animations: what is drawn where, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdqn import render
from jaxdqn.play import Episode

WHITE, BLACK, POLE, AXLE = (255, 255, 255), (0, 0, 0), (202, 152, 101), (129, 132, 203)


def standing(x: float, angle: float, num_steps: int = 1, env: str = "CartPole-v1") -> Episode:
    """An episode in which nothing moves."""
    observations = np.tile(np.array([x, 0.0, angle, 0.0], np.float32), (num_steps + 1, 1))
    return Episode(env, observations, np.arange(num_steps) % 2, np.ones(num_steps), float(num_steps))


def swinging(num_steps: int) -> Episode:
    """An episode in which everything moves."""
    time = np.arange(num_steps + 1) / 20
    observations = np.stack([2 * np.sin(time / 3), time, 0.2 * np.sin(2 * time), time], axis=1).astype(np.float32)
    return Episode("CartPole-v1", observations, np.arange(num_steps) % 2, np.ones(num_steps), float(num_steps))


def test_the_cart_stands_on_the_track_where_the_observation_says() -> None:
    image = render.frame(standing(1.0, 0.0), 0)
    middle = 300 + 125  # 600 pixels for 4.8 m
    assert image.size == (600, 400)
    assert image.getpixel((middle + 20, 300 + 10)) == BLACK
    assert image.getpixel((middle - 20, 300 - 10)) == BLACK
    assert image.getpixel((middle + 30, 300 + 10)) == WHITE
    assert image.getpixel((middle, 300 + 20)) == WHITE
    assert image.getpixel((50, 300)) == image.getpixel((550, 300)) == BLACK  # the track
    assert image.getpixel((middle, 292)) == AXLE


@pytest.mark.parametrize("angle", [-0.2, 0.0, 0.2])
def test_the_pole_leans_to_the_right_where_its_angle_is_positive(angle: float) -> None:
    image = render.frame(standing(0.0, angle), 0)
    axle = np.array([300.0, 400 - 107.5])
    along = np.array([np.sin(angle), -np.cos(angle)])
    for length, colour in ((30, POLE), (60, POLE), (115, POLE), (125, WHITE)):
        x, y = axle + length * along
        assert image.getpixel((int(x), int(y))) == colour


def test_step_action_and_return_are_shown() -> None:
    episode = standing(0.0, 0.0, 2)
    tops = [np.asarray(render.frame(episode, step))[:60] for step in range(3)]
    for column in range(3):
        parts = [top[:, 20 + 200 * column : 200 * (column + 1)] for top in tops]
        assert all((part < 128).any() for part in parts)
        assert not np.array_equal(parts[0], parts[1])
        assert not np.array_equal(parts[1], parts[2])


def test_an_animation_is_small_shows_every_second_step_and_waits_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "[bold] ü.gif"
    render.animation(path, swinging(499))
    assert path.stat().st_size < 2_000_000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.size == (600, 400)
        assert image.info["loop"] == 0
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
        assert durations == [40] * 250 + [1_500]
        image.seek(100)
        shown, drawn = np.asarray(image.convert("RGB"), int), np.asarray(render.frame(swinging(499), 200), int)
    assert np.abs(shown - drawn).max() <= 60  # edges take the nearest colour of the table
    assert np.abs(shown - drawn).mean() < 0.2


def test_an_animation_of_every_step_holds_every_step(tmp_path: Path) -> None:
    render.animation(tmp_path / "a.gif", swinging(7), every=1)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 8
        assert image.info["duration"] == 20


def test_what_cannot_be_drawn_or_written_is_refused(tmp_path: Path) -> None:
    def refused(message: str, path: Path, env: str = "CartPole-v1") -> None:
        with pytest.raises(ValueError, match=message):
            render.animation(path, standing(0.0, 0.0, env=env))

    refused("'Acrobot-v1' can't be drawn: CartPole-v1 can", tmp_path / "a.gif", "Acrobot-v1")
    refused(r"a\.png' is no name for an animation: it ends in \.gif", tmp_path / "a.png")
    refused("missing' is no writable directory", tmp_path / "missing" / "a.gif")
    (tmp_path / "b.gif").mkdir()
    refused("it is a directory", tmp_path / "b.gif")
    refused("is no writable directory", tmp_path / ("x" * 300) / "a.gif")
    with pytest.raises(ValueError, match="every = 0 is not allowed"):
        render.animation(tmp_path / "a.gif", standing(0.0, 0.0), every=0)
    assert [path.name for path in tmp_path.iterdir()] == ["b.gif"]


def test_a_write_that_fails_leaves_the_old_animation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        render.animation(path, swinging(3))
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
