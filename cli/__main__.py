"""Runs the command `maskdrop` as `python -m cli`."""

from cli.app import app

app(prog_name="maskdrop")
