"""How many requests to keep in flight at one endpoint, found while working; nobody has to know the right number.

A server has enough to do while a request waits for each one that it works on; more only makes every answer later.
Two signals tell where that is:

* the server's own count of waiting requests, where it gives one: while it is 0 the limit grows at once, and from then
  on it follows twice the number of requests at work. Where other processes ask the same server, each of them keeps to
  a share that falls as the queue grows, so that all come to equal shares without knowing of each other;
* otherwise the time per token, compared for requests of the same kind (stage) at two limits: twice the requests at
  twice the time each is no gain (Little's law: throughput = in flight / latency). Comparing like with like makes it
  independent of the mix of short and long requests. Two doublings without gain end the search; the first of them stays
  the limit.

Later the limit falls when answers take longer than they did at the same limit, rises when they take less, and from time
to time the search is repeated. Refusals (429, 503) beyond the odd one cut the limit, and from then on it grows slowly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

START, TOLD_START, MOST = 8, 32, 8192
_LOOKS = 10  # looks at a short queue after which it is taken for full
_LATE = 0.1  # share of an answer's time by which this process may be late before it counts as the bottleneck
_FREE = 256  # up to here an empty queue is enough to double; beyond, answers must show a gain as well
_GAIN, _CLEAR = 0.2, 0.5  # a doubling must give at least so much; so much is clear from a few answers
_SURE = 64  # answers from which a doubt is decided
_REFUSED = 0.1  # share of refusals that is more than the odd fault
_POINTS = 512
_STEP = 0.25  # part of the way to its share that a window goes at each look
_TOKENS = 8.0  # a request costs about as much as so many tokens before its first one


@dataclass(slots=True)
class Sample:
    """Seconds per token of the requests that ran from beginning to end at one limit, added up for each stage."""

    limit: int
    count: int = 0
    kinds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, value: float) -> None:
        """Count one answer of a stage, which took `value` seconds per token."""
        entry = self.kinds.get(kind)
        if entry is None:
            self.kinds[kind] = [1.0, value]
        else:
            entry[0] += 1.0
            entry[1] += value
        self.count += 1

    def slower_than(self, other: Sample) -> float | None:
        """How many times longer answers take here than in `other`, over the stages that both have answers of.

        None if there is no such stage.
        """
        total = weight = 0.0
        for kind, (n, value) in self.kinds.items():
            if kind in other.kinds:
                m, base = other.kinds[kind]
                common = min(n, m)
                total += common * (value / n) / (base / m)
                weight += common
        return total / weight if weight else None


class Window:
    """The limit of requests in flight at one endpoint.

    `start` must be called when a request goes out, and `answered` or `failed` when it comes back. What the server says
    of its queue goes to `queue`.
    """

    def __init__(self, fixed: int = 0, clock: Callable[[], float] = time.monotonic, sharers: int = 1) -> None:
        """fixed: a limit that stays as it is; with 0 the window finds one.
        sharers: processes of the run that ask the same endpoint. `fixed`, and what the server says of its queue, are of
        all of them together, and this window keeps to its share.
        """
        self._sharers = sharers
        self.limit = max(1, fixed // sharers) if fixed else max(1, START // sharers)
        self.in_flight = 0
        self.history: list[tuple[float, int]] = [(0.0, self.limit)]
        """Seconds since the start and limit, at every change; at most 512 points, thinned evenly."""
        self.on_change: Callable[[], None] = lambda: None
        self.fixed = fixed > 0
        self._clock = clock
        self._born = clock()
        self._every = self._skipped = 0
        self._searching, self._flat = True, 0
        self._told = self._idle = False
        self._looks = self._busy = 0
        self._latency = 0.0
        self._cautious = False
        self._sample = Sample(self.limit)
        self._before: Sample | None = None
        self._full_since: float | None = None
        self._starts = self._refusals = 0
        self._judged_from = self._born
        self._trusted = False
        self._retry_search, self._patience = 0.0, 15.0

    @property
    def searching(self) -> bool:
        """Whether the limit is still being searched for."""
        return self._searching and not self.fixed

    @property
    def age(self) -> float:
        """Seconds since the start, as in `history`."""
        return round(self._clock() - self._born, 3)

    @property
    def room(self) -> bool:
        """Whether one more request may go out."""
        return self.in_flight < self.limit

    def start(self) -> float:
        """Count a request that goes out. Returns the time, which `answered` or `failed` wants back."""
        self.in_flight += 1
        self._starts += 1
        now = self._clock()
        if self._full_since is None and self.in_flight >= self.limit:
            self._full_since = now
        return now

    def held_back(self) -> None:
        """Note that limits per minute, and not this window, keep requests from going out.

        Until the window is full again, answers say nothing about its limit.
        """
        self._full_since = None

    def answered(self, kind: str, started: float, tokens: int) -> float:
        """Count a request of the stage `kind` that came back with an answer of so many tokens.

        started: what `start` has returned. Returns the seconds per token that it took.
        """
        self.in_flight -= 1
        now = self._clock()
        self._latency += 0.05 * (now - started - self._latency)
        cost = (now - started) / (tokens + _TOKENS)
        if self.fixed:
            return cost
        if self._full_since is not None and started > self._full_since:
            self._sample.add(kind, cost)
            if self._sample.count >= self._needed():
                self._judge(now)
        return cost

    def failed(self, *, refused: bool, started: float) -> None:
        """Count a request that came back without an answer. `refused`: the server has too much to do (429, 503)."""
        self.in_flight -= 1
        if self.fixed or not refused or started < self._judged_from:
            return
        self._refusals += 1
        share = self._refusals / max(1, self._starts)
        if (self._starts >= max(20, self.limit // 4) and share > _REFUSED) or (self._starts >= START and share > 0.5):
            # While the search is on, the limit may be far too high; later it is at most a step too high.
            cut = 0.85 if self._cautious else max(0.5, 1 - share)
            self._searching, self._cautious = False, True
            self._set(int(self.limit * cut))

    def tells(self) -> None:
        """Begin with a higher limit, as the server counts its waiting requests: too many would be noticed at once."""
        self._told = True
        if not self.fixed:
            self._set(TOLD_START // self._sharers)

    def queue(self, waiting: int, late: float = 0.0, running: int = 0) -> bool:
        """Adapt to what the server says: `waiting` requests wait there now, and it works on `running`.

        late: seconds by which this process is behind with its own work. If it is the bottleneck, an empty queue is no
        reason to send more.
        running: those of other processes included; with 0, where the server does not tell, it is taken to work for this
        process alone.

        Returns whether the limit has grown because the server had next to nothing waiting, so that it may soon have
        nothing again, and this process is not the bottleneck.
        """
        self._told = True
        if self.fixed or self._full_since is None or self._cautious:
            return False
        waiting = -(-waiting // self._sharers)
        running = max(1, running // self._sharers, self.in_flight - waiting)
        if waiting:
            self._busy = max(self._busy, running)
        in_time = late < _LATE * self._latency
        if not self._searching:
            return self._follow(waiting, running) and in_time
        if waiting == 0:
            # A server that is idle because this process cannot keep up needs no more requests at once.
            self._idle, self._looks = in_time, 0
            if self.limit < _FREE:
                self._set(min(self.limit * 4, _FREE))
        else:
            self._idle, self._looks = False, self._looks + 1
            if waiting * 4 > running:
                self._settle(min(self.limit, self._towards_share(waiting, running)), trusted=True)
            elif self._looks >= _LOOKS:
                self._settle(self.limit)
        return False

    def unheard(self) -> None:
        """Note that the server did not tell its queue in time, so that what it told before is no reason to grow."""
        self._idle = False

    def fix(self, limit: int) -> None:
        """Set a limit that stays from now on. It is that of all `sharers` together."""
        self.fixed = True
        self._set(limit // self._sharers)

    def _follow(self, waiting: int, running: int) -> bool:
        """Keep a fair share of a queue that is about as long as what is at work. See `queue` for the result."""
        before = self.limit
        if waiting * 4 >= running:
            self._trusted = True
            self._set(self._towards_share(waiting, running))
        elif self._trusted or self._left_over(waiting, running):
            self._set(min(2 * running, 2 * self.limit))
            return self.limit > before
        elif self._clock() >= self._retry_search:
            self._search_again()
        return False

    def _left_over(self, waiting: int, running: int) -> bool:
        """Whether the server has room that others have left, or works mostly for others, of whom this process, with
        its few requests, may take some."""
        return (waiting == 0 and 4 * running < 3 * self._busy) or (self.limit < _FREE and 2 * self.in_flight < running)

    def _towards_share(self, waiting: int, running: int) -> int:
        """The next limit on the way to this process's share of the server.

        The share follows from what the server says alone, so it is the same for all who ask there. It falls as the
        queue grows, and all shares together make a queue for which it is right. It is approached from below in steps,
        and from above no faster than would be right if all others came down as well.
        """
        queue = max(1.0, waiting / running)
        share = 2 * running / queue**2
        if self.limit > share:
            return int(max(share, self.limit * 2 / (1 + queue)))
        return self.limit + int(_STEP * (share - self.limit))

    def _judge(self, now: float) -> None:
        """Go on to another limit, or stay, now that there are enough answers at this one to compare it."""
        sample, self._sample = self._sample, Sample(self.limit)
        if self._cautious:
            self._set(self.limit + max(1, self.limit // 16))
        elif not self._searching:
            self._hold(sample, now)
        elif self._idle or not self._told:
            self._climb(sample)
        self._starts = self._refusals = 0
        self._judged_from = now

    def _needed(self) -> int:
        """How many answers are needed at a limit before it is judged."""
        if self._searching:
            return 32 if self._idle else max(START, self.limit // 2)
        return max(_SURE, self.limit)

    def _climb(self, sample: Sample) -> None:
        before = self._before
        slower = sample.slower_than(before) if before is not None else None
        if before is not None and slower is not None:
            growth = sample.limit / before.limit
            if growth / slower >= 1 + _CLEAR * (growth - 1):
                self._flat = 0
            elif sample.count < _SURE:
                self._sample = sample  # a few answers that leave a doubt: wait for more of them
                return
            else:
                self._flat = 0 if growth / slower >= 1 + _GAIN * (growth - 1) else self._flat + 1
            if self._flat == 2 or self.limit >= MOST:
                self._settle(before.limit if self._flat else self.limit)
                return
        self._before = sample
        self._set(self.limit * 2)

    def _settle(self, limit: int, *, trusted: bool = False) -> None:
        """End the search with this limit. `trusted` says that the server's own count of its queue has ended it."""
        self._searching, self._flat, self._looks, self._idle = False, 0, 0, False
        self._before, self._trusted = None, trusted
        self._retry_search = self._clock() + self._patience
        self._patience = min(2 * self._patience, 300.0)
        self._set(limit)

    def _hold(self, sample: Sample, now: float) -> None:
        """Hold a limit at a server that does not count its queue, by the time per token that it had when it was found.

        Where answers take much longer than they did then, the limit falls; where they take much less, it rises.
        """
        if self._told:
            return
        if self._before is None:
            self._before = sample
            return
        slower = sample.slower_than(self._before) or 1.0
        if slower > 1.5:
            self._set(max(1, int(self.limit / min(slower, 2.0))))
        elif slower < 0.7:
            self._set(self.limit + self.limit // 4 + 1)
        elif now >= self._retry_search:
            self._search_again()

    def _search_again(self) -> None:
        """Begin another search: measure this limit, then try twice as many. One doubling without a gain ends it."""
        self._searching, self._flat, self._before = True, 1, None
        self._set(self.limit)

    def _set(self, limit: int) -> None:
        limit = max(1, min(limit, MOST // self._sharers))
        now = self._clock()
        self._sample = Sample(limit)
        self._full_since = now if self.in_flight >= limit else None
        self._starts = self._refusals = 0
        self._judged_from = now
        if limit != self.limit:
            self.limit = limit
            self._record(now)
            self.on_change()

    def _record(self, now: float) -> None:
        self._skipped += 1
        if self._skipped <= self._every:
            return
        self._skipped = 0
        self.history.append((round(now - self._born, 3), self.limit))
        if len(self.history) >= _POINTS:
            self.history = self.history[::2]
            self._every = 2 * self._every + 1
