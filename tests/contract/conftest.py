from tests.unit.sagemaker_model.conftest import engines, weights_dir  # noqa: F401 - the fixtures of the model
