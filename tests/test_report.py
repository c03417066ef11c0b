"""The report: what the page says and shows, that it is whole by itself, that nothing a user wrote becomes markup."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from jaxdqn import report
from jaxdqn.confirm_figures import pareto_front
from jaxdqn.follower import Trial
from jaxdqn.optuna_figures import log_ticks, optuna_figures
from jaxdqn.report import render, write_report
from jaxdqn.report_data import (
    PAUSE_S,
    Clock,
    Held,
    ReportData,
    best_and_sample,
    best_so_far,
    busy_share,
    diverged_seeds,
    even_sample,
    held_lanes,
    make_clock,
    thin_lanes,
)
from tests.browser import opened
from tests.synthetic_sweep import pareto, synthetic_sweep

SECTIONS = [
    "result",
    "progress",
    "curves",
    "best",
    "hyperparameters",
    "fresh",
    "confirm",
    "pareto",
    "lanes",
    "failures",
    "reproduce",
]
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)><b>'\"&</b><!--"
GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00"
)
GIF += b"\x01\x00\x00\x02\x02D\x01\x00;"


class Page(HTMLParser):
    """The tags of a page, its text, and its blocks of JSON by their ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.blocks: dict[str, Any] = {}
        self._inside: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "wbr", "link", "input"):
            self._inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop()[0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag == "script" and attributes.get("type") == "application/json":
            self.blocks[attributes["id"] or ""] = json.loads(data)
        elif tag not in ("script", "style"):
            self.words += data

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportData, str]:
    """A sweep with everything, and its page."""
    animation = tmp_path_factory.mktemp("animation") / "winner.gif"
    animation.write_bytes(GIF)
    made = synthetic_sweep(60)
    data = replace(made, pareto=pareto(made), animation=animation)
    return data, render(data)


def hostile() -> ReportData:
    """A sweep in which all that a user may name is named in markup."""
    made = synthetic_sweep(12)
    searched = {MARKUP: CategoricalDistribution([MARKUP, "b"]), "learning_rate": made.space.searched["learning_rate"]}
    trials = [
        trial._replace(params={MARKUP: (MARKUP, "b")[trial.number % 2], "learning_rate": trial.params["learning_rate"]})
        for trial in made.trials
    ]
    space = replace(made.space, name=MARKUP, env=MARKUP, searched=searched, fixed={MARKUP + "2": 1})
    verdict = {**(made.verdict or {}), "hyperparameters": {MARKUP: MARKUP}}
    return replace(made, study_name=MARKUP, space=space, command=MARKUP, trials=trials, verdict=verdict)


def trial(number: int, value: float | None, steps: int = 0, **attributes: Any) -> Trial:
    state = "failed" if value is None else "complete"
    return Trial(number, state, value, {}, attributes, {i: float(i) for i in range(steps)}, None, None)


