"""What a stage needs of the model that an option names, held against what the model's server can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kun_builder.errors import ModelError
from kun_builder.recipe.options import keyword_options
from kun_builder.run.plan import Step
from kun_builder.types import ModelInfo

_WORDS = {
    "prompt_logprobs": (
        "how likely a text is (log-probabilities of the prompt)",
        "let vLLM serve it (`engine: openai`, with vLLM's own address), or Text Generation Inference, started with"
        " `--enable-prefill-logprobs` (`engine: tgi`); llama.cpp, which runs the embedded model, cannot",
    )
}
"""By field of `ModelInfo`: what the model must tell, and who can."""


def check_abilities(steps: Iterable[Step], infos: Mapping[str, ModelInfo]) -> None:
    """Raise ModelError for an option that names a model whose server cannot do what the option says it must."""
    for step in steps:
        for option in keyword_options(step.stage.run):
            name = step.options.get(option.name)
            if not (name and option.needs) or getattr(infos[name], option.needs):
                continue
            what, cure = _WORDS[option.needs]
            raise ModelError(
                f"stage `{step.label}`: `{option.name}: {name}` needs a model that tells {what}, and the server of"
                f" `{name}` ({infos[name].id}) does not",
                hint=f"{cure}; or leave `{option.name}` out",
            )
