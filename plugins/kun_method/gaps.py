"""What is missing from a text whose templates, formulas, lists or links were cut out, as pages of a wiki lose them.

Small gaps close without loss: empty brackets, doubled stops. Others leave a sentence that says nothing: a list that was
announced and is not there, a verb without its object, quotation marks around nothing.
"""

from __future__ import annotations

import re

from .scripts import simplified
from .texts import HAN

_VARIANTS = re.compile(
    rf"-?\{{\s*(zh(?:-\w{{2,4}})?:[^{{}}\n]{{0,200}})\}}-?|-\{{(?=[^{{}}\n]{{0,80}}[{HAN}])([^{{}}\n]{{1,80}})\}}-"
)
_VARIANT = re.compile(r"zh-?(\w*)\s*:\s*([^;；]*)")
_LABELLED = re.compile(rf"(?<=[（，；(])\s*[{HAN}]{{1,6}}[：:][\s'\"]*(?:[，；]|(?=[）)]))")
_EMPTY = re.compile(rf" ?（[\s，、；：;,]*）|(?<=[{HAN}])\(\)(?=[{HAN}，。、])")
_FIRST = re.compile(r"（[\s，、；：;,]+")
_LAST = re.compile(r"(?<![\s，、；：;,])[\s，、；：;,]+）")
_DOUBLED = re.compile(r"[，、]{1,9}(?=[，。])|、(?=、)|(?<!。)。(?=。(?!。))")

_MISSING = re.compile(
    r"(?:分别[为是]|主要有|包括|包含|如下|以下[几各一二三四五六七八九十][^。，：:\n]{1,12}|代表作品?有?|显示[^。，：:\n]{1,20})[：:]\s*"
    r"(?:此外|另外|以下|其中|同时|因此|目前|\Z)"
    r"|分别[为是][：:][^、；;和与及跟\dA-Za-z\n]{12,200}?。"
    r"|(?:位于|坐落于|介于|[又也被亦]称为?|[称名译]为|(?:面积|人口|全长|海拔|学名|全称)[为是])(?=[，。；)）])|(?:包括|包含)(?=[。；])"
    r"|《》|「」|『』|主条目[：:]|[参另]见(?:条目)?[：:](?=[^，。；\n]{0,20}[，。])"
    r"|\b(?:such as|known as|located in|consists? of)\s*[,.;)](?!\.)"
)
_ITEM = re.compile(
    r"^[ \t]*(?:[-*•]|\d{1,2}[.、)])[ \t]*\**"
    r"((?:[而但却卻更也还還就则則使]|比(?![如较較赛賽例])|因此|所以|[并並]且|[从從]而|以及|[导導]致|其中)[^\n]{3,})",
    re.MULTILINE,
)


def closed_gaps(text: str) -> str:
    """`text` without brackets, labels and commas that are left where a template was cut out, without doubled stops, and
    with one word of each list of a wiki's spellings (`-{zh-hans:..; zh-hant:..}-`)."""
    text = _LABELLED.sub("", _VARIANTS.sub(_spelling, text))
    return _DOUBLED.sub("", _LAST.sub("）", _FIRST.sub("（", _EMPTY.sub("", text))))


def _spelling(match: re.Match[str]) -> str:
    """The simplified spelling of a list, or its first one; stages put a text's answer into its script anyway."""
    if match[1] is None:
        return str(match[2])
    spellings = {code.lower(): word.strip() for code, word in _VARIANT.findall(match[1])}
    return next(
        (spellings[code] for code in ("hans", "cn", "sg") if code in spellings), next(iter(spellings.values()), "")
    )


def gap(text: str) -> str:
    """The words of the first place where something that was announced is missing, or ""."""
    match = _MISSING.search(simplified(text))
    return match[0].strip() if match else ""


def torn_item(output: str, text: str) -> str:
    """The first item of a list in the answer that is the second half of a sentence of `text` (比坐着更有效), or ""."""
    heads = ((match[1], match[1][:6]) for match in _ITEM.finditer(output))
    return next((item for item, head in heads if f"，{head}" in text), "")
