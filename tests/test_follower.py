"""A follower writes all it is told of, in its own time, and says what it could not write."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jaxdqn.follower import Conclusion, Follower, Trial

QUICK = (0.001,)
NEVER = (3_600.0,)  # a pause that ends only because the follower is closed


def trial(number: int, state: str = "complete") -> Trial:
    value = 10.0 * number if state == "complete" else None
    return Trial(number, state, value, {"learning_rate": 0.1}, {}, {}, None, None)


class Notebook:
    """A sink in memory; `trouble` is asked before each trial is written, and may raise or wait."""

    def __init__(self, ordered: bool = False, trouble: Callable[[Trial], None] = lambda _: None) -> None:
        self.ordered, self.trouble = ordered, trouble
        self.written: list[Trial] = []
        self.closed = 0
        self.conclusion: Conclusion | None = None

    def write(self, trials: list[Trial]) -> None:
        assert [t.number for t in trials] == sorted({t.number for t in trials})
        for t in trials:
            if t not in self.written:
                self.trouble(t)
                self.written.append(t)

    def close(self, conclusion: Conclusion | None = None) -> None:
        self.closed += 1
        self.conclusion = conclusion

    @property
    def numbers(self) -> list[int]:
        return [t.number for t in self.written]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def failing(times: int, reason: str = "no answer") -> Callable[[object], None]:
    left = [times]

    def trouble(_: object) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(reason)

    return trouble


def refusing(*numbers: int) -> Callable[[Trial], None]:
    def trouble(t: Trial) -> None:
        if t.number in numbers:
            raise ValueError(f"trial {t.number} is poison")

    return trouble


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event that is set when somebody waits for room."""
    waits, wait = threading.Event(), Follower._await_room

    def observed(self: Follower, t: Trial) -> None:
        waits.set()
        wait(self, t)

    with monkeypatch.context() as patch:
        patch.setattr(Follower, "_await_room", observed)
        yield waits


@pytest.mark.parametrize("ordered", [False, True])
def test_all_trials_are_written_once_and_in_order(ordered: bool) -> None:
    sink = Notebook(ordered)
    follower = Follower("the notebook", lambda: sink, [trial(1), trial(0)])
    assert [follower.put(trial(number)) for number in range(2, 100)] == [0.0] * 98
    assert follower.close() is None
    assert sink.numbers == list(range(100))
    assert (follower.waiting, follower.failure, follower.failures, sink.closed) == (0, None, 0, 1)


def test_of_the_records_of_a_trial_that_wait_only_the_newest_is_written() -> None:
    sink, go_on = Notebook(), threading.Event()

    def connect() -> Notebook:
        go_on.wait()
        return sink

    follower = Follower("the notebook", connect, [trial(0, "running"), trial(0), trial(1, "running")])
    for number in (1, 2, 3):
        follower.put(trial(number, "running"))
    follower.put(trial(3))
    follower.put(trial(1))
    assert follower.waiting == 4
    go_on.set()
    assert follower.close() is None
    assert sink.written == [trial(0), trial(1), trial(2, "running"), trial(3)]


def test_what_is_new_while_its_trial_is_being_written_is_written_too() -> None:
    writing, go_on = threading.Event(), threading.Event()

    def trouble(_: Trial) -> None:
        writing.set()
        go_on.wait()

    sink = Notebook(trouble=trouble)
    follower = Follower("the notebook", lambda: sink)
    follower.put(trial(0, "running"))
    writing.wait()
    follower.put(trial(0))
    go_on.set()
    assert follower.close() is None
    assert sink.written == [trial(0, "running"), trial(0)]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("where", ["connect", "write"])
def test_a_sink_that_fails_twice_and_then_works_ends_with_everything_once(where: str, ordered: bool) -> None:
    trouble = failing(2)
    sink = Notebook(ordered, trouble if where == "write" else lambda _: None)

    def connect() -> Notebook:
        if where == "connect":
            trouble(None)
        return sink

    follower = Follower("the notebook", connect, map(trial, range(20)), delays_s=QUICK)
    for number in range(20, 40):
        follower.put(trial(number))
    wait_until(lambda: follower.waiting == 0)
    assert (follower.failures, follower.failure) == (2, None)
    assert follower.close() is None
    assert sorted(sink.numbers) == list(range(40))
    assert sink.numbers == list(range(40)) or not ordered


