"""The functions, one file each and thin: `handler(event, context)` hands what arrived to `work`, and `work` to the
rules in `maskdrop.flow`. `adapters/` keeps the protocols of `maskdrop.services` with AWS."""
