"""Every file in deploy/: its commands are taken out and given to our own command line; its contract is looked at.

No scheduler runs here. What stands in a file is read as the scheduler reads it: the expressions of Data Factory and
Fabric, the variables of the bundle, the template of the DAG, the units, and the small part of YAML that we use.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

import dicom_etl
from dicom_etl.cli.main import cli
from dicom_etl.commands.output_metrics import OUTPUT_METRICS
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.core.errors import ConfigurationError, DicomEtlError, UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import format_instant

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAM = "/opt/dicom-etl/bin/dicom-etl"
MINUTES = 60 * 10_000_000

FILES = [
    "airflow/dicom_etl_dags.py",
    "airflow/dicom_etl_task.py",
    "airflow/dicom_etl_windows_dag.py",
    "azure/alerts.bicep",
    "azure/roles.bicep",
    "bin/dicom-etl-cron",
    "bin/dicom-etl-failed",
    "bin/dicom-etl-urgent",
    "container/Containerfile",
    "cron/dicom-etl",
    "cron/logrotate",
    "databricks/databricks.yml",
    "databricks/resources/dicom_etl.job.yml",
    "datafactory/linkedService/AzureSynapseArtifacts.json",
    "datafactory/pipeline/dicom_etl_maintain.json",
    "datafactory/pipeline/dicom_etl_sync.json",
    "datafactory/trigger/dicom_etl_daily.json",
    "datafactory/trigger/dicom_etl_hourly.json",
    "fabric/dicom_etl_maintain.DataPipeline/.schedules",
    "fabric/dicom_etl_maintain.DataPipeline/pipeline-content.json",
    "fabric/dicom_etl_sync.DataPipeline/.schedules",
    "fabric/dicom_etl_sync.DataPipeline/pipeline-content.json",
    "kubernetes/alerts/prometheus-rule.yaml",
    "kubernetes/config.toml",
    "kubernetes/job/cron-job.yaml",
    "kubernetes/job/kustomization.yaml",
    "kubernetes/kustomization.yaml",
    "kubernetes/maintain/kustomization.yaml",
    "kubernetes/maintain/maintain.yaml",
    "kubernetes/push/kustomization.yaml",
    "kubernetes/push/push.py",
    "kubernetes/push/push.yaml",
    "kubernetes/service-account.yaml",
    "kubernetes/sync/kustomization.yaml",
    "kubernetes/sync/sync.yaml",
    "kubernetes/verify/kustomization.yaml",
    "kubernetes/verify/verify.yaml",
    "systemd/certificate.conf",
    "systemd/dicom-etl-failed@.service",
    "systemd/dicom-etl-lag.service",
    "systemd/dicom-etl-lag.timer",
    "systemd/dicom-etl-maintain.service",
    "systemd/dicom-etl-maintain.timer",
    "systemd/dicom-etl-sync.service",
    "systemd/dicom-etl-sync.timer",
    "systemd/dicom-etl-verify.service",
    "systemd/dicom-etl-verify.timer",
]

# The window that a scheduler with windows is asked for in these tests.
START, END = "2026-01-31T07:00:00Z", "2026-01-31T08:00:00Z"
# The template's own (docs/from-data-factory.md: Its nine parameters).
NINE = {
    "BatchSize": 200,
    "ApiVersion": 2,
    "StartTime": "0001-01-01T00:00:00Z",
    "EndTime": "9999-12-31T23:59:59Z",
    "ContainerName": "dicom",
    "InstanceTablePath": "instance",
    "SeriesTablePath": "series",
    "StudyTablePath": "study",
    "RetentionHours": 720,
}
MAINTAIN_FIVE = ["ContainerName", "InstanceTablePath", "SeriesTablePath", "StudyTablePath", "RetentionHours"]
OUR_CODES = {64, 65, 70, 74, 75, 77, 78}


# ---- reading the files ------------------------------------------------------------------------------------------


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def json_of(name: str) -> Any:
    return json.loads(text_of(name))


def yaml_documents(text: str) -> list[Any]:
    """The documents of a YAML text in block style: mappings, lists, scalars, `|` texts, and lists as JSON has them."""
    return [_yaml_block(list(_yaml_lines(part)), 0)[0] for part in re.split(r"^---$", text, flags=re.MULTILINE)]


def _yaml_lines(text: str) -> Iterator[tuple[int, str]]:
    """(indent, content) of each line; a `- ` counts as indent, and a `|` text is one line with its text as JSON."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        if content.endswith(": |"):
            body = list(itertools.takewhile(lambda x: not x.strip() or _indent(x) > indent, lines[at:]))  # noqa: B023
            at += len(body)
            content = content[:-1] + json.dumps(textwrap.dedent("\n".join(body)).strip() + "\n")
        yield indent, content


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _yaml_block(lines: list[tuple[int, str]], indent: int) -> tuple[Any, list[tuple[int, str]]]:
    """The value that begins with the first line, at ``indent``; and the lines after it."""
    if lines[0][1].startswith("- "):
        items = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            inner = lines[0][1][2:]
            if _KEY.match(inner):
                item, lines = _yaml_block([(indent + 2, inner), *lines[1:]], indent + 2)
            else:
                item, lines = _yaml_scalar(inner), lines[1:]
            items.append(item)
        return items, lines
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent and not lines[0][1].startswith("- "):
        key, value = _KEY.match(lines[0][1]).groups()  # type: ignore[union-attr]
        lines = lines[1:]
        assert key not in found, f"{key} stands twice"
        if value:
            found[key] = _yaml_scalar(value)
        else:
            found[key], lines = _yaml_block(lines, lines[0][0])
    assert not lines or lines[0][0] < indent, f"not the YAML that we know: {lines[0]}"
    return found, lines


_KEY = re.compile(r"([A-Za-z0-9_./-]+):(?: +(.*))?$")


def _yaml_scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        assert text[0] not in "'\"[{|>&*!", f"not the YAML that we know: {text}"
        return text


def unit_of(name: str) -> dict[str, str]:
    """The settings of a systemd unit, `Section.Key`; a key that stands twice is refused."""
    found: dict[str, str] = {}
    section = ""
    for line in text_of(name).splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            assert f"{section}.{key}" not in found
            found[f"{section}.{key}"] = value
    return found


