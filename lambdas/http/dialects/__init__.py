"""HTTP APIs of other services, for their existing clients (docs/vendors.md). One module per dialect.

A dialect translates the vendor's parameters to options, and errors to the vendor's errors. It accepts and ignores
parameters without an equivalent. A module has `PATHS`, `add_routes` and `error_response`; `lambdas.http.routes` lists
the modules.
"""