def test_the_page_loads_nothing_from_elsewhere(whole: tuple[ReportData, str]) -> None:
    page = Page(whole[1])
    assert not page.having("link") + page.having("iframe") + page.having("object")
    assert not [script for script in page.having("script") if "src" in script]
    assert [image["src"] or "" for image in page.having("img")] == [
        "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="
    ]
    assert all((anchor["href"] or "").startswith("#") for anchor in page.having("a"))
    style = whole[1].split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(meta["content"] or "" for meta in page.having("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe" not in policy


def test_plotly_is_in_the_page_once(whole: tuple[ReportData, str]) -> None:
    assert whole[1].count("Copyright 2012-2026, Plotly") + whole[1].count("plotly.js v") <= 2
    assert len([script for script in Page(whole[1]).having("script") if "type" not in script]) == 2


def test_a_sweep_shows_every_section_and_figure(whole: tuple[ReportData, str]) -> None:
    page = Page(whole[1])
    assert [section["id"] for section in page.having("section")] == SECTIONS
    assert [anchor["href"] for anchor in page.having("a")] == [f"#{name}" for name in SECTIONS]
    places = [place["data-figure"] for place in page.having("div") if "data-figure" in place]
    assert places == [name for name in page.blocks if name != "templates"]
    named = {re.sub(r"\d+", "n", str(name)) for name in places}
    assert named == {
        f"figure-{name}"
        for name in (
            *("by-time", "by-trial", "learning-curves", "importances", "slice-n", "parallel"),
            *("search-and-fresh", "returns-of-seeds", "pareto", "timeline"),
        )
    }
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_plotly_accepts_every_figure(whole: tuple[ReportData, str]) -> None:
    for name, spec in Page(whole[1]).blocks.items():
        if name == "templates":
            assert {go.layout.Template(template).layout.paper_bgcolor for template in spec.values()}
        else:
            assert go.Figure(spec).data


def test_the_figures_hold_what_happened(whole: tuple[ReportData, str]) -> None:
    data, text = whole
    blocks = Page(text).blocks
    best = max(trial.value for trial in data.trials if trial.value is not None)
    for name in ("figure-by-time", "figure-by-trial"):
        dots, line = blocks[name]["data"]
        assert len(dots["x"]) == sum(trial.state == "complete" for trial in data.trials)
        assert line["y"][-1] == max(line["y"]) == pytest.approx(best, rel=1e-4)
    bars = [trace for trace in blocks["figure-timeline"]["data"] if trace["name"] != "idle"]
    assert sum(len(trace["x"]) for trace in bars) == len(held_lanes(data)) == 60 * 2 + 6 * 8 + 16
    assert len(blocks["figure-timeline"]["layout"]["shapes"]) == 1  # one pause
    assert sum(trace["name"].startswith("slice") for trace in bars) == 0
    assert sum(name.startswith("figure-slice") for name in blocks) == len(data.space.searched)


def test_what_a_user_wrote_is_never_markup() -> None:
    text = render(hostile())
    page = Page(text)
    assert "<script>alert" not in text
    assert not page.having("img")
    assert not page.having("b")
    assert page.words.count(MARKUP) >= 6  # title, heading, space, command twice, hyperparameter
    for name, block in page.blocks.items():
        assert "<b>" not in json.dumps(block), name
        assert "<script" not in json.dumps(block), name
    assert "&lt;b&gt;" in json.dumps(page.blocks["figure-importances"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda data: replace(data, trials=[], confirm=[], verdict=None), "No result yet"),
        (lambda data: replace(data, trials=data.trials[:1], confirm=[], verdict=None), "It takes two complete trials"),
        (lambda data: replace(data, confirm=[], verdict=None), "Not confirmed: "),
        (lambda data: replace(data, verdict=None), "Not confirmed by a verdict: "),
        (lambda data: replace(data, solved_return=None), "Mean return "),
        (lambda data: replace(data, space=replace(data.space, searched={})), "searches no hyperparameter"),
        (
            lambda data: replace(data, trials=[t._replace(state="failed", value=None) for t in data.trials]),
            "60 of 60 trials failed",
        ),
        (lambda data: replace(data, trials=[t._replace(state="running") for t in data.trials]), "60 running"),
        (
            lambda data: replace(
                data,
                trials=[t._replace(attributes={}, intermediate={}, started=None, ended=None) for t in data.trials],
                confirm=[],
                verdict=None,
            ),
            "It was not recorded which trial held which lane",
        ),
        (
            lambda data: replace(data, trials=[t._replace(value=1.0) for t in data.trials if t.state == "complete"]),
            "the same score",
        ),
        (
            lambda data: replace(data, trials=[t._replace(params={}) for t in data.trials]),
            "complete trials do not fit the space",
        ),
        (
            lambda data: replace(
                data, verdict=dict.fromkeys(data.verdict or {}) | {"number": 3, "returns": [None] * 4}
            ),
            "diverged (4 did)",
        ),
        (lambda data: replace(data, pareto=[]), "No trial has a return and a size"),
        (lambda data: replace(data, animation=Path("is/not/there.gif")), "fresh seeds solve"),
    ],
)
def test_what_is_not_there_is_said(
    changed: Callable[[ReportData], ReportData], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report.figures, "plotly_js", lambda: "")
    data = changed(synthetic_sweep(60))
    page = write_report(tmp_path, data)[0]
    assert said in Page(page.read_text("utf-8")).words


def test_the_headline_says_how_many_fresh_seeds_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.figures, "plotly_js", lambda: "")
    verdict = {
        "number": 7,
        "seeds": 16,
        "returns": [500.0] * 15 + [None],
        "solved_share": 15 / 16,
        "solved_interval": [0.717, 0.989],
        "mean_return": 500.0,
        "mean_interval": [499.0, 500.0],
        "worst_seed_return": 500.0,
        "search_return": 498.25,
    }
    words = Page(render(ReportData("a", synthetic_sweep(0).space, "c", 0, 475.0, [], [], verdict))).words
    assert "15 of 16 fresh seeds solve" in words
    assert (
        "Trial 7: 15 of 16 reach a mean return of 475 (95 % Wilson interval 72–99 %); "
        "mean return 500.0 [499.0, 500.0]; "
        "worst seed diverged (1 did); 498.2 in the search."
    ) in words


