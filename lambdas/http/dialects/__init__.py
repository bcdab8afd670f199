"""The protocols of other services, for the clients that people already have. One file each: its parameters become our
options, our errors its own; what it has and we have not is accepted and does nothing (docs/vendors.md).

A dialect is a module with `PATHS`, `add_routes` and `error_response`; `lambdas.http.routes` has the list of them.
"""