def evaluated(value: Any, parameters: dict[str, Any]) -> Any:
    """What Data Factory and Fabric make of a value: expressions are evaluated, all else stays."""
    if not isinstance(value, dict):
        return value
    assert value["type"] == "Expression"
    assert value["value"].startswith("@")
    result, rest = _expression(value["value"][1:], parameters)
    assert rest == "", f"left over: {rest}"
    return result


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "concat": lambda *parts: "".join(parts),
    "string": str,
    "empty": lambda text: text == "",
    "if": lambda condition, yes, no: yes if condition else no,
    "formatDateTime": lambda moment, pattern: {"yyyy-MM-ddTHH:mm:ssZ": moment}[pattern],
}
_OUTPUTS = {"trigger().outputs.windowStartTime": START, "trigger().outputs.windowEndTime": END}


def _expression(text: str, parameters: dict[str, Any]) -> tuple[Any, str]:
    text = text.lstrip()
    if match := re.match(r"'([^']*)'", text):
        return match.group(1), text[match.end() :].lstrip()
    if match := re.match(r"pipeline\(\)\.parameters\.(\w+)", text):
        return parameters[match.group(1)], text[match.end() :].lstrip()
    if match := re.match(r"trigger\(\)\.outputs\.\w+", text):
        return _OUTPUTS[match.group(0)], text[match.end() :].lstrip()
    match = re.match(r"(\w+)\(", text)
    assert match, f"not an expression: {text}"
    values, text = [], text[match.end() :]
    while True:
        value, text = _expression(text, parameters)
        values.append(value)
        if text.startswith(")"):
            return _FUNCTIONS[match.group(1)](*values), text[1:].lstrip()
        assert text.startswith(","), f"neither , nor ) at: {text}"
        text = text[1:]


# ---- the commands of each file ----------------------------------------------------------------------------------


def cron_commands() -> list[list[str]]:
    variables, commands = {}, []
    for line in text_of("cron/dicom-etl").splitlines():
        if match := re.fullmatch(r"([A-Z_]+)=(\S+)", line):
            variables[match.group(1)] = match.group(2)
        elif line and not line.startswith("#"):
            command = line.split(maxsplit=6)[6]
            wrapper, *words = shlex.split(command.replace("$BIN", variables["BIN"]))
            # It gives its words to the program as they are (test_deploy_scripts.py).
            assert wrapper == "/opt/dicom-etl/bin/dicom-etl-cron"
            commands.append([PROGRAM, *words, "--config", variables["DICOM_ETL_CONFIG"]])
    return commands


def systemd_commands() -> list[list[str]]:
    return [shlex.split(unit_of(f"systemd/dicom-etl-{verb}.service")["Service.ExecStart"]) for verb in ALL_VERBS]


def container_commands() -> list[list[str]]:
    text = text_of("container/Containerfile")
    words = [json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)]
    return [words[0] + words[1]]


def kubernetes_commands() -> list[list[str]]:
    entry = container_commands()[0][:1]
    return [entry + container_of(job)["args"] for job in cron_jobs()]


def cron_jobs() -> list[Any]:
    """The three CronJobs, as kustomize makes them of the template and a patch (a test compares with kubectl's)."""
    jobs = []
    for verb in ALL_VERBS:
        (job,) = yaml_documents(text_of("kubernetes/job/cron-job.yaml"))
        (patch,) = yaml_documents(text_of(f"kubernetes/{verb}/{verb}.yaml"))
        patched(job, patch)
        job["metadata"]["name"] += f"-{verb}"
        jobs.append(job)
    return jobs


def patched(value: dict[str, Any], patch: dict[str, Any]) -> None:
    """Kustomize's strategic merge, as far as our patches need it: lists of named things are merged by name."""
    for key, new in patch.items():
        old = value.get(key)
        if isinstance(old, dict):
            patched(old, new)
        elif isinstance(old, list) and isinstance(new[0], dict):
            by_name = {one["name"]: one for one in old}
            for one in new:
                if one["name"] in by_name:
                    patched(by_name[one["name"]], one)
                else:
                    old.append(one)
        else:
            value[key] = new


def container_of(job: Any) -> Any:
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container


