"""The data plane: packed records, prioritized tables, shards and their clients. Needs neither torch nor ray."""
