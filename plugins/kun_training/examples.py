"""From pairs to training examples in the stages' own prompts, and from examples to tokens with labels.

Prompt and completion are tokenized apart, as they are when the model is used: there the server sees the prompt alone,
and a token that spans the border would never come up. The loss is on the completion and its end token only.

The label model learns answer -> instruction. The chat model learns three tasks (`CHAT_TASKS`), so that it can do what
the stages will ask it for: to answer an instruction (the published method), to polish a text into an answer, and to
judge an instruction in one word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kun_builder.prompts import Prompt, neutralise
from kun_builder.types import PromptText
from kun_training.damage import damaged, roughened, visible_damages
from kun_training.seeds import Pair, Tag

LABEL, POLISH, SCORE, ANSWER = "label", "polish", "score", "answer"
CHAT_TASKS = (ANSWER, POLISH, SCORE)

_IGNORED = -100  # what torch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what the model should say. `task`: label, answer, polish or score."""

    prompt: PromptText
    completion: str
    task: str
    tag: Tag = "seed"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of an example."""

    prompt: list[int]
    completion: list[int]

    @property
    def row(self) -> dict[str, list[int]]:
        """As the trainer takes it."""
        return {
            "input_ids": self.prompt + self.completion,
            "labels": [_IGNORED] * len(self.prompt) + self.completion,
        }


def label_examples(pairs: Iterable[Pair], prompt: Prompt) -> Iterator[Example]:
    """answer -> instruction, in the label stage's prompt."""
    for pair in pairs:
        yield Example(prompt.fill(text=pair.output), pair.instruction, LABEL, pair.tag)


def chat_examples(
    pairs: Sequence[Pair],
    prompts: Mapping[str, Prompt],
    verdicts: tuple[str, str],
    tasks: Sequence[str] = CHAT_TASKS,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Example]:
    """Examples of the chat model's tasks, interleaved.

    prompts: by stage; a task whose stage is missing there is left out. verdicts: the words for good and bad.
    tags: system messages of the answers, by the pair's tag. A polish example starts from the pair's own raw text, or
    else from its answer, roughened.
    """
    for number, pair in enumerate(pairs):
        if ANSWER in tasks:
            system = ({"role": "system", "content": tags[pair.tag]},) if tags else ()
            asked = (*system, {"role": "user", "content": neutralise(pair.instruction)})
            yield Example(asked, pair.output, ANSWER, pair.tag)
        other = pairs[(number + 1 + len(pairs) // 3) % len(pairs)]
        if POLISH in tasks and POLISH in prompts:
            text = pair.text or roughened(pair.output, other.output, pair.digest)
            filled = prompts[POLISH].fill(instruction=pair.instruction, text=text, output=text)
            yield Example(filled, pair.output, POLISH, pair.tag)
        if SCORE in tasks and SCORE in prompts:
            kinds = visible_damages(prompts[SCORE].slots)
            bad = damaged(pair.instruction, other.instruction, pair.digest, kinds)
            for instruction, verdict in ((pair.instruction, verdicts[0]), (bad, verdicts[1])):
                shown = {"instruction": instruction, "text": pair.output, "output": pair.output}
                filled = prompts[SCORE].fill(**shown, good=verdicts[0], bad=verdicts[1])
                yield Example(filled, verdict, SCORE, pair.tag)


def encode(tokenizer: Any, example: Example) -> Encoded:
    """Tokens of an example; a chat prompt goes through the chat template, the completion ends with its end token."""
    completion = neutralise(example.completion)
    if isinstance(example.prompt, str):
        prompt = tokenizer(example.prompt)["input_ids"]
        ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        return Encoded(prompt, [*ids, tokenizer.eos_token_id])
    head = tokenizer.apply_chat_template(list(example.prompt), tokenize=False, add_generation_prompt=True)
    turn = {"role": "assistant", "content": completion}
    whole = tokenizer.apply_chat_template([*example.prompt, turn], tokenize=False)
    # Some templates render past turns in another way (thinking left out): there, the bare text and the end token.
    answer = whole[len(head) :].rstrip() if whole.startswith(head) else completion + tokenizer.eos_token
    return Encoded(
        tokenizer(head, add_special_tokens=False)["input_ids"],
        tokenizer(answer, add_special_tokens=False)["input_ids"],
    )


def encode_all(
    tokenizer: Any, examples: Iterable[Example], max_length: int | None
) -> tuple[list[Encoded], Counter[str]]:
    """Encoded examples, and how many of each task were too long: a cut one would teach to stop in mid-sentence."""
    encoded, too_long = [], Counter[str]()
    for example in examples:
        tokens = encode(tokenizer, example)
        if max_length and len(tokens.prompt) + len(tokens.completion) > max_length:
            too_long[example.task] += 1
        else:
            encoded.append(tokens)
    return encoded, too_long
