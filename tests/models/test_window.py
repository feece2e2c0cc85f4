"""The window of one endpoint, against a server reckoned in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from kun_builder.models.watch import LOOK
from kun_builder.models.window import MOST, START, Window

STAGES = (("label", 40), ("score", 12), ("polish", 200))


class Server:
    """Serves windows' requests with so many slots, in the order in which they come and in virtual time; rows go through
    three stages."""

    def __init__(self, slots, *, step=0.01, tells=True, tells_running=True, growth=0.0, refuse_above=0, faults=0.0):
        self.now, self.slots, self.step, self.tells, self.tells_running = 0.0, slots, step, tells, tells_running
        self.growth, self.refuse_above, self.faults = growth, refuse_above, faults
        self.window = Window(clock=lambda: self.now)
        self.windows = []
        """Those that are kept full."""
        self.running = 0
        self.queue: list[tuple[Window, float, str, int]] = []
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.stages = itertools.cycle(STAGES)
        self.luck = random.Random(1)
        self.busy = 0.0
        self.refused = 0

    def at(self, when, call):
        heapq.heappush(self.events, (when, next(self.numbers), call))

    def run(self, seconds):
        """Serve for so long; the share of the slots' time that was used."""
        if not self.windows:
            self.join(self.window)
        end, before = self.now + seconds, self.busy
        while self.events and self.events[0][0] <= end:
            when, _, call = heapq.heappop(self.events)
            self.busy += min(self.running, self.slots) * (when - self.now)
            self.now = when
            call()
        self.now = end
        return (self.busy - before) / (seconds * self.slots)

    def join(self, window):
        """Keep this window full from now on."""
        self.windows.append(window)
        self.fill(window)
        self.look(window, LOOK)

    def fill(self, window):
        while window in self.windows and window.room:
            kind, tokens = next(self.stages)
            tokens = max(1, round(tokens * self.luck.uniform(0.5, 1.5)))
            started = window.start()
            if (
                self.refuse_above and self.running + len(self.queue) >= self.refuse_above
            ) or self.luck.random() < self.faults:
                self.at(self.now + 0.02, lambda started=started: self.refuse(window, started))
            else:
                self.queue.append((window, started, kind, tokens))
                self.serve()

    def serve(self):
        while self.queue and self.running < self.slots:
            job = self.queue.pop(0)
            self.running += 1
            pace = self.step * (1 + self.growth * self.running)
            self.at(self.now + job[-1] * pace, lambda job=job: self.finish(*job))

    def finish(self, window, started, kind, tokens):
        self.running -= 1
        window.answered(kind, started, tokens)
        self.serve()
        self.fill(window)

    def refuse(self, window, started):
        self.refused += 1
        window.failed(refused=True, started=started)
        self.fill(window)

    def look(self, window, pause):
        """Tell the queue, and again after as long as `Watch` lets pass between two looks."""
        soon = False
        if self.tells:
            soon = window.queue(len(self.queue), running=self.running if self.tells_running else 0)
            self.fill(window)
        pause = LOOK if soon or window.searching else min(2 * pause, 2.0)
        if window in self.windows:
            self.at(self.now + pause, lambda: self.look(window, pause))


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("slots", [4, 16, 128, 600])
def test_finds_a_limit_that_keeps_all_slots_busy(slots, tells):
    """Whatever the number of slots, they are all kept busy, and not many more requests wait than are served."""
    server = Server(slots, tells=tells)
    server.run(60)
    assert server.run(60) > 0.98
    assert max(START, 1.2 * slots) <= server.window.limit <= max(2 * START, 5 * slots)


@pytest.mark.parametrize("heard", [True, False])
def test_a_server_that_stops_telling_its_queue_gets_no_more(heard):
    """An empty queue lets the window grow by each gain, but not once the server no longer tells it in time."""
    server = Server(10_000)
    server.run(0.3)
    server.tells = False
    if not heard:
        server.window.unheard()
    server.run(20)
    assert (server.window.limit > 256) == heard


def test_a_server_that_tells_its_queue_is_full_at_once():
    """With 128 slots and a queue figure, 256 is found in a quarter of a second."""
    server = Server(128)
    server.run(0.25)
    assert server.window.limit == 256


def test_without_a_queue_figure_the_start_takes_a_few_answers():
    """With 128 slots and no queue figure, the search for the limit costs less than three seconds of work."""
    server = Server(128, tells=False)
    assert server.run(30) > 0.9


def test_more_at_once_that_is_slower_for_all_is_no_gain():
    """A server whose every request slows down the others, without a queue, is not flooded."""
    server = Server(10_000, tells=False, growth=0.05)
    server.run(300)
    assert server.window.limit <= 512


