"""The HTTP API: routes, forms, OpenAPI document and vendor dialects."""
