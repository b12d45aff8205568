"""Settings: four layers, one file, every wrong key at once, and never a value in a message."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings import rules
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import DECLARED, Settings, flat, shown
from dicom_etl.core.settings.rules import is_loopback
from dicom_etl.core.timerange import format_duration, parse_duration

SECOND = 10_000_000
CANARY = "CANARY-7f3a"

# The settings that users rely on, key by key.
DEFAULTS: dict[str, Any] = {
    "dicom.base_url": "",
    "dicom.api_version": 2,
    "dicom.auth": "none",
    "dicom.token_env": "DICOM_ETL_TOKEN",
    "dicom.connections": 10,
    "dicom.timeout_seconds": 100,
    "dicom.retry_seconds": 300,
    "feed.batch_size": 200,
    "feed.start": 0,
    "feed.window": 3600 * SECOND,
    "feed.delay": 900 * SECOND,
    "feed.look_back": 3 * 3600 * SECOND,
    "feed.max_entries_per_run": 250_000,
    "lake.root": "",
    "lake.private_root": "",
    "lake.instance_path": "instance",
    "lake.series_path": "series",
    "lake.study_path": "study",
    "lake.layout": "clustered",
    "lake.keep_metadata": True,
    "lake.deletion_vectors": False,
    "storage.auth": "azure",
    "storage.key_env": "DICOM_ETL_STORAGE_KEY",
    "storage.endpoint": "",
    "maintenance.retention_hours": 720,
    "maintenance.allow_short_retention": False,
    "maintenance.change_retention_days": 0,
    "maintenance.keep_live_headers": True,
    "columns.root": "",
    "columns.tags": [],
    "columns.identifying": False,
    "outputs.after_sync": [],
    "outputs.settle": 1800 * SECOND,
    "files.root": "",
    "spark.master": "local[*]",
    "spark.driver_memory": "2g",
    "spark.shuffle_partitions": 4,
    "metrics.prometheus_file": "",
    "fabric.workspace": "",
    "fabric.lakehouse": "",
    "fabric.connection": "",
    "fabric.schema": "",
    "fabric.files_name": "DICOM",
    "fabric.api_url": "https://api.fabric.microsoft.com/v1",
    "fabric.auth": "azure",
    "fabric.token_env": "DICOM_ETL_FABRIC_TOKEN",
    "fhir.base_url": "",
    "fhir.auth": "none",
    "fhir.token_env": "DICOM_ETL_FHIR_TOKEN",
    "fhir.patients": "find",
    "fhir.patients_ttl": 86_400 * SECOND,
    "fhir.issuers": {},
    "fhir.default_system": "",
    "fhir.timezone": "",
    "fhir.instances": "auto",
    "fhir.dose": True,
    "fhir.strict_modality": False,
    "fhir.bundle_entries": 50,
    "fhir.connections": 8,
    "fhir.timeout_seconds": 100,
    "fhir.retry_seconds": 300,
    "fhir.id_key_env": "",
    "fhir.root": "",
}


def load(folder: Path, *overrides: str, **arguments: Any) -> Settings:
    """Settings of a process that runs in ``folder`` with an empty environment."""
    return load_settings(overrides=overrides, **({"environment": {}, "folder": folder} | arguments))


def problems(folder: Path, *overrides: str, **arguments: Any) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(ConfigurationError) as caught:
        load(folder, *overrides, **arguments)
    assert caught.value.exit_code == 78
    return str(caught.value).splitlines()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    """Every key, its value, and that it came from the package."""
    found = flat(load(tmp_path))

    assert {key: value for key, value, _ in found} == DEFAULTS
    assert {origin for _, _, origin in found} == {"default"}


def test_default_toml_is_complete_and_in_the_same_order(tmp_path: Path) -> None:
    """The file is the documentation of the settings: every field, and nothing else, each with a comment."""
    text = resources.files("dicom_etl.core.settings").joinpath("default.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    keys = [f"{section}.{key}" for section, content in document.items() for key in content]

    assert keys == [key for key, _, _ in flat(load(tmp_path))]
    assert keys == list(DEFAULTS)
    lines = text.splitlines()
    for section in document:
        block = lines[lines.index(f"[{section}]") + 1 :]
        assert block[0].startswith("# ")


def test_every_check_guards_a_setting() -> None:
    """It is declared at the field; one that no field names would guard nothing."""
    checks = {name for name in vars(rules) if name.startswith("check_")}
    used = {check.__name__ for declared in DECLARED.values() for check in declared.checks}

    assert len(checks) > 8
    assert used == checks


def test_of_four_layers_the_later_wins(tmp_path: Path) -> None:
    """Package, file, environment, --set; each value knows its place."""
    write(
        tmp_path / "conf/local.toml",
        "[feed]\nbatch_size = 10\nwindow = '2h'\nmax_entries_per_run = 5\n[dicom]\nauth = 'azure'",
    )
    environment = {
        "DICOM_ETL__FEED__BATCH_SIZE": "20",
        "DICOM_ETL__FEED__WINDOW": "3h",
        "DICOM_ETLX": "not ours",
        "PATH": "/bin",
    }

    settings = load(tmp_path, "feed.batch_size=30", environment=environment)

    local = str(tmp_path / "conf/local.toml")
    assert (settings.feed.batch_size, settings.origins["feed.batch_size"]) == (30, "--set")
    assert (settings.feed.window, settings.origins["feed.window"]) == (
        3 * 3600 * SECOND,
        "DICOM_ETL__FEED__WINDOW",
    )
    assert (settings.feed.max_entries_per_run, settings.origins["feed.max_entries_per_run"]) == (5, local)
    assert (settings.dicom.auth, settings.origins["dicom.auth"]) == ("azure", local)
    assert (settings.feed.delay, settings.origins["feed.delay"]) == (900 * SECOND, "default")


def test_one_file_is_read_and_no_other(tmp_path: Path) -> None:
    """--config before $DICOM_ETL_CONFIG before ./conf/local.toml; the others are not even opened."""
    local = write(tmp_path / "conf/local.toml", "[feed]\nbatch_size = 1")
    named = write(tmp_path / "named.toml", "[feed]\nbatch_size = 2")
    given = write(tmp_path / "given.toml", "[lake]\nroot = 'x'")
    variable = {"DICOM_ETL_CONFIG": str(named)}

    assert load(tmp_path).feed.batch_size == 1
    assert load(tmp_path, environment=variable).feed.batch_size == 2
    assert load(tmp_path, environment={"DICOM_ETL_CONFIG": ""}).feed.batch_size == 1
    local.write_text("this is not TOML")
    named.write_text("neither is this")
    settings = load(tmp_path, config=given, environment=variable)
    assert (settings.feed.batch_size, settings.lake.root) == (200, "x")
    assert load(tmp_path, config=str(given)) == settings, "a name is taken as a path is"


def test_the_local_file_is_named_as_the_user_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place, the key and what was expected (design/architecture.md: Settings)."""
    write(tmp_path / "conf/local.toml", "[dicom]\nauth = 'kerberos'")
    monkeypatch.chdir(tmp_path)

    assert problems(Path()) == ["conf/local.toml: dicom.auth: expected one of none, azure, token"]


