"""`maskdrop mcp`: the tools cutout, mask, detect, repaint and quote for hosts of the Model Context Protocol (MCP).

command.py: the command. server.py: the tools. backends.py: this machine's engines, or the HTTP API. files.py: the files
that tools may read and write. Only server.py imports the package `mcp`, which is optional.
"""
