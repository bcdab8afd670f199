"""The model server: HTTP routes, bundles, batches, queues and S3."""