@pytest.mark.parametrize("how", ["config", "variable"])
def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path, how: str) -> None:
    """Only ./conf/local.toml may be absent."""
    missing = tmp_path / "missing.toml"
    arguments: dict[str, Any] = (
        {"config": missing} if how == "config" else {"environment": {"DICOM_ETL_CONFIG": str(missing)}}
    )

    assert problems(tmp_path, **arguments) == [
        f"{missing}: cannot read the configuration file: No such file or directory"
    ]


def test_of_a_relative_file_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter and cron start in folders of their own."""
    monkeypatch.chdir(tmp_path)
    missing = "no such folder/missing.toml"
    assert problems(tmp_path, environment={"DICOM_ETL_CONFIG": missing}) == [
        f"{missing}: cannot read the configuration file: No such file or directory "
        f"(a relative path: looked for in {tmp_path})"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[dicom\n", "is not TOML: "),
        (b"[dicom]\nauth = \xff\n", "cannot read the configuration file: is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """With what is wrong, in one line."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)

    (line,) = problems(tmp_path, config=path)
    assert line.startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("2026", "feed.max_entries_per_run", 2026),
        ("1_000", "feed.max_entries_per_run", 1000),
        ("true", "lake.deletion_vectors", True),
        ("12", "dicom.timeout_seconds", 12.0),
        ("0.5", "dicom.timeout_seconds", 0.5),
        ('"quoted"', "lake.root", "quoted"),
        ("/data/lake", "lake.root", "/data/lake"),
        ("a=b#c", "lake.root", "a=b#c"),
        ("", "lake.root", ""),
        ("local[*]", "spark.master", "local[*]"),
        ("90s", "feed.delay", 90 * SECOND),
        ("0s", "feed.delay", 0),
        ("2d", "feed.window", 2 * 86400 * SECOND),
        ("2026-01-31T08:00:00.1234567Z", "feed.start", 17_698_464_001_234_567),
        ("2026-01-31T09:00:00+01:00", "feed.start", 17_698_464_000_000_000),
    ],
)
def test_a_value_of_the_command_line_or_environment_is_toml_or_text(
    tmp_path: Path, text: str, key: str, value: object
) -> None:
    """TOML where it parses as such, else a string; a time keeps its seventh digit, which TOML would cut."""
    name = "DICOM_ETL__" + key.upper().replace(".", "__")

    for settings in (load(tmp_path, f"{key}={text}"), load(tmp_path, environment={name: text})):
        assert {k: v for k, v, _ in flat(settings)}[key] == value