def test_the_same_data_make_the_same_files(tmp_path: Path) -> None:
    data = synthetic_sweep(12)
    made = replace(data, pareto=pareto(data))
    files = [write_report(tmp_path / name, made) for name in ("a", "b")]
    assert [path.relative_to(tmp_path / "a") for path in files[0]] == [
        Path("report.html"),
        *(Path("report") / f"{name}.png" for name in report.NAMES),
    ]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file()) == sorted(files[0])


def test_a_picture_of_what_is_gone_is_removed(tmp_path: Path) -> None:
    data = synthetic_sweep(12)
    write_report(tmp_path, data)
    (tmp_path / "report" / "mine.png").write_bytes(b"")
    written = write_report(tmp_path, replace(data, confirm=[], verdict=None))
    assert {path.name for path in written} == {"report.html", "best_so_far.png", "learning_curves.png", "timeline.png"}
    assert {path.name for path in (tmp_path / "report").iterdir()} == {path.name for path in written[1:]} | {"mine.png"}


def test_a_command_that_is_no_text_is_shown(tmp_path: Path) -> None:
    page = write_report(tmp_path, replace(synthetic_sweep(2), command="sweep.py --space x\udc80"))[0]
    assert "x\\udc80" in page.read_text("utf-8")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(tmp_path, synthetic_sweep(2))[0]
    before = page.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        write_report(tmp_path, synthetic_sweep(12))
    assert page.read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_the_clock_cuts_out_pauses() -> None:
    clock = Clock([(1_000.0, 1_010.0), (1_005.0, 1_030.0), (1_030.0 + PAUSE_S, 1_100.0), (5_000.0, 5_020.0)])
    assert clock.length == 120.0  # 1000–1100 without a pause that is long enough, and 5000–5020
    assert clock.seams == [100.0]
    assert [clock.at(t) for t in (900.0, 1_000.0, 1_042.0, 1_100.0, 3_000.0, 5_000.0, 5_007.0, 9_000.0)] == [
        *(0.0, 0.0, 42.0, 100.0, 100.0, 100.0, 107.0, 120.0)
    ]
    assert (Clock([]).length, Clock([]).at(7.0), Clock([]).seams) == (0.0, 0.0, [])


def test_a_trial_without_lanes_counts_from_its_start_to_its_end() -> None:
    times = {"started": datetime(2025, 1, 1, 12, 0, 0), "ended": datetime(2025, 1, 1, 12, 0, 30)}
    made = replace(synthetic_sweep(0), trials=[trial(0, 1.0)._replace(**times)])
    assert make_clock(made).length == 30.0


def test_what_is_no_lane_is_passed_over() -> None:
    lanes = [[3, 10.0, 20.0, "ended"], None, [3, 10.0], [1, 20.0, 10.0, "ended"], [0, float("nan"), 1.0, "ended"], "x"]
    made = replace(synthetic_sweep(0), trials=[trial(5, 1.0, lanes=lanes), trial(6, 1.0, lanes="none")])
    assert held_lanes(made) == [Held(5, 0, 3, 10.0, 20.0, "ended")]
    assert busy_share(held_lanes(made), make_clock(made)) == 1.0


def test_a_pruned_trial_has_no_score_and_did_not_diverge(whole: tuple[ReportData, str]) -> None:
    lanes = {name: [0, 1.0, 2.0, name] for name in ("ended", "pruned", "diverged")}
    pruned = trial(0, None, returns=[None, None, None])._replace(state="pruned")
    assert diverged_seeds(pruned) == []
    assert diverged_seeds(trial(0, None, returns=[None, 3.0, None])) == [0, 2]  # without lanes
    with_lanes = {"returns": [None] * 4, "lanes": [lanes["ended"], None, lanes["diverged"], lanes["pruned"]]}
    assert diverged_seeds(pruned._replace(attributes=with_lanes)) == [2]
    data, text = whole
    failed = sum(t.state == "failed" for t in data.trials)
    assert any(t.state == "pruned" and None in t.attributes["returns"] for t in data.trials)
    assert f"{failed} of 60 trials failed or have seeds that diverged." in Page(text).words


def test_what_the_search_took_includes_the_fresh_seeds(whole: tuple[ReportData, str]) -> None:
    data, text = whole
    steps = sum(sum(t.attributes["env_steps"]) for t in data.trials) + (6 * 8 + 16) * 20_000
    assert f"{steps / make_clock(data).length:,.0f}/s" in Page(text).words