def dag_values(name: str) -> dict[str, Any]:
    """The constants at the top of an Airflow file, and the keywords of each DAG, as source."""
    values: dict[str, Any] = {}
    for node in ast.parse(text_of(f"airflow/dicom_etl_{name}.py")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value
        if isinstance(node, ast.With) and isinstance(call := node.items[0].context_expr, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            values[keywords["dag_id"]] = keywords
    return values


def airflow_words(name: str) -> list[str]:
    """The words of SYNC, MAINTAIN or VERIFY."""
    values = dag_values("task")
    assert ast.unparse(values["PROGRAM"]) == f"os.environ.get('DICOM_ETL_PROGRAM', '{PROGRAM}')"
    return shlex.split(ast.unparse(values[name])[2:-1].replace("{PROGRAM}", PROGRAM))


def airflow_commands() -> list[list[str]]:
    return [airflow_words(verb.upper()) for verb in ALL_VERBS]


def airflow_windows_commands() -> list[list[str]]:
    # Jinja's filter ts writes the zone as +00:00.
    moments = {"data_interval_start | ts": START, "data_interval_end | ts": END}
    words = ast.literal_eval(dag_values("windows_dag")["WINDOW"])
    words = re.sub(r"\{\{ (.+?) \}\}", lambda found: moments[found.group(1)].replace("Z", "+00:00"), words)
    return [airflow_words("SYNC") + shlex.split(words)]


def activity_of(name: str) -> Any:
    (activity,) = json_of(name)["properties"]["activities"]
    return activity


def datafactory_commands() -> list[list[str]]:
    commands = []
    for verb, trigger in (("sync", "hourly"), ("maintain", "daily")):
        given = json_of(f"datafactory/trigger/dicom_etl_{trigger}.json")["properties"]
        reference = given["pipeline"] if verb == "sync" else given["pipelines"][0]
        assert reference["pipelineReference"]["referenceName"] == f"dicom_etl_{verb}"
        parameters = {key: evaluated(value, {}) for key, value in reference["parameters"].items()}
        words = activity_of(f"datafactory/pipeline/dicom_etl_{verb}.json")["typeProperties"]["args"]
        commands.append([f"{verb}.py", *(evaluated(word, parameters) for word in words)])
    return commands


def fabric_commands(**given: Any) -> list[list[str]]:
    commands = []
    for verb in VERBS:
        name = f"fabric/dicom_etl_{verb}.DataPipeline/pipeline-content.json"
        defaults = {key: value["defaultValue"] for key, value in json_of(name)["properties"]["parameters"].items()}
        words = activity_of(name)["typeProperties"]["commandLineArguments"]
        commands.append([f"{verb}.py", *shlex.split(evaluated(words, defaults | given))])
    return commands


def databricks_jobs() -> dict[str, Any]:
    (document,) = yaml_documents(text_of("databricks/resources/dicom_etl.job.yml"))
    return document["resources"]["jobs"]  # type: ignore[no-any-return]


def databricks_commands() -> list[list[str]]:
    (bundle,) = yaml_documents(text_of("databricks/databricks.yml"))
    variables = {f"${{var.{name}}}": value["default"] for name, value in bundle["variables"].items()}
    commands = []
    for job in databricks_jobs().values():
        task = job["tasks"][0]["spark_python_task"]
        words = [re.sub(r"\$\{.*?\}", lambda found: variables[found.group(0)], word) for word in task["parameters"]]
        commands.append([Path(task["python_file"]).name, *words])
    return commands


VERBS = ("sync", "maintain")
# A Spark cluster has no job for verify: it runs from any machine that has dicom-etl.
ALL_VERBS = (*VERBS, "verify")
WITH_VERIFY = {"cron", "systemd", "kubernetes", "airflow"}
COMMANDS: dict[str, Callable[[], list[list[str]]]] = {
    "cron": cron_commands,
    "systemd": systemd_commands,
    "container": container_commands,
    "kubernetes": kubernetes_commands,
    "airflow": airflow_commands,
    "airflow windows": airflow_windows_commands,
    "datafactory": datafactory_commands,
    "fabric": fabric_commands,
    "databricks": databricks_commands,
}
HAVE_WINDOWS = {"airflow windows", "datafactory"}


# ---- our own command line reads them ----------------------------------------------------------------------------


class Read(Exception):
    """What a command would have done, raised in place of doing it."""

    def __init__(self, verb: str, settings: Settings, request: SyncRequest | None) -> None:
        super().__init__(verb)
        self.verb, self.settings, self.request = verb, settings, request


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[str]], Read]:
    """Give a command to the command line it is for, and get what it understood; nothing runs."""
    config = tmp_path / "config.toml"
    config.write_text(text_of("kubernetes/config.toml"), encoding="utf-8")

    def sync(settings: Settings, request: SyncRequest, **_others: Any) -> Any:
        raise Read("sync", settings, request)

    def maintain(settings: Settings, **_others: Any) -> Any:
        raise Read("maintain", settings, None)

    def verify(settings: Settings, **_others: Any) -> Any:
        raise Read("verify", settings, None)

    def planned_sync(settings: Settings, request: SyncRequest) -> Any:
        raise Read("sync --dry-run", settings, request)

    def planned_maintain(settings: Settings) -> Any:
        raise Read("maintain --dry-run", settings, None)

    monkeypatch.setattr("dicom_etl.commands.sync.sync", sync)
    monkeypatch.setattr("dicom_etl.commands.sync.planned", planned_sync)
    monkeypatch.setattr("dicom_etl.commands.maintain.maintain", maintain)
    monkeypatch.setattr("dicom_etl.commands.maintain.planned", planned_maintain)
    monkeypatch.setattr("dicom_etl.commands.verify.verify.verify", verify)
    for module in ("cli.options", "cli.jobs"):
        monkeypatch.setattr(f"dicom_etl.{module}.configure_logging", lambda *_, **__: None)

    def start(program: str, words: list[str]) -> None:
        if program == PROGRAM:
            cli.main(words, standalone_mode=False)
        else:
            monkeypatch.setattr(sys, "argv", [program, *words])
            job(program).main()

    def reader(command: list[str]) -> Read:
        program, *words = command
        # The file of the target machine: here it is the config map's.
        words = [str(config) if word == "/etc/dicom-etl/config.toml" else word for word in words]
        with pytest.raises(Read) as caught:
            start(program, words)
        return caught.value

    return reader