def test_times_in_a_file_may_be_text_or_toml(tmp_path: Path) -> None:
    """TOML's own date-times hold microseconds; text holds all digits."""
    native = write(tmp_path / "native.toml", "[feed]\nstart = 2026-01-31T09:00:00.123456+01:00")
    text = write(tmp_path / "text.toml", "[feed]\nstart = '2026-01-31T08:00:00.1234567Z'")
    naive = write(tmp_path / "naive.toml", "[feed]\nstart = 2026-01-31T09:00:00")

    assert load(tmp_path, config=native).feed.start == 17_698_464_001_234_560
    assert load(tmp_path, config=text).feed.start == 17_698_464_001_234_567
    assert problems(tmp_path, config=naive) == [
        f"{naive}: feed.start: expected RFC 3339 with a zone, such as 2026-01-31T08:00:00Z"
    ]


INSTANT = "expected RFC 3339 with a zone, such as 2026-01-31T08:00:00Z"
DURATION = "expected a duration such as 90s, 15m or 1h"
BELOW_ROOT = "expected a path below lake.root, such as instance"
LETTERS = "expected letters, digits, _ - . / only, and no leading _"
MASTER = "expected local[*] or local[2]; a cluster hands its session in: run jobs/sync.py there by spark-submit"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dicom.api_version=1", "expected 2"),
        ("dicom.api_version='2'", "expected 2"),
        ("dicom.auth=basic", "expected one of none, azure, token"),
        ("dicom.connections=0", "expected a number from 1 to 64"),
        ("dicom.connections=65", "expected a number from 1 to 64"),
        ("dicom.connections=true", "expected a number from 1 to 64"),
        ("dicom.connections=many", "expected a number from 1 to 64"),
        ("dicom.timeout_seconds=0", "expected a number above 0 and at most 86400"),
        ("dicom.timeout_seconds=nan", "expected a number above 0 and at most 86400"),
        ("dicom.retry_seconds=inf", "expected a number above 0 and at most 86400"),
        ("dicom.base_url=ws.example.org", "expected an address that starts with https:// (or http:// on loopback)"),
        ("dicom.base_url=ftp://example.org", "expected an address that starts with https:// (or http:// on loopback)"),
        ("dicom.base_url=https://", "expected an address that starts with https:// (or http:// on loopback)"),
        ("dicom.base_url=https://h:99999", "expected an address such as https://ws-name.dicom.azurehealthcareapis.com"),
        ("dicom.base_url=https://h/v2", "expected the service root, without the version"),
        ("dicom.base_url=https://h/dicom/v2/", "expected the service root, without the version"),
        ("dicom.base_url=https://u:p@h", "expected an address without user, password, query or fragment"),
        ("dicom.base_url=https://h/?a=b", "expected an address without user, password, query or fragment"),
        ("dicom.base_url=https://h/#a", "expected an address without user, password, query or fragment"),
        ("dicom.base_url=https://h h", "expected an address without blanks"),
        ('dicom.base_url="https://h\\nh"', "expected an address without blanks"),
        ("dicom.token_env=5", "expected text"),
        ("feed.batch_size=201", "expected a number from 1 to 200"),
        ("feed.batch_size=0", "expected a number from 1 to 200"),
        ("feed.batch_size=10.5", "expected a number from 1 to 200"),
        ("feed.max_entries_per_run=0", "expected a number of at least 1"),
        ("feed.start=2026-01-31", INSTANT),
        ("feed.start=2026-01-31T08:00:00", INSTANT),
        ("feed.start=2026-02-30T08:00:00Z", INSTANT),
        ("feed.start=0", INSTANT),
        ("feed.window=0s", "expected a duration above 0"),
        ("feed.window=3600", DURATION),
        ("feed.window=1 hour", DURATION),
        ("feed.delay=-15m", DURATION),
        ("feed.delay=1.5h", DURATION),
        ("feed.look_back=3", DURATION),
        ("lake.layout=hive", "expected one of clustered, partitioned"),
        ("lake.keep_metadata=yes", "expected true or false"),
        ("lake.deletion_vectors=1", "expected true or false"),
        ("lake.root=2026", "expected text"),
        ("lake.root={a = 1}", "expected text"),
        ("lake.instance_path=", BELOW_ROOT),
        ("lake.instance_path=/instance", BELOW_ROOT),
        ("lake.instance_path=../instance", BELOW_ROOT),
        ("lake.instance_path=a//b", BELOW_ROOT),
        ("lake.instance_path=a/", BELOW_ROOT),
        ("lake.instance_path=az://c/a", BELOW_ROOT),
        ("lake.instance_path=_claims", LETTERS),
        ("lake.instance_path=a b", LETTERS),
        ("storage.key_env=wJalrXUtnFEMI/K7==", "expected the name of a variable in capitals, not the key itself"),
        ("storage.key_env=", "expected the name of a variable in capitals, not the key itself"),
        ("maintenance.retention_hours=0", "expected a number from 1 to 876000"),
        (
            "maintenance.retention_hours=24",
            "expected at least 168; less can take files from under a reader "
            "(maintenance.allow_short_retention = true allows it)",
        ),
        ("maintenance.change_retention_days=-1", "expected a number from 0 to 36500"),
        ("spark.driver_memory=2 GB", "expected a size such as 2g"),
        ("spark.driver_memory=2", "expected text"),
        ("spark.driver_memory=2²g", "expected a size such as 2g"),
        ("spark.driver_memory=511m", "expected at least 512m, with less Spark does not start"),
        ("spark.master=bogus", MASTER),
        ("spark.master=", MASTER),
        ("spark.master=local[0]", MASTER),
        # None of them reaches beyond this host: our JVM's address is on loopback.
        ("spark.master=spark://one.example.org:7077", MASTER),
        ("spark.master=k8s://https://one.example.org:443", MASTER),
        ("spark.master=yarn", MASTER),
        ("spark.master=local-cluster[2,1,1024]", MASTER),
        ("spark.shuffle_partitions=0", "expected a number of at least 1"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_expected(tmp_path: Path, override: str, message: str) -> None:
    """Place, key, expectation; in the same shape from all three places, and without the value."""
    key, _, text = override.partition("=")
    name = "DICOM_ETL__" + key.upper().replace(".", "__")

    assert problems(tmp_path, override) == [f"--set: {key}: {message}"]
    assert problems(tmp_path, environment={name: text}) == [f"{name}: {key}: {message}"]


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("feed.batchsize=3", "feed.batchsize", "feed.batch_size"),
        ("batch_size=3", "batch_size", "feed.batch_size"),
        ("dicom.base_uri=x", "dicom.base_uri", "dicom.base_url"),
        ("dicmo.base_url=x", "dicmo.base_url", "dicom.base_url"),
        ("Feed.Start=x", "Feed.Start", "feed.start"),
        ("feed.windows=x", "feed.windows", "feed.window"),
        ("lake.instance.path=x", "lake.instance.path", "lake.instance_path"),
        ("maintenance.retention=3", "maintenance.retention", "maintenance.retention_hours"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_right_one(tmp_path: Path, override: str, key: str, nearest: str) -> None:
    """A mistyped key never passes in silence."""
    assert problems(tmp_path, override) == [f"--set: {key}: unknown setting; did you mean {nearest}?"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[lakes]\nroot = 'x'", "lakes.root"),
        ("lake = 'x'", "lake"),
        ("[[lake]]\nroot = 'x'", "lake"),
        ("[lakes]", "lakes"),
    ],
)
def test_an_unknown_section_of_a_file_is_refused(tmp_path: Path, text: str, key: str) -> None:
    """Also when it is empty, or no section at all."""
    path = write(tmp_path / "x.toml", text)

    (line,) = problems(tmp_path, config=path)
    assert line == f"{path}: {key}: unknown setting; did you mean lake.root?"


def test_an_empty_section_changes_nothing(tmp_path: Path) -> None:
    """Its keys may all be commented out."""
    path = write(tmp_path / "x.toml", "[lake]\n# root = 'x'\n")

    assert flat(load(tmp_path, config=path)) == flat(load(tmp_path))


def test_all_wrong_keys_come_at_once(tmp_path: Path) -> None:
    """From every layer, a line each: in the order of default.toml, then the unknown ones."""
    path = write(tmp_path / "x.toml", "[dicom]\nauth = 'basic'\nconections = 3\n[feed]\nbatch_size = 500")

    assert problems(
        tmp_path,
        "lake.layout=hive",
        "feed.delay=soon",
        config=path,
        environment={"DICOM_ETL__FEED__START": "yesterday", "DICOM_ETL__FEED__WINDOWS": "1h"},
    ) == [
        f"{path}: dicom.auth: expected one of none, azure, token",
        f"{path}: feed.batch_size: expected a number from 1 to 200",
        f"DICOM_ETL__FEED__START: feed.start: {INSTANT}",
        f"--set: feed.delay: {DURATION}",
        "--set: lake.layout: expected one of clustered, partitioned",
        f"{path}: dicom.conections: unknown setting; did you mean dicom.connections?",
        "DICOM_ETL__FEED__WINDOWS: feed.windows: unknown setting; did you mean feed.window?",
    ]


@pytest.mark.parametrize("key", [f"{CANARY}/9Qk2+{'aB3' * 24}==", f"{CANARY}=="])
def test_a_key_that_looks_like_none_is_not_repeated(tmp_path: Path, key: str) -> None:
    """An account's key, typed alone, ends with the sign that makes it an override."""
    (line,) = problems(tmp_path, key)
    assert line.startswith("--set: unknown setting")
    assert CANARY not in line


@pytest.mark.parametrize("override", ["feed.batch_size", "", "=3", "  = 3", CANARY])
def test_an_override_without_key_or_value_is_refused(tmp_path: Path, override: str) -> None:
    """`--set key` and `--set =value` say nothing; what was given is not repeated, it may be a secret."""
    assert problems(tmp_path, override) == ["--set: expected section.key=value"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"lake.root=abfss://c@a.dfs.core.windows.net/x?sig={CANARY}", "an address without password"),
        (f"lake.private_root=abfss://c:{CANARY}@a.dfs.core.windows.net/x", "an address without password"),
        (f"files.root=https://a.blob.core.windows.net/c?sig={CANARY}", "an address without password"),
        (f"storage.endpoint=https://u:{CANARY}@h", "an address such as http://127.0.0.1:10000, without the"),
        ('lake.root="a\\u0000b"', "a folder, or abfss://"),
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_before_it_is_shown(
    tmp_path: Path, override: str, expected: str
) -> None:
    """Only storage.auth opens the storage; `config` would have printed the signature."""
    (line,) = problems(tmp_path, override)

    assert f"expected {expected}" in line
    assert CANARY not in line


@pytest.mark.parametrize(
    "host", ["☃☃.com", "[v1.x]", "a..b", "a" * 64 + ".com", "a." * 150 + "com", "xn--zzzzzzzz99999.com"]
)
def test_a_host_that_cannot_be_asked_for_is_refused(tmp_path: Path, host: str) -> None:
    """httpx would end in an error of its own kind, and the program as if it were its fault (70)."""
    (line,) = problems(tmp_path, f"dicom.base_url=https://{host}")

    assert line.startswith("--set: dicom.base_url: expected an address")


@pytest.mark.parametrize(
    "host", ["münchen.example", "xn--mnchen-3ya.example", "[::1]:8080", "a_b.example.", "10.0.0.1"]
)
def test_other_hosts_are_taken(tmp_path: Path, host: str) -> None:
    """Names with umlauts, encoded ones, and numbers."""
    assert load_settings(None, [f"dicom.base_url=https://{host}"], {}, tmp_path).dicom.base_url == f"https://{host}"


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000, "1e10"])
def test_values_that_nobody_can_mean_are_one_line(tmp_path: Path, text: str) -> None:
    """Python's own limits on digits and depth, and seconds beyond its clocks."""
    path = write(tmp_path / "x.toml", f"[dicom]\ntimeout_seconds = {text}")

    assert len(problems(tmp_path, config=path)) == 1
    assert len(problems(tmp_path, f"dicom.timeout_seconds={text}")) == 1


