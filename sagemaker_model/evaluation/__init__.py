"""Evaluation of mattes: cases with ground truth, metrics, reports, and the promotion of new weights."""
