"""From a recipe to a run folder: plan, loop, shards, rows, executors."""
