"""What a pair and the text behind it show without a model: support, novelty, coverage, inventions, turned negations.

All of it compares sets of grams: pairs of neighbouring Han characters, and single words of other scripts. That is
crude, and on purpose: it costs microseconds, needs no dictionary, and every number can be traced to its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import add

from .gaps import torn_item
from .scripts import simplified
from .texts import HAN, HAN_CHARACTER, han_share, sentences

_PIECE = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+")
_BINDING = re.compile(r"[a-zß-öø-ÿ](?<![^\W\d_].)[a-zß-öø-ÿ]{0,2}(?![^\W\d_])")
_NOISE = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*•]\s*)?[（(]?\d{1,2}(?:[.、．)）:：]|\s)(?!\d)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]+")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b")  # in a Latin text, words are anybody's, names are not
_QUOTED = re.compile(r"《([^《》\n]{2,40})》|「([^「」\n]{2,40})」|『([^『』\n]{2,40})』|“([^“”\n]{2,40})”")
_ASKS_WHY = re.compile(r"为什么|为何|(?:的)?(?:原因|理由)是什么|何以")
"""In Chinese only: of 18 English answers of people to a question with Why, 14 had no word for a reason."""
_BECAUSE = re.compile(
    r"因[为此而]|由于|原因|理由|所以|为了|以便|以免|旨在|导致|致使|使得?|从而|出于|源于|归因|取决于|因\w{1,12}(?:而|所|被|遭|获|受)|既然|之故"
    r"|\b(?:because|since|due to|therefore|thus|so that|in order to|as a result|reasons?|caused?|leads? to)\b",
    re.IGNORECASE,
)
_KIN = "(father|mother|son|daughter|uncle|aunt|nephew|niece|teacher|pupil|student)"
_KIN_OF = re.compile(rf"\b{_KIN} of\b")
_OWN_KIN = re.compile(rf"\b(?:[Hh]is|[Hh]er|[Tt]heir) {_KIN}\b")
_FACT = re.compile(r"[A-Za-z\d](?:[A-Za-z\d.-]*[A-Za-z\d])?")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3})")
_CLAUSE = re.compile(r"[，。；：！？,;:!?\n]|\.(?=\s|$)")
_BRACKET = re.compile(r"[（）()\[\]]")
# Each alternative begins with a character, by which a place is found much faster than by what stands before it.
_NEGATION = re.compile(
    r"不|没|未|勿|无法|禁止|严禁|并非|n(?<=\bn)(?:ot|ever|o)\b|cannot(?<=\bcannot)\b|n(?<=[a-z]n)[’']t\b"
)
_LEADS_ON = re.compile(
    r"如下|以下|下面|下述|包括|首先|总之|总的来说|综上|總之|總的來說|綜上"
    r"|\b(?:here (?:is|are)|follow(?:s|ing)?|below|in (?:short|summary|conclusion)|overall)\b",
    re.IGNORECASE,
)
_LEAST_GRAMS = 5
"""Grams of a clause from which on a share of them means something."""
_SHORTEST_COPIED = 4
"""Characters of a clause from which on it counts as one that the answer copies, or does not."""
_LEAST_COPIED = 0.6
"""Share of an answer's clauses that are the text's from which on it is a copy, and the others are touched up."""
_SHORTEST_CLAUSE = 6
"""Units of a clause from which on its negation counts: a shorter one may well occur twice with two meanings."""


@lru_cache(maxsize=128)  # of one row, many checks ask for the same texts
def grams(text: str) -> frozenset[str]:
    """Pairs of neighbouring Han characters and words of other scripts, in lower case. A lone character counts too;
    short words without a capital or digit (of, the, is) bind others, and count for nothing."""
    return frozenset(_grams(text))


def _grams(text: str) -> set[str]:
    """The same of a part of a text, which nobody asks for again."""
    found: set[str] = set()
    for piece in map(str, _PIECE.findall(_BINDING.sub(" ", text).lower())):
        if len(piece) > 1 and HAN_CHARACTER.match(piece):
            found.update(map(add, piece, piece[1:]))
        else:
            found.add(piece)
    return found


def support(output: str, *sources: str) -> float:
    """The share of the answer's grams that the sources have; 1 for an answer without any."""
    answer = grams(output)
    return len(answer & set().union(*map(grams, sources))) / len(answer) if answer else 1.0


