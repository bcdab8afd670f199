import socket
from pathlib import Path

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.settings import ServerSettings
from standalone.run import serve
from standalone.settings import ServeSettings


def test_a_port_in_use_is_reported_before_the_engines_are_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServeSettings(data=tmp_path, host="127.0.0.1", port=port, no_auth=True)
        with pytest.raises(InvalidSettings, match=f"127.0.0.1:{port} cannot be opened.*--port"):
            serve(settings, ServerSettings(weights_dir=tmp_path / "none"))
