"""Stage `language`."""

from __future__ import annotations

import json
import socket

import pyarrow as pa
import pytest
from kun_clean import language
from samples import CORPUS, needs_samples

from kun_builder.recipe.option_values import check_options
from kun_builder.recipe.options import options_of

SAMPLES = {
    "zh": "北京是中国的首都，历史悠久，文化灿烂。",
    "en": "London is the capital of England and has a long history behind it.",
    "ja": "東京は日本の首都であり、長い歴史を持っています。",
    "ko": "서울은 대한민국의 수도이며 오랜 역사를 가지고 있다.",
    "ru": "Москва является столицей России и имеет долгую историю.",
    "und": "12345 -- !!! 67890",
}


def run(texts, **options):
    table = language.run(
        pa.table({"id": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())}), **options
    )
    return table["language"].to_pylist(), table["_reason"].to_pylist(), table["_value"].to_pylist()


def test_codes_are_those_of_the_model():
    """The codes that options may name are the ones that the identification model knows."""
    known = language._model().detect("-", model="lite", k=-1, threshold=-1.0)
    assert {language.UNKNOWN} | {entry["lang"] for entry in known} == language.CODES


def test_languages_are_told_apart():
    """Each sample is found, those of other languages are dropped, and the value is the code that was found."""
    codes, reasons, values = run(list(SAMPLES.values()))
    assert codes == list(SAMPLES)
    assert reasons == [None if code == "zh" else "language" for code in SAMPLES]
    assert values == [None if code == "zh" else code for code in SAMPLES]


def test_several_languages_can_be_kept():
    """Any language of the list stays."""
    assert run([SAMPLES["zh"], SAMPLES["ja"], SAMPLES["en"]], languages=("zh", "ja"))[1] == [None, None, "language"]


@pytest.mark.parametrize(
    "text",
    [
        "在 Python 里，`asyncio.gather(*tasks, return_exceptions=True)` 会等待所有任务完成，并把异常作为结果返回。",
        "宮崎駿的電影《となりのトトロ》於一九八八年上映，在臺灣譯為《龍貓》，深受觀眾喜愛，至今仍常重播。",
        "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    ],
)
def test_chinese_with_other_scripts_in_it_stays_chinese(text):
    """Code, a Japanese title, traditional and classical Chinese do not make a Chinese text foreign."""
    assert run([text])[0] == ["zh"]


def test_nothing_is_fetched(monkeypatch):
    """The identification model is in its wheel: a text that the script does not settle needs no network."""

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    language._model.cache_clear()
    assert run([SAMPLES["en"]])[0] == ["en"]


def test_unknown_code_is_refused_before_the_run(tmp_path):
    """A recipe that asks for a language which cannot be found is wrong, and says so before anything runs."""
    options = options_of(language.run, ["table"])
    assert check_options(options, {"languages": ["zh", "en"]}, tmp_path)[1] == []
    (fault,) = check_options(options, {"languages": ["chinese"]}, tmp_path)[1]
    assert "chinese" in fault.what
    assert check_options(options, {"languages": []}, tmp_path)[1]


@needs_samples
def test_good_text_is_kept():
    """Of encyclopaedia, news and recipes, simplified and traditional, at most two texts in a thousand are dropped."""
    files = ("wiki_cmrc2018", "wiki_drcd_hant", "news_ntrex", "web_howtocook")
    lines = [line for name in files for line in (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    _, reasons, _ = run([json.loads(line)["text"] for line in lines])
    assert sum(reason is not None for reason in reasons) <= 0.002 * len(lines)
