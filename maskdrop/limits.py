"""Limits that several parts of Maskdrop share."""

IMAGE_BYTES_MAX = 32 * 1024 * 1024
"""Maximum size of an image file in bytes: uploads, downloads, and the default of the container (MODEL_MAX_BYTES).

A 50 MP camera JPEG has about 25 MB."""

BYTES_MAX = 4_000_000
"""Default maximum bytes of an image in a request and of a result in a response. In base64 they are 5.3 MB of the 6 MB
that a Lambda payload may have; the payload of a serverless endpoint has at most 4 MB (4,194,304 bytes)."""

BODY_MAX = 4_500_000
"""Default maximum size of a request body in bytes: the Lambda payload limit is 6 MB, and the body is in base64. An
image in JSON is in base64 twice, so it has at most 3,370,000 bytes."""
