"""The networks, one file each, without input, output or device. Their state dicts use the published files' keys."""