def test_closing_ends_the_pause_of_a_failing_follower_and_tries_again() -> None:
    sink = Notebook(trouble=failing(2))
    follower = Follower("the notebook", lambda: sink, [trial(0), trial(1)], delays_s=NEVER)
    wait_until(lambda: follower.failure is not None)
    assert follower.close() is None
    assert sorted(sink.numbers) == [0, 1]


def test_a_sink_that_goes_on_failing_is_given_up_at_the_end_and_said() -> None:
    sink = Notebook(trouble=failing(10**6, "disk full\nand a long story"))
    follower = Follower("the notebook", lambda: sink, [trial(0)], delays_s=NEVER)
    follower.put(trial(1))
    follower.put(trial(1))
    wait_until(lambda: follower.failure == "disk full")
    said = follower.close(patience_s=3_600)
    assert said == "2 trials are not in the notebook: disk full; the next run of this study sends them again"


def test_a_follower_that_never_connects_says_so_only_if_something_is_missing() -> None:
    def connect() -> Notebook:
        raise OSError

    assert Follower("the notebook", connect).close() is None
    follower = Follower("the notebook", connect, [trial(0)])
    assert follower.close() == ("1 trial is not in the notebook: OSError; the next run of this study sends it again")


def test_one_poisonous_trial_does_not_block_the_others() -> None:
    sink = Notebook(trouble=refusing(3))
    follower = Follower("the notebook", lambda: sink, map(trial, range(8)), delays_s=QUICK)
    for number in range(8, 20):  # each success between two of its failures counts against it
        follower.put(trial(number))
        wait_until(lambda expected=number: expected in sink.numbers)
    wait_until(lambda: follower.waiting == 0)
    assert follower.failure is None or "poison" in follower.failure
    said = follower.close()
    assert said == "1 trial is not in the notebook: trial 3 is poison; the next run of this study sends it again"
    assert sorted(sink.numbers) == [number for number in range(20) if number != 3]
    assert sink.closed == 1


def test_an_outage_sets_no_trial_aside() -> None:
    sink = Notebook(trouble=failing(50))
    follower = Follower("the notebook", lambda: sink, map(trial, range(3)), delays_s=QUICK)
    wait_until(lambda: follower.waiting == 0)
    assert follower.close() is None
    assert sorted(sink.numbers) == [0, 1, 2]


def test_new_trials_are_written_at_the_end_though_a_poisonous_one_waits() -> None:
    sink = Notebook(trouble=refusing(0))
    follower = Follower("the notebook", lambda: sink, [trial(0)], delays_s=(*QUICK * 5, 3_600.0))
    wait_until(lambda: follower.failures == 6)
    for number in range(1, 50):
        follower.put(trial(number))
    assert "1 trial is not in the notebook: trial 0 is poison" in str(follower.close())
    assert sorted(sink.numbers) == list(range(1, 50))


def test_an_ordered_sink_never_gets_a_trial_before_one_that_it_refused() -> None:
    sink = Notebook(ordered=True, trouble=refusing(3))
    follower = Follower("the notebook", lambda: sink, map(trial, range(8)), delays_s=QUICK)
    wait_until(lambda: follower.failures > 10)
    follower.put(trial(2, "failed"))  # news of an earlier one is written all the same
    wait_until(lambda: trial(2, "failed") in sink.written)
    assert sink.numbers == [0, 1, 2, 2]
    assert "5 trials are not in the notebook: trial 3 is poison" in str(follower.close())


def test_a_full_queue_of_a_healthy_follower_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, waited = threading.Event(), []
    sink = Notebook(trouble=lambda _: (go_on.wait(), None)[1])
    follower = Follower("the notebook", lambda: sink, capacity=2)
    assert follower.put(trial(0)) == follower.put(trial(1)) == 0.0
    assert follower.put(trial(1, "failed")) == 0.0  # takes the place of the other record
    with watched(monkeypatch) as waits:
        thread = threading.Thread(target=lambda: waited.append(follower.put(trial(2))))
        thread.start()
        waits.wait()
        go_on.set()
        thread.join()
    assert waited[0] > 0
    assert follower.close() is None
    assert sink.written == [trial(0), trial(1, "failed"), trial(2)]


def test_the_history_takes_no_place_in_the_queue() -> None:
    go_on = threading.Event()
    sink = Notebook(trouble=lambda _: (go_on.wait(), None)[1])
    follower = Follower("the notebook", lambda: sink, map(trial, range(50)), capacity=2)
    assert follower.put(trial(50)) == follower.put(trial(51)) == 0.0
    go_on.set()
    assert follower.close() is None
    assert sink.numbers == list(range(52))


