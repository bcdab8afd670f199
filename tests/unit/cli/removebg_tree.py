"""A source tree with uses of remove.bg, and with texts that only resemble them."""

from __future__ import annotations

from collections.abc import Sequence

Use = tuple[str, int, str, str]
"""File, line, rule and action of a finding, for a URL without a path."""

USES: dict[str, tuple[str, Sequence[tuple[int, str, str]]]] = {
    "py/call.py": (
        "import requests\n\n\ndef cut(path, key):\n    return requests.post(\n"
        '        "https://api.remove.bg/v1.0/removebg",\n        headers={"X-Api-Key": key},\n    )\n',
        [(6, "api-url", "edit")],
    ),
    "py/sdk.py": (
        "import os\n\nfrom removebg import RemoveBg\n\n"
        'client = RemoveBg(os.environ["REMOVE_BG_API_KEY"], "error.log")\n',
        [(3, "pypi-import", "edit"), (5, "key-variable", "set")],
    ),
    "py/lazy.py": (
        "def cut(key):\n    import removebg\n    return removebg.RemoveBg(key, 'log')\n",
        [(2, "pypi-import", "edit")],
    ),
    "py/run.py": (
        'import subprocess\n\nsubprocess.run(["removebg", "--api-key", "x", "a.jpg"], check=True)\n',
        [(3, "command-in-code", "by hand")],
    ),
    "requirements.txt": ("requests==2.32.0\nremovebg==0.4\n", [(2, "pypi-package", "set")]),
    "pyproject.toml": (
        '[project]\nname = "shop"\ndependencies = [\n  "removebg>=0.4",\n]\n',
        [(4, "pypi-package", "set")],
    ),
    "notebooks/cut.ipynb": (
        '{\n "cells": [\n  {\n   "cell_type": "code",\n   "source": [\n    "!pip install removebg\\n",\n'
        '    "from removebg import RemoveBg\\n",\n    "r = requests.post(\'https://api.remove.bg/v1.0/removebg\')"\n'
        '   ]\n  }\n ],\n "nbformat": 4\n}\n',
        [(6, "install-command", "set"), (7, "pypi-import-in-notebook", "edit"), (8, "api-url", "edit")],
    ),
    "node/package.json": (
        '{\n  "name": "shop",\n  "dependencies": {\n    "remove.bg": "^1.3.0",\n    "axios": "^1"\n  }\n}\n',
        [(4, "npm-package", "set")],
    ),
    "node/sdk.ts": (
        'import { removeBackgroundFromImageUrl } from "remove.bg";\n\n'
        "const key = process.env.REMOVEBG_API_KEY ?? '';\n",
        [(1, "npm-import", "by hand"), (3, "key-variable", "set")],
    ),
    "node/old.js": ("const removebg = require('remove.bg');\n", [(1, "npm-import", "by hand")]),
    "node/raw.js": (
        "const request = https.request({\n  hostname: 'api.remove.bg',\n  path: '/v1.0/removebg',\n});\n",
        [(2, "host", "edit")],
    ),
    "php/Cut.php": (
        "<?php\n\nuse Mtownsend\\RemoveBg\\RemoveBg;\n\n$client = new Client(['base_uri' => "
        "'https://api.remove.bg/v1.0/']);\n$headers = ['X-Api-Key' => 'aB3dE6gH9jK2mN5pQ8sT1vW4'];\n",
        [(3, "composer-import", "by hand"), (5, "api-url", "edit"), (6, "key-literal", "by hand")],
    ),
    "php/composer.json": (
        '{\n  "require": {\n    "mtownsend/remove-bg": "^2.0"\n  }\n}\n',
        [(3, "composer-package", "by hand")],
    ),
    "php/config/services.php": (
        "<?php\n\nreturn [\n    'removebg' => [\n        'key' => env('REMOVEBG_KEY'),\n    ],\n];\n",
        [(5, "key-section", "set"), (5, "key-variable", "set")],
    ),
    "ruby/Gemfile": ('source "https://rubygems.org"\n\ngem "remove_bg", "~> 2.0"\n', [(3, "gem-package", "set")]),
    "ruby/cut.rb": ('require "remove_bg"\n\nRemoveBg.from_file("a.jpg")\n', [(1, "gem-require", "edit")]),
    "ruby/config/initializers/remove_bg.rb": (
        'RemoveBg.configure do |config|\n  config.api_key = ENV["REMOVE_BG_API_KEY"]\nend\n',
        [(1, "gem-configure", "edit"), (2, "key-variable", "set")],
    ),
    "go/go.mod": ("module shop\n\nrequire github.com/remove-bg/go v1.3.1\n", [(3, "go-package", "by hand")]),
    "go/cut.go": (
        'package cut\n\nimport "github.com/remove-bg/go/client"\n\nconst url = "https://api.remove.bg/v1.0/removebg"\n',
        [(3, "go-import", "by hand"), (5, "api-url", "edit")],
    ),
    "java/pom.xml": (
        "<project>\n  <artifactId>removebg-service</artifactId>\n  <dependency>\n"
        "    <groupId>io.example</groupId>\n    <artifactId>removebg-client</artifactId>\n"
        "  </dependency>\n</project>\n",
        [(5, "jvm-package", "by hand")],
    ),
    "java/build.gradle": (
        'dependencies {\n  implementation "io.example:remove-bg:1.0"\n}\n',
        [(2, "jvm-package", "by hand")],
    ),
    "java/Cut.java": (
        'class Cut {\n  URI uri = URI.create("https://api.remove.bg/v1.0/removebg");\n}\n',
        [(2, "api-url", "edit")],
    ),
    "java/application.properties": (
        "removebg.api-key=${REMOVE_BG_TOKEN}\n",
        [(1, "key-variable", "set"), (1, "key-setting", "set")],
    ),
    "net/Shop.csproj": ('<PackageReference Include="RemoveBg" Version="1.0.0" />\n', [(1, "nuget-package", "by hand")]),
    "net/Cut.cs": (
        'client.BaseAddress = new Uri("https://api.remove.bg/");\n',
        [(1, "api-url", "edit")],
    ),
    "net/appsettings.json": ('{\n  "RemoveBg": {\n    "ApiKey": ""\n  }\n}\n', [(3, "key-section", "set")]),
    "dart/pubspec.yaml": ("name: shop\ndependencies:\n  remove_bg: ^0.0.3\n", [(3, "dart-package", "by hand")]),
    "dart/cut.dart": ("import 'package:remove_bg/remove_bg.dart';\n", [(1, "dart-import", "by hand")]),
    ".env": ("DEBUG=1\nREMOVE_BG_API_KEY=aB3dE6gH9jK2mN5pQ8sT1vW4\n", [(2, "key-variable", "set")]),
    ".env.production": ("NEXT_PUBLIC_REMOVEBG_API_KEY=x\n", [(1, "key-variable", "set")]),
    "Dockerfile": (
        "FROM python:3.11\nENV REMOVE_BG_API_KEY=\nRUN pip install removebg\n",
        [(2, "key-variable", "set"), (3, "install-command", "set")],
    ),
    "compose.yaml": (
        "services:\n  web:\n    environment:\n      REMOVE_BG_API_URL: https://api.remove.bg/v1.0/removebg\n"
        "    extra_hosts:\n      - api.remove.bg:10.0.0.7\n",
        [(4, "url-variable", "set"), (4, "api-url", "edit"), (6, "host", "by hand")],
    ),
    "values.yaml": (
        "removebg:\n  enabled: true\n  url: https://api.remove.bg\n  apiKey: x\nother:\n  key: y\n",
        [(3, "api-url", "edit"), (4, "key-section", "set")],
    ),
    "insomnia.yaml": (
        "url: https://api.remove.bg/v1.0/account\nheaders: [{name: X-Api-Key, value: aB3dE6gH9jK2mN5pQ8sT1vW4}]\n",
        [(1, "api-url", "edit"), (2, "key-literal", "by hand")],
    ),
    "crontab": ("0 3 * * * /usr/local/bin/removebg --format png /data/*.jpg\n", [(1, "command", "by hand")]),
    "k8s/deployment.yaml": (
        "env:\n  - name: REMOVEBG_API_KEY\n    valueFrom:\n      secretKeyRef:\n        name: remove-bg-api-key\n",
        [(2, "key-variable", "set"), (5, "key-setting", "set")],
    ),
    "infra/main.tf": (
        'variable "remove_bg_api_key" {\n  sensitive = true\n}\n',
        [(1, "key-setting", "set")],
    ),
    ".github/workflows/build.yml": (
        "jobs:\n  build:\n    steps:\n      - run: removebg --api-key ${{ secrets.REMOVE_BG_API_KEY }} art/*.png\n",
        [(4, "key-variable", "set"), (4, "command", "by hand")],
    ),
    "night.sh": (
        '#!/bin/sh\nremovebg --api-key "$REMOVE_BG_API_KEY" photos/*.jpg\n'
        'curl -H "X-Api-Key: $KEY" -F image_file=@a.jpg https://api.remove.bg/v1.0/removebg -o a.png\n',
        [(2, "key-variable", "set"), (2, "command", "by hand"), (3, "api-url", "edit")],
    ),
    "n8n/http.json": (
        '{"nodes": [{"type": "n8n-nodes-base.httpRequest", "parameters": {"url": '
        '"https:\\/\\/api.remove.bg\\/v1.0\\/removebg"}}]}\n',
        [(1, "api-url", "edit")],
    ),
    "n8n/app.json": (
        '{\n "nodes": [\n  {"type": "n8n-nodes-removebg.removeBg"}\n ]\n}\n',
        [(3, "workflow-app", "by hand")],
    ),
    "make/blueprint.json": (
        '{\n "flow": [{"module": "remove-bg:removeBackground"}]\n}\n',
        [(2, "workflow-app", "by hand")],
    ),
    "zapier/zap.json": ('{"steps": [{"selected_api": "RemoveBgCLIAPI@1.0.3"}]}\n', [(1, "workflow-app", "by hand")]),
    "postman.json": (
        '{\n "url": {\n  "raw": "https://api.remove.bg/v1.0/removebg",\n  "host": [\n   "api",\n   "remove",\n   "bg"\n'
        "  ]\n }\n}\n",
        [(3, "api-url", "edit"), (4, "postman-host", "edit")],
    ),
    "openapi.yaml": ("servers:\n  - url: https://api.remove.bg/v1.0\n", [(2, "api-url", "edit")]),
    "calls.http": (
        "# the account\nGET /v1.0/account HTTP/1.1\nHost: api.remove.bg\nX-Api-Key: {{key}}\n",
        [(3, "host", "edit")],
    ),
    "nginx.conf": (
        "location /cut/ {\n  proxy_pass https://api.remove.bg/v1.0/;\n  proxy_set_header Host api.remove.bg;\n}\n",
        [(2, "api-url", "edit"), (3, "host", "edit")],
    ),
    "etc/hosts": ("127.0.0.1 localhost\n10.0.0.7 api.remove.bg\n", [(2, "host", "by hand")]),
    "proxy.js": ("fetch('/p?u=https%3A%2F%2Fapi.remove.bg%2Fv1.0%2Fremovebg');\n", [(1, "encoded-url", "edit")]),
    "allow.py": ('ALLOWED = re.compile(r"^api\\.remove\\.bg$")\n', [(1, "host-pattern", "by hand")]),
    "Jenkinsfile": ("environment {\n  KEY = credentials('remove-bg-api-key')\n}\n", [(2, "key-reference", "set")]),
    "java/Config.java": ('@Value("${removebg.api.key}") String key;\n', [(1, "key-reference", "set")]),
    "ruby/keys.rb": (
        "key = Rails.application.credentials.dig(:remove_bg, :api_key)\n",
        [(1, "key-reference", "set")],
    ),
    "ci/Dockerfile": (
        "FROM debian\nRUN curl -LO https://github.com/remove-bg/go/releases/download/v1.3/removebg.deb\n",
        [(2, "command-download", "by hand")],
    ),
    "seed.json": (
        '{"image": "https://o.remove.bg/downloads/1/a-removebg-preview.png"}\n',
        [(1, "other-host", "by hand")],
    ),
    "README.md": (
        "# Shop\n\nCut-outs are made by [remove.bg](https://www.remove.bg/api).\n\n    POST https://api.remove.bg/v1.0\n",
        [(3, "mention", "mention"), (5, "api-url", "mention")],
    ),
    "py/comment.py": (
        "# the service was https://api.remove.bg/v1.0/removebg until 2026\nSIZE = 'auto'  # as remove.bg\n",
        [(1, "api-url", "mention"), (2, "mention", "mention")],
    ),
    "web/page.html": ('<a href="https://www.remove.bg/">cut-outs</a>\n', [(1, "mention", "mention")]),
}

