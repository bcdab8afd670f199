"""The cloud, as CDK constructs, one per file. What belongs together bears one name: `api.py` here and in lambdas/."""
