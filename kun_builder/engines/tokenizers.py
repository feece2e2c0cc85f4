"""Tokenizers and chat templates of models: to count tokens before a model is asked, and for servers that take raw text.

A tokenizer is named by a known model, a GGUF file, a Hub id, a folder or a `tokenizer.json`. A GGUF holds vocabulary,
merges and chat template; transformers makes a tokenizer of them, which is kept in the cache.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from kun_builder.cache import cache_folder, digest
from kun_builder.engines.gguf_file import read_metadata
from kun_builder.engines.manners import Thinking, merge_system
from kun_builder.engines.weights import DEFAULT, KNOWN, find_weights
from kun_builder.errors import ModelError
from kun_builder.types import Message, ModelSpec

log = logging.getLogger(__name__)

CHARACTERS = "characters"
_HINT = "set `tokenizer` to a Hub id, a folder, a `tokenizer.json` or a GGUF file; or to `characters`"


def resolve_tokenizer(name: str, spec: ModelSpec | None = None) -> str:
    """Path of a `tokenizer.json` for `tokenizers.Tokenizer.from_file`; `characters` stays as it is.

    An empty name or `auto` means the tokenizer of the model `spec`. May download a small file, or the embedded model's
    weights. Raises ModelError if there is no such tokenizer or it cannot be had.
    """
    name, revision = _named(name, spec)
    if name == CHARACTERS or name.endswith(".json"):
        if name != CHARACTERS and not Path(name).is_file():
            raise ModelError(f"no tokenizer file {name}", hint=_HINT)
        return name
    return str(_folder(name, revision) / "tokenizer.json")


def token_counter(name: str, spec: ModelSpec | None = None) -> Callable[[str], int]:
    """A function that counts tokens without special ones, by the tokenizer named as for `resolve_tokenizer`.

    Where it cannot be had, UTF-8 bytes are counted: a byte-level BPE never makes more tokens of a text than that.
    """
    try:
        path = resolve_tokenizer(name, spec)
    except ModelError as error:
        log.warning("%s; every byte is counted as a token", error)
        return lambda text: len(text.encode("utf-8", "surrogatepass"))
    if path == CHARACTERS:
        return len
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.encode_special_tokens = True  # what looks like a control token in a text is text
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def control_tokens(spec: ModelSpec) -> tuple[str, ...]:
    """The special tokens of the tokenizer of the model `spec`; none where it cannot be had."""
    try:
        path = resolve_tokenizer("auto", spec)
    except ModelError as error:
        log.info("%s; its control tokens are those of common vocabularies", error)
        return ()
    if path == CHARACTERS:
        return ()
    added = orjson.loads(Path(path).read_bytes()).get("added_tokens") or ()
    return tuple(token["content"] for token in added if token["special"])


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A model's own chat template, applied by transformers."""

    tokenizer: Any
    prefix: str = ""
    """The begin-of-sequence token if the tokenizer adds it by itself, else ""."""

    def render(self, messages: Sequence[Message], thinking: Thinking = "auto") -> str:
        """The raw prompt for these messages, with the system's text in the user's turn if the template has no place
        for it. `thinking` is told to templates that know how to switch it."""
        from jinja2 import TemplateError

        switch = {} if thinking == "auto" else dict.fromkeys(("enable_thinking", "thinking"), thinking == "on")
        write = partial(self.tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True, **switch)
        try:
            text: str = write(list(messages))
        except TemplateError:
            text = write(merge_system(messages))
        return text.removeprefix(self.prefix)


def load_template(name: str, spec: ModelSpec | None = None) -> ChatTemplate:
    """The chat template of a tokenizer, named as for `resolve_tokenizer`. Raises ModelError if it has none."""
    name, revision = _named(name, spec)
    tokenizer = _auto_tokenizer(str(_folder(name, revision)))
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer {name} has no chat template, so messages cannot be written as raw text",
            hint="set `prompt: completion`, or `tokenizer` to one with a template, or use the `openai` engine",
        )
    first = tokenizer("")["input_ids"][:1]
    adds = bool(first) and first[0] == tokenizer.bos_token_id
    return ChatTemplate(tokenizer, tokenizer.bos_token if adds else "")


def _named(name: str, spec: ModelSpec | None) -> tuple[str, str]:
    """The name to look for, and the model's revision if the tokenizer is the model's own, else ""."""
    if name not in {"", "auto"}:
        return name, spec.revision if spec and name == spec.model else ""
    if spec is None:
        raise ModelError("no tokenizer is named and there is no model to take it from", hint=_HINT)
    own = spec.model or (DEFAULT if spec.engine == "llamacpp" else "")
    if not (spec.tokenizer or own):
        raise ModelError(f"model {spec.name!r} names neither `model` nor `tokenizer`", hint=_HINT)
    return spec.tokenizer or own, "" if spec.tokenizer else spec.revision


def _folder(name: str, revision: str) -> Path:
    """A folder that `AutoTokenizer` reads and that holds a `tokenizer.json`."""
    if name in KNOWN or name.endswith(".gguf"):
        try:
            return _from_gguf(find_weights(name, revision).path)
        except ModelError as error:
            raise ModelError(f"no tokenizer can be had from {name}: {error.message}", hint=_HINT) from error
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path.parent
    if (path / "tokenizer.json").is_file():
        return path
    return _from_hub(str(path) if path.is_dir() else name, revision)


def _from_hub(name: str, revision: str) -> Path:
    """Load a tokenizer by `AutoTokenizer`, which converts old kinds too, and write it into the cache under its name."""
    tokenizer = _auto_tokenizer(name, revision)
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer {name} has no `tokenizer.json` and cannot be converted to one", hint=_HINT)
    commit = str(tokenizer.init_kwargs.get("_commit_hash") or revision or "local")
    return _save(tokenizer, name.strip("/").replace("/", "--") + "-" + commit[:12], replace=commit == "local")


def _auto_tokenizer(name: str, revision: str = "") -> Any:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # no tokenizer needs torch
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"no tokenizer can be had from {name}: {first}", hint=_HINT) from error


# --- from a GGUF file ------------------------------------------------------------------------------------------------


def _from_gguf(path: Path) -> Path:
    folder = cache_folder() / "tokenizers" / digest(path)[:16]
    if (folder / "tokenizer.json").is_file():
        return folder
    metadata = read_metadata(path)
    return _save(_build(path, metadata), folder.name)


def _build(path: Path, metadata: Mapping[str, Any]) -> Any:
    """A transformers tokenizer with vocabulary, merges, special tokens and chat template of a GGUF's metadata."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    names = GGUF_TOKENIZER_MAPPING["tokenizer"]
    parts = {ours: metadata[f"tokenizer.{key}"] for key, ours in names.items() if f"tokenizer.{key}" in metadata}
    try:
        backend, _ = convert_gguf_tokenizer(metadata["general.architecture"], parts)
    except (KeyError, ValueError) as error:
        raise ModelError(f"the tokenizer in {path} cannot be used: {error}", hint=_HINT) from error
    special = {
        f"{kind}_token": parts["tokens"][parts[f"{kind}_token_id"]]
        for kind in ("bos", "eos", "unk", "pad")
        if f"{kind}_token_id" in parts
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def _save(tokenizer: Any, name: str, replace: bool = False) -> Path:
    """Write a tokenizer into the cache, all of it or nothing."""
    target = cache_folder() / "tokenizers" / name
    if target.is_dir() and not replace:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent))
    tokenizer.save_pretrained(folder)
    shutil.rmtree(target, ignore_errors=True)
    try:
        os.rename(folder, target)
    except OSError:  # another process has just put the same there
        shutil.rmtree(folder)
    return target
