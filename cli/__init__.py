"""The maskdrop command: one file per command group."""
