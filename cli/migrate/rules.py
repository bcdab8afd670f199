"""The uses of remove.bg that `maskdrop migrate removebg` finds: the table RULES, one row for each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlsplit

Kind = Literal["url", "host", "import", "package", "key", "command", "workflow", "mention"]
"""url       a URL of the API
host      the host of the API alone: HTTP clients, proxies, hosts files
import    an import of a client library
package   a client library among the dependencies
key       an API key, or the name of a variable with one
command   a call of the official command `removebg`
workflow  an app of n8n, Make or Zapier
mention   the name in documentation, comments and texts
"""

Action = Literal["edit", "by hand", "set", "mention"]
"""edit     `--write` changes the file
by hand  a person changes the file
set      the file stays: a value outside it changes, or another finding covers it
mention  no change
"""

API_PATH = "/v1.0/removebg"

LINE_MAX = 5000
"""Characters of a line before and after a match that are read. Longer lines are data."""


@dataclass(frozen=True, slots=True)
class Target:
    """The URL that replaces https://api.remove.bg, without a slash at the end.

    rename: name that replaces the environment variables with the API key; "": their names stay.
    """

    url: str
    rename: str = ""

    @property
    def host(self) -> str:
        """The host name, where it alone can replace the vendor's: HTTPS on port 443 without a path. Otherwise ""."""
        parts = urlsplit(self.url)
        simple = parts.scheme == "https" and parts.port in (None, 443) and not parts.path.strip("/")
        return (parts.hostname or "") if simple else ""

    @property
    def has_path(self) -> bool:
        """Whether the URL has a path, as those of API Gateway's stages have."""
        return bool(urlsplit(self.url).path.strip("/"))


Replace = Callable[[re.Match[str], Target], str | None]
"""Returns the text that replaces a match; None where a person has to change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of use.

    pattern: searched in the whole text of a file. files: regular expression of the file's name.
    change: what to do, with {url} and {rename}. action: of matches without `replace`. by_hand: what to do where
    `replace` returns None and `action` is "by hand"; "": as `change`.
    unless: regular expression of a line whose match does not count. only_with, never_with: regular expression of a text
    that the file must contain, or must not. A group `at` of `pattern` marks the part that counts.
    example: a file name and its text, for the tests.
    """

    name: str
    kind: Kind
    pattern: re.Pattern[str]
    change: str
    example: tuple[str, str]
    files: re.Pattern[str] = field(default=re.compile(r""))
    action: Action = "by hand"
    replace: Replace | None = None
    by_hand: str = ""
    unless: re.Pattern[str] | None = None
    only_with: re.Pattern[str] | None = None
    never_with: re.Pattern[str] | None = None


def _url(match: re.Match[str], target: Target) -> str:
    return target.url.replace("/", r"\/") if r"\/" in match.group() else target.url


def _host(match: re.Match[str], target: Target) -> str | None:
    line = line_at(match.string, match.start())
    in_hosts_file = re.search(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])", line)
    return None if in_hosts_file else target.host or None


def _postman_host(match: re.Match[str], target: Target) -> str | None:
    return f"{match['key']}{json.dumps(target.host.split('.'))}" if target.host else None


def _variable(match: re.Match[str], target: Target) -> str | None:
    return f"{match['before']}{target.rename}{match['after']}" if target.rename else None


def _python_import(match: re.Match[str], target: Target) -> str:
    newline, indent = _newline(match), match["indent"]
    return newline.join(
        (
            match.group(),
            f"{indent}import removebg.removebg",
            f'{indent}removebg.removebg.API_ENDPOINT = "{target.url}{API_PATH}"',
        )
    )


def _notebook_import(match: re.Match[str], target: Target) -> str:
    newline, indent = _newline(match), match["indent"]
    override = f'removebg.removebg.API_ENDPOINT = \\"{target.url}{API_PATH}\\"'
    return newline.join(
        (
            f'{indent}"{match["statement"]}\\n",',
            f'{indent}"import removebg.removebg\\n",',
            f'{indent}"{override}{match["end"] or ""}"{match["comma"]}',
        )
    )


