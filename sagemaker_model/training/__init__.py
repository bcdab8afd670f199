"""Training of the networks, from a data folder or shards to weights that can be exported."""
