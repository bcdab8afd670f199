"""The engines, one file each: from pixels to the result that the catalogue's `returns` names."""
