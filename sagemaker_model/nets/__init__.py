"""The networks: one file each, without input, output or device. Their names of weights are those of the published
files."""
