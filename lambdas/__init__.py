"""The Lambda functions, one file each. `handler(event, context)` calls `process`, which calls `maskdrop.flow`.

`adapters/` implements the protocols of `maskdrop.services` with AWS.
"""
