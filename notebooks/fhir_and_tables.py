# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# ruff: noqa: T201

# %% [markdown]
# # ImagingStudy beside the tables
#
# What a FHIR server tells of the studies, joined with what the tables hold: by Study Instance UID, as a researcher does
# who begins with patients. `dicom-etl fhir` has filled the server; the settings name it (`fhir.base_url`).
#
# `make notebook` opens it on the demo's lake. Start the demo's server first (`make demo-fhir`), or name your own:
# `DICOM_ETL__FHIR__BASE_URL=http://127.0.0.1:8080/fhir`. Nothing is written.
#
# **What this notebook prints belongs to patients.** Clear its outputs before you share it or commit it.

# %%
import os
from pathlib import Path
from typing import Any

import polars as pl

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote.identity import fhir_tokens

pl.Config(tbl_rows=20, tbl_width_chars=160, fmt_str_lengths=64, tbl_hide_dataframe_shape=True)

# %% [markdown]
# ## Ask the server
#
# All ImagingStudy resources, page by page. The Study UID stands in the identifier of the system `urn:dicom:uid`.

# %%
named = os.environ.get("DICOM_ETL_CONFIG")
folders = (Path.cwd(), *Path.cwd().parents)
found = next((folder / named for folder in folders if named and (folder / named).is_file()), None)
try:
    settings = load_settings(found)
    with FhirServer(settings.fhir, fhir_tokens(settings.fhir)) as server:
        resources = list(server.search("ImagingStudy", [("_count", "200")]))
except DicomEtlError as error:
    raise SystemExit(str(error)) from None


def study_uid(resource: dict[str, Any]) -> str | None:
    """The Study Instance UID of a resource; None where it has none."""
    uids = (one["value"] for one in resource.get("identifier", []) if one.get("system") == "urn:dicom:uid")
    return next((uid.removeprefix("urn:oid:") for uid in uids), None)


in_fhir = pl.DataFrame(
    {
        "studyInstanceUid": [study_uid(one) for one in resources],
        "subject": [one["subject"].get("reference") for one in resources],
        "started": [one.get("started") for one in resources],
        "instances": [one.get("numberOfInstances") for one in resources],
    },
    schema={"studyInstanceUid": pl.String, "subject": pl.String, "started": pl.String, "instances": pl.Int64},
)
print(f"{in_fhir.height} ImagingStudy resources, {in_fhir['subject'].n_unique()} subjects")

# %% [markdown]
# ## Join with the tables
#
# By UID alone, which is enough where the service has one partition. Both sides count the same instances, since both are
# made of the living rows.

# %%
lake = settings.lake
study = pl.scan_delta(f"{lake.root}/{lake.study_path}").select(
    "studyInstanceUid", "modalitiesInStudy", "studyDescription", "instanceCount"
)
joined = study.collect().join(in_fhir, on="studyInstanceUid", how="left")
print(joined.sort("instanceCount", descending=True).head(10))
print(f"studies that the server lacks: {joined['instances'].is_null().sum()}")
print(f"studies with another count: {joined.filter(pl.col('instances') != pl.col('instanceCount')).height}")

# %% [markdown]
# ## Who has studies of several modalities?
#
# By the subject of the resources, which moves when a patient's number is corrected.

# %%
print(
    joined.filter(pl.col("subject").is_not_null())
    .with_columns(pl.col("modalitiesInStudy").str.split("\\").alias("modality"))
    .explode("modality")
    .group_by("subject")
    .agg(pl.col("modality").unique().sort().str.join(", "), pl.col("studyInstanceUid").n_unique().alias("studies"))
    .sort("studies", "subject", descending=[True, False])
    .head(10)
)
