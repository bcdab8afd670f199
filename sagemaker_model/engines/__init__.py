"""The engines: one file each, from pixels to what the catalogue says that it returns."""
