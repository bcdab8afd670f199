"""`python -m cli` is the command `maskdrop`."""

from cli.app import app

app(prog_name="maskdrop")
