"""A plugin for tests: a corpus of JSON lines and the shape of the method, three requests a row."""

from kun_builder import BatchStage, DatasetStage, Drop, ModelName, Prompt, RowStage, Source, drop_rows, hookimpl

kun_api = 1

LABEL = Prompt("[system]\n写出这段文字所回答的问题。\n[user]\n{text}\n", "label")
SCORE = Prompt("[system]\n这个问题好不好？\n[user]\n{instruction}\n", "score")
POLISH = Prompt("[system]\n改写成回答。\n[user]\n问题：{instruction}\n文字：{text}\n", "polish")


def parse(record):
    return record["text"]


def no_vowels(table):
    return drop_rows(table, ["bad" in text for text in table["text"].to_pylist()], "bad", table["text"].to_pylist())


def same_text(dataset, *, scope: str = "all"):
    seen, drops = set(), []
    for row, text in enumerate(dataset["text"]):
        if text in seen:
            drops.append((row, "duplicate", text))
        seen.add(text)
    return drops


async def label(row, generate, *, model: ModelName = "chat", prompt: Prompt = LABEL):
    answer = await generate(model, prompt.fill(text=row["text"]), max_new_tokens=40)
    return {**row, "instruction": answer.text}


async def score(row, generate, *, model: ModelName = "chat", threshold: float = 0.2):
    prompt = SCORE.fill(instruction=row["instruction"])
    answer = await generate(model, prompt, max_new_tokens=12, top_logprobs=5, on_length="keep")
    value = int(answer.text[:4], 16) / 0xFFFF
    if value < threshold:
        raise Drop("low_score", value, score=value)
    return {**row, "score": value}


async def polish(row, generate, *, model: ModelName = "chat"):
    prompt = POLISH.fill(instruction=row["instruction"], text=row["text"])
    answer = await generate(model, prompt, max_new_tokens=200)
    return {**row, "output": answer.text, "raw_answer": row["text"]}


@hookimpl
def kun_sources():
    return [Source(name="lines", parse=parse, license="CC0-1.0", redistributable=True)]


@hookimpl
def kun_stages():
    return [
        BatchStage(name="clean", run=no_vowels),
        DatasetStage(name="same", run=same_text, columns=("id", "split", "text")),
        RowStage(name="ask", run=label, adds={"instruction": "string"}),
        RowStage(name="judge", run=score, adds={"score": "double"}),
        RowStage(name="rewrite", run=polish, adds={"output": "string", "raw_answer": "string"}),
    ]
