"""The AWS resources as CDK constructs, one per file. `infra/NAME.py` deploys the function `lambdas/NAME.py`."""