def _ruby_url(indent: str, newline: str, url: str) -> str:
    return f'{indent}RemoveBg::Api.send(:remove_const, :URL){newline}{indent}RemoveBg::Api::URL = "{url}"'


def _ruby_require(match: re.Match[str], target: Target) -> str | None:
    if target.has_path:
        return None
    newline = _newline(match)
    return f"{match.group()}{newline}{_ruby_url(match['indent'], newline, target.url)}"


def _ruby_configure(match: re.Match[str], target: Target) -> str | None:
    if target.has_path:
        return None
    newline = _newline(match)
    return f"{_ruby_url(match['indent'], newline, target.url)}{newline}{match.group()}"


def line_at(text: str, start: int) -> str:
    """Returns the line of a position, without its end; of a long line the part around the position."""
    first = max(0, start - LINE_MAX)
    begin = max(first, *(text.rfind(end, first, start) + 1 for end in "\r\n"))
    return re.split(r"[\r\n]", text[begin : start + LINE_MAX], maxsplit=1)[0]


def _newline(match: re.Match[str]) -> str:
    """Returns the line ending of the file at a match: the next one, or the first."""
    found = re.compile(r"\r\n|\n|\r").search(match.string, match.end()) or re.search(r"\r\n|\n|\r", match.string)
    return found.group() if found else "\n"


CONFIGURATION = re.compile(
    r"(?i)(?:\.(?:ya?ml|json|toml|ini|cfg|conf|properties|tf|tfvars|hcl|xml|config|env)|^\.env.*|\.env\..*)$"
)
SHELL = re.compile(
    r"(?i)(?:\.(?:sh|bash|zsh|fish|ps1|bat|cmd|ya?ml|mk|just)|^(?:Makefile|Dockerfile.*|Jenkinsfile|Justfile"
    r"|crontab|Procfile|package\.json)|^[^.]+)$"
)
INSTALLS = re.compile(SHELL.pattern[:-2] + r"|\.(?:ipynb|Dockerfile)|^Dockerfile\..*)$")
PYTHON_MANIFEST = re.compile(
    r"(?i)^(?:(?:.*requirements.*|constraints.*)\.(?:txt|in)|pyproject\.toml|setup\.(?:py|cfg)|Pipfile"
    r"|environment.*\.ya?ml)$"
)
PYPI = r"(?P<package>removebg|remove-bg|remove-bg-api|rembgpy|removebg-cli|removebgplus|xremovebg)"
"""Clients of remove.bg on PyPI (by their descriptions there, 2026-11)."""

NPM = r"(?P<package>remove\.bg|removebg-wrapper)"
"""Clients of remove.bg on npm (by their descriptions there, 2026-11)."""

OWN_NAME = re.compile(
    r"""^\s*["']?(?:name|packages|py_modules|include|exclude|known_\w+|root_packages?|source|scripts)["']?\s*[=:]"""
)
"""Lines with the names of the project and of its own modules."""

FIXED = "The library has a fixed URL: send the request with an HTTP client to {url}" + API_PATH
PYTHON_LOCAL = "removebg.removebg.API_ENDPOINT"

GEM_PATH = (
    "the gem drops the path of {url}: use a URL without one (`domain` of the stage, or `maskdrop serve`), and run this "
    "command again"
)