def test_a_full_queue_of_a_failing_follower_is_not_waited_for_and_what_is_dropped_is_counted() -> None:
    sink = Notebook(trouble=failing(1))
    follower = Follower("the notebook", lambda: sink, capacity=2, delays_s=NEVER)
    follower.put(trial(0))
    wait_until(lambda: follower.failure is not None)
    assert [follower.put(trial(number)) for number in (1, 2, 3, 3)] == [0.0] * 4
    said = follower.close()
    assert said == "2 trials are not in the notebook: no answer; the next run of this study sends them again"
    assert sorted(sink.numbers) == [0, 1]


def test_a_dropped_trial_of_which_a_later_record_is_written_is_not_missing() -> None:
    down = [True]

    def trouble(_: Trial) -> None:
        if down[0]:
            raise OSError("down")

    sink = Notebook(trouble=trouble)
    follower = Follower("the notebook", lambda: sink, capacity=1, delays_s=QUICK)
    follower.put(trial(0))
    wait_until(lambda: follower.failure is not None)
    follower.put(trial(1, "running"))
    assert follower.waiting == 1
    down[0] = False
    wait_until(lambda: follower.waiting == 0)
    follower.put(trial(1))
    assert follower.close() is None
    assert sink.written == [trial(0), trial(1)]


def test_a_sink_that_hangs_holds_a_full_queue_up_only_so_long() -> None:
    forever = threading.Event()
    sink = Notebook(trouble=lambda _: (forever.wait(), None)[1])
    follower = Follower("the notebook", lambda: sink, capacity=1, patience_s=0.05)
    follower.put(trial(0))
    assert follower.put(trial(1)) > 0
    assert follower.failure == "it does not answer"
    assert follower.put(trial(2)) == 0.0
    said = follower.close(patience_s=0.05)
    assert said == "3 trials are not in the notebook: it does not answer; the next run of this study sends them again"
    forever.set()


@pytest.mark.parametrize("where", ["connect", "write", "close"])
def test_a_sink_that_never_returns_is_given_up_and_left_alone(where: str) -> None:
    forever, hangs = threading.Event(), threading.Event()

    def hang(here: str) -> None:
        if here == where:
            hangs.set()
            forever.wait()

    class Hanging(Notebook):
        def close(self, conclusion: Conclusion | None = None) -> None:
            hang("close")

    sink = Hanging(trouble=lambda _: hang("write"))

    def connect() -> Notebook:
        hang("connect")
        return sink

    follower = Follower("the notebook", connect, [trial(0)], batch=1)
    follower.put(trial(1))
    if where != "close":
        hangs.wait()
    said = follower.close(patience_s=0.3)
    if where == "close":
        assert said == "all trials are in the notebook, but it could not be closed: it does not answer"
    else:
        assert str(said).startswith("2 trials are not in the notebook: it does not answer; ")
    forever.set()
    follower._thread.join()
    assert sink.numbers == {"connect": [], "write": [0], "close": [0, 1]}[where]


def test_what_goes_wrong_while_a_sink_is_closed_is_said() -> None:
    class Stubborn(Notebook):
        def close(self, conclusion: Conclusion | None = None) -> None:
            raise OSError("no room for the table")

    follower = Follower("the notebook", lambda: Stubborn(), [trial(0)])
    assert follower.close() == "all trials are in the notebook, but it could not be closed: no room for the table"


def test_no_failure_shows_a_password() -> None:
    url = "postgresql://me:secret%2Fword@localhost/db"

    def connect() -> Notebook:
        raise OSError(f"{url} or secret/word is wrong")

    follower = Follower("the notebook", connect, [trial(0)], secrets=url)
    wait_until(lambda: follower.failure is not None)
    failure, said = follower.failure, follower.close()
    assert failure == "postgresql://me:***@localhost/db or *** is wrong"
    assert said is not None
    assert "word" not in said


def test_a_sink_is_told_what_the_sweep_has_come_to_when_all_trials_are_written() -> None:
    sink, conclusion = Notebook(), Conclusion([{"number": 1}], None, [], {})
    follower = Follower("the notebook", lambda: sink, map(trial, range(40)))
    assert follower.close(conclusion) is None
    assert sink.numbers == list(range(40))
    assert sink.conclusion is conclusion


def test_a_sink_that_was_given_up_is_told_nothing() -> None:
    sink = Notebook(trouble=failing(10**6))
    follower = Follower("the notebook", lambda: sink, [trial(0)], delays_s=NEVER)
    assert follower.close(Conclusion([], None, [], {})) is not None
    assert sink.numbers == []
