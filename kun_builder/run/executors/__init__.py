"""Ways to run a stage over the shards of a dataset."""
