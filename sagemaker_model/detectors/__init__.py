"""Detectors: labelled boxes of an image, by our own networks, by the user's, or by Amazon Rekognition."""
