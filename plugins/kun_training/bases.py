"""The models that training starts from: a Hub id, a folder, GGUF weights, or a tiny one made on the spot.

GGUF weights are unpacked to ordinary ones while they are loaded, so that the embedded default model can be trained too.
The tiny one has a few million parameters and a tokenizer trained on the seeds: it teaches nothing, but goes through
every step that a large one goes through, in seconds, without a download.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kun_builder.engines.weights import KNOWN, find_weights
from kun_builder.errors import TrainingError
from kun_training.seeds import Pair

TINY = "tiny"
"""The base that is made from the seeds."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat template of a base that has none."""

_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def quiet() -> None:
    """Leave the terminal to our own progress: no bars and no advice from transformers."""
    import warnings

    from transformers.utils import logging

    # PEFT asks for a name that transformers has given up, and for a configuration beside weights in one GGUF file;
    # nothing that a user could mend.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Could not find a config file in")
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_tokenizer(base: str, revision: str = "") -> Any:
    """The tokenizer of `base`. Raises TrainingError if there is none."""
    from transformers import AutoTokenizer

    where, options = _where(base, revision)
    try:
        return AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        raise _unusable(base, error) from error


def load_model(base: str, revision: str = "", **options: Any) -> Any:
    """The causal language model `base`; `options` go to `from_pretrained`.

    Without a `dtype` it has the precision of its weights, on a CPU 32 bits: 16 are several times slower there.
    Raises TrainingError if it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    where, found = _where(base, revision)
    options.setdefault("dtype", "auto" if torch.accelerator.is_available() else "float32")
    if "gguf_file" in found:
        found["quantization_config"] = GgufConfig(dequantize=True)
        if options["dtype"] == "auto":  # that of quantised weights would be a whole number
            options["dtype"] = "bfloat16"
    try:
        return AutoModelForCausalLM.from_pretrained(where, **found, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _unusable(base, error) from error


def _where(base: str, revision: str) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a folder or id, and the GGUF file in it, if it is one."""
    if base in KNOWN or base.endswith(".gguf"):
        path = find_weights(base, revision).path
        return str(path.parent), {"gguf_file": path.name}
    path = Path(base).expanduser()
    if path.exists():
        return str(path), {}
    return base, {"revision": revision} if revision else {}


def _unusable(base: str, error: Exception) -> TrainingError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TrainingError(
        f"the base model {base!r} cannot be loaded: {first}",
        hint="give a folder with safetensors, a Hub id, a GGUF file, `tiny`, or one of " + ", ".join(KNOWN),
    )


def with_chat_template(tokenizer: Any, model: Any, *, resize: bool) -> None:
    """Give `tokenizer` ChatML if it has no chat template; `model` gets room for tokens that were missing.

    resize: whether the model may grow; with LoRA its embeddings are frozen, and new tokens would stay random.
    Raises TrainingError if tokens are missing and it may not.
    """
    if tokenizer.chat_template:
        return
    known = tokenizer.get_vocab()
    missing = [token for token in (_START, _END) if token not in known]
    if missing and not resize:
        raise TrainingError(
            "the base has no chat template, and its tokenizer lacks " + " and ".join(missing),
            hint="train all weights (`--preset kun`), or start from a base with a chat template",
        )
    tokenizer.chat_template = CHATML
    tokenizer.eos_token = _END
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": [_START, _END]})
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def make_tiny(pairs: Iterable[Pair], extra: Iterable[str], folder: Path, *, seed: int = 0) -> Path:
    """Make a model of 2.6 million random parameters and a byte-level BPE tokenizer trained on `pairs` and `extra`.

    Returns `folder`. The same pairs and seed make the same model.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tiny_tokenizer([text for pair in pairs for text in (pair.instruction, pair.output)] + list(extra))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.generation_config.do_sample = True
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tiny_tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        max_token_length=6,  # two Han characters: few texts would otherwise become tokens as a whole
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_END, pad_token=_PAD, chat_template=CHATML, model_max_length=2048
    )
