"""Whether a question or an answer can be understood by someone who does not see the text that it was made from.

The forms are those in which a writer leans on what surrounds him: articles of a law without the law, figures, 本条例
and 该公司, 前条, days of the week without a date. Words that only contain such a character (日本, 应该) are left alone.
"""

from __future__ import annotations

import re

from .languages import CHINESE_QUESTION
from .scripts import simplified
from .texts import longer, sentences

_LAW = re.compile(r"《[^《》]+》|[一-龥]{2}(?:法|法典|条例|办法|规定|章程|宪法|准则|细则|公约|协定|规则|宣言)")
_ARTICLE = re.compile(r"第[零〇一二三四五六七八九十百千\d]{1,9}[条款项]|[前本上下]款|[前本上下]条(?![件款路例约理])")
_FIGURE = re.compile(
    r"(?:[上下左右附见如插]|(?<![一-龥])[这该此])(?:图|表)(?![片书形像标格示解层案腾谱文们])|[图表](?:[一二三四五六七八九十]|\d+(?:[-–.]\d+)?)"
    r"(?=[中所是的里：:，,、）)显表示给列]|$)|(?:红|蓝|绿|黄|黑|白)色?箭头"
)
_SELF = re.compile(
    r"(?:(?<![一-龥])|(?<=[在对于按由为从把将与和及向据照依]))本(?:条例|法(?=[第的所中])|办法|规定|细则|章程|公约|公司|单位|院|校|系(?!统|列)"
    r"|馆|店|报(?!道)|刊|书|剧(?!烈)|片|集(?!团|中)|辑|章|节(?!日)|赛季|季|届|次|局|市|省|县|区|镇|村|国|州|站|鱼|种(?!子|植)|属(?!于|性)"
    r"|科(?![生学院目技室])|周|月|年|学期|案|合同|协议|通知|公告|文档|教程|指南|手册|活动|比赛)"
    r"|(?<![应活合理早本罪不皆总])该(?:条|款|法|公司|书|剧|片|馆|校|院|市|省|县|区|镇|村|国|州|地|城|岛|山|河|湖|站|线|桥|街|路|寺|庙|厂|团|队|党|会|协会"
    r"|组织|机构|部门|项目|产品|技术|方法|系统|软件|程序|游戏|专辑|歌|电影|电视剧|节目|小说|作品|文|人|名|位|属|种|科|鱼|植物|动物|物种"
    r"|期刊|报告|研究|事件|案|奖|赛事|比赛|战役|运动)"
)
_ENGLISH = re.compile(
    r"\b(?:Figure|Fig\.|Table|Section|Article|Chapter|Paragraph|Appendix)\s+(?:\d+|[IVXLC]+)\b(?![^.?!]*\b(?:of|in)\s+(?:the\s+)?[A-Z])"
    r"|\b(?:the aforementioned|the former|the latter)\b"
)
_NOW_ENGLISH = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|(?:last|this|next)\s+(?:week|month|year|night|Monday|Tuesday|Wednesday|Thursday|Friday"
    r"|Saturday|Sunday)|on\s+(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)|(?:as|see)\s+(?:mentioned\s+)?above)\b",
    re.IGNORECASE,
)
_DATE_ENGLISH = re.compile(r"\b(?:1[5-9]|20)\d\d\b|\b(?:every|if|for example|such as)\b", re.IGNORECASE)
_POINTING = re.compile(
    r"(?:这|那)(?:起|场|位|次|名|座|部|款|家|只|份|封|首|幅|篇|段|句|项|批|届|条(?!件))(?=[一-龥])|此[次事案役战书人]|(?:上述|前述|首页)"
)
_NAMELESS = re.compile(
    r"^(?:请问?你?您?|能否|可以|简[要单]|详细|[介绍简述概说明谈讲下一])*((?![摄华攝華])[一-龥]氏)(?=[的是有在如怎为])"
)
_UPWARDS = re.compile(
    r"(?:按照?|依照?|参照|参考|根据|见)(?:上面|上述|以上|前面|前述|上文|前文)的?(?!步骤|方法|几|[一二三两])"
)
_NOW = re.compile(
    r"(?<!每)(?:周|星期|礼拜)[一二三四五六日天](?![至到一二三四五六日天])|今天|昨天|昨日|今日|明天|日前|近日|[上本下]周|[上本下]个?月|今年|去年|明年|前年"
)
_DATE = re.compile(r"\d{4}\s*年|\d{1,2}\s*月\s*\d{1,2}\s*日|每(?:周|星期|天|年)|如果|假设|例如|比如")

