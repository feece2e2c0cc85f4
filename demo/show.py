"""Load a finished dataset the way its users will, and show three rows of it: `python demo/show.py DATASET`."""

import sys

from datasets import disable_progress_bars, load_dataset

path = sys.argv[1]
disable_progress_bars()
dataset = load_dataset(path)
rows = {split: part.num_rows for split, part in dataset.items()}
print(f"\nLoaded back: {', '.join(f'{split} {number} rows' for split, number in rows.items())}")
for split, part in dataset.items():
    for row in part.select(range(min(1, part.num_rows))):
        print(f"\n[{split}] {row['instruction']}\n    {row['output']}")
print(f"\n    from datasets import load_dataset\n    dataset = load_dataset({path!r}, split={next(iter(rows))!r})")
