"""What models were asked while a run goes on, with what only the process that asks can count."""

from __future__ import annotations

from dataclasses import dataclass

from kun_builder.report import Tally


@dataclass
class LiveUsage(Tally):
    """The tally of one stage at one model, useless answers included.

    `truncated`, `empty` and `off_schema` count answers with that flaw, `retries` the requests that failed and were
    sent again.
    """

    retries: int = 0
    truncated: int = 0
    empty: int = 0
    off_schema: int = 0