def weakest_clause(output: str, *sources: str) -> tuple[float, str]:
    """The clause of the answer of whose grams the sources have the smallest share, and that share; 1 and "" for an
    answer without clauses that are long enough. Clauses that only lead on to others (步骤如下) say nothing, and of an
    answer to Chinese sources only Chinese ones count: code and formulas have their own checks."""
    known = set[str]().union(*map(grams, sources))
    chinese = han_share("".join(sources)) > 0.5
    weakest: tuple[float, str] | None = None
    for clause in _CLAUSE.split(output):
        said = _grams(clause)
        if len(said) < _LEAST_GRAMS:
            continue
        found = len(said & known) / len(said), clause.strip()
        if weakest and found >= weakest:
            continue
        if (not chinese or han_share(clause) > 0.5) and not _LEADS_ON.search(clause):
            weakest = found
    return weakest or (1.0, "")


def echo(output: str, instruction: str, text: str) -> str:
    """The last sentence of an answer of several, if it only says that what the question asks for is so (它影响深远), or
    "": half of its grams and more are the question's, and hardly any of the others the text's."""
    *before, last = sentences(output) or [""]
    said = grams(last)
    own = said - grams(instruction)
    if not before or len(said) < _LEAST_GRAMS or 2 * len(own) > len(said) or _LEADS_ON.search(last):
        return ""
    return last if 2 * len(said & grams(text)) < len(said) and not own <= grams(text) else ""


def novelty(output: str, instruction: str) -> float:
    """The share of the answer's grams that the question does not have; 0 for an answer without any."""
    answer = grams(output)
    return len(answer - grams(instruction)) / len(answer) if answer else 0.0


def coverage(output: str, text: str) -> float:
    """The share of the text's grams that the answer keeps; 1 for a text without any."""
    source = grams(text)
    return len(source & grams(output)) / len(source) if source else 1.0


def reach(words: str, text: str) -> float:
    """The share of the text's sentences that have a gram in common with `words`."""
    said, parts = grams(words), sentences(text)
    return sum(not said.isdisjoint(_grams(part)) for part in parts) / len(parts) if parts else 0.0


def arrival(words: str, text: str) -> float | None:
    """The share of the text that stands before its first sentence with half of the grams of `words`; None if there is
    no such sentence."""
    said, passed = grams(words), 0
    for sentence in sentences(text):
        if 2 * len(said & grams(sentence)) >= len(said):
            return passed / len(text)
        passed += len(sentence)
    return None


def invented(output: str, *sources: str) -> str:
    """The first number, Latin word or quoted name of the answer that no source has, or ""; marks of lists aside."""
    known = "\n".join(sources).lower()
    body = _LIST_MARK.sub("", output)
    numbers = set(_NUMBER.findall(known))
    for number in map(str, _NUMBER.findall(body)):
        if number not in numbers and not _sums_up(number, known):
            return number
    for word in map(str, (_WORD if han_share(body) > 0.5 else _NAME).findall(body)):
        if word.lower() not in known:
            return word
    squeezed = _squeeze(known)
    for name in _quoted(body):
        if _squeeze(name.lower()) not in squeezed:
            return name
    return ""


def _sums_up(number: str, known: str) -> bool:
    """Whether a single digit may be a numeral or a count of the text: 三 became 3, four items became 4 points."""
    return len(number) == 1 or number.replace(",", "") in known.replace(",", "")


def facts_kept(output: str, text: str) -> float | None:
    """The share of the text's different numbers, Latin words (in a text of theirs: names) and quoted names that the
    answer has; None for a text without any. Marks of lists are no numbers, and 三 is another one than 3."""
    facts = _facts(text, _WORD if han_share(text) > 0.5 else _NAME)
    names = {_squeeze(name.lower()) for name in _quoted(text)} - {""}
    if not facts | names:
        return None
    squeezed = _squeeze(output.lower())
    return (len(facts & _facts(output, _WORD)) + sum(name in squeezed for name in names)) / (len(facts) + len(names))


def _facts(text: str, words: re.Pattern[str]) -> set[str]:
    """Numbers, without commas, and words, in lower case."""
    body = _LIST_MARK.sub("", text)
    return {fact.replace(",", "").lower() for fact in (*_NUMBER.findall(body), *words.findall(body))}


