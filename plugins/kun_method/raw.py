"""Whether a text can stand as an answer as it is: whole, and about its matter rather than about itself.

Corpora cut texts at a size, or leave the caption of a picture behind the last sentence: `finished` takes that away.
"""

from __future__ import annotations

import re

from .gaps import closed_gaps, gap
from .texts import sentence_ends, sentences

_OF_ITSELF = re.compile(
    r"https?://|www\.|!\[|\]\(|本文|本篇|本书|文中|上文|下文|如[上下]?图|见[上下]?[图表]|点击|链接|关注|公众号|扫码|二维码|转载|来源[:：]|编辑[:：]|记者|作者"
    r"|版权|登录|注册|评论|分享|订阅|下载|\b(?:click|subscribe|copyright|this article|this post)\b",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"我(?!国|军|党|院|校|省|市|县|们?的祖国)|笔者|\b(?:I|my|we|our)\b")
_POINTS_BACK = re.compile(
    r"^(?:[这那此其该它他她](?!他|实|次)|但|而|然而|因此|所以|同时|此外|另外|不过|并且|于是"
    r"|(?:其次|[接随隨][着著后後]|[然最][后後])[，,]"
    r"|(?:Second(?:ly)?|Third(?:ly)?|Next|Then|Finally|Lastly|Afterwards|After (?:that|this)),"
    r"|(?:However|But|Nevertheless|Nonetheless|Therefore|Thus|Hence|Consequently|Moreover|Furthermore|Additionally|Also"
    r"|Instead|Otherwise|Meanwhile|Similarly|Likewise|In (?:addition|contrast|turn)|As a result"
    r"|For (?:example|instance)|On the other hand|This|These|Those|Such|He|She|They|His|Her|Their|Its"
    r"|It(?! (?:is|was) \w+ (?:that|to)\b| takes?\b)|(?:Most|Some|Many|Other|All) (?:species|members|of them)|Others"
    r"|The (?:former|latter|two|species|genus|film|movie|book|novel|album|song|episode|series|company|school"
    r"|university|band|team|club"
    r"|town|village|city|district|river|island|lake|building|church|bridge|station|project|author|artist|painter"
    r"|singer|game|party)"
    r"(?= (?:is|was|has|had|are|were|also|lies|rises|flows|contains|consists|includes)\b))\b)"
)
"""How a text begins that was cut out of another: pointing back, or with a thing of which only the kind is said."""
_SEE = re.compile(
    r"[(\[]?(?:(?:For|To) [^.,;\n]{3,60}, (?:please )?see"
    r"|(?:Please )?see (?:also|below|above|the (?:article|chapter|section|appendix|list)))\b[^.\n]{0,120}\.[)\]]?",
    re.IGNORECASE,
)
"""A sentence that only says where there is more, which an answer does not have; a doctor to see is something else."""
_HEADING = re.compile(r"\A(?:#+[^\n]{1,60}|[^\n。！？!?.…：:；;]{2,30})\n+(?=[^\n]{20})")
_TAIL = re.compile(
    r"[ \t]*(?:#+[^\n]*|(?:[-*•][ \t]*)?(?:[^\W\d]{1,12}[：:][ \t]*)?!?\[[^\]\n]{0,200}\]\([^)\n]{0,500}\)\W*)?"
)
"""A line that is only a heading or a link, with a label of its own (参考资料：) or without, or empty: at the end of a
text it is above nothing."""
_WHOLE = re.compile(r"[。！？!?.…”」』）)*`]$|\n[^\S\n]*(?:[-*•]|\d+[.、)])[^\n]*$")
_ITEM = re.compile(r"[-*•#>|]|[（(]?\d{1,3}[.、)）]")
_MOST_UNFINISHED = 0.25
"""Share of a text up to which a sentence that breaks off at its end is left out; what loses more is another text."""


def finished(text: str) -> str:
    """`text` without a last sentence that breaks off. Last lines without any whole sentence, such as items of a list,
    headings and verses, need no full stop."""
    text = text.rstrip()
    if _WHOLE.search(text):
        return text
    start = text.rfind("\n") + 1
    *whole, end = sentence_ends(text[start:])
    if not whole or _ITEM.match(text[start:].lstrip()) or end - whole[-1] > _MOST_UNFINISHED * len(text):
        return text
    return text[: start + whole[-1]].rstrip()


def without_tail(text: str) -> str:
    """`text` without the headings and links at its end, and without a last sentence that only says where there is more,
    unless it is nothing else."""
    lines = text.rstrip().split("\n")
    while lines and _TAIL.fullmatch(lines[-1]):
        lines.pop()
    shorter = "\n".join(lines).rstrip()
    *_, last = ["", *sentences(shorter)]
    return shorter.removesuffix(last if _SEE.fullmatch(last) else "").rstrip() or text


def without_title(answer: str, text: str) -> str:
    """`answer` without the heading of `text` that it has copied: the question names the topic already."""
    title = _HEADING.match(text.strip())
    return answer.removeprefix(f"{title[0].strip()}\n").lstrip() if title else answer


def as_answer(text: str) -> str:
    """`text` without its heading and the links at its end, if it begins and ends like something whole, nothing that it
    announces is missing, and it speaks neither of itself nor of who wrote it; "" if it does not read as an answer."""
    body = closed_gaps(without_tail(_HEADING.sub("", text.strip())).strip())
    whole = _WHOLE.search(body) and not (
        _OF_ITSELF.search(body) or _FIRST_PERSON.search(body) or _POINTS_BACK.search(body) or gap(body)
    )
    return body if whole else ""
