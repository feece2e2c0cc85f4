"""What is wrong with an instruction or an answer, one filter per reason.

Keyword filters drop good rows when the keywords are common: lists like 作为, 根据, 抱歉 cost a fifth and more of the
answers that people write. Each filter here therefore looks for a form, in the place where the defect has it, and
`benchmarks/refine_false_drops.py` measures how many pairs written by people it would drop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .context import answer_needs_text, has_material, no_question, question_needs_text
from .gaps import gap
from .texts import bare, han_share, loop, prose, sentences

Column: TypeAlias = Literal["instruction", "output"]

SHORTEST_ANSWER = 10
"""Characters. Twenty would drop a third of the short answers that people give to short questions."""

_MATERIAL = (
    r"短文|文章|文本|文字|段落|段话|课文|原文|引文|图片|照片|插图|图表|图像|示意图|表格|链接|网址|网页|视频|音频|录音|附件|文档"
    r"|材料|资料|信息|内容|新闻|报道|对话|句子|回答|答案|例子|选项|代码|诗"
)
_UNSEEN = re.compile(
    r"(?:这|该|此|上述|以上|上面|前面|下面|以下|下列|给定|给出|所给|提供|附)的?(?:一)?(?:组|篇|段|则|个|张|幅|份|条|首|些|本|部|句)?"
    rf"(?:{_MATERIAL})"
    r"|(?:根据|阅读|结合|参考|参照|依据|看|从|在)(?:文字|文本|短文|原文|材料|资料|图片|图表|表格|文档|上下文)(?!学|系|类型|框)"
    r"|本文|(?<![论作散古语课全条中英外日])文中|(?<!上)[上下]文(?:中|里|的|提)|文章[中里的]|图中|(?<!比)如图(?![片书形像标])|[上下左右]图(?:中|所|的|是)"
    r"|(?:图片|照片|插图|图表|表格|链接|网页|附件|[视音]频)[中里上内]|作者(?:在|认为|是如何|是怎|想|提到|的(?:观点|意思|态度|看法))"
)
_UNSEEN_ENGLISH = re.compile(
    r"\b(?:the|this|that|these|given|provided|following|above|below)\s+(?:(?:given|provided|following|above|short|whole)\s+)?"
    r"(?:text|passage|article|paragraph|document|excerpt|material|picture|image|figure|table|diagram|link|author|story|report)\b"
    r"|\b(?:above|below)[- ]mentioned\b|\baccording to (?:it|him|her|them)\b",
    re.IGNORECASE,
)
_DANGLING_ENGLISH = re.compile(
    r"^(?:please\s+)?(?:(?:what|who|why|how|when|where|which)\s+(?:is|are|was|were|do|does|did|can|could|will|has|have)\s+)"
    r"(?:it|he|she|they|this|these|those)\b",
    re.IGNORECASE,
)
_DANGLING = re.compile(
    r"^(?:请|你|您|问|能否|可以|帮我|告诉我|写出|写一下|介绍|描述|解释|说明|简述|概述|分析|总结|列出|回答|为什么|那么|那|一下|下|,|，)*"
    r"(?:这(?!时|样|里说)|该|此(?!外|时)|它|他(?!汀)|她|其(?!他|实|中))"
)

_APOLOGY = re.compile(
    r"^.{0,12}?(?:抱歉|对不起|不好意思|很遗憾)[，,。！!：:\s]*(?:但|不过|由于|因为|作为|我|您|你|目前|这)|^.{0,20}?我(?:暂时|目前)?(?:无法|不能|没法|没有办法|不便|无权)"
    r"(?:直接|为您|为你|给出|继续|准确)*(?:回答|提供|完成|协助|帮助|满足|访问|查看|打开|浏览|确定|判断|理解|处理|给出|生成)"
    r"|^.{0,20}?(?:没有|未|请)(?:能)?(?:给出|提供)(?:更多|足够|具体|相关|完整|任何|的|您|你)+(?:信息|内容|文本|文字|背景|上下文|细节|资料)"
    r"|^(?:I'm sorry|I am sorry|Sorry|I cannot|I can't|Unfortunately)\b",
    re.IGNORECASE,
)
_OF_ITSELF = re.compile(
    r"作为(?:一个|一名|一款|一种|一位|您的|你的)?(?:由.{1,12}?(?:开发|训练|创建)的)?(?:AI|人工智能|大?型?语言模型|大模型|智能|虚拟|聊天)"
    r"(?:助手|助理|语言模型|模型|机器人|程序|系统|AI)?(?:助手)?[，,]\s*(?:我|本)"
    r"|我(?:只)?是(?:一个|一名|一款|一种)?(?:由.{1,16}?(?:开发|训练|创建)的)?(?:AI|人工智能|大?型?语言模型|大模型|通义千问|Qwen|ChatGPT|智能助手)"
    r"|我的(?:训练数据|知识库|知识截止|数据库)|\bAs an AI\b|\bI am an AI\b|\bI'm an AI\b"
)
_OF_SOURCE = re.compile(
    r"^.{0,8}?(?:根据|基于|依据|按照|从|在)(?:您|你|用户|题目)?(?:所|上面|上述|以上|下面)?(?:提供|给出|给定|上述|以上|这段|该段|此段|原)的?(?:这段)?"
    r"(?:文字|文本|材料|资料|信息|内容|文章|段落|描述|文)"
    r"|^(?:这|该|本|此|上述|以上|原)(?:段|篇|则)?(?:文字|文本|材料|资料|文章|段落|短文|内容|文)(?:主要|详细|简要|首先|中|是|介绍|描述|讲述|提到|指出|说明)"
    r"|^(?:以下|下面|这)(?:是|为)(?:我|根据|对|经过|改写|重写|润色|优化|修改|整理)"
    r"|^(?:资料|材料|文中|原文)(?:里|中)?(?:提到|指出|说|显示|介绍|记载)"
    r"|^(?i:(?:according to|based on|as (?:stated|described) in)\s+the\s+(?:given\s+|provided\s+)?"
    r"(?:text|passage|article|material)|the (?:text|passage|article|material)\s+\w+s\b)"
)
_TEMPLATE = re.compile(
    r"<\u200b?[|｜][^<>\n]{1,40}[|｜]\u200b?>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think>"
    r"|^[^\S\n]*(?:#{1,4}[^\S\n]*)?(?:指令|指示|用户|助手|系统|Instruction|Response|User|Assistant|Human|System)\s*[:：]",
    re.MULTILINE | re.IGNORECASE,
)
_URGES = re.compile(
    r"领券|抢购|手慢无|先到先得|限时(?:优惠|特价|抢)|全场.{1,6}折|包邮|加(?:我)?微信|扫(?:描)?(?:下方)?(?:二维)?码|关注(?:公众号|我们)|再送好礼|立减"
    r"|(?i:\b(?:buy|order) now\b|\blimited offer\b|\bsubscribe (?:now|today)\b|\bclick here\b|\bfree shipping\b)"
)
_BUTTONS = re.compile(
    r"上一[篇页]|下一[篇页]|返回(?:顶部|首页|列表)|关于我们|联系我们|友情链接|网站地图|版权声明|加入收藏|设为首页|免责声明|隐私政策|网站导航"
    r"|(?i:\b(?:(?:about|contact) us|privacy policy|terms of (?:use|service)|site ?map|back to top|sign (?:in|up))\b)"
)
_OPEN_END = re.compile(r"(?:[，、,（(“「《]|[一-龥][和与及或的])$")


@dataclass(frozen=True, slots=True)
class Filter:
    """A reason to drop a row; `find(instruction, output)` returns the evidence for it, "" if there is none."""

    reason: str
    column: Column
    find: Callable[[str, str], str]


def refers_to_unseen(instruction: str, output: str = "") -> str:
    """Speaks of a text, picture or link that is not there, or begins with a pronoun that stands for nothing."""
    if has_material(instruction):
        return ""
    patterns = (_UNSEEN, _DANGLING, _UNSEEN_ENGLISH, _DANGLING_ENGLISH)
    match = next((found for pattern in patterns if (found := pattern.search(instruction))), None)
    return match[0] if match else ""


def needs_context(instruction: str, output: str = "") -> str:
    """Leans on what surrounds it: 本条例, 图一, 第三条 of no law."""
    return "" if has_material(instruction) else question_needs_text(instruction)


def bad_question(instruction: str, output: str = "") -> str:
    """Has no predicate (第三款为什么？), or is turned inside out (什么国家将公投？)."""
    return "" if has_material(instruction) else no_question(instruction)


def points_at_nothing(instruction: str, output: str) -> str:
    """Points at something above it that is not there, or at a day that nobody knows."""
    return answer_needs_text(output)


def repeats_instruction(instruction: str, output: str = "") -> str:
    """Says the same sentence twice, or loops. Parts of an exam question may well end in the same words."""
    if has_material(instruction):
        return loop(instruction)
    seen: set[str] = set()
    for sentence in sentences(instruction):
        key = bare(sentence)
        if len(key) >= 4 and key in seen:
            return sentence
        seen.add(key)
    half = bare(instruction)
    if len(half) >= 8 and len(half) % 2 == 0 and half[: len(half) // 2] == half[len(half) // 2 :]:
        return instruction
    return loop(instruction)


def refuses(instruction: str, output: str) -> str:
    """Begins with a refusal or asks back for what was never there."""
    match = _APOLOGY.search(output)
    return match[0] if match else ""


def speaks_of_itself(instruction: str, output: str) -> str:
    """The model presents itself or its training."""
    match = _OF_ITSELF.search(prose(output))
    return match[0] if match else ""


def speaks_of_source(instruction: str, output: str) -> str:
    """Speaks of the text that it was made from, which the reader does not see."""
    match = _OF_SOURCE.search(output)
    return match[0] if match else ""


def repeats_output(instruction: str, output: str) -> str:
    """Loops somewhere, or says one sentence three times."""
    text = prose(output)
    if found := loop(text):
        return found
    counts = Counter(key for sentence in sentences(text) if len(key := bare(sentence)) >= 8)
    sentence, times = counts.most_common(1)[0] if counts else ("", 0)
    return sentence if times >= 3 else ""


def too_short(instruction: str, output: str) -> str:
    """Shorter than `SHORTEST_ANSWER` characters."""
    return f"{len(output)} characters" if len(output) < SHORTEST_ANSWER else ""


def only_copies(instruction: str, output: str) -> str:
    """Nothing is left when the sentences that stand in the instruction are taken away."""
    asked = bare(instruction)
    answered = [key for sentence in sentences(output) if (key := bare(sentence)) not in asked]
    return "" if sum(map(len, answered)) >= SHORTEST_ANSWER // 2 else output


def leaks_template(instruction: str, output: str) -> str:
    """Control tokens or role labels of a prompt."""
    match = _TEMPLATE.search(prose(output))
    return match[0].strip() if match else ""


def advertises(instruction: str, output: str) -> str:
    """Sells something: two of the phrases that urge a reader to buy, scan or forward. One may stand in any text."""
    found = list(dict.fromkeys(_URGES.findall(output)))
    return "，".join(found[:3]) if len(found) > 1 else ""


def navigates(instruction: str, output: str) -> str:
    """Lists the buttons of a web page: three of them and more. One or two may well be explained."""
    found = list(dict.fromkeys(_BUTTONS.findall(output)))
    return "，".join(found[:4]) if len(found) > 2 else ""


def cut_off(instruction: str, output: str) -> str:
    """Ends in the middle of a sentence or of a code block."""
    if output.count("```") % 2:
        return "```"
    match = _OPEN_END.search(output)
    return match[0] if match else ""


def has_gaps(instruction: str, output: str) -> str:
    """Announces a list that is not there, or has a verb without its object: a template was cut out of the text."""
    return gap(output)


def other_language(instruction: str, output: str) -> str:
    """A Chinese instruction answered in another script."""
    share = han_share(prose(output))
    return f"{share:.2f}" if han_share(instruction) > 0.5 and share < 0.1 and prose(output) == output else ""


FILTERS = (
    Filter("refers_to_unseen", "instruction", refers_to_unseen),
    Filter("needs_context", "instruction", needs_context),
    Filter("bad_question", "instruction", bad_question),
    Filter("repeats_itself", "instruction", repeats_instruction),
    Filter("too_short", "output", too_short),
    Filter("refuses", "output", refuses),
    Filter("speaks_of_itself", "output", speaks_of_itself),
    Filter("speaks_of_source", "output", speaks_of_source),
    Filter("needs_context", "output", points_at_nothing),
    Filter("repeats_itself", "output", repeats_output),
    Filter("copies_instruction", "output", only_copies),
    Filter("leaks_template", "output", leaks_template),
    Filter("advertises", "output", advertises),
    Filter("navigates", "output", navigates),
    Filter("cut_off", "output", cut_off),
    Filter("has_gaps", "output", has_gaps),
    Filter("other_language", "output", other_language),
)