# Any texts are tags as far as the settings go; what is wrong with one, `columns` says.
_ANYTHING = ("dicom.token_env", "columns.tags")


@pytest.mark.parametrize("key", [key for key in DEFAULTS if DEFAULTS[key] != "" and key not in _ANYTHING])
def test_no_message_repeats_a_value(tmp_path: Path, key: str) -> None:
    """It may be a secret, put in the wrong place: in every key that can be wrong, from every layer."""
    path = write(tmp_path / "x.toml", f"[{key.partition('.')[0]}]\n{key.partition('.')[2]} = ['{CANARY}']")
    name = "DICOM_ETL__" + key.upper().replace(".", "__")

    for lines in (
        problems(tmp_path, config=path),
        problems(tmp_path, f"{key}=['{CANARY}']"),
        problems(tmp_path, environment={name: f"['{CANARY}']"}),
        problems(tmp_path, f"unknown.token={CANARY}"),
        problems(tmp_path, f"dicom.base_url=https://{CANARY}:{CANARY}@h"),
        problems(tmp_path, f"dicom.base_url=https://h/?sig={CANARY}"),
    ):
        assert len(lines) == 1
        assert CANARY not in lines[0]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "fhir.base_url=http://fhir.example.org",
            "fhir.base_url: expected https://, patients are sent to this address",
        ),
        ("fhir.base_url=fhir.example.org", "fhir.base_url: expected an address that starts with https://"),
        ('fhir.issuers={ "HOSP" = "Hospital North" }', "fhir.issuers: expected a URI for each issuer"),
        ('fhir.issuers={ "" = "urn:oid:1.2.3" }', "fhir.issuers: expected a URI for each issuer"),
        ("fhir.issuers=HOSP", "fhir.issuers: expected a table of texts, such as"),
        ("fhir.default_system=patients", "fhir.default_system: expected a URI such as"),
        ("fhir.timezone=Europe/Atlantis", "fhir.timezone: expected the name of a time zone, such as"),
        ("fhir.timezone=../../etc/passwd", "fhir.timezone: expected the name of a time zone, such as"),
        ('outputs.after_sync=["fhir"]', "outputs.after_sync: fhir is made of the tag tables"),
    ],
)
def test_what_fhir_cannot_use_is_one_line(tmp_path: Path, override: str, says: str) -> None:
    (line,) = problems(tmp_path, override)
    assert line.startswith(f"--set: {says}")


