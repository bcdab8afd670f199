"""The table of the commands of `maskdrop`. The module of a command is imported when the command runs.

Importing all of them takes a second: they load OpenCV, ONNX Runtime and boto3. `maskdrop --help` and the completion of
command names read the first sentence of each docstring from the source file instead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter
    from typer._click.shell_completion import CompletionItem

COMMANDS: dict[str, dict[str, str]] = {
    "Images": {
        "cutout": "cli.images:cutout",
        "mask": "cli.images:mask",
        "detect": "cli.images:detect",
        "replace": "cli.images:replace",
        "repaint": "cli.repaint:repaint",
    },
    "Move from remove.bg": {
        "migrate": "cli.migrate.app",
    },
    "Services": {
        "serve": "cli.serve:serve",
        "worker": "cli.worker:worker",
        "mcp": "cli.mcp.command:mcp",
    },
    "Verbs of rembg": {
        "i": "cli.rembg:i",
        "p": "cli.rembg:p",
        "s": "cli.rembg:s",
        "b": "cli.rembg:b",
    },
    "Local stack": {
        "run": "cli.stack:run",
        "up": "cli.stack:up",
        "down": "cli.stack:down",
        "reset": "cli.stack:reset",
        "status": "cli.remote:status",
    },
    "Jobs of a stack": {
        "submit": "cli.remote:submit",
        "fetch": "cli.remote:fetch",
        "list": "cli.remote:list_",
        "retry": "cli.remote:retry",
    },
    "Deployed stage": {
        "doctor": "cli.doctor:doctor",
        "deploy": "cli.deploy:deploy",
        "destroy": "cli.deploy:destroy",
        "logs": "cli.logs:logs",
        "costs": "cli.costs:costs",
        "smoke": "cli.smoke:smoke",
        "keys": "cli.keys",
        "presets": "cli.presets",
        "bot": "cli.bot",
        "audit": "cli.audit:audit",
        "backfill": "cli.audit:backfill",
        "redrive": "cli.redrive:redrive",
    },
    "Models": {
        "models": "cli.models",
        "data": "cli.data",
        "train": "cli.train:train",
        "tune": "cli.train:tune",
        "blend": "cli.train:blend",
        "evaluate": "cli.evaluate:evaluate",
        "compare": "cli.evaluate:compare",
        "promote": "cli.evaluate:promote",
        "detector": "cli.detector",
        "export": "cli.export:export",
    },
}
"""Heading in the help -> name of a command -> `module:function`, or the module of a group, whose Typer object is `app`.
"""

TARGETS = {name: target for commands in COMMANDS.values() for name, target in commands.items()}

SENTENCE = re.compile(r"(.*?\.)(\s|$)", re.DOTALL)


def load(name: str) -> Command:
    """Imports the module of a command of TARGETS and returns the command."""
    module, _, function = TARGETS[name].partition(":")
    if not function:
        group = typer.Typer()
        group.add_typer(import_module(module).app, name=name)
        commands = typer.main.get_group(group).commands[name]
        for command in vars(commands)["commands"].values():  # the list of Typer keeps the line breaks of a docstring
            command.short_help = " ".join((command.help or "").partition("\n\n")[0].split())
        return commands
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    imported = import_module(module)
    settings = getattr(imported, "CONTEXT_SETTINGS", None)
    epilog = getattr(imported, "EPILOGS", {}).get(name)
    single.command(name, context_settings=settings, epilog=epilog)(getattr(imported, function))
    return typer.main.get_command(single)


def summary(target: str) -> str:
    """Returns the first sentence of the docstring of a command or group, without importing its module."""
    module, _, function = target.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    tree: Any = ast.parse(Path(spec.origin).read_text())
    if function:
        tree = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    sentence = SENTENCE.match(ast.get_docstring(tree) or "")
    return " ".join(sentence[1].split()) if sentence else ""


class Loaded(MutableMapping[str, Any]):
    """The commands by name. A command is loaded when it is read for the first time."""

    def __init__(self, commands: MutableMapping[str, Any]) -> None:
        self._loaded = dict(commands)

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded and name in TARGETS:
            self._loaded[name] = load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from TARGETS
        yield from self._loaded.keys() - TARGETS.keys()

    def __len__(self) -> int:
        return len(TARGETS.keys() | self._loaded.keys())


class CommandGroup(TyperGroup):
    """The group `maskdrop`, with the commands of COMMANDS."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Loaded(self.commands)

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002  the signature of Typer
        return list(self.commands)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        self._described().format_help(ctx, formatter)

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        return self._described().shell_complete(ctx, incomplete)

    def _described(self) -> TyperGroup:
        """Returns this group with commands that have a summary and cannot run, for lists of the commands."""
        rows = [(name, target, panel) for panel, commands in COMMANDS.items() for name, target in commands.items()]
        commands: dict[str, Any] = {
            name: TyperCommand(name, help=summary(target), rich_help_panel=panel) for name, target, panel in rows
        }
        return TyperGroup(
            name=self.name,
            help=self.help,
            params=self.params,
            commands=commands,
            rich_markup_mode=self.rich_markup_mode,
        )
