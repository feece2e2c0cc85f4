"""Small inputs for the recipes of docs/recipes, in the containers that they name. All texts were written for this."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ZH = (
    "晒被子要选晴天的上午，把被子摊在向阳的地方，每隔一小时翻一次面。收之前轻轻拍几下，让灰尘落下去，再放一会儿等热气散尽。"
    "羽绒被不要曝晒，阴凉通风的地方晾两个小时就够了。",
    "河边的柳树每年三月发芽，枝条先变软，再透出黄绿色。插柳很容易成活，剪一段手指粗的枝条，斜插进湿土里，半个月就能生根。"
    "柳树喜水，种在墙根或管道旁边会把根伸进去，所以要离房子远一些。",
    "旧书受潮以后容易长霉。先用软刷把霉点轻轻刷掉，再夹上吸水纸，用重物压平，放在通风的地方阴干。"
    "书柜里放几包干燥剂，隔两三个月换一次，比事后补救省力得多。",
    "山区的梯田靠水渠一层层往下灌。最高处修一个蓄水池，雨季存水，旱季按时辰放给各家。每块田的田埂上留一个缺口，"
    "水满了就流到下一块。修田埂要用黏土夯实，漏水的地方塞稻草再抹泥。",
    "给自行车补胎并不难。先扒开外胎，抽出内胎打足气，浸在水盆里找冒泡的地方，用粉笔画圈。擦干以后把周围磨毛，"
    "涂一层薄薄的胶水，等三分钟再贴上补片，用力压紧。装回去之前摸一遍外胎里面，看有没有钉子。",
    "酿米酒用糯米最好。米泡一夜，蒸熟摊凉到三十度左右，拌上酒曲，装进坛子压实，中间挖一个小坑。盖好以后放在暖和的地方，"
    "两天就能闻到酒香，坑里渗出甜水。放得越久，甜味越淡，酒味越浓。",
)
EN = (
    "A hedge grows thick only if it is cut twice a year. The first cut comes in late winter, before the birds "
    "nest, and takes off a third of last year's wood. The second, in August, only evens the surface. A hedge that "
    "is wider at the bottom than at the top gets light everywhere, so that it does not become bare at its feet.",
    "Iron pans rust when water stays in them. Wash them while they are warm, with a brush and little soap, and "
    "dry them on the stove. Then rub a few drops of linseed oil into the surface and heat the pan until it "
    "smokes. After five or six rounds the layer is black and hard, and eggs slide on it.",
    "The lighthouse on the northern reef was built of granite blocks that lock into each other like pieces of a "
    "puzzle. Masons cut them on the mainland and put every course together once before it was shipped. Work on "
    "the rock was possible for two hours around low tide, so that the tower took four summers.",
    "To make a map of a small garden, measure one long base line first. From both of its ends measure the "
    "distance to every corner, tree and post, and draw two circles for each: where they cross is the point. Check "
    "the drawing by measuring a few distances between points that were not used.",
    "Sourdough needs no yeast from a shop. Flour and water, mixed in equal weight and fed every day, start to "
    "bubble within a week. The starter is ready when it doubles within six hours. Keep it in the fridge and feed "
    "it once a week; grey liquid on top only means that it is hungry.",
    "Night trains save a day on long journeys. The cars are coupled into several trains during one night, so that "
    "one train from the north reaches four cities in the south by morning. A compartment has six berths, and the "
    "conductor keeps the tickets, so that nobody is woken at the border.",
)
_QUESTIONS = (
    (
        "下列做法中，能使铁锅不生锈的是",
        "洗净擦干后涂一层油",
        "铁在潮湿的空气里与水和氧气反应而生锈，油层把它们隔开，所以擦干涂油能防锈。",
    ),
    (
        "北半球一年里白天最长的节气是",
        "夏至",
        "夏至这天太阳直射北回归线，北半球各地的白天都达到一年里的最大值，越往北白天越长。",
    ),
    (
        "把干的种子放进密闭的罐子里保存，主要是为了",
        "降低呼吸作用",
        "种子含水少、氧气少时呼吸作用弱，消耗的养料就少，因此能放得更久而不失去活力。",
    ),
    (
        "修建梯田最主要的作用是",
        "减少水土流失",
        "梯田把坡面改成一级级平地，水流变慢，能渗进土里，带走的泥沙因此大大减少。",
    ),
)
SETTINGS = """# Settings

All settings are in `settings.toml`, in the folder from which the program is started. A missing file means the defaults.

## Where results go

`output` names the folder of the results. It is made if it does not exist. Results of an earlier run are kept: the new
ones get a number in their name, and `latest` is a link to the newest of them.

## How much memory is used

`memory` limits what the cache may take, in megabytes. Beyond it the oldest entries are written to disk, where they are
found again, only more slowly. The default is half of the machine's memory; on a shared machine set it lower.
"""


def write_inputs(folder: Path) -> None:
    """Write all inputs below `folder`, at the paths of the recipes."""
    for part in ("head", "middle"):
        _lines(
            folder / f"data/skypile/2024-10_zh_{part}_0000.jsonl", ({"text": text} for text in ZH[part == "head" :: 2])
        )
    _file(folder / "data/web/part-0.jsonl.gz", gzip.compress(_jsonl({"title": "", "text": text} for text in EN)))
    _file(folder / "project/docs/guide/settings.md", SETTINGS.encode())
    _file(
        folder / "data/wanjuan/nlp/CN/Exam-cn/part-0.jsonl.tar.gz", _tar("part-0.jsonl", _jsonl(map(_exam, range(4))))
    )
    _lines(folder / "data/logs/monday.jsonl", map(_log, (*ZH[:3], *EN[:3])))
    for number, text in enumerate((*ZH[:3], *EN[:3])):
        _file(folder / f"data/texts/{number}.txt", text.encode())
    _lines(
        folder / "data/wudao/part-0.json",
        ([{"id": n, "dataType": "百科", "title": "", "content": text} for n, text in enumerate(ZH)],),
    )
    (folder / "data/fineweb-zh").mkdir()
    table = pa.table({"text": list(ZH), "score": [0.9] * len(ZH), "source": ["own"] * len(ZH)})
    pq.write_table(table, folder / "data/fineweb-zh/0.parquet")


def _exam(number: int) -> dict[str, Any]:
    ask, answer, why = _QUESTIONS[number]
    others = ("放在潮湿的地方", "每天都用水泡着", "以上说法都不对")
    options = {f"option_{letter}": text for letter, text in zip("abcde", (answer, *others, ""), strict=True)}
    end = {"std_ans": "A", "answer_detail": why}
    return {"id": f"x{number}", "q_type": "单选题", "q_main": f"{number + 1}．{ask}（ ）", **options, **end}


def _log(text: str) -> dict[str, Any]:
    turns = ({"role": "user", "content": "?"}, {"role": "assistant", "content": text})
    return {"messages": list(turns)}


def _jsonl(rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _lines(path: Path, rows: Any) -> None:
    _file(path, _jsonl(rows))


def _file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _tar(name: str, data: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()
