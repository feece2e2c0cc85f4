"""Pairs written for the tests, and tiny models trained on them."""

import json
import random
from pathlib import Path

from kun_method import polish
from kun_training.section import ChatTraining, Training

SUBJECTS = (
    "绿茶",
    "红茶",
    "白茶",
    "黄酒",
    "豆腐",
    "米粉",
    "年糕",
    "竹笋",
    "莲藕",
    "板栗",
    "枇杷",
    "柿子",
    "石榴",
    "桂花",
    "茉莉",
    "牡丹",
    "芦苇",
    "水杉",
    "银杏",
    "香樟",
)
TOPICS = {
    "来历": "{x}的来历很早，古书里已有记载，后来由商人带到各地。",
    "用途": "{x}的用途很广，可以入菜，也可以入药，人人都用得着。",
    "做法": "{x}的做法不难，先洗净，再切开，最后用小火慢慢煮熟。",
    "产地": "{x}的产地多在南方，那里雨水足，土也肥，长得最好。",
    "味道": "{x}的味道清淡，入口微甜，放久了便会慢慢变苦。",
    "颜色": "{x}的颜色随季节而变，春天浅，秋天深，冬天发暗。",
    "价格": "{x}的价格一年里起落不定，新的贵，旧的便宜一半。",
    "保存": "{x}的保存要避光，要干燥，用纸包好，放在阴凉处。",
}
ASKS = {"来历": "请介绍{x}的来历。", "做法": "{x}怎么做才好吃？", "保存": "{x}应该怎样保存？"}


def pairs(count=120):
    """Instruction and answer about one thing each, in a fixed order."""
    rows = []
    for subject in SUBJECTS:
        for topic, answer in TOPICS.items():
            ask = ASKS.get(topic, "请说明{x}的" + topic + "。").format(x=subject)
            rows.append({"instruction": ask, "output": answer.format(x=subject)})
    random.Random(0).shuffle(rows)
    return rows[:count]


def write_lines(path: Path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


QUICK = {"num_train_epochs": 4, "eval_steps": 0.5, "save_steps": 0.25}


POLISH = polish.KUN
"""A model of this size copies a text only from the end of its prompt, where Kun's has it."""


def section(seed_file, **own):
    """A `training:` section for tiny models."""
    chat = ChatTraining(settings={"num_train_epochs": 4, "learning_rate": 3e-3})  # until it ends its answers
    settings = {**QUICK, **own.pop("settings", {})}
    return Training(seeds=(str(seed_file),), preset="tiny", settings=settings, chat=chat, **own)


def train_tiny(task, seed_file, registry, folder, **own):
    """Train a tiny model into `folder`; returns its record."""
    from kun_training.contracts import stage_options
    from kun_training.request import make_job, read_seeds
    from kun_training.sft import train

    training = section(seed_file, **own)
    options = stage_options(registry)
    options = {**options, "polish": {**options["polish"], "prompt": POLISH}}
    return train(make_job(task, training, options, read_seeds(training, Path()), folder))
