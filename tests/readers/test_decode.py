import json

from hypothesis import given
from hypothesis import strategies as st
from samples import CORPUS, needs_samples

from kun_builder.readers.decode import clean, decode

SIMPLIFIED = (
    "中文维基百科是维基百科协作计划的中文版本，自二〇〇二年十月二十四日正式成立，由非营利组织维基媒体基金会负责维持。"
)
TRADITIONAL = (
    "在歐洲，梵語的學術研究，由德國學者開創。後來威廉瓊斯發現印歐語系，也要歸功於對梵語的研究，許多功課蓋因於此。"
)


@given(st.integers(0, 40), st.integers(10, 60))
def test_legacy_encodings_are_told_apart(start, length):
    """Simplified text in GB18030 and traditional text in Big5 are read right, never one as the other."""
    for text, encoding in ((SIMPLIFIED, "gb18030"), (TRADITIONAL, "big5")):
        piece = text[start:][:length]
        assert decode(f'{{"text": "{piece}"}}'.encode(encoding)) in (f'{{"text": "{piece}"}}', None)
        if len(piece) > 20:
            assert decode(piece.encode(encoding)) == piece


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_utf8_is_itself(text):
    """What is UTF-8 is read as UTF-8, a byte order mark left out."""
    assert decode(text.encode("utf-8")) == text.removeprefix("\ufeff")


@given(st.sampled_from([SIMPLIFIED, TRADITIONAL]), st.data())
def test_utf8_with_a_byte_lost_is_not_guessed(text, data):
    """A lost byte does not turn UTF-8 into a text of rare characters: it stays undecided."""
    raw = text.encode("utf-8")
    at = data.draw(st.integers(0, len(raw) - 1).filter(lambda at: raw[at] > 0x7F))
    assert decode(raw[:at] + raw[at + 1 :]) is None


def test_a_few_bytes_prove_nothing():
    """Single bytes of other encodings are left undecided."""
    for raw in ("café".encode("latin-1"), b"\xff", "啊".encode("gbk"), "наше слово".encode("cp1251")):
        assert decode(raw) is None


def json_values(texts):
    return st.recursive(
        st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), texts),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)),
        max_leaves=10,
    )


HALVES = st.text(st.one_of(st.characters(categories=["Cs"]), st.sampled_from("a茶😀")), min_size=1)
"""Texts most of whose characters are halves of a surrogate pair; `st.text()` alone never makes one."""


@given(json_values(HALVES))
def test_no_surrogate_survives(value):
    """Any JSON value can be encoded once it is clean; of its texts, only the lone surrogates are gone."""
    cleaned = clean(value)
    kept = json.dumps(cleaned, ensure_ascii=False)
    kept.encode("utf-8")
    if isinstance(value, str):
        assert cleaned == "".join(char for char in value if not "\ud800" <= char <= "\udfff")


@given(json_values(st.text()))
def test_what_holds_no_surrogate_stays(value):
    """A JSON value that can be encoded is left as it is."""
    assert clean(value) == value


@needs_samples
def test_real_documents_come_back():
    """Of real documents written in a legacy encoding, nearly all are read back; none is read as something else."""
    for name, encoding in (("wiki_cmrc2018", "gb18030"), ("wiki_drcd_hant", "big5")):
        rows = [json.loads(line) for line in (CORPUS / f"{name}.jsonl").read_text("utf-8").splitlines()]
        texts = [row["text"].encode(encoding, "ignore").decode(encoding) for row in rows]
        read = [decode(text.encode(encoding)) for text in texts]
        assert sum(found == text for found, text in zip(read, texts, strict=True)) >= 0.99 * len(texts)
        assert all(found in (text, None) for found, text in zip(read, texts, strict=True))