def test_lanes_are_thinned_whole() -> None:
    bars = [Held(i, 0, i % 10, float(i), i + 1.0, "ended") for i in range(1_000)]
    kept, lanes, chosen = thin_lanes(bars, 350)
    assert (len(kept), lanes, chosen) == (300, 10, 3)
    assert {bar.lane for bar in kept} == {0, 4, 9}
    assert thin_lanes(bars, 1_000) == (bars, 10, 10)
    assert thin_lanes([bar for bar in bars if bar.lane == 2], 60)[0] == [bar for bar in bars if bar.lane == 2][-60:]


def test_samples_are_even_and_keep_the_ends() -> None:
    assert even_sample(range(101), 5) == [0, 25, 50, 75, 100]
    assert even_sample("abc", 3) == ["a", "b", "c"]
    assert even_sample("abc", 1) == ["a"]
    trials = [trial(i, float(i) if i % 2 else None) for i in range(20)]
    assert [t.number for t in best_and_sample(trials, 3, 4)] == [19, 17, 15, 13, 3, 8, 18]


def test_the_best_so_far_has_a_corner_for_each_rise() -> None:
    points = [(0.0, 3.0), (1.0, 2.0), (2.0, 5.0), (2.0, 9.0), (7.0, 4.0)]
    assert best_so_far(points) == ([0.0, 2.0, 7.0], [3.0, 9.0, 9.0])
    assert best_so_far([]) == ([], [])


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(0, 10.0, 5.0), (1, 20.0, 5.0), (2, 20.0, 6.0), (3, 15.0, 7.0), (4, 30.0, 9.0), (5, 30.0, 9.0)]
    assert pareto_front(points) == [(1, 20.0, 5.0), (4, 30.0, 9.0)]


def test_trials_that_do_not_fit_the_space_are_counted() -> None:
    space = replace(synthetic_sweep(0).space, searched={"gamma": FloatDistribution(0.9, 1.0)})
    values = [0.9, 0.95, 1.0, 1.5, "x", None]
    trials = [trial(i, float(i))._replace(params={"gamma": value}) for i, value in enumerate(values)]
    drawn = optuna_figures(space, [*trials, trial(6, 6.0)])
    assert drawn.passed_over == 4
    assert [spec["data"][0]["x"] for spec in drawn.slices] == [[0.9, 0.95, 1.0]]
    assert drawn.slices[0]["data"][0]["customdata"] == [0, 1, 2]


def test_a_logarithmic_axis_has_legible_ticks() -> None:
    assert log_ticks([0.0012, 0.009])["ticktext"] == ["0.001", "0.002", "0.005", "0.01"]
    assert log_ticks([20, 90_000])["ticktext"] == ["100", "1,000", "10,000", "100,000"]


@pytest.mark.slow
def test_ten_thousand_trials_make_a_page_that_opens(tmp_path: Path) -> None:
    data = synthetic_sweep(10_000, num_lanes=64)
    made = replace(data, pareto=pareto(data))
    page = write_report(tmp_path, made)[0]
    assert page.stat().st_size < 12e6
    read = Page(page.read_text("utf-8"))
    assert "Of 10,000 curves the best 100 and an even sample of 200 others are drawn." in read.words
    assert re.search(r"An even sample of 2,000 of \d,\d+ dots is drawn\.", read.words)
    assert re.search(r"lanes are drawn, evenly chosen, to keep within 5,000 bars\.", read.words)
    assert re.search(r"the best 500 of \d,\d+ trials and an even sample of 500\.", read.words)
    bars = [trace for trace in read.blocks["figure-timeline"]["data"] if trace["name"] != "idle"]
    assert sum(len(trace["x"]) for trace in bars) <= 5_000
    assert max(len(trace["x"]) for trace in read.blocks["figure-by-time"]["data"]) <= 2_000
    assert len(read.blocks["figure-parallel"]["data"]) == 300


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "hostile", "many"])
def test_a_browser_draws_every_figure_and_complains_of_nothing(kind: str, tmp_path: Path) -> None:
    data = hostile() if kind == "hostile" else synthetic_sweep(60 if kind == "whole" else 3_000, num_lanes=32)
    page = write_report(tmp_path, data if kind == "hostile" else replace(data, pareto=pareto(data)))[0]
    document = opened(page, tmp_path / "profile")
    assert "<script>alert" not in document
    assert "onerror=alert(2)>" not in re.sub(r"&lt;.*?&gt;", "", document).split("<footer>")[0]