def _quoted(text: str) -> Iterator[str]:
    for groups in _QUOTED.findall(text):
        yield from filter(None, groups)


def _squeeze(text: str) -> str:
    return _NOISE.sub("", text)


def turned_negation(output: str, text: str) -> str:
    """The first clause of the answer that occurs in the text with its negation turned round, or ""."""
    said = {bare: negated for _, bare, negated in _clauses(text)}
    for clause, bare, negated in _clauses(output):
        if bare in said and said[bare] != negated:
            return clause
    return ""


def _clauses(text: str) -> Iterable[tuple[str, str, bool]]:
    """Each clause that is long enough: as it stands, without negations, and whether it has an odd number of them."""
    for clause in _CLAUSE.split(text):
        if len(clause) < _SHORTEST_CLAUSE:
            continue
        bare, times = _NEGATION.subn("", clause)
        bare = _squeeze(bare.lower())
        if len(bare) >= _SHORTEST_CLAUSE:
            yield clause.strip(), bare, times % 2 == 1


def altered_fact(output: str, text: str) -> str:
    """The first clause of the answer that the text has with other numbers or Latin words in their places, or ""."""
    told = {(rest, facts) for _, rest, facts in _facts_of_clauses(text)}
    frames = {(rest, len(facts)) for rest, facts in told}
    for clause, rest, facts in _facts_of_clauses(output):
        if (rest, len(facts)) in frames and (rest, facts) not in told:
            return clause
    return ""


def turned_kinship(output: str, text: str) -> str:
    """The words of an answer that make somebody's father out of a child (his father W., of a text that calls him the
    father of W.), or ""; in English."""
    others = set(_KIN_OF.findall(text)) - set(_OWN_KIN.findall(text))
    return next((match[0] for match in _OWN_KIN.finditer(output) if match[1] in others), "")


def _facts_of_clauses(text: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each clause that has facts and enough beside them: as it stands, without them, and the facts in their order."""
    for clause in _CLAUSE.split(_GROUPED.sub("", _LIST_MARK.sub("", text))):
        if not (found := _FACT.findall(clause)):
            continue
        rest = _squeeze(_FACT.sub("", clause))
        if len(rest) >= _SHORTEST_CLAUSE:
            yield clause.strip(), rest, tuple(fact.lower() for fact in found)


def departures(output: str, text: str, instruction: str, least_of_clause: float) -> dict[str, str]:
    """Where the answer departs from the text: under each reason of `verify` the words that show it, or "".

    `least_of_clause` is the share of a clause's grams that text or question must have.
    """
    share, clause = weakest_clause(output, text, instruction)
    return {
        "contradicts": altered_fact(output, text) or turned_kinship(output, text),
        "unsupported": clause if share < least_of_clause else echo(output, instruction, text),
        "has_gaps": torn_item(output, text),
    }


def touched_up(output: str, text: str, instruction: str) -> str:
    """The first clause of an answer that copies most clauses of the text which is not one of them, or "".

    What brackets enclose is a clause of its own. Clauses that say the question again or lead on to others are nobody's.
    """
    told, asked = {bare for _, bare in _bare_clauses(text)}, grams(simplified(instruction))
    copied, own = 0, []
    for clause, bare in _bare_clauses(output):
        if bare in told:
            copied += 1
        elif not (_LEADS_ON.search(clause) or _grams(clause) <= asked):
            own.append(clause)
    return own[0] if own and copied >= _LEAST_COPIED * (copied + len(own)) else ""


def _bare_clauses(text: str) -> Iterator[tuple[str, str]]:
    """Each clause that is long enough, in simplified script: as it stands, and without marks and spaces."""
    for clause in _CLAUSE.split(_BRACKET.sub("\n", _LIST_MARK.sub("", simplified(text)))):
        bare = _squeeze(clause)
        if len(bare) >= _SHORTEST_COPIED:
            yield clause.strip(), bare


def explains(output: str, instruction: str) -> bool:
    """Whether the answer to a question for reasons names any, beyond what the question says itself."""
    if not _ASKS_WHY.search(instruction):
        return True
    asked = {_squeeze(clause) for clause in _CLAUSE.split(instruction)}
    rest = [clause for clause in _CLAUSE.split(output) if _squeeze(clause) not in asked]
    return bool(_BECAUSE.search("，".join(rest)))
