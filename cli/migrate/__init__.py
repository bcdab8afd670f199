"""Move from remove.bg: find its uses, change them, compare cut-outs that it made."""
