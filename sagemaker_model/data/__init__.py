"""Images with their masks: read from the layouts in which datasets are published, prepared as shards, read again."""
