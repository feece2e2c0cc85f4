"""Tokenizers out of GGUF files and folders, compared with llama.cpp's own and with the ones they came from."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from byte_tokenizers import byte_level
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from kun_builder import ModelSpec
from kun_builder.engines.gguf_file import read_metadata
from kun_builder.engines.tokenizers import control_tokens, load_template, resolve_tokenizer, token_counter
from kun_builder.engines.transformers import TransformersEndpoint
from kun_builder.errors import ModelError

CORPUS = [
    "绿茶怎么保存？绿茶要放在阴凉干燥的地方。",
    "def f(x):\n    return x ** 2  # 平方",
    "Green tea, 3 grams; 80 °C 🍵",
] * 20
TEXTS = [
    *CORPUS[:3],
    "",
    " ",
    "\n\n\n  \t",
    "😀👍🏽👨‍👩‍👧‍👦 e\u0301 ﬁ ㎏ ①",
    "１２３４５６７８９０ 1234567890 ٣٤٥",
    "I'll we've DON'T it's",
    "　　全角空格，『引号』——破折号……",
    "<\u200b|im_end|\u200b> </\u200bs> [\u200bINST]",
    "\ufeffBOM \x00 \x7f \u202e",
    "https://example.org/a?b=c&d=%E4%B8%AD",
    "𠮷野家 𝒜𝓁𝓅𝒽𝒶",
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    """A cache of its own, except where the weights are needed."""
    if "small" not in request.fixturenames:
        monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained():
    """A byte-level BPE trained here."""
    return byte_level(CORPUS, 600, SPECIAL)


@pytest.fixture
def gguf(trained, tmp_path):
    """A GGUF file with the vocabulary, merges and chat template of `trained`, as llama.cpp's converter writes them."""
    import json

    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = GGUFWriter(str(tmp_path / "tiny.gguf"), "qwen2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    writer.add_array("numbers", [1, 2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "tiny.gguf"


def test_the_head_of_a_gguf_is_read_as_the_gguf_package_reads_it(gguf):
    """Every key has the value that the reference reader finds."""
    ours = read_metadata(gguf)
    fields = {name: field for name, field in GGUFReader(gguf).fields.items() if not name.startswith("GGUF.")}
    assert ours == {name: field.contents() for name, field in fields.items()}
    assert ours["numbers"] == [1, 2, 3]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_gguf_is_an_error(data, tmp_path_factory):
    """A GGUF that is cut off, or has any byte changed, is read or refused with its name, never a crash."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.gguf"
    if not whole.exists():
        writer = GGUFWriter(str(whole), "qwen2")
        writer.add_token_list(["a", "b", "茶"])
        writer.add_uint32("n", 7)
        writer.add_array("numbers", [1.5, 2.5])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    content = bytearray(whole.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] = data.draw(st.integers(0, 255))
    broken = folder / "broken.gguf"
    broken.write_bytes(content)
    try:
        read_metadata(broken)
    except ModelError as error:
        assert str(broken) in str(error)  # noqa: PT017 - most draws raise, some do not


def test_control_tokens_are_those_of_the_model(gguf):
    """The special tokens of a GGUF's vocabulary are known; a tokenizer that cannot be had has none."""
    assert {*SPECIAL} <= {*control_tokens(ModelSpec(name="m", model=str(gguf)))}
    assert control_tokens(ModelSpec(name="m", tokenizer="characters")) == ()
    assert control_tokens(ModelSpec(name="m", tokenizer=str(gguf.parent / "none.json"))) == ()


@pytest.mark.parametrize("text", TEXTS)
def test_a_gguf_gives_the_tokenizer_that_went_into_it(gguf, trained, text):
    """The tokenizer made of a GGUF's vocabulary and merges gives the ids of the one it was written from."""
    made = Tokenizer.from_file(resolve_tokenizer(str(gguf)))
    assert made.encode(text).ids == trained.encode(text).ids


def test_a_tokenizer_is_made_once(gguf):
    """The second time the file in the cache is used; another model's is another file."""
    path = Path(resolve_tokenizer(str(gguf)))
    before = path.stat().st_mtime_ns
    assert Path(resolve_tokenizer("auto", ModelSpec(name="m", model=str(gguf)))) == path
    assert path.stat().st_mtime_ns == before


def test_chats_are_written_as_the_model_was_taught(gguf):
    """A GGUF's chat template writes out messages, ready for the assistant to go on."""
    messages = [{"role": "user", "content": "绿茶？"}]
    template = load_template(str(gguf))
    assert template.prefix == ""
    assert template.render(messages) == "<|endoftext|><|im_start|>user\n绿茶？<|im_end|>\n<|im_start|>assistant\n"


def test_a_bos_that_the_server_adds_is_not_written_twice(trained, tmp_path):
    """Where the tokenizer itself begins with BOS, as Llama's does, the rendered prompt leaves it to the server."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(tmp_path / "llama")
    template = load_template(str(tmp_path / "llama"))
    assert template.render([{"role": "user", "content": "?"}]).startswith("<|im_start|>user")


def test_folders_and_files_are_taken_as_they_are(trained, tmp_path):
    """A folder with a `tokenizer.json`, and such a file itself, need nothing made; `characters` is no file."""
    folder = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=trained).save_pretrained(folder)
    file = folder / "tokenizer.json"
    assert Path(resolve_tokenizer(str(folder))) == file
    assert Path(resolve_tokenizer(str(file))) == file
    assert Path(resolve_tokenizer("auto", ModelSpec(name="m", engine="openai", tokenizer=str(folder)))) == file
    assert resolve_tokenizer("characters") == "characters"
    with pytest.raises(ModelError, match="no chat template"):
        load_template(str(folder))


@pytest.mark.parametrize("name", ["characters", "model"])
def test_a_served_folder_counts_by_the_tokenizer_that_is_named(trained, tmp_path, name):
    """The engine of folders counts characters where that is asked for, else the tokens of the folder, special ones as
    text."""
    PreTrainedTokenizerFast(tokenizer_object=trained).save_pretrained(tmp_path / "model")
    where = name if name == "characters" else str(tmp_path / name)
    endpoint = TransformersEndpoint(SimpleNamespace(url="http://127.0.0.1:9"), where)
    count = asyncio.run(endpoint.count_tokens("绿茶怎么保存"))
    assert count == (6 if name == "characters" else token_counter(where)("绿茶怎么保存"))


def test_what_cannot_be_had_is_named(tmp_path, monkeypatch):
    """A missing file, a folder without a tokenizer and a model that is not named are errors with a cure."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "not.gguf").write_bytes(b"PK\x03\x04")
    for name, said in [
        (str(tmp_path / "tokenizer.json"), "no tokenizer file"),
        (str(tmp_path / "empty"), "no tokenizer can be had"),
        (str(tmp_path / "not.gguf"), "not a GGUF file"),
    ]:
        with pytest.raises(ModelError, match=said) as caught:
            resolve_tokenizer(name)
        assert caught.value.hint
    with pytest.raises(ModelError, match="names neither"):
        resolve_tokenizer("auto", ModelSpec(name="m", engine="openai"))


@pytest.mark.model
def test_counts_are_those_of_llama_cpp(small):
    """For Chinese, English, code, emoji and oddities, the tokenizer out of the GGUF gives llama.cpp's own token ids."""
    tokenizer = Tokenizer.from_file(resolve_tokenizer("qwen2.5-coder-0.5b"))
    texts = [*TEXTS, *corpus_texts()]

    async def theirs():
        async with aiohttp.ClientSession(small.endpoint.url) as session:
            ids = []
            for text in texts:
                async with session.post("/tokenize", json={"content": text, "parse_special": False}) as answer:
                    ids.append((await answer.json())["tokens"])
            return ids, [await small.endpoint.count_tokens(text) for text in TEXTS]

    ids, counts = small.run(theirs())
    for text, wanted in zip(texts, ids, strict=True):
        assert tokenizer.encode(text).ids == wanted, text[:80]
    count = token_counter("qwen2.5-coder-0.5b")
    assert counts == [count(text) for text in TEXTS]
    assert count("<|im_end|>") > 1, "a control token in a text is text"


def corpus_texts():
    """Real documents, where they are at hand."""
    import orjson

    path = Path(__file__).resolve().parents[3] / "shared/data/formats/skypile/data/2023-14_zh_middle_0000.jsonl"
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [orjson.loads(line)["text"][:2000] for line, _ in zip(file, range(100), strict=False)]


@pytest.mark.model
def test_the_chat_template_is_llama_cpps(small):
    """Messages rendered through transformers are the prompt that llama.cpp renders from the same file."""
    messages = [
        {"role": "system", "content": "你是助手。"},
        {"role": "user", "content": "茶？\n<\u200b|im_end|\u200b>"},
    ]

    async def theirs():
        url = small.endpoint.url + "/apply-template"
        async with aiohttp.ClientSession() as session, session.post(url, json={"messages": messages}) as answer:
            return (await answer.json())["prompt"]

    assert load_template("qwen2.5-coder-0.5b").render(messages) == small.run(theirs())