def job(name: str) -> Any:
    """The module jobs/NAME, with a session that starts nothing."""
    spec = importlib.util.spec_from_file_location(f"job_{name.removesuffix('.py')}", ROOT / "jobs" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.job_session = lambda: None  # type: ignore[attr-defined]
    return module


def test_deploy_holds_exactly_the_files_that_are_looked_at() -> None:
    found = sorted(
        str(path.relative_to(DEPLOY))
        for path in DEPLOY.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert found == FILES


def test_every_scheduler_runs_sync_and_maintain_but_a_container_and_the_optional_dag_run_one() -> None:
    """Those of our own installation run verify, too."""
    counts = {scheduler: len(commands()) for scheduler, commands in COMMANDS.items()}
    expected = dict.fromkeys(COMMANDS, 2) | dict.fromkeys(WITH_VERIFY, 3)
    assert counts == expected | {"container": 1, "airflow windows": 1}


@pytest.mark.parametrize("scheduler", COMMANDS)
def test_our_command_line_reads_every_command(scheduler: str, read: Callable[[list[str]], Read]) -> None:
    """The verb is the right one, the lake and the service are named, and the log is JSON."""
    commands = COMMANDS[scheduler]()
    understood = [read(command) for command in commands]
    assert [found.verb for found in understood] == list(ALL_VERBS)[: len(commands)]
    for command, found in zip(commands, understood, strict=True):
        assert command[command.index("--log-format") + 1] == "json"
        assert found.settings.dicom.base_url == "https://myworkspace-mydicom.dicom.azurehealthcareapis.com"
        assert found.settings.dicom.auth == "azure"
        assert found.settings.lake.root.startswith("abfss://dicom@myaccount.dfs.core.windows.net/")
        assert found.settings.lake.private_root.startswith("abfss://dicom-private@myaccount.dfs.core.windows.net/")
        assert found.settings.feed.window == 60 * MINUTES
        assert found.settings.feed.delay == 15 * MINUTES


@pytest.mark.parametrize("scheduler", COMMANDS)
def test_every_command_can_be_tried_without_doing_anything(scheduler: str, read: Callable[[list[str]], Read]) -> None:
    """--dry-run after it is the whole difference: settings and window are understood alike."""
    # verify changes nothing, and has no --dry-run.
    for command in COMMANDS[scheduler]()[:2]:
        real, tried = read(command), read([*command, "--dry-run"])
        assert tried.verb == f"{real.verb} --dry-run"
        assert (tried.settings, tried.request) == (real.settings, real.request)


@pytest.mark.parametrize("scheduler", COMMANDS)
def test_a_scheduler_with_windows_passes_them_and_any_other_leaves_them_to_sync(
    scheduler: str, read: Callable[[list[str]], Read]
) -> None:
    request = read(COMMANDS[scheduler]()[0]).request
    if scheduler in HAVE_WINDOWS:
        assert request is not None
        assert request.exactly is not None
        assert (format_instant(request.exactly.start), format_instant(request.exactly.end)) == (START, END)
    else:
        assert request == SyncRequest()


@pytest.mark.parametrize("scheduler", COMMANDS)
def test_no_schedule_makes_a_lake(scheduler: str, read: Callable[[list[str]], Read]) -> None:
    """Else one whose storage is not mounted would fill a new one; a first run by hand has one word more."""
    command = COMMANDS[scheduler]()[0]
    by_schedule, by_hand = read(command).request, read([*command, "--init"]).request
    assert by_schedule is not None
    assert (by_schedule.init, by_hand) == (False, replace(by_schedule, init=True))


@pytest.mark.parametrize("scheduler", COMMANDS)
@pytest.mark.parametrize("change", [("--log-format", "--log-fromat"), ("json", "jsn")])
def test_a_misspelt_option_or_value_is_caught(
    scheduler: str, change: tuple[str, str], read: Callable[[list[str]], Read]
) -> None:
    command = [change[1] if word == change[0] else word for word in COMMANDS[scheduler]()[0]]
    assert change[1] in command
    with pytest.raises((click.UsageError, UsageError), match=change[1]):
        read(command)


@pytest.mark.parametrize("scheduler", ["datafactory", "fabric", "databricks"])
def test_a_misspelt_setting_is_caught(scheduler: str, read: Callable[[list[str]], Read]) -> None:
    command = [word.replace("lake.root=", "lake.rot=") for word in COMMANDS[scheduler]()[0]]
    with pytest.raises(ConfigurationError, match=r"lake\.rot: unknown setting; did you mean lake\.root"):
        read(command)


# ---- Data Factory and Fabric ------------------------------------------------------------------------------------


def test_the_hourly_trigger_of_data_factory_keeps_the_contract() -> None:
    trigger = json_of("datafactory/trigger/dicom_etl_hourly.json")["properties"]
    kept = trigger["typeProperties"]
    assert trigger["type"] == "TumblingWindowTrigger"
    assert (kept["frequency"], kept["interval"]) == ("Hour", 1)
    assert (kept["delay"], kept["maxConcurrency"]) == ("00:15:00", 1)
    # Three hours, as in Airflow: a window must not be given up while maintenance is at work.
    assert kept["retryPolicy"] == {"count": 18, "intervalInSeconds": 600}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00Z", kept["startTime"])
    assert json_of("datafactory/pipeline/dicom_etl_sync.json")["properties"]["concurrency"] == 1


@pytest.mark.parametrize(
    ("pipeline", "activity", "end"),
    [
        ("datafactory/pipeline/dicom_etl_sync.json", "SparkJob", NINE["EndTime"]),
        # Without an end, every window that is due is read: Fabric's schedule has no windows.
        ("fabric/dicom_etl_sync.DataPipeline/pipeline-content.json", "SparkJobDefinition", ""),
    ],
)
def test_a_pipeline_has_the_templates_nine_parameters_by_name(pipeline: str, activity: str, end: str) -> None:
    parameters = json_of(pipeline)["properties"]["parameters"]
    assert {name: value["defaultValue"] for name, value in parameters.items()} == NINE | {"EndTime": end}
    types = {name: {str: "string", int: "int"}[type(value)] for name, value in NINE.items()}
    assert {name: value["type"] for name, value in parameters.items()} == types
    assert activity_of(pipeline)["type"] == activity


def test_the_trigger_gives_a_value_for_each_of_the_nine() -> None:
    given = json_of("datafactory/trigger/dicom_etl_hourly.json")["properties"]["pipeline"]["parameters"]
    assert sorted(given) == sorted(NINE)
    daily = json_of("datafactory/trigger/dicom_etl_daily.json")["properties"]["pipelines"][0]["parameters"]
    assert list(daily) == MAINTAIN_FIVE


def test_each_of_the_nine_reaches_the_setting_it_stands_for(read: Callable[[list[str]], Read]) -> None:
    given: dict[str, Any] = {
        "BatchSize": 50,
        "ApiVersion": 2,
        "StartTime": START,
        "EndTime": END,
        "ContainerName": "other",
        "InstanceTablePath": "a/instance",
        "SeriesTablePath": "b/series",
        "StudyTablePath": "c/study",
        "RetentionHours": 200,
    }
    words = activity_of("datafactory/pipeline/dicom_etl_sync.json")["typeProperties"]["args"]
    factory = read(["sync.py", *(evaluated(word, given) for word in words)])
    fabric = read(fabric_commands(**given)[0])
    for found in (factory, fabric):
        settings = found.settings
        assert (settings.feed.batch_size, settings.dicom.api_version) == (50, 2)
        assert settings.lake.root == "abfss://other@myaccount.dfs.core.windows.net/"
        assert (settings.lake.instance_path, settings.lake.series_path) == ("a/instance", "b/series")
        assert (settings.lake.study_path, settings.maintenance.retention_hours) == ("c/study", 200)
    assert factory.request is not None
    assert factory.request.exactly is not None
    assert format_instant(factory.request.exactly.start) == START
    assert fabric.request is not None
    assert fabric.request.until == factory.request.exactly.end
    assert format_instant(fabric.settings.feed.start) == START


def test_a_parameter_that_the_pipeline_does_not_have_is_caught() -> None:
    with pytest.raises(KeyError, match="BatchSise"):
        evaluated({"value": "@string(pipeline().parameters.BatchSise)", "type": "Expression"}, NINE)


def test_an_api_version_without_a_feed_by_time_is_refused(read: Callable[[list[str]], Read]) -> None:
    with pytest.raises(ConfigurationError, match=r"dicom\.api_version: expected 2"):
        read(fabric_commands(ApiVersion=1)[0])


def test_fabric_runs_hourly_one_at_a_time_with_bounded_retries() -> None:
    (schedule,) = json_of("fabric/dicom_etl_sync.DataPipeline/.schedules")["schedules"]
    configuration = schedule["configuration"]
    assert (configuration["type"], configuration["interval"]) == ("Cron", 60)
    assert configuration["startDateTime"].endswith("T00:20:00")
    assert configuration["localTimeZoneId"] == "UTC"
    for verb in VERBS:
        name = f"fabric/dicom_etl_{verb}.DataPipeline/pipeline-content.json"
        assert json_of(name)["properties"]["concurrency"] == 1
        assert activity_of(name)["policy"]["retry"] == 4


def test_the_linked_service_carries_no_secret() -> None:
    linked = json_of("datafactory/linkedService/AzureSynapseArtifacts.json")
    assert linked["properties"]["typeProperties"]["authentication"] == "MSI"
    for verb in VERBS:
        reference = activity_of(f"datafactory/pipeline/dicom_etl_{verb}.json")["linkedServiceName"]
        assert reference["referenceName"] == linked["name"]


# ---- Kubernetes, Databricks, Airflow, cron ----------------------------------------------------------------------


def test_the_cron_jobs_forbid_overlap_and_retry_what_waiting_mends() -> None:
    jobs = cron_jobs()
    assert [job["metadata"]["name"] for job in jobs] == ["dicom-etl-sync", "dicom-etl-maintain", "dicom-etl-verify"]
    assert [job["spec"]["schedule"] for job in jobs] == ["20 * * * *", "5 3 * * *", "50 4 * * 0"]
    for cron_job in jobs:
        spec = cron_job["spec"]
        assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
        inner = spec["jobTemplate"]["spec"]
        ignored, failed = inner["podFailurePolicy"]["rules"]
        assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert (failed["action"], failed["onExitCodes"]["operator"]) == ("FailJob", "NotIn")
        assert failed["onExitCodes"]["values"] == [74, 75]
        assert failed["onExitCodes"]["containerName"] == container_of(cron_job)["name"]
        # Kubernetes takes a podFailurePolicy only with Never.
        assert inner["template"]["spec"]["restartPolicy"] == "Never"


def test_the_cron_jobs_wait_longer_than_the_longest_sync() -> None:
    """Kubernetes doubles the pause between tries from 10 s to 6 minutes (its documents) or 10 (its code)."""
    for cron_job in cron_jobs():
        inner = cron_job["spec"]["jobTemplate"]["spec"]
        one_run, all_tries = inner["template"]["spec"]["activeDeadlineSeconds"], inner["activeDeadlineSeconds"]
        pauses = [min(10 * 2**n, 360) for n in range(inner["backoffLimit"])]
        assert (one_run, all_tries) == (12 * 3600, 20 * 3600)
        assert sum(pauses) > all_tries
    # The broken twin: four retries, as it was, are over after 150 s.
    assert sum(min(10 * 2**n, 360) for n in range(4)) == 150


def test_every_exit_code_of_ours_has_one_urgency() -> None:
    """Kubernetes tells only what is retried; the two scripts name the rest."""
    classes = [DicomEtlError]
    for each in classes:
        classes += each.__subclasses__()
    assert {each.exit_code for each in classes if each.__module__ == "dicom_etl.core.errors"} == OUR_CODES
    urgent = {64, 65, 70, 77, 78}
    page = (ROOT / "docs/be-woken.md").read_text(encoding="utf-8")
    by_lag, at_once = (re.search(rf"^\| {words} \|(.+?)\|", page, re.MULTILINE) for words in ("by lag", "at the first"))
    assert by_lag is not None
    assert at_once is not None
    assert set(map(int, re.findall(r"\b\d\d\b", by_lag.group(1)))) == OUR_CODES - urgent
    assert set(map(int, re.findall(r"\b\d\d\b", at_once.group(1)))) == urgent
    # The other pages have no table of their own; the rule is one.
    for name in ("runbook", "operations", "exit-codes"):
        assert "be-woken.md#how-urgent-is-it" in (ROOT / f"docs/{name}.md").read_text(encoding="utf-8"), name


def test_the_pods_use_workload_identity() -> None:
    (account,) = yaml_documents(text_of("kubernetes/service-account.yaml"))
    assert "azure.workload.identity/client-id" in account["metadata"]["annotations"]
    assert tomllib.loads(text_of("kubernetes/config.toml"))["dicom"]["auth"] == "azure"
    for cron_job in cron_jobs():
        template = cron_job["spec"]["jobTemplate"]["spec"]["template"]
        assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
        assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_the_pods_write_into_their_scratch_only() -> None:
    """No user of the machine, no right to become one, nothing to write but /tmp."""
    for cron_job in cron_jobs():
        pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        container = container_of(cron_job)
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert [one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")] == ["/tmp"]


def test_the_bundle_runs_hourly_one_at_a_time_with_bounded_retries() -> None:
    jobs = databricks_jobs()
    assert list(jobs) == ["dicom_etl_sync", "dicom_etl_maintain"]
    crons = [job["schedule"]["quartz_cron_expression"] for job in jobs.values()]
    assert crons == ["0 20 * * * ?", "0 5 3 * * ?"]
    for databricks_job in jobs.values():
        assert databricks_job["max_concurrent_runs"] == 1
        assert databricks_job["schedule"]["timezone_id"] == "UTC"
        # As the triggers of Data Factory and the schedules of Fabric: nothing runs before the lake is made.
        assert databricks_job["schedule"]["pause_status"] == "${var.schedules}"
        assert databricks_job["email_notifications"] == {"on_failure": ["${var.on_call}"]}
        (task,) = databricks_job["tasks"]
        assert (task["max_retries"], task["min_retry_interval_millis"]) == (4, 600_000)
        script = DEPLOY / "databricks/resources" / task["spark_python_task"]["python_file"]
        assert script.resolve().is_relative_to(ROOT / "jobs")
        assert script.is_file()


def test_what_a_cloud_schedules_comes_stopped() -> None:
    (bundle,) = yaml_documents(text_of("databricks/databricks.yml"))
    assert bundle["variables"]["schedules"]["default"] == "PAUSED"
    triggers = [json_of(f"datafactory/trigger/dicom_etl_{name}.json") for name in ("hourly", "daily")]
    assert {trigger["properties"]["runtimeState"] for trigger in triggers} == {"Stopped"}
    schedules = [json_of(f"fabric/dicom_etl_{verb}.DataPipeline/.schedules")["schedules"] for verb in VERBS]
    assert [one["enabled"] for (one,) in schedules] == [False, False]


def test_a_pods_last_lines_are_its_reason() -> None:
    assert {container_of(job)["terminationMessagePolicy"] for job in cron_jobs()} == {"FallbackToLogsOnError"}


def test_the_image_is_a_version() -> None:
    """The package's own; a tag that moves would change what runs between two hours."""
    (found,) = yaml_documents(text_of("kubernetes/kustomization.yaml"))
    assert [(image["name"], image["newTag"]) for image in found["images"]] == [("dicom-etl", dicom_etl.__version__)]
    assert {container_of(job)["image"] for job in cron_jobs()} == {"dicom-etl"}


def test_kubectl_makes_of_the_template_what_these_tests_look_at() -> None:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl on this machine")
    made = subprocess.run([program, "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True)
    account, config_map, *jobs = yaml_documents(made.stdout)
    assert (account["kind"], config_map["kind"]) == ("ServiceAccount", "ConfigMap")
    assert config_map["data"]["config.toml"] == text_of("kubernetes/config.toml")
    expected = {job["metadata"]["name"]: job for job in cron_jobs()}
    assert sorted(job["metadata"]["name"] for job in jobs) == sorted(expected)
    for job in jobs:
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert container_of(job).pop("image") == f"myregistry.azurecr.io/dicom-etl:{dicom_etl.__version__}"
        container_of(expected[job["metadata"]["name"]]).pop("image")
        # A change of the settings makes a new name.
        assert pod["volumes"][0]["configMap"].pop("name") == config_map["metadata"]["name"]
        expected[job["metadata"]["name"]]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"][0][
            "configMap"
        ].pop("name")
        assert job == expected[job["metadata"]["name"]]


def test_the_default_dags_leave_the_windows_to_sync() -> None:
    """Nothing is caught up run by run, so a failed hour is read by the next run and a first day makes one run."""
    values = dag_values("dags")
    sync, maintain, verify = (values[f"'dicom_etl{name}'"] for name in ("", "_maintain", "_verify"))
    assert sync["schedule"] == "CronTriggerTimetable('20 * * * *', timezone='UTC')"
    assert maintain["schedule"] == "CronTriggerTimetable('5 3 * * *', timezone='UTC')"
    assert verify["schedule"] == "CronTriggerTimetable('50 4 * * 0', timezone='UTC')"
    assert {(dag["catchup"], dag["max_active_runs"]) for dag in (sync, maintain, verify)} == {("False", "1")}
    shared = dag_values("task")
    assert ast.literal_eval(shared["WORTH_TRYING_AGAIN"]) == (74, 75, 130, 143)
    # No SIGKILL: what was killed wakes a person at the first, as everywhere.
    assert ast.unparse(shared["SIGNALS"]) == "(-signal.SIGINT, -signal.SIGTERM)"
    assert "'execution_timeout': timedelta(hours=12)" in ast.unparse(shared["COMMON"])
    # Ten minutes apart: three hours of lag, and longer than the longest sync.
    assert "'retry_delay': timedelta(minutes=10)" in ast.unparse(shared["COMMON"])
    assert (ast.literal_eval(shared["SYNC_RETRIES"]), ast.literal_eval(shared["MAINTAIN_RETRIES"])) == (18, 80)


def test_the_optional_dag_has_windows_in_order_and_a_start_that_somebody_chose() -> None:
    windows = dag_values("windows_dag")["'dicom_etl_windows'"]
    assert windows["schedule"] == "CronDataIntervalTimetable('@hourly', timezone='UTC')"
    assert windows["start_date"] == "datetime.fromisoformat(Variable.get('dicom_etl_windows_start'))"
    assert (windows["catchup"], windows["max_active_runs"]) == ("True", "1")
    assert "'depends_on_past': True" in windows["default_args"]
    assert "TimeDeltaSensor(task_id='delay', delta=timedelta(minutes=15)" in ast.unparse(
        ast.parse(text_of("airflow/dicom_etl_windows_dag.py"))
    )


def test_cron_runs_hourly_when_a_window_has_been_over_for_15_minutes() -> None:
    entries = [line for line in text_of("cron/dicom-etl").splitlines() if re.match(r"[\d*]", line)]
    assert [entry.split()[:6] for entry in entries] == [
        ["20", "*", "*", "*", "*", "dicom-etl"],
        ["5", "3", "*", "*", "*", "dicom-etl"],
        ["50", "4", "*", "*", "0", "dicom-etl"],
    ]
    # cron reads an unescaped % as the end of the command.
    assert "%" not in "".join(entries)


def test_the_image_is_built_from_files_that_exist() -> None:
    text = text_of("container/Containerfile")
    copied = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert len(copied) == 9
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # setuptools reads these two when it builds the package.
    assert {"README.md", "LICENSE"} <= set(copied)


# ---- systemd ----------------------------------------------------------------------------------------------------


def gives_up(interval: float, burst: int, pause: float, run: float) -> bool:
    """Whether systemd refuses one of 100 starts, in minutes: more than ``burst`` in one ``interval``, which is counted
    from its first start and begins again with the first start behind it (src/basic/ratelimit.c); 0 is no limit.
    """
    begun, count = 0.0, 0
    for start in (n * (run + pause) for n in range(100)):
        if start - begun >= interval:
            begun, count = start, 0
        count += 1
        if interval and count > burst:
            return True
    return False


@pytest.mark.parametrize("run", [0.5, 6, 30, 12 * 60])
@pytest.mark.parametrize(("verb", "pause"), [("sync", "5min"), ("maintain", "20min"), ("verify", "20min")])
def test_a_unit_tries_75_again_and_nothing_else_however_long_a_run_takes(verb: str, pause: str, run: float) -> None:
    """So what 75 means is told by the lag alone, and not by how many starts fit into an interval."""
    unit = unit_of(f"systemd/dicom-etl-{verb}.service")
    assert (unit["Service.Restart"], unit["Service.RestartForceExitStatus"]) == ("no", "75")
    assert unit["Service.RestartSec"] == pause
    assert "Unit.StartLimitBurst" not in unit
    assert not gives_up(float(unit["Unit.StartLimitIntervalSec"]), 5, int(pause.removesuffix("min")), run)


def test_a_limit_of_starts_depends_on_how_long_a_run_takes() -> None:
    """The broken twins: five starts in 50 minutes, and 40 in 15 hours, were never met by runs of 6 minutes."""
    assert [gives_up(50, 5, 5, run) for run in (0.5, 6)] == [True, False]
    assert [gives_up(900, 40, 20, run) for run in (0.5, 6)] == [True, False]


def test_the_lag_is_looked_at_every_hour_whatever_the_runs_do() -> None:
    """By a unit of its own, which no run holds up: a person is told an hour after the limit at the latest."""
    unit, timer = unit_of("systemd/dicom-etl-lag.service"), unit_of("systemd/dicom-etl-lag.timer")
    assert timer["Timer.OnCalendar"] == "*-*-* *:50:00 UTC"
    program, *words = shlex.split(unit["Service.ExecStart"])
    assert (program, words) == (PROGRAM, ["status", "--config", "/etc/dicom-etl/config.toml", "--max-lag", "3h"])
    status = cli.commands["status"]
    assert status.make_context("status", [*words[1:2], __file__, *words[3:]]).params["max_lag"] == "3h"
    # A status that is out of reach fails, too, and one that hangs is ended.
    assert unit["Unit.OnFailure"] == "dicom-etl-failed@%n.service"
    assert (unit["Service.Type"], unit["Service.TimeoutStartSec"]) == ("oneshot", "10min")
    assert not {"Service.Restart", "Service.SuccessExitStatus"} & set(unit)


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_a_unit_wakes_somebody_has_a_limit_and_carries_no_secret(verb: str) -> None:
    unit = unit_of(f"systemd/dicom-etl-{verb}.service")
    assert unit["Unit.OnFailure"] == "dicom-etl-failed@%n.service"
    assert unit["Service.RuntimeMaxSec"] == "12h"
    # RuntimeMaxSec= has no effect in a oneshot.
    assert unit["Service.Type"] == "exec"
    assert unit["Service.EnvironmentFile"] == "-/etc/dicom-etl/env"
    assert [key for key in unit if key.startswith("Service.Environment")] == ["Service.EnvironmentFile"]
    assert unit["Service.StateDirectory"] == "dicom-etl"
    handler = unit_of("systemd/dicom-etl-failed@.service")
    assert handler["Service.ExecStart"] == "/opt/dicom-etl/bin/dicom-etl-failed %i"


def test_the_timers_fire_hourly_daily_and_weekly_and_make_up_for_a_machine_that_was_off() -> None:
    times = [unit_of(f"systemd/dicom-etl-{verb}.timer")["Timer.OnCalendar"] for verb in ALL_VERBS]
    assert times == ["*-*-* *:20:00 UTC", "*-*-* 03:05:00 UTC", "Sun *-*-* 04:50:00 UTC"]
    assert {unit_of(f"systemd/dicom-etl-{verb}.timer")["Timer.Persistent"] for verb in ALL_VERBS} == {"true"}


def verified_by_systemd(folder: Path, change: Callable[[str], str]) -> subprocess.CompletedProcess[str]:
    """systemd-analyze verify of all units, with a program that exists on this machine."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    names = []
    for path in sorted((DEPLOY / "systemd").iterdir()):
        text = path.read_text(encoding="utf-8").replace(f"{PROGRAM} ", f"{sys.executable} ")
        text = text.replace("/opt/dicom-etl/bin", str(DEPLOY / "bin"))
        if path.suffix == ".conf":
            place = folder / "dicom-etl-sync.service.d" / path.name
            place.parent.mkdir()
        else:
            place = folder / path.name
            names.append(str(place))
        place.write_text(change(text), encoding="utf-8")
    return subprocess.run([program, "verify", "--man=no", *names], capture_output=True, text=True, check=False)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    done = verified_by_systemd(tmp_path, lambda text: text)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 10
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("*:20:00 UTC", "*:99:00 UTC", "Failed to parse calendar specification"),
        ("StartLimitInterval", "StartLimitIntreval", "'StartLimitIntrevalSec'"),
        ("Type=exec", "Type=exce", "Failed to parse service type"),
        ("LoadCredential", "LoadCredentail", "'LoadCredentail'"),
    ],
)
def test_systemd_complains_of_a_unit_that_is_wrong(right: str, wrong: str, complaint: str, tmp_path: Path) -> None:
    done = verified_by_systemd(tmp_path, lambda text: text.replace(right, wrong))
    assert complaint in done.stderr


# ---- Bicep ------------------------------------------------------------------------------------------------------

ROLES = {
    "dicomDataReader": "e89c7a3c-2f64-4fa1-a847-3e4c9ba4283a",
    "fhirDataContributor": "5a1fc7df-4bf1-4951-a576-89034ee01acd",
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "storageBlobDataReader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
}
# (scope, principal, role): the least that is needed, and nothing beside it.
ASSIGNED = {
    ("dicom", "writerPrincipalId", "dicomDataReader"),
    ("fhir", "writerPrincipalId", "fhirDataContributor"),
    ("sharedContainer", "writerPrincipalId", "storageBlobDataContributor"),
    ("privateContainer", "writerPrincipalId", "storageBlobDataContributor"),
    ("sharedContainer", "researchersGroupId", "storageBlobDataReader"),
}


def assignments(text: str) -> list[tuple[str, str, str]]:
    """(scope, principal, role) of each role assignment in a Bicep text."""
    blocks = re.findall(
        r"^resource \w+ 'Microsoft\.Authorization/roleAssignments@.+?^\}", text, re.MULTILINE | re.DOTALL
    )
    found = []
    for block in blocks:
        fields = dict(re.findall(r"^ +(scope|principalId|roleDefinitionId|name): (.+)$", block, re.MULTILINE))
        scope, principal, role = fields["scope"], fields["principalId"], fields["roleDefinitionId"]
        assert fields["name"] == f"guid({scope}.id, {principal}, {role})"
        found.append((scope, principal, role))
    return found


def test_the_roles_are_the_least_and_on_the_least_scopes() -> None:
    text = text_of("azure/roles.bicep")
    assert dict(re.findall(r"var (\w+) = subscriptionResourceId\(\s+'[\w./]+',\s+'([0-9a-f-]+)'", text)) == ROLES
    found = assignments(text)
    assert len(found) == 5
    assert set(found) == ASSIGNED


def test_a_role_on_the_wrong_container_is_caught() -> None:
    """Researchers who could read whole headers would be seen."""
    text = text_of("azure/roles.bicep")
    at = text.index("resource researchersReadShared")
    wrong = text[:at] + text[at:].replace("sharedContainer", "privateContainer")
    assert set(assignments(wrong)) - ASSIGNED == {("privateContainer", "researchersGroupId", "storageBlobDataReader")}


# ---- who is woken, and the one layout ---------------------------------------------------------------------------


def test_the_alerts_in_azure_name_the_pipelines_that_are_there() -> None:
    text = text_of("azure/alerts.bicep")
    assert re.findall(r"^ +'(dicom_etl_\w+)'$", text, re.MULTILINE) == ["dicom_etl_maintain"]
    assert re.findall(r'PipelineName == "(\w+)"', text) == ["dicom_etl_sync", "dicom_etl_sync", "dicom_etl_maintain"]
    for verb in VERBS:
        assert json_of(f"datafactory/pipeline/dicom_etl_{verb}.json")["name"] == f"dicom_etl_{verb}"
    # The metric alert and the three queries tell the same people.
    assert text.count("onCall.id") == 4


def test_the_alerts_on_sync_in_azure_are_by_time_and_not_by_a_number_of_failures() -> None:
    """How many failures an hour has depends on how long a run takes, and maintenance makes some each night."""
    text = text_of("azure/alerts.bicep")
    (window,) = re.findall(r"query: '(.+ by Window .+)'", text)
    assert "extend Window = tostring(parse_json(Parameters).StartTime)" in window
    assert window.endswith("where Failed > 0 and Succeeded == 0 and First < ago(3h)")
    # The name of the window's parameter, as the trigger gives it.
    trigger = json_of("datafactory/trigger/dicom_etl_hourly.json")["properties"]
    assert "StartTime" in trigger["pipeline"]["parameters"]
    # A window is tried for as long as nobody is told.
    retries = trigger["typeProperties"]["retryPolicy"]
    assert retries["count"] * retries["intervalInSeconds"] == 3 * 3600
    windows = re.findall(r"windowSize: '(\w+)'", text)
    assert windows == ["PT1H", "PT3H", "P2D", "P2D"]


def test_the_alerts_in_kubernetes_name_the_cron_jobs_that_are_there() -> None:
    (rule,) = yaml_documents(text_of("kubernetes/alerts/prometheus-rule.yaml"))
    (group,) = rule["spec"]["groups"]
    expressions = {one["alert"]: one["expr"] for one in group["rules"]}
    assert sorted(expressions) == [
        "DicomJobFailed", "DicomMaintainBehind", "DicomMaintainNeverSucceeded", "DicomOutputBehind",
        "DicomOutputFails", "DicomSyncBehind", "DicomSyncNeverSucceeded", "DicomVerifyFailed",
    ]  # fmt: skip
    names = {job["metadata"]["name"] for job in cron_jobs()}
    assert {name for text in expressions.values() for name in re.findall(r'cronjob="(.+?)"', text)} == {
        "dicom-etl-sync", "dicom-etl-maintain",
    }  # fmt: skip
    urgent, weekly = (re.findall(r'job_name=~"(.+?)"', expressions[f"Dicom{x}Failed"])[0] for x in ("Job", "Verify"))
    matched = {name: [bool(re.fullmatch(one, f"{name}-29334200")) for one in (urgent, weekly)] for name in names}
    assert matched == {
        "dicom-etl-sync": [True, False], "dicom-etl-maintain": [True, False], "dicom-etl-verify": [False, True],
    }  # fmt: skip
    by_ours = set(re.findall(r"dicom_etl_\w+", "".join(expressions.values())))
    assert by_ours == {metric.name for metric in OUTPUT_METRICS}
    waiting = [one for one in group["rules"] if "Verify" in one["alert"] or "Output" in one["alert"]]
    assert [one["labels"]["severity"] for one in waiting] == ["warning"] * 3


def test_one_layout_stands_in_every_file() -> None:
    """/etc/dicom-etl, /opt/dicom-etl, /var/lib/dicom-etl, /var/log/dicom-etl, and nothing beside them."""
    ours = r"/(?:etc|opt|var/lib|var/log)/dicom-etl(?![\w.-])"
    allowed = rf"{ours}|/etc/(?:cron|logrotate)\.d/dicom-etl|/etc/systemd/system/"
    places = r"/(?:etc|opt|var)/(?!lib/apt)[\w./-]*"
    found = {name: re.findall(places, text_of(name)) for name in FILES}
    assert sum(map(len, found.values())) > 40
    assert {name: odd for name, paths in found.items() if (odd := [p for p in paths if not re.match(allowed, p)])} == {}
    # The broken twin.
    assert not re.match(allowed, "/etc/dicom-etl.toml")


def test_the_logs_of_cron_are_rotated() -> None:
    assert "/var/log/dicom-etl/*.log {" in text_of("cron/logrotate")
    assert "log=${DICOM_ETL_LOGS:-/var/log/dicom-etl}/$1.log" in text_of("bin/dicom-etl-cron")


# ---- the reader of YAML -----------------------------------------------------------------------------------------


def test_the_reader_of_yaml_refuses_what_it_does_not_know() -> None:
    assert yaml_documents('a: 1\nb:\n  - c: "x"\n    d: [1, 2]\n  - e\n---\nf: |\n  g\n    h\n') == [
        {"a": 1, "b": [{"c": "x", "d": [1, 2]}, "e"]},
        {"f": "g\n  h\n"},
    ]
    for odd in ("a: {b: c}", "a: 'b'", "a: 1\na: 2", "a:\n    b: 1\n  c: 2"):
        with pytest.raises(AssertionError):
            yaml_documents(odd)
