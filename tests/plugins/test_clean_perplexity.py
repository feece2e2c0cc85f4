"""Stage `perplexity`."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import random
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from kun_clean import language_models, perplexity
from kun_clean.language_models import BUILTIN_FILE, load
from samples import CORPUS, needs_samples

from kun_builder import KunError
from kun_builder.recipe.option_values import check_options
from kun_builder.recipe.options import options_of

# Every token costs 1, the sentence end 0.5 (base-10 logarithms); 天 after 天 costs 0.25. Unknown tokens cost 2.
ARPA = """\\data\\
ngram 1={unigrams}
ngram 2=1

\\1-grams:
-2\t<unk>\t0
0\t<s>\t0
-0.5\t</s>\t0
{words}
\\2-grams:
-0.25\t天 天

\\end\\
"""


def arpa(path, words=("天", "地", "A")):
    lines = "".join(f"-1\t{word}\t0\n" for word in words)
    path.write_text(ARPA.format(unigrams=3 + len(words), words=lines), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def _fresh_models():
    language_models._download.cache_clear()


def dataset(values, splits=None):
    """Rows as the stage sees them, in two chunks, with a selection between."""
    table = pa.table({"split": splits or ["wudao"] * len(values), "perplexity": pa.array(values, pa.float64())})
    half = len(values) // 2
    return concatenate_datasets([Dataset(table.slice(0, half)), Dataset(table).select(range(half, len(values)))])


def test_perplexity_is_that_of_the_definition(tmp_path):
    """It is 10 to the negative mean log-probability of the characters and of the end of each line."""
    score = load(arpa(tmp_path / "m.arpa"))
    expected = [
        10 ** ((1 + 0.25 + 0.5) / 3),  # 天天
        10 ** ((1 + 0.5 + 1 + 1 + 0.5) / 5),  # 天 / 地 A: white space is no token, a blank line no sentence
        10 ** ((2 + 0.5) / 2),  # an unknown character
        10**0.5,  # nothing but the end
    ]
    assert score(["天天", "天\n\n地 \tA\n", "人", " \n "]) == pytest.approx(expected)


def test_model_without_the_mark_reads_characters_as_they_stand(tmp_path):
    """Characters are folded (width, case, script) only for a model that was trained on folded ones."""
    plain = load(arpa(tmp_path / "plain.arpa"))
    folded = load(arpa(tmp_path / "folded.arpa", ("天", "龟", "a", language_models.FOLDED)))
    assert plain(["A"]) == pytest.approx(10 ** (1.5 / 2))
    assert plain(["Ａ"]) == pytest.approx(10 ** (2.5 / 2))
    assert folded(["龜Ａa"]) == pytest.approx(10 ** (3.5 / 4))


def test_sentencepiece_model_beside_it_cuts_the_text(tmp_path):
    """A model with a SentencePiece model beside it counts pieces, with digits as 0 and ASCII punctuation."""
    import sentencepiece

    trained = io.BytesIO()
    texts = ["天地玄黄,宇宙洪荒.000 天地 天地 玄黄"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=trained, vocab_size=24, hard_vocab_limit=False, minloglevel=2
    )
    (tmp_path / "zh.sp.model").write_bytes(trained.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue()).encode("天地,00.", out_type=str)
    score = load(arpa(tmp_path / "zh.arpa.bin", ("天", "地", *set(pieces))))
    assert score(["天地，12。"]) == pytest.approx(10 ** ((len(pieces) + 0.5) / (len(pieces) + 1)))


@pytest.mark.parametrize("name", ["nowhere.bin", "./models/nowhere.bin", "org/name"])
def test_unknown_model_is_named(name):
    """A model that is not there is an error that names it and says what can be given."""
    with pytest.raises(KunError, match=r"nowhere|org/name") as caught:
        load(name)
    assert "builtin" in caught.value.hint


def test_file_that_is_no_model_is_named(tmp_path):
    """A file of another kind is an error of one line."""
    (tmp_path / "model.bin").write_text("not a model")
    with pytest.raises(KunError, match=r"model\.bin is no KenLM model") as caught:
        load(str(tmp_path / "model.bin"))
    assert "\n" not in caught.value.message


class HubFiles(http.server.BaseHTTPRequestHandler):
    """Answers for the files of one model repository as the Hub does."""

    files: dict[str, bytes]

    def do_GET(self):
        body = self.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on loopback; yields its files by path."""
    from huggingface_hub import constants

    files: dict[str, bytes] = {}
    handler = type("Handler", (HubFiles,), {"files": files})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield files
        server.shutdown()


def test_model_comes_from_the_hub(hub, tmp_path):
    """`org/name/path` is a file of a Hub repository."""
    hub["/org/name/resolve/main/wikipedia/zh.arpa.bin"] = Path(arpa(tmp_path / "zh.arpa")).read_bytes()
    assert load("org/name/wikipedia/zh.arpa.bin")(["天天"]) == pytest.approx(10 ** (1.75 / 3))


def test_missing_hub_file_is_named(hub):
    """A file that the Hub does not have is an error of one line with its name."""
    with pytest.raises(KunError, match=r"zh\.bin of org/name") as caught:
        load("org/name/zh.bin")
    assert "\n" not in caught.value.message


# --- the cut ---------------------------------------------------------------------------------------------------


