"""The model server and the queue worker: HTTP routes, bundles, batches, SQS and S3."""
