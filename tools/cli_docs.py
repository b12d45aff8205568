"""docs/cli.md, from the help of the commands."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import click

from dicom_etl.cli.main import cli

_HEAD = """# Command line

For people who type or schedule `dicom-etl`. `make docs` generates this page from the commands' help; do not edit it.

`dicom-etl COMMAND --help` prints the same. Results go to standard output, log lines and progress to standard error; on
a terminal log lines are shown only with `-v`. The [exit code](exit-codes.md) tells how a command ended.
[Settings](settings.md) come from one file, the environment and `--set`.
"""

_WIDTH = 100


def cli_document() -> str:
    """The whole of docs/cli.md."""
    common = _options_of_all()
    lines = [
        _HEAD,
        f"## Options of every command\n\n```text\n{_help(_of_options(common), ['dicom-etl COMMAND'])}\n```\n",
    ]
    names = {option.name for option in common}
    for path, command in _commands(cli, ["dicom-etl"]):
        lines.append(f"## {' '.join(path[1:])}\n\n```text\n{_help(_without(command, names), path)}\n```\n")
    return "\n".join(lines)


def _commands(group: click.Group, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    """Every command that does something, with its name in parts: those of groups within the group too."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, [*path, name])
        else:
            yield [*path, name], command


def _options_of_all() -> list[click.Parameter]:
    """The options that all commands have."""
    first, *others = [command.params for _, command in _commands(cli, [])]
    return [option for option in first if all(option.name in {other.name for other in params} for params in others)]


def _of_options(options: list[click.Parameter]) -> click.Command:
    return click.Command("COMMAND", params=options)


def _without(command: click.Command, names: set[str]) -> click.Command:
    """The command without the options of every command, which have a section of their own."""
    shown = copy.copy(command)
    shown.params = [option for option in command.params if option.name not in names]
    shown.add_help_option = False
    return shown


def _help(command: click.Command, path: list[str]) -> str:
    """The help as a terminal of 100 columns shows it."""
    context = click.Context(
        command,
        info_name=" ".join(path),
        max_content_width=_WIDTH,
        terminal_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )
    return command.get_help(context)