RULES: tuple[Rule, ...] = (
    Rule(
        name="api-url",
        kind="url",
        pattern=re.compile(
            r"(?i)(?:(?<![\w.+-])https?:(?:\\?/){2}|(?<=[\"'])//)"
            r"(?:api\.remove\.bg|(?:www\.)?remove\.bg(?=\\?/v1\.0))(?::443(?!\d))?(?![\w-]|\.\w)"
        ),
        change="replace the URL by {url}",
        replace=_url,
        example=("call.py", "requests.post('https://api.remove.bg/v1.0/removebg', files=files)\n"),
    ),
    Rule(
        name="encoded-url",
        kind="url",
        pattern=re.compile(r"(?i)https?%3A%2F%2Fapi\.remove\.bg(?![\w-]|\.\w)"),
        change="replace the URL by {url}, percent-encoded",
        replace=lambda _match, target: quote(target.url, safe=""),
        example=("proxy.js", "fetch('/proxy?to=https%3A%2F%2Fapi.remove.bg%2Fv1.0%2Fremovebg')\n"),
    ),
    Rule(
        name="postman-host",
        kind="host",
        pattern=re.compile(r'(?P<key>"host"\s*:\s*)\[\s*"api"\s*,\s*"remove"\s*,\s*"bg"\s*\]'),
        change="replace protocol, host, port and path of the request by those of {url}",
        replace=_postman_host,
        example=("postman.json", '{"url": {"host": ["api", "remove", "bg"], "path": ["v1.0", "removebg"]}}\n'),
    ),
    Rule(
        name="host-pattern",
        kind="host",
        pattern=re.compile(r"(?i)api\\{1,2}\.remove\\{1,2}\.bg"),
        change="add the host of {url} to this regular expression",
        example=("proxy.conf", "map $host $up { ~^api\\.remove\\.bg$ cutouts; }\n"),
    ),
    Rule(
        name="host",
        kind="host",
        pattern=re.compile(r"(?i)(?<![\w./@\\%-])api\.remove\.bg(?![\w-]|\.\w)"),
        change="replace the host by that of {url}",
        by_hand="replace the host by that of {url}, and add its scheme, port and path where the request is built; "
        "delete lines of hosts files",
        replace=_host,
        example=("call.js", "https.request({hostname: 'api.remove.bg', path: '/v1.0/removebg'})\n"),
    ),
    Rule(
        name="other-host",
        kind="host",
        pattern=re.compile(r"(?i)(?<![\w.+-])https?:(?:\\?/){2}(?!www\.|api\.)[a-z0-9-]+\.remove\.bg(?![\w-]|\.\w)"),
        change="this host closes too: copy the files that your links name, and remove the links",
        example=("seed.json", '{"cutout": "https://o.remove.bg/downloads/1/a-removebg-preview.png"}\n'),
    ),
    Rule(
        name="url-variable",
        kind="url",
        pattern=re.compile(
            r"(?<![A-Za-z0-9])(?:[A-Z0-9]+_)*REMOVE_?BG(?:_[A-Z0-9]+)*?_(?:URL|URI|ENDPOINT|HOST|API)"
            r"(?![A-Za-z0-9_])"
        ),
        change="set the variable to {url} and the path of its present value; if its value is a key, to a key of "
        "`maskdrop keys create`",
        action="set",
        example=("deploy.yml", "env:\n  REMOVE_BG_API_URL: ${{ vars.REMOVE_BG_API_URL }}\n"),
    ),
    Rule(
        name="key-variable",
        kind="key",
        pattern=re.compile(
            r"(?<![A-Za-z0-9])(?P<before>(?:[A-Z0-9]+_)*?)"
            r"REMOVE_?BG_?(?:[A-Z0-9]+_)*?(?:API_?KEY|APIKEY|KEY|TOKEN|SECRET)(?P<after>(?:_[A-Z0-9]+)*)(?![A-Za-z0-9_])"
        ),
        change="set the variable to a key of `maskdrop keys create`{rename}",
        action="set",
        replace=_variable,
        example=(".env", "REMOVE_BG_API_KEY=\n"),
    ),
    Rule(
        name="key-setting",
        kind="key",
        files=CONFIGURATION,
        pattern=re.compile(
            r"(?<![A-Za-z0-9])(?:[a-z0-9]+[_.-])*remove[_.-]?bg[_.-](?:api[_.-]?)?(?:key|token|secret|credential)s?"
            r"(?![A-Za-z0-9])|(?<![A-Za-z0-9])[rR]emoveB[gG](?:A(?:pi|PI))?(?:Key|Token|Secret)(?![A-Za-z0-9])"
        ),
        change="set it to a key of `maskdrop keys create`",
        action="set",
        example=("main.tf", 'variable "remove_bg_api_key" { sensitive = true }\n'),
    ),
    Rule(
        name="key-section",
        kind="key",
        files=re.compile(CONFIGURATION.pattern + r"|\.php$"),
        pattern=re.compile(
            r"(?im)^(?P<indent>[ \t]*)[\"']?remove[_.-]?bg[\"']?\s*(?:=>|[:=])\s*[{\[]?[ \t]*"
            r"(?:(?:\r?\n(?P=indent)[ \t]+[^\n]*?){0,5}\r?\n(?P=indent)[ \t]+)?"
            r"(?P<at>[\"']?(?:api[_-]?)?(?:key|token)[\"']?)\s*(?:=>|[:=])"
        ),
        change="set it to a key of `maskdrop keys create`",
        action="set",
        example=("appsettings.json", '{\n  "RemoveBg": {\n    "ApiKey": ""\n  }\n}\n'),
    ),
    Rule(
        name="key-reference",
        kind="key",
        pattern=re.compile(
            r"[\"'{][\w.-]*remove[_-]?bg[./](?:api[._-]?)?(?:key|token)(?=[\"'}:])"
            r"|(?<!\w):?remove_?bg\b[\"']?\]?,?\s*\[?\s*:api_?key\b"
            r"|\bcredentials\(\s*[\"'][\w.-]*remove[_-]?bg[\w.-]*[\"']"
        ),
        change="set it to a key of `maskdrop keys create`",
        action="set",
        example=("Cut.java", '@Value("${removebg.api.key}") String key;\n'),
    ),
    Rule(
        name="key-literal",
        kind="key",
        pattern=re.compile(
            r"(?i)x-api-key[\"']?\s*(?:\]\s*=|:|,|=>|=)\s*(?:[\"']?value[\"']?\s*:\s*)?[\"']?(?=[a-z]*\d)[a-z0-9]{20,}"
            r"(?!\w)"
        ),
        only_with=re.compile(r"(?i)remove\.bg"),
        change="replace the key by one of `maskdrop keys create`, better from an environment variable",
        example=(
            "call.php",
            "$c->post('https://api.remove.bg/v1.0/removebg', ['headers' => "
            "['X-Api-Key' => 'aB3aB3aB3aB3aB3aB3aB3aB3']]);\n",
        ),
    ),
    Rule(
        name="pypi-import",
        kind="import",
        files=re.compile(r"\.pyi?$"),
        pattern=re.compile(
            r"(?m)^(?P<indent>[ \t]*)(?:from removebg(?:\.removebg)? import (?:\([^)]*\)|(?:RemoveBg\b|\*)[^\r\n]*)"
            r"|import removebg(?:\.removebg)?(?: as \w+)?[ \t]*(?:#[^\r\n]*)?(?=\r|\n|\Z))"
        ),
        never_with=re.compile(r"removebg\.API_ENDPOINT\s*="),
        change=f'set {PYTHON_LOCAL} = "{{url}}{API_PATH}" after the import',
        replace=_python_import,
        example=("cut.py", "from removebg import RemoveBg\n\nRemoveBg(key, 'error.log')\n"),
    ),
    Rule(
        name="pypi-import-in-notebook",
        kind="import",
        files=re.compile(r"\.ipynb$"),
        pattern=re.compile(
            r'(?m)^(?P<indent>[ \t]*)"(?P<statement>(?:from removebg import RemoveBg|import removebg)[^"\\\r\n]*)'
            r'(?P<end>\\n)?"(?P<comma>,?)'
        ),
        never_with=re.compile(r"removebg\.API_ENDPOINT\s*="),
        change=f'set {PYTHON_LOCAL} = "{{url}}{API_PATH}" after the import',
        replace=_notebook_import,
        example=("cut.ipynb", '{"cells": [{"source": [\n  "from removebg import RemoveBg\\n",\n  "x = 1"\n]}]}\n'),
    ),
    Rule(
        name="other-python-import",
        kind="import",
        files=re.compile(r"\.(?:pyi?|ipynb)$"),
        pattern=re.compile(r"(?:from|import)[ \t]+(?:remove_bg_api|removebgplus|rembgpy|xremovebg)\b"),
        change=FIXED,
        example=("cut.py", "from remove_bg_api import RemoveBg\n"),
    ),
    Rule(
        name="npm-import",
        kind="import",
        pattern=re.compile(rf"(?:\brequire\s*\(\s*|\bfrom\s+|\bimport\s*\(?\s*)([\"'`]){NPM}\1"),
        change="start Node.js with `--require ./removebg-url.cjs` and MASKDROP_URL={url} "
        "(docs/migrate-removebg.md), or send the request with fetch to {url}" + API_PATH,
        example=("cut.js", 'import { removeBackgroundFromImageFile } from "remove.bg";\n'),
    ),
    Rule(
        name="gem-require",
        kind="import",
        pattern=re.compile(r"(?m)^(?P<indent>[ \t]*)require[ (]+[\"']remove_bg[\"']\)?"),
        never_with=re.compile(r"RemoveBg::Api::URL\s*="),
        change='set RemoveBg::Api::URL = "{url}" after the require',
        by_hand=GEM_PATH,
        replace=_ruby_require,
        example=("cut.rb", 'require "remove_bg"\n\nRemoveBg.from_file("a.jpg")\n'),
    ),
    Rule(
        name="gem-configure",
        kind="import",
        pattern=re.compile(r"(?m)^(?P<indent>[ \t]*)RemoveBg\.configure\b"),
        never_with=re.compile(r"RemoveBg::Api::URL\s*=|require[ (]+[\"']remove_bg[\"']"),
        change='set RemoveBg::Api::URL = "{url}" before it',
        by_hand=GEM_PATH,
        replace=_ruby_configure,
        example=("remove_bg.rb", "RemoveBg.configure do |config|\n  config.image_processor = :mini_magick\nend\n"),
    ),
    Rule(
        name="composer-import",
        kind="import",
        pattern=re.compile(r"\\?(?:Mtownsend|DracoDevelopmentGroup)\\{1,2}RemoveBg\b"),
        change=FIXED,
        example=("Cut.php", "use Mtownsend\\RemoveBg\\RemoveBg;\n"),
    ),
    Rule(
        name="go-import",
        kind="import",
        files=re.compile(r"\.go$"),
        pattern=re.compile(r"[\"`]github\.com/remove-bg/go(?:/[\w./-]*)?[\"`]"),
        change=FIXED,
        example=("cut.go", 'import "github.com/remove-bg/go/client"\n'),
    ),
    Rule(
        name="dart-import",
        kind="import",
        files=re.compile(r"\.dart$"),
        pattern=re.compile(r"[\"']package:remove_bg/[\w./]+[\"']"),
        change=FIXED,
        example=("cut.dart", "import 'package:remove_bg/remove_bg.dart';\n"),
    ),
    Rule(
        name="pypi-package",
        kind="package",
        files=PYTHON_MANIFEST,
        pattern=re.compile(
            rf"(?m)(?:^|[\"'\s-]|#egg=){PYPI}(?:(?=\s*(?:[<>=~!]=|[<>;\[,\"'#]|\\?$))|(?=\s*=\s*(?:[\"'][*^~<>=\d]|\{{)))"
        ),
        unless=OWN_NAME,
        change="the package can stay; its URL is set where it is imported",
        action="set",
        example=("requirements.txt", "requests==2.32.0\nremovebg==0.4\n"),
    ),
    Rule(
        name="install-command",
        kind="package",
        files=INSTALLS,
        pattern=re.compile(
            rf"\b(?:(?:pip3?|uv pip) install|uv add|poetry add|pipx install)\b[^\n;&|]*?[ \"']{PYPI}(?![\w.-])"
            rf"|\b(?:npm (?:i|install|add)|yarn (?:global )?add|pnpm (?:i|add|install)|bun add)\b[^\n;&|]*?[ \"']"
            rf"{NPM.replace('package', 'npm')}(?![\w.-])"
            r"|\bgem install\b[^\n;&|]*?[ \"']remove_bg(?![\w.-])"
            r"|\bcomposer require\b[^\n;&|]*?[ \"'](?:mtownsend|draco-development-group)/remove-bg"
            r"|\bgo (?:get|install)\b[^\n;&|]*?github\.com/remove-bg/go\S*"
        ),
        change="the package can stay; its URL is set where it is imported",
        action="set",
        example=("Dockerfile", "RUN pip install --no-cache-dir requests removebg\n"),
    ),
    Rule(
        name="npm-package",
        kind="package",
        files=re.compile(r"^package\.json$"),
        pattern=re.compile(rf'"{NPM}"\s*:\s*"'),
        change="the package can stay; its URL is set where it is imported",
        action="set",
        example=("package.json", '{"dependencies": {"remove.bg": "^1.3.0"}}\n'),
    ),
    Rule(
        name="gem-package",
        kind="package",
        files=re.compile(r"^(?:Gemfile|gems\.rb|.*\.gemspec)$"),
        pattern=re.compile(r"(?:\bgem|add_(?:runtime_|development_)?dependency)[ (]+[\"']remove_bg[\"']"),
        change="the gem can stay; its URL is set where it is required",
        action="set",
        example=("Gemfile", 'gem "remove_bg", "~> 2.0"\n'),
    ),
    Rule(
        name="composer-package",
        kind="package",
        files=re.compile(r"^composer\.json$"),
        pattern=re.compile(r'"(?:mtownsend|draco-development-group)\\?/remove-bg"\s*:'),
        change="replace the package: its URL is fixed",
        example=("composer.json", '{"require": {"mtownsend/remove-bg": "^2.0"}}\n'),
    ),
    Rule(
        name="go-package",
        kind="package",
        files=re.compile(r"^go\.mod$"),
        pattern=re.compile(r"github\.com/remove-bg/go\b"),
        change="replace the module: its URL is fixed",
        example=("go.mod", "require github.com/remove-bg/go v1.3.1\n"),
    ),
    Rule(
        name="jvm-package",
        kind="package",
        files=re.compile(r"^(?:pom\.xml|.*\.gradle(?:\.kts)?|libs\.versions\.toml)$"),
        pattern=re.compile(
            r"(?i)<dependency>\s*<groupId>[^<]*</groupId>\s*(?P<at><artifactId>)remove-?bg(?:-(?:api|client|sdk|java))?</artifactId>"
            r"|[\"'][\w.-]+:remove-?bg(?:-(?:api|client|sdk|java))?:[\w.-]+[\"']"
        ),
        change="set the base URL of this client to {url}, or replace it if its URL is fixed",
        example=("build.gradle", 'dependencies {\n  implementation "io.example:removebg-client:1.2.0"\n}\n'),
    ),
    Rule(
        name="nuget-package",
        kind="package",
        files=re.compile(r"(?:\.(?:cs|fs|vb)proj|^Directory\.Packages\.props|^packages\.config)$"),
        pattern=re.compile(
            r"(?i)<(?:PackageReference\s+Include|PackageVersion\s+Include|package\s+id)=\"Remove\.?Bg"
            r"(?:\.(?:Api|Client|Sdk|Net))?\""
        ),
        change="set the base URL of this client to {url}, or replace it if its URL is fixed",
        example=("Shop.csproj", '<PackageReference Include="RemoveBg.Client" Version="1.0.0" />\n'),
    ),
    Rule(
        name="dart-package",
        kind="package",
        files=re.compile(r"^pubspec\.yaml$"),
        pattern=re.compile(r"(?m)^[ \t]+remove_bg[ \t]*:[ \t]*[\"']?(?:\^|\d|any)"),
        change="replace the package: its URL is fixed",
        example=("pubspec.yaml", "dependencies:\n  remove_bg: ^0.0.3\n"),
    ),
    Rule(
        name="command",
        kind="command",
        files=SHELL,
        pattern=re.compile(
            r"(?m)(?:^[ \t]*(?:-[ \t]+)?|[;&|(`]\s*|\$\(|\b(?:sudo|RUN|exec|do|then|time|nice"
            r"|xargs(?:[ \t]-\S+)*)[ \t]+|\brun:[ \t]+|\":[ \t]*\"|^(?:[\d*/,-]+[ \t]+){5})"
            r"(?:/\S*/)?removebg(?:\.exe)?(?=[ \t]+(?:--?\w|[\"'$*]|\S*[./*]|zip2png\b))"
        ),
        never_with=re.compile(r"(?m)^\s*(?:function\s+removebg\b|removebg\s*\(\)|alias\s+removebg=|removebg\s*:)"),
        change="replace it by `maskdrop cutout FILES --out FOLDER`, or start the Node.js version with "
        "`--require ./removebg-url.cjs` and MASKDROP_URL={url} (docs/migrate-removebg.md)",
        example=("night.sh", 'removebg --api-key "$KEY" photos/*.jpg\n'),
    ),
    Rule(
        name="command-in-code",
        kind="command",
        pattern=re.compile(
            r"\[\s*[\"']removebg(?:\.exe)?[\"']\s*,|\b(?:execFile|execFileSync|spawn|spawnSync|system|exec"
            r"|Command)\(\s*[\"']removebg(?:[\"']\s*,|\s+-)"
        ),
        change="replace it by the command `maskdrop cutout`, or by a request to {url}" + API_PATH,
        example=("night.py", 'subprocess.run(["removebg", "--api-key", key, path], check=True)\n'),
    ),
    Rule(
        name="command-download",
        kind="command",
        pattern=re.compile(r"github\.com/remove-bg/(?:remove-bg-cli|go)\b[\w./-]*"),
        change="replace the official command, whose URL is fixed, by `maskdrop cutout FILES --out FOLDER`",
        example=("Dockerfile", "RUN curl -L https://github.com/remove-bg/go/releases/download/v1/removebg -o r\n"),
    ),
    Rule(
        name="workflow-app",
        kind="workflow",
        files=re.compile(r"(?i)\.(?:json|ya?ml)$"),
        pattern=re.compile(
            r"(?i)\"?type\"?\s*:\s*\"[^\"\n]*n8n-nodes-[^\"\n]*remove[-_.]?bg[^\"\n]*\""
            r"|\"module\"\s*:\s*\"remove[-_.]?bg:[^\"\n]*\""
            r"|\"(?:selected_api|selectedApi|app)\"\s*:\s*\"(?:App\d+_?)?remove[-_.]?bg(?:[\w.]*(?:API|@)[^\"\n]*)?\""
        ),
        change="replace the app, whose host is fixed, by an HTTP request: POST {url}"
        + API_PATH
        + " with the header X-Api-Key",
        example=("zap.json", '{"steps": [{"selected_api": "RemoveBgCLIAPI@1.0.3", "action": "remove"}]}\n'),
    ),
    Rule(
        name="mention",
        kind="mention",
        pattern=re.compile(
            r"(?i)(?<![\w.@/:$>-])(?:https?:\\?/\\?/)?(?:[a-z0-9-]+\.)*remove\.bg(?![\w-]|\.\w|\s*[=(\[])"
        ),
        change="update the text, where it is one",
        action="mention",
        example=("README.md", "Cut-outs are made with remove.bg.\n"),
    ),
)
