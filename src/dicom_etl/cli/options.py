"""The options that every verb of the command line takes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.logs import LogFormat, configure_logging
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings

# As commands.demo.demo has it; that module is not loaded for a name.
_DEMO_CONFIG = Path("demo-lake/demo.toml")

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
    click.option(
        "-v", "--verbose", is_flag=True, help="Show log lines on a terminal; elsewhere they are always written."
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
        *args: Any, config: Path | None, overrides: tuple[str, ...], log_format: Any, verbose: bool, **kwargs: Any
    ) -> Any:
        configure_logs(log_format, verbose=verbose)
        if log_format == "json" and "as_json" in kwargs:  # lines for a program: all of them
            kwargs["as_json"] = True
        settings = load_settings(config, overrides)
        with _demo_suggested(settings):
            return command(settings, *args, **kwargs)

    return with_settings


@contextmanager
def _demo_suggested(settings: Settings) -> Iterator[None]:
    """Where a setting is missing, and the folder has a demo's lake but the settings name none, name the demo's file."""
    try:
        yield
    except ConfigurationError as error:
        if settings.lake.root or not _DEMO_CONFIG.is_file():
            raise
        raise ConfigurationError(f"{error}; for the demo's lake: --config {_DEMO_CONFIG}") from error


def configure_logs(log_format: LogFormat, *, verbose: bool) -> None:
    """Log to standard error; where a person reads it as text, warnings only, unless ``verbose``."""
    quiet = log_format == "text" and not verbose and sys.stderr.isatty()
    configure_logging(log_format, quiet=quiet)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
