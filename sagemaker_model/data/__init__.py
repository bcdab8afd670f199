"""Images with masks: readers of published dataset layouts, preparation of shards, and readers of shards."""
