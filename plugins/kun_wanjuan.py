"""WanJuan 1.0, Chinese text: JSON lines in tar.gz; the same file names in every subset's folder.

Text subsets: {"id": "BkORdv3xK7IA0HG7pccr", "content": "# 椒盐排条的做法\\n\\n椒盐排条是上海本帮菜里的经典家常菜……"}
Exam-cn:      {"id": "Bk15...", "q_type": "单选题", "q_main": "……正确的是（ ）", "option_a": "……", "std_ans": "D", ...}
"""

import re
from typing import Any

from kun_builder import Source, hookimpl
from kun_builder.readers import PACKED

kun_api = 1
SAMPLE = {
    "id": "Bk55e7-7xK15287a79aa2d",
    "q_type": "单选题",
    "q_main": "1．（ 6分）下列有关细胞的叙述，正确的是（ 　　）",
    "option_a": "病毒是一类具有细胞结构的生物",
    "option_b": "蓝藻细胞具有细胞核且DNA分子呈环状",
    "option_c": "人体所有细胞的细胞周期持续时间相同",
    "option_d": "内质网膜和高尔基体膜都具有流动性",
    "option_e": "",
    "std_ans": "D",
    "answer": "",
    "answer_detail": None,
    "grade": "高三",
    "major": "生物",
    "keypoint": ["细胞的结构"],
}


# What belongs to the printed sheet and not to the question: its number and points, and line ends within a sentence.
_NUMBER = re.compile(r"^\d{1,2}[ 　]*(?:[．、]|\.(?!\d))\s*(?:[（(][ 　]*\d+[ 　]*分[ 　]*[)）])?[ 　]*")
_WRAP = re.compile(r"(?<=[^\n]{19}[\u4e00-\u9fff])\n(?=[\u4e00-\u9fff])")


def parse(row: dict[str, Any]) -> str | None:
    """The content; an exam question with its options, answer and explanation, each on lines of its own."""
    if "q_main" not in row:
        return row["content"]  # type: ignore[no-any-return]
    if not (question := _NUMBER.sub("", _text(row["q_main"]))):
        return None
    options = [f"{letter.upper()}. {text}" for letter in "abcde" if (text := _text(row.get(f"option_{letter}")))]
    answer = _text(row.get("std_ans")) or _text(row.get("answer"))
    details = [text for name in ("answer", "answer_detail") if (text := _text(row.get(name))) and text != answer]
    end = [f"答案：{answer}"] if answer else []
    return "\n".join([question, *options, *end, *(f"解析：{text}" for text in ["\n".join(details)] if text)])


def _text(value: Any) -> str:
    """Null and what is no text count as empty."""
    return _WRAP.sub("", value.strip()) if isinstance(value, str) else ""


@hookimpl
def kun_sources() -> list[Source]:
    """WanJuan 1.0."""
    return [
        Source(
            name="wanjuan",
            parse=parse,
            files=tuple(f"*.jsonl{tar}{end}" for tar in ("", ".tar") for end in PACKED),
            depth=2,
            license="cc-by-4.0",  # of the collection; its authors say that some subsets may have other terms
            redistributable=True,
            homepage="https://opendatalab.com/OpenDataLab/WanJuan1_dot_0",
            citation="He et al.: WanJuan: A Comprehensive Multimodal Dataset for Advancing English and Chinese Large "
            "Models. arXiv:2308.10755, 2023.",
            sample=SAMPLE,
        )
    ]
