"""Processes that start in milliseconds and can be killed for real: forked from one that has imported everything.

    with Zygote(HF_ENDPOINT=hub.url) as zygote:
        process = zygote.start("publish_worker:publish", run="runs/x", repo="alice/x")
        os.kill(process, signal.SIGKILL)
        zygote.wait()            # {"status": -9}

Run as a program, it is the process that is forked: one JSON line in, two out (the child's pid; how it ended).
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

TESTS = Path(__file__).resolve().parents[1]


class Zygote:
    """Runs functions of test modules in forked processes, one at a time, with `env` set before anything is imported."""

    def __init__(self, folder: Path, modules: tuple[str, ...], **env: str) -> None:
        self._folder = folder
        self._env = {**os.environ, "HF_HOME": str(folder / "hf"), "PYTHONPATH": str(TESTS), "USE_TORCH": "0", **env}
        self._modules = modules

    def __enter__(self) -> Self:
        with (self._folder / "zygote.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "servers.zygote", *self._modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                cwd=self._folder,
                text=True,
            )
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(100)
        self._process.stdout.close()

    def start(self, function: str, **arguments: Any) -> int:
        """Start `module:function` in a new process; returns its id."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([function, arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._answer()["pid"])

    def wait(self) -> dict[str, Any]:
        """How the process ended: `status` (negative: the signal that killed it) and `result`."""
        return self._answer()

    def run(self, function: str, **arguments: Any) -> Any:
        """Run to the end; returns the result."""
        self.start(function, **arguments)
        ended = self.wait()
        assert ended["status"] == 0, (ended, (self._folder / "zygote.log").read_text()[-3000:])
        return ended["result"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, (self._folder / "zygote.log").read_text()[-3000:]
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Import the modules, then fork for every line."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        function, arguments = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _child(function, arguments, write)
        os.close(write)
        _say({"pid": pid})
        with os.fdopen(read) as pipe:
            result = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _say({"status": status, "result": json.loads(result) if status == 0 else None})


def _child(function: str, arguments: dict[str, Any], write: int) -> None:
    os.dup2(2, 1)  # what the function prints is not an answer
    module, name = function.split(":")
    try:
        result = getattr(importlib.import_module(module), name)(**arguments)
        os.write(write, json.dumps(result).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
