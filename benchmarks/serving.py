"""The table of docs/speed.md on serving: how full the servers are kept, at what cost, what is lost when something dies.

    make bench-serving                                  all of it, about forty minutes
    python benchmarks/serving.py saturation kills       some of it

Our run is the real thing: `kun-build` on a recipe with three dependent requests a row (`plugins/three_requests.py`),
its journal on. It and the bare loop (`bare_loop.py`) run in turn against the same simulator (`tests/servers`): 128
slots, once at the pace of one server and once with the clock ten times as fast, which is the pace of a fleet.
"""

from __future__ import annotations

import functools
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clients import Build, Run, bare, measure
from servers.llm_server import Faults
from servers.llm_simulator import Simulator, simulator

ROWS, CONCURRENCY, ROUNDS = 3000, 256, 3
ONE_SERVER, FLEET = 1.0, 10.0
FAULTS = Faults(http_429=0.007, http_503=0.007, disconnect=0.006)
KILLS = 20
SHARED_ROWS, LATER = 900, 8.0
FEW, MANY = 20_000, 100_000

Row = tuple[str, str, str]
"""What was measured, the goal, the figure."""


def main(names: Sequence[str]) -> None:
    """Run the named parts, or all, and print the table."""
    print("| figure | goal | measured |\n|---|---|---|", flush=True)
    for name in names or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for row in PARTS[name](Path(folder)):
                print("| " + " | ".join(row) + " |", flush=True)


def saturation(folder: Path) -> list[Row]:
    """Saturation and CPU per request against the bare loop, and saturation with faults."""
    rows: list[Row] = []
    for pace, goal in ((ONE_SERVER, 0.99), (FLEET, 0.95)):
        bares, ours, faulty = [], [], []
        for turn in range(ROUNDS):
            with simulator(speed=pace) as server:
                bares.append(measure(bare(server.url, ROWS, CONCURRENCY), server))
            ours.append(_build(folder / f"{pace}-{turn}", pace))
            faulty.append(_build(folder / f"{pace}-{turn}-faults", pace, FAULTS))
        base, mine, hurt = (_median(runs, "saturation") for runs in (bares, ours, faulty))
        at = f"at {_median(bares, 'rate'):,.0f} requests/s"
        rows.append(
            (f"saturation {at}: ours, bare loop", f">= {goal} of it", f"{mine:.3f}, {base:.3f}: {mine / base:.3f}")
        )
        cpu, bare_cpu = _median(ours, "cpu"), _median(bares, "cpu")
        rows.append((f"client CPU {at}", "<= 2 x", f"{cpu:.2f} ms, {bare_cpu:.2f} ms: {cpu / bare_cpu:.2f} x"))
        kept = min(run.stats["different"] for run in faulty) >= 3 * ROWS
        rows.append((f"2 % faults {at}", ">= 0.98 of none", f"{hurt:.3f}: {hurt / mine:.3f}; {_lost(kept)}"))
    return rows


def shared(folder: Path) -> list[Row]:
    """Saturation of one server that two builds ask, which know nothing of each other, against two bare loops."""
    rows: list[Row] = []
    for after in (0.0, LATER):
        ours, bares = [], []
        for turn in range(ROUNDS):
            bares.append(_two(lambda number, url: bare(url, SHARED_ROWS, CONCURRENCY), after))
            builds = functools.partial(_shared_build, folder / f"{after}-{turn}")
            ours.append(_two(builds, after))
        found = [", ".join(f"{one:.3f}" for one in runs) for runs in (ours, bares)]
        ratio = statistics.median(ours) / statistics.median(bares)
        what = f"two builds at one server, the second {after:g} s later: saturation of each round; of two bare loops"
        rows.append((what, ">= 0.95 of theirs", f"{found[0]}; {found[1]}: {ratio:.3f}"))
    return rows


def _shared_build(folder: Path, number: int, url: str) -> subprocess.Popen[bytes]:
    return Build(folder / str(number), SHARED_ROWS, [url]).start()


def _two(start: Callable[[int, str], subprocess.Popen[bytes]], after: float) -> float:
    """The saturation of a server that two processes ask, the second of which starts so many seconds after the first."""
    with simulator(speed=ONE_SERVER) as server:
        first = start(1, server.url)
        time.sleep(after)
        codes = [process.wait() for process in (start(2, server.url), first)]
        if any(codes):
            raise SystemExit(f"exit codes {codes}")
        return float(server.stats()["saturation"])


def kills(folder: Path) -> list[Row]:
    """kill -9 at random moments: what is asked twice, and what becomes of the dataset."""
    rows: list[Row] = []
    for pace in (ONE_SERVER, FLEET):
        repeats: list[int] = []
        kept, same, luck = 0, True, random.Random(pace)
        with simulator(speed=FLEET) as server:
            whole = Build(folder / f"whole-{pace:g}", ROWS, [server.url])
            _checked(whole, whole.start().wait())
        while len(repeats) < KILLS:
            with simulator(speed=pace) as server:
                build = Build(folder / f"{pace:g}-{len(repeats)}", ROWS, [server.url])
                lives, again = _killed(build, server, luck, pace, KILLS - len(repeats))
                repeats, kept = repeats + lives, kept + again
                same = same and build.files() == whole.files()
        what = f"kill -9, {KILLS} times, at the pace of {'one server' if pace == ONE_SERVER else 'a fleet'}: repeated"
        found = f"{', '.join(map(str, sorted(repeats)))}; dataset {'identical' if same else 'DIFFERENT'}"
        goal = "<= 4" if pace == ONE_SERVER else "<= 30 in 19 of 20"
        rows.append((what, f"{goal}, data identical", found))
        rows.append(("of those whose answer was on disk at the kill", "0", str(kept)))
    return rows