def test_cut_is_by_percentile_on_both_sides():
    """Of a hundred rows, percentiles 5 and 90 drop the five lowest and the ten highest."""
    values = [float(value) for value in range(100, 200)]
    random.Random(0).shuffle(values)
    drops = perplexity.run(dataset(values))
    low = sorted(values[row] for row, reason, _ in drops if reason == "perplexity_low")
    high = sorted(values[row] for row, reason, _ in drops if reason == "perplexity_high")
    assert low == [100, 101, 102, 103, 104]
    assert high == [190, 191, 192, 193, 194, 195, 196, 197, 198, 199]
    assert all(value == f"{values[row]:.1f}" for row, _, value in drops)


SURPRISES = st.one_of(st.floats(1, 1000), st.floats(1, 1e6))
"""Values of which most are below the garbage gate."""


@given(
    st.lists(SURPRISES, min_size=perplexity.MIN_ROWS, max_size=250),
    st.tuples(st.integers(0, 49), st.integers(50, 100)),
)
def test_percentiles_are_those_of_numpy(values, cut):
    """A row is dropped if, and only if, it lies beyond the percentile of the rows below the garbage gate."""
    drops = {row: reason for row, reason, _ in perplexity.run(dataset(values), keep_percentiles=cut)}
    sane = [value for value in values if value <= perplexity.GARBAGE]
    low, high = np.percentile(sane, cut) if len(sane) >= perplexity.MIN_ROWS else (0, np.inf)
    for row, value in enumerate(values):
        if value > perplexity.GARBAGE:
            assert drops.get(row) == "perplexity_garbage"
        else:
            expected = "perplexity_low" if value < low else "perplexity_high" if value > high else None
            assert drops.get(row) == expected


def test_every_split_has_its_own_percentiles():
    """A split of surprising texts is not emptied because another one is plain."""
    values = [*np.linspace(10, 20, 200), *np.linspace(500, 900, 200)]
    drops = perplexity.run(dataset(values, ["news"] * 200 + ["recipes"] * 200))
    assert sum(row < 200 for row, *_ in drops) == sum(row >= 200 for row, *_ in drops) == 30


def test_small_split_is_not_cut_by_percentile():
    """Under a hundred rows only the garbage gate works."""
    values = [float(value) for value in range(1, 99)] + [99_999.0]
    assert perplexity.run(dataset(values)) == [(98, "perplexity_garbage", "99999.0")]


def test_gate_belongs_to_the_built_in_model():
    """A model of one's own has no gate, unless the recipe sets one."""
    values = [10.0, 99_999.0]
    assert perplexity.run(dataset(values), model="my.bin") == []
    assert [row for row, *_ in perplexity.run(dataset(values), model="my.bin", max_perplexity=5000.0)] == [1]


def test_options_are_checked_before_the_run(tmp_path):
    """Percentiles that do not ascend, or lie outside 0 to 100, are refused with the recipe."""
    options = options_of(perplexity.run, ["dataset"])
    for wrong in ([90, 5], [-1, 50], [5, 101], [5]):
        assert check_options(options, {"keep_percentiles": wrong}, tmp_path)[1], wrong
    assert check_options(options, {"keep_percentiles": [0, 100], "max_perplexity": 5000}, tmp_path)[1] == []


# --- the built-in model ----------------------------------------------------------------------------------------


def test_built_in_model_is_what_its_record_says():
    """The shipped file is small, and its record has its digest, its sources and their licences."""
    record = json.loads(BUILTIN_FILE.with_suffix(".json").read_text(encoding="utf-8"))
    content = BUILTIN_FILE.read_bytes()
    assert len(content) == record["bytes"] <= 8_000_000
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
    notice = (BUILTIN_FILE.parent / "NOTICE.md").read_text(encoding="utf-8")
    for corpus in record["trained_on"]:
        assert corpus["file"] in notice
        assert all(license in notice for license in corpus["licenses"])
    assert not any("drcd" in corpus["file"] for corpus in record["trained_on"])


def test_built_in_model_knows_chinese_from_garbage():
    """Plain sentences of either script are far below the gate; shuffled, mis-decoded and random ones are worse."""
    text = "秋天到了，院子里的柿子红了。奶奶搬来梯子，让爷爷站在上面摘柿子，我们在下面用布兜接着，一个也没有摔坏。" * 3
    traditional = (
        "秋天到了，院子裡的柿子紅了。奶奶搬來梯子，讓爺爺站在上面摘柿子，我們在下面用布兜接著，一個也沒有摔壞。" * 3
    )
    shuffled = "".join(random.Random(0).sample(text, len(text)))
    mojibake = text.encode().decode("gbk", "replace")
    good, same, mixed, broken = load("builtin")([text, traditional, shuffled, mojibake])
    assert good == pytest.approx(same, rel=0.1)
    assert good < 0.5 * mixed
    assert good < perplexity.GARBAGE < broken


@needs_samples
def test_built_in_model_keeps_unseen_text():
    """Of 2,000 encyclopaedia articles that it has not seen, the gate drops none; shuffled, it drops most."""
    lines = (CORPUS / "wiki_drcd_hant.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    texts = [json.loads(line)["text"][:500] for line in lines]
    shuffled = ["".join(random.Random(0).sample(text, len(text))) for text in texts]
    score = load("builtin")
    assert (score(texts) > perplexity.GARBAGE).sum() == 0
    assert (score(shuffled) > perplexity.GARBAGE).mean() > 0.7