def test_follows_a_server_that_loses_slots():
    """When three quarters of the slots go, the limit falls; when they come back, it rises again."""
    for tells in (True, False):
        server = Server(128, tells=tells)
        server.run(60)
        server.slots = 32
        server.run(120)
        assert server.window.limit <= 160
        server.slots = 128
        server.run(400)
        assert server.window.limit >= 160


def test_refusals_bring_the_limit_down_to_what_the_server_takes():
    """A server that refuses beyond 40 requests at once is soon refused little, and kept near its limit."""
    server = Server(1000, refuse_above=40, tells=False)
    server.run(60)
    refused, served = server.refused, server.busy
    server.run(60)
    assert 20 <= server.window.limit <= 60
    assert server.refused - refused < 0.1 * (server.busy - served) / 0.84


def test_the_odd_refusal_changes_nothing():
    """Two refusals in a hundred do not narrow the window."""
    server = Server(128, faults=0.02)
    server.run(60)
    assert server.run(60) > 0.98


def test_a_fixed_limit_stays():
    """A given number of requests at once is kept, whatever happens."""
    server = Server(16)
    server.window = Window(50, clock=lambda: server.now)
    server.run(30)
    assert server.window.limit == 50
    assert server.window.history == [(0.0, 50)]
    server.window.fix(20)
    server.run(30)
    assert server.window.limit == 20


def test_the_history_is_bounded():
    """The limit over time is kept in at most 512 points, of which the first is the start."""
    window = Window(clock=lambda: 0.0)
    for limit in range(5000):
        window._set(1 + limit % MOST)
    assert len(window.history) < 512
    assert window.history[0] == (0.0, START)
    limits = [limit for _, limit in window.history[1:]]
    assert limits == sorted(limits)
    distances = Counter(after - before for before, after in pairwise(limits))
    assert distances.most_common(1)[0][1] > 0.95 * len(limits)  # thinned evenly, but where it was thinned last


def joined(server):
    """One more process that asks the server, from now on: its window."""
    window = Window(clock=lambda: server.now)
    window.tells()
    server.join(window)
    return window


@pytest.mark.parametrize("late", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("slots", [16, 128, 600])
def test_processes_that_ask_the_same_server_come_to_equal_shares(slots, late):
    """Whoever came first, after 30 seconds both have as many requests there, and about as many wait as are at work."""
    server = Server(slots)
    first = joined(server)
    server.run(late)
    second = joined(server)
    assert server.run(30) > 0.95
    assert 0.8 < first.in_flight / second.in_flight < 1.25
    assert 0.5 * slots < len(server.queue) < 1.5 * slots


@pytest.mark.parametrize("slots", [16, 128, 1000])
@pytest.mark.parametrize("late", [0.01, 5])
def test_who_is_left_takes_over_at_once(slots, late):
    """When the first of two processes ends, slots are idle for two seconds at most, until the server is looked at."""
    server = Server(slots)
    first = joined(server)
    server.run(late)
    joined(server)
    server.run(10)
    server.windows.remove(first)
    assert server.run(10) > 0.9
    assert server.run(10) > 0.98


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_no_slot_is_idle_while_limits_fall(processes):
    """When a server loses three quarters of its slots, nobody sends so little meanwhile that it runs dry."""
    server = Server(512)
    windows = [joined(server) for _ in range(processes)]
    server.run(20)
    server.slots = 128
    assert min(server.run(2) for _ in range(10)) > 0.95
    server.run(10)
    assert sum(window.limit for window in windows) < 3 * 128


def test_a_queue_that_has_been_of_weight_is_trusted():
    """A queue that was too short to end the search, but has grown since, tells when the server takes more again."""
    server = Server(1000)
    server.run(5)
    server.slots = 700
    server.run(4)
    server.slots = 2000
    server.run(3)
    assert server.run(2) > 0.98


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_who_cannot_keep_up_is_in_no_hurry(late):
    """A limit that grows because the server has little to do is a reason to look again soon, but not where this process
    itself is behind with its work."""
    server = Server(128)
    window = joined(server)
    server.run(30)
    assert window.queue(0, late, running=100) == (late == 0)


def test_many_processes_do_not_flood_a_server():
    """Ten that begin together share its slots, and the queue is at most three times as long as what is at work."""
    server = Server(128)
    windows = [joined(server) for _ in range(10)]
    assert server.run(60) > 0.98
    assert max(window.in_flight for window in windows) < 1.5 * min(window.in_flight for window in windows)
    assert len(server.queue) < 3 * 128


def test_where_only_the_queue_is_told_the_later_one_takes_over_within_seconds():
    """Without the number of requests at work nobody knows a share; but no slot stays idle for long after the first
    has ended."""
    server = Server(128, tells_running=False)
    first = joined(server)
    server.run(10)
    joined(server)
    server.run(10)
    server.windows.remove(first)
    assert server.run(10) > 0.8
    assert server.run(10) > 0.98