def endpoints(folder: Path) -> list[Row]:
    """One of three endpoints is killed at a third of the work, and revived later."""
    with simulator(slots=43) as one, simulator(slots=43) as two, simulator(slots=43) as three:
        build = Build(folder, ROWS, [server.url for server in (one, two, three)])
        process = build.start()
        _wait(lambda: two.counts()["answered"] >= ROWS // 3, process)
        in_flight = two.counts()["in_flight"]
        two.kill()
        busy = _busy((one, three), 6)
        two.revive()
        revived = time.monotonic()
        _wait(lambda: two.counts()["answered"] > 0, process)
        back = time.monotonic() - revived
        _checked(build, process.wait())
        return [
            (
                f"one of three endpoints killed with {in_flight} requests in flight: slots at work at the other two",
                "moves within seconds",
                f"{min(busy)} to {max(busy)} of {2 * one.settings.slots} at any time in the 6 s after",
            ),
            ("revived: first answer; answers in all", "used again", f"after {back:.1f} s; {two.stats()['answered']}"),
            ("rows", "none lost", _lost(_kept(build) == ROWS)),
        ]


def _busy(servers: Sequence[Simulator], seconds: float) -> list[int]:
    """How many slots work in all, looked at all the time for so long."""
    busy, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        busy.append(sum(min(server.counts()["in_flight"], server.settings.slots) for server in servers))
        time.sleep(0.05)
    return busy


def memory(folder: Path) -> list[Row]:
    """Peak memory for few and many rows; then a run killed near its end goes on."""
    with simulator(speed=FLEET) as server:
        few = measure(Build(folder / "few", FEW, [server.url]).start(), server)
    with simulator(speed=FLEET) as server:
        build = Build(folder / "many", MANY, [server.url])
        process = build.start()
        _wait(lambda: server.counts()["answered"] >= 3 * MANY - 600, process, every=0.3)
        peak = _peak(process.pid)
        _kill(process)
        before, began = server.counts()["attempts"], time.monotonic()
        again = build.start()
        _wait(lambda: server.counts()["attempts"] > before, again, every=0.1)
        skipped = time.monotonic() - began
        _, _, usage = os.wait4(again.pid, 0)
        peak = max(peak, usage.ru_maxrss / 1024)
    return [
        (f"peak memory, {FEW:,} and {MANY:,} rows x 3", "< 1 GB, not growing", f"{few.memory:.0f} MB, {peak:.0f} MB"),
        (f"resume: start to first new request, {MANY:,} rows finished", "< 10 s", f"{skipped:.1f} s"),
    ]


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "saturation": saturation,
    "shared": shared,
    "kills": kills,
    "endpoints": endpoints,
    "memory": memory,
}


def _build(folder: Path, pace: float, faults: Faults | None = None) -> Run:
    with simulator(speed=pace, faults=faults or Faults()) as server:
        build = Build(folder, ROWS, [server.url])
        run = measure(build.start(), server)
    _checked(build, run.code)
    return run


def _checked(build: Build, code: int) -> None:
    if code:
        raise SystemExit(f"kun-build failed:\n{build.log()}")


def _killed(build: Build, server: Simulator, luck: random.Random, pace: float, most: int) -> tuple[list[int], int]:
    """Kill the build again and again, at most so often, until it is finished.

    Returns the requests repeated for each kill, and how many of all had their answer on disk. A repeated request counts
    if it had been answered before the kill. For some hundredths of a second after it, while the kernel takes the
    process apart, the server goes on answering to nobody.
    """
    lives: list[tuple[float, float]] = []
    on_disk: list[set[str]] = []
    while True:
        began, attempts, process = time.monotonic(), server.counts()["attempts"], build.start()
        ended = not _wait(functools.partial(_asked_more, server, attempts), process)
        if ended or len(lives) == most:
            _checked(build, process.wait())
            break
        time.sleep(luck.uniform(0.2, 6.0 if pace == ONE_SERVER else 2.0))
        lives.append((began, time.monotonic()))
        _kill(process)
        on_disk.append(build.on_disk())
    repeated = server.repeated()
    counts = [sum(begin <= one.at <= end for one in repeated) for begin, end in lives]
    next_begins = [*(begin for begin, _ in lives[1:]), math.inf]
    kept = [
        sum(begin <= one.at < next_begin and one.begins in known for one in repeated)
        for (begin, _), next_begin, known in zip(lives, next_begins, on_disk, strict=True)
    ]
    return counts, sum(kept)


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], every: float = 0.05) -> bool:
    """Wait until the condition holds; False if the process has ended first."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(every)
    return True


def _asked_more(server: Simulator, attempts: int) -> bool:
    return bool(server.counts()["attempts"] > attempts)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def _peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _kept(build: Build) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in (build.output / "dataset" / "data").iterdir())


def _median(runs: Sequence[Run], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


def _lost(kept: bool) -> str:
    return "no row lost" if kept else "ROWS LOST"


if __name__ == "__main__":
    main(sys.argv[1:])
