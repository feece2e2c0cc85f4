"""Reading a published dataset back as any user would: streamed, by a process that has never seen it.

`python -m kun_builder.hub.readback ORG/NAME COMMIT SPLIT...` is that process; the token comes as HF_TOKEN. It prints,
as JSON, the first row of each split, and null for a split without rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from huggingface_hub import constants

from kun_builder.hub.client import keep_token_home
from kun_builder.hub.retry import ReaderFailed
from kun_builder.result.loading import print_and_end

Rows = dict[str, dict[str, Any] | None]


def first_rows(repo: str, commit: str, splits: Sequence[str], token: str | None) -> Rows:
    """The first row of each split of `repo` at a commit, as a fresh process streams it; None where a split is empty.

    Raises ReaderFailed, whatever the reason: `datasets` says of a Hub that does not answer that a file is missing.
    """
    env = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "USE_TORCH": "0"}
    env |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", __name__, repo, commit, *splits]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReaderFailed((done.stderr.strip().splitlines() or ["no message"])[-1])
    rows: Rows = json.loads(done.stdout)
    return rows


def stream(repo: str, commit: str, *splits: str) -> Rows:
    """Stream one row of each split in this process."""
    from datasets import config, disable_progress_bars, load_dataset

    disable_progress_bars()
    keep_token_home(constants.ENDPOINT)
    config.STREAMING_READ_MAX_RETRIES = 1  # not 20, with 5 s between: the caller starts another reader in its own time
    return {
        split: next(iter(load_dataset(repo, split=split, streaming=True, revision=commit)), None) for split in splits
    }


if __name__ == "__main__":
    print_and_end(stream(*sys.argv[1:]))
