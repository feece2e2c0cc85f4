"""Stage `refine`: drops rows for what is wrong with their instruction or answer, and trims what is merely left over."""

from __future__ import annotations

import re

from kun_builder import Drop, Generate, KunError, Row, RowStage

from .filters import FILTERS, Column
from .texts import bare, sentence_ends

_LEFTOVER = re.compile(
    r"(?:^|(?<=[。！？!?\n]))[ \t*_>（(]*(?:"
    r"请?(?:务必)?注意[，,：:]?[^。！？!?\n]{0,40}(?:不是最新|并非最新|发生变化|有所变化|有所不同|仅供参考|过时|咨询(?:专业|医生)|以官方|以实际)"
    r"|(?:以上|上述|这些)[^。！？!?\n]{0,20}(?:仅供参考|不是最新|并非最新|对您?你?有(?:所)?帮助)"
    r"|(?:我)?希望(?:以上|这些?|上述|我的|本)?[^。！？!?\n]{0,20}(?:对(?:您|你)|能够?|可以)[^。！？!?\n]{0,10}(?:帮助|有用|帮到)"
    r"|(?:如果|如)(?:您|你)?(?:还)?有(?:其他|任何|更多|什么)[^。！？!?\n]{0,16}(?:问题|疑问|需要|需求)[^。！？!?\n]{0,24}"
    r"|(?:欢迎)?随时(?:向我|联系|告诉我|提问)[^。！？!?\n]{0,16}"
    r")[^。！？!?\n]{0,20}[。！？!?~～）)*_\s]*$"
)

_LONGEST_LEFTOVER = 400
"""Characters of the end of an answer in which a closing phrase is looked for."""


async def run(row: Row, generate: Generate, *, columns: tuple[Column, ...] = ("instruction", "output")) -> Row:
    """Return the row with `columns` trimmed, or drop it for the first defect found in them.

    Trimmed are outer white space, white space before line ends and, from answers, the question said once more at the
    beginning and closing phrases such as 请注意，上述信息可能不是最新的. Asks no model: `columns: [instruction]` can
    stand before the stages that cost, `[output]` behind them.

    Raises:
        Drop: the filter's reason (see `filters.FILTERS`), with the words that it found.
        KunError: the row has no such column yet.
    """
    if missing := [column for column in columns if column not in row]:
        raise KunError(
            f"stage `refine` is to check `{missing[0]}`, which no earlier stage has added",
            hint="put `refine` behind `label` and `polish`, or limit it: `refine: {columns: [instruction]}`",
        )
    row = {**row, **{column: trim(row[column], leftovers=column == "output") for column in columns}}
    if "output" in columns:
        row["output"] = without_question(row["output"], row["instruction"])
    for check in FILTERS:
        if check.column in columns and (found := check.find(row["instruction"], row.get("output", ""))):
            raise Drop(check.reason, found)
    return row


def trim(text: str, *, leftovers: bool = True) -> str:
    """`text` without surplus white space and, if `leftovers`, without closing phrases, however many follow another."""
    text = "\n".join(line.rstrip() for line in text.strip().splitlines())
    while leftovers and (found := _LEFTOVER.search(text, max(0, len(text) - _LONGEST_LEFTOVER))):
        text = text[: found.start()].rstrip()
    return text


def without_question(output: str, instruction: str) -> str:
    """`output` without a first sentence that only says the instruction again, unless that is all there is."""
    emphasis = output[: len(output) - len(output.lstrip("*_#"))]
    end = sentence_ends(output)[0]
    first, rest = output[:end], output[end:].removeprefix(emphasis).lstrip()
    return rest if rest and bare(first) == bare(instruction) else output


stage = RowStage(name="refine", run=run)