NEAR_MISSES: dict[str, str] = {
    "near/own.py": "def removebg(image):\n    return image\n\n\nremove_bg = removebg\nREMOVE_BG = True\n"
    "removebg('a.jpg')\n",
    "near/relative.py": "from .removebg import RemoveBg\nfrom shop.removebg import cut\nfrom rembg import remove\n",
    "near/flags.env": "REMOVEBG_ENABLED=true\nREMOVE_BG_THRESHOLD=0.5\nREMOVE_BG_KEYFRAMES=3\n",
    "near/attribute.js": "const a = node.remove.bg;\nremove.bg = 'red';\nremove.bg(1);\nonRemoveBgKeyDown();\n",
    "near/hosts.js": "fetch('https://api.remove.bg.example.com/v1');\nfetch('https://notapi.remove.bgx.com');\n",
    "near/mail.txt": "Write to sales@remove.bg.example.org.\n",
    "near/package.json": '{"name": "removebg", "scripts": {"removebg": "node removebg.js"}, '
    '"dependencies": {"@imgly/background-removal": "1", "removebg-utils": "1"}}\n',
    "near/style.css": ".remove-bg { background: none }\n.removebg-button { color: red }\n",
    "near/pyproject.toml": '[project]\nname = "removebg"\nscripts = {removebg = "shop:main"}\n',
    "near/function.sh": 'removebg() {\n  convert "$1" out.png\n}\nremovebg ./a.jpg\n',
    "near/Makefile": "removebg:\n\tpython removebg.py\n",
    "near/service.yml": "services:\n  removebg:\n    image: acme/removebg:1\n"
    "    command: python removebg.py --port 80\n",
    "near/rembg.py": "import rembg\n\nREMBG_HOME = '/models'\nurl = 'http://localhost:7000/api/remove'\n",
    "near/Own.java": "import com.acme.removebg.RemoveBg;\n\nclass RemoveBgService { void removeBg() {} }\n",
    "near/own.rb": "class RemoveBg\n  def remove_bg(image); end\nend\n",
    "near/type.json": '{"type": "removebg-button", "module": "removebg", "app": "shop"}\n',
    "near/file.py": 'path = "out/photo-removebg-preview.png"\nimport remove_background\n',
}


def expected() -> list[Use]:
    """The findings of the whole tree, sorted."""
    return sorted((file, line, rule, action) for file, (_, uses) in USES.items() for line, rule, action in uses)


def contents() -> dict[str, str]:
    """Every file with its text."""
    return {**{file: text for file, (text, _) in USES.items()}, **NEAR_MISSES}
