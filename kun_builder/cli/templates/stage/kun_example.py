"""The stage `example`: a model names the topic of a text.

{"text": "雨后天空中还悬着许多小水滴……"} becomes {"text": "雨后天空中还悬着许多小水滴……", "topic": "彩虹"}
"""

from kun_builder import Drop, Generate, ModelName, Prompt, Row, RowStage, hookimpl

kun_api = 1
PROMPT = Prompt("[user]\n用一个词说出下面这段文字的话题，只写这个词。\n\n{text}\n", "example")


async def run(
    row: Row, generate: Generate, *, model: ModelName = "chat", prompt: Prompt = PROMPT, longest: int = 40
) -> Row:
    """Add `topic`. longest: characters that an answer may have; a longer one drops the row (`no_topic`)."""
    answer = await generate(model, prompt.fill(text=row["text"]), max_new_tokens=longest, on_length="drop")
    topic = answer.text.strip().rstrip("。")
    if len(topic) > longest:
        raise Drop("no_topic", topic)
    return {**row, "topic": topic}


@hookimpl
def kun_stages() -> list[RowStage]:
    """The stage; `version` changes when the same row would come out differently."""
    return [RowStage(name="example", run=run, adds={"topic": "string"}, version="1")]