def test_what_fhir_takes(tmp_path: Path) -> None:
    texts = (
        'fhir.issuers={ "HOSP" = "urn:oid:1.2.3" }',
        "fhir.timezone=Europe/Berlin",
        "fhir.base_url=http://[::1]:80/fhir",
    )
    fhir = load(tmp_path, *texts, 'outputs.after_sync=["columns", "fhir"]').fhir
    assert (fhir.issuers, fhir.timezone) == ({"HOSP": "urn:oid:1.2.3"}, "Europe/Berlin")
    assert shown(fhir.issuers) == '{"HOSP": "urn:oid:1.2.3"}'


@pytest.mark.parametrize("auth", ["azure", "token"])
def test_a_token_goes_to_https_or_loopback_only(tmp_path: Path, auth: str) -> None:
    """Without a token plain http is the user's own affair (design/architecture.md: Patient data)."""
    remote = "dicom.base_url=http://dicom.example.org"

    assert problems(tmp_path, remote, f"dicom.auth={auth}") == [
        "--set: dicom.base_url: expected https://, a token is sent to this address"
    ]
    assert load(tmp_path, remote).dicom.base_url == "http://dicom.example.org"
    for local in ("http://localhost:8080", "http://127.0.0.1:9/x", "http://[::1]:8080", "https://example.org"):
        assert load(tmp_path, f"dicom.base_url={local}", f"dicom.auth={auth}").dicom.auth == auth


