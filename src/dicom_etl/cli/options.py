"""The options that every verb of the command line takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dicom_etl.core.logs import configure_logging
from dicom_etl.core.settings.load import load_settings

_OPTIONS = (
    click.option("--config", type=click.Path(path_type=Path), help="Settings file."),
    click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Format of log lines and errors; json also prints results as --json does.",
    ),
)


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the options that say where the settings come from, and how logs look."""
    return functools.reduce(lambda taken, option: option(taken), reversed(_OPTIONS), command)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with those options, and the settings that they name as its first argument."""

    @settings_options
    @functools.wraps(command)
    def with_settings(
        *args: Any, config: Path | None, overrides: tuple[str, ...], log_format: Any, **kwargs: Any
    ) -> Any:
        configure_logging(log_format)
        if log_format == "json" and "as_json" in kwargs:  # lines for a program: all of them
            kwargs["as_json"] = True
        return command(load_settings(config, overrides), *args, **kwargs)

    return with_settings


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
