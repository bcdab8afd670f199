"""How good a matte is: cases with a known truth, their measures, the report, and who may replace whom."""