def test_a_short_retention_must_be_asked_for(tmp_path: Path) -> None:
    """Then it is taken."""
    settings = load(tmp_path, "maintenance.retention_hours=1", "maintenance.allow_short_retention=true")

    assert settings.maintenance.retention_hours == 1


def test_the_template_s_table_paths_are_taken(tmp_path: Path) -> None:
    """Folders below the root, also nested."""
    settings = load(tmp_path, "lake.instance_path=dicom/instance", "lake.series_path=dicom/series-v2")

    assert (settings.lake.instance_path, settings.lake.series_path) == ("dicom/instance", "dicom/series-v2")


def test_the_digest_changes_with_every_setting_and_with_nothing_else(tmp_path: Path) -> None:
    """Twelve hex digits for the ledger; where a value came from does not count."""
    plain = load(tmp_path).digest
    same = load(tmp_path, "feed.batch_size=200", environment={"DICOM_ETL__FEED__DELAY": "15m"})

    assert len(plain) == 12
    int(plain, 16)
    assert same.digest == plain
    changes = ["feed.batch_size=199", "feed.delay=16m", "feed.start=1970-01-01T00:00:00.0000001Z", "lake.root=x"]
    assert len({plain, *(load(tmp_path, change).digest for change in changes)}) == 5


@pytest.mark.parametrize(
    ("text", "ticks"),
    [("1s", SECOND), ("90s", 90 * SECOND), ("15m", 900 * SECOND), (" 1h ", 3600 * SECOND), ("2d", 172_800 * SECOND)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, ticks: int) -> None:
    """Seconds, minutes, hours, days."""
    assert parse_duration(text) == ticks


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (0, "0s"),
        (SECOND, "1s"),
        (90 * SECOND, "90s"),
        (900 * SECOND, "15m"),
        (3600 * SECOND, "1h"),
        (172_800 * SECOND, "2d"),
    ],
)
def test_a_duration_is_written_in_its_largest_whole_unit(ticks: int, text: str) -> None:
    """And is read back as the same."""
    assert format_duration(ticks) == text
    assert parse_duration(text) == ticks


def test_settings_are_shown_as_one_would_write_them(tmp_path: Path) -> None:
    """What `config` prints can be put into a file."""
    values = {key: shown(value) for key, value, _ in flat(load(tmp_path))}

    assert values["feed.start"] == "1970-01-01T00:00:00Z"
    assert values["feed.delay"] == "15m"
    assert values["lake.keep_metadata"] == "true"
    assert values["feed.batch_size"] == "200"
    assert load(tmp_path, *(f"{key}={value}" for key, value in values.items())).digest == load(tmp_path).digest


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost.example.org", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, expected: bool) -> None:
    """By name or by address; a name that only begins so is another machine."""
    assert is_loopback(host) is expected
