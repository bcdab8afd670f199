"""Python client of the HTTP API of Maskdrop, synchronous and asynchronous. It needs httpx2 alone."""
