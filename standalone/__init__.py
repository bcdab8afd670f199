"""`maskdrop serve` and the queue worker: the HTTP API and the dialects in one process over the engines, without AWS."""