_AUTHOR = re.compile(
    r"(?<![基日文版资脚标样根剧课成书译话木一二两三四五六七八九十几])"
    r"(?:本文(?![学化件字明物体艺具])|[本我](?:公司|校(?![验对准正园])|院(?![士子落])|刊(?![登载])|[司台站报](?=[的将记])))|笔者|小编"
    r"|关注[^。！\n]{0,8}公众号|文末|私信我|(?:欢迎(?:大家)?关注|(?:欢迎|帮忙)(?:大家)?(?:转发|点赞|留言))|点个赞|长按识别"
)
_STATED = re.compile(r"^[它其他她]们?[^，,？?]*[？?]$")
_CLAUSE = re.compile(r"[，,；;。]")
_LONG_QUESTION = 120
"""Characters from which on a question in Chinese carries the material that it speaks of, as exam questions do."""

_BEGINNING = 120
"""Characters of an answer in which nothing can have been said yet that it could point at."""

_OPENS_WITH_WHAT = re.compile(r"^什么(?!是|叫做?|时候|样|地方|情况下|都|东西|人)")
_NO_PREDICATE = re.compile(
    r"^[^，,。；;：:]{2,}(?:为什么|为何)[？?]?$|^(?:为什么|为何|如何|怎样|怎么|什么|哪些|是什么)[？?]?$"
)


def has_material(instruction: str) -> bool:
    """Whether a question is so long that it carries the material that it speaks of."""
    return longer(instruction, _LONG_QUESTION)


def about_question(instruction: str) -> tuple[str, str] | None:
    """What makes a short question useless without its text, or no question at all."""
    if has_material(instruction):
        return None
    instruction = simplified(instruction)
    if words := question_needs_text(instruction):
        return "needs_context", words
    if words := no_question(instruction):
        return "bad_question", words
    return None


def question_needs_text(instruction: str) -> str:
    """The words by which a short question leans on a text that nobody sees, or "": a figure, a surname of nobody in
    particular (金氏的生平). 该 and 这 may point at a clause of the question itself."""
    if match := _FIGURE.search(instruction) or _ENGLISH.search(instruction):
        return match[0]
    if match := _NAMELESS.search(instruction):
        return match[1]
    if match := _SELF.search(instruction) or _POINTING.search(instruction):
        return "" if _CLAUSE.search(instruction[: match.start()]) else match[0]
    match = _ARTICLE.search(instruction)
    return match[0] if match and not _LAW.search(instruction[: match.start()]) else ""


def answer_needs_text(output: str) -> str:
    """The words by which the beginning of an answer points at something above it that is not there, or at a day that
    nobody knows."""
    beginning = simplified(output[:_BEGINNING])
    if match := _UPWARDS.search(beginning):
        return match[0]
    if (match := _NOW.search(beginning)) and not _DATE.search(output):
        return match[0]
    match = _NOW_ENGLISH.search(beginning)
    return match[0] if match and not _DATE_ENGLISH.search(output) else ""


def speaks_as_author(output: str, instruction: str) -> str:
    """The word by which an answer speaks as its author, whom no reader knows (本文, 笔者, 本校, 关注公众号), or ""."""
    if has_material(instruction):
        return ""
    match = _AUTHOR.search(simplified(output))
    return match[0] if match and match[0] not in simplified(instruction) else ""


def no_question(instruction: str) -> str:
    """A question without a predicate (第三款为什么？), one turned inside out (什么国家将公投？), a statement behind one
    that only ends as a question does (它有多项公开赛？), or ""."""
    if match := _NO_PREDICATE.search(instruction) or _OPENS_WITH_WHAT.search(instruction):
        return match[0]
    further = map(simplified, sentences(instruction)[1:])
    return next((said for said in further if _STATED.search(said) and not CHINESE_QUESTION.search(said)), "")
