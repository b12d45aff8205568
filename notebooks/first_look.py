# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# ruff: noqa: T201

# %% [markdown]
# # A first look at the tables
#
# What lies in the lake: a chart of it, how far it has been read, one patient's studies, and the two queries of the
# Data Factory template's tutorial. Polars reads the Delta tables; no Spark is needed.
#
# `make notebook` opens it on the demo's lake. The lake is the one that dicom-etl's settings name:
# `DICOM_ETL_CONFIG=demo-lake/demo.toml`, or `DICOM_ETL__LAKE__ROOT=/data/lake`. Nothing is written into it.
#
# **What this notebook prints belongs to patients.** Clear its outputs before you share it or commit it.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.settings.load import load_settings

pl.Config(tbl_rows=100, tbl_width_chars=160, fmt_str_lengths=64, tbl_hide_dataframe_shape=True)

# %% [markdown]
# ## Open the lake
#
# Jupyter starts in the notebook's folder: a relative `DICOM_ETL_CONFIG` is looked for there and in the folders above.

# %%
named = os.environ.get("DICOM_ETL_CONFIG")
folders = (Path.cwd(), *Path.cwd().parents)
found = next((folder / named for folder in folders if named and (folder / named).is_file()), None)
try:
    lake = load_settings(found).lake
except DicomEtlError as error:
    raise SystemExit(str(error)) from None

instance = pl.scan_delta(f"{lake.root}/{lake.instance_path}")
study = pl.scan_delta(f"{lake.root}/{lake.study_path}")
run = pl.scan_delta(f"{lake.root}/run")
columns = instance.collect_schema().names()
print(f"{instance.select(pl.len()).collect().item()} instances, {len(columns)} columns: {', '.join(columns)}")

# %% [markdown]
# ## By modality and year
#
# `year` is null where an instance has no study date. A study counts for each modality that it has.

# %%
by_modality_and_year = (
    instance.group_by("modality", pl.col("studyDate").dt.year().alias("year"))
    .agg(pl.struct("partitionName", "studyInstanceUid").n_unique().alias("studies"), pl.len().alias("instances"))
    .sort("year", "modality", nulls_last=False)
    .collect()
)
chart, axes = plt.subplots()
years = by_modality_and_year["year"].unique().sort().to_list()
left = dict.fromkeys(years, 0)
parts = by_modality_and_year.partition_by("modality", as_dict=True, maintain_order=True)
for number, ((modality,), part) in enumerate(parts.items()):
    counted = dict(part.select("year", "instances").rows())
    widths = [counted.get(year, 0) for year in years]
    labels = ["no date" if year is None else str(year) for year in years]
    axes.barh(labels, widths, left=list(left.values()), label=modality or "none", color=plt.get_cmap("tab20")(number))
    left = {year: left[year] + width for year, width in zip(years, widths, strict=True)}
axes.set(xlabel="instances", ylabel="year of the study")
axes.legend()
chart_file = Path(os.environ.get("NOTEBOOK_PICTURES", ".")) / "instances_by_year.png"
chart_file.parent.mkdir(parents=True, exist_ok=True)
chart.savefig(chart_file, bbox_inches="tight")
print(f"the chart is in {chart_file.resolve()}")
plt.show()

# %%
print(by_modality_and_year)

# %% [markdown]
# ## How far has it been read?
#
# The table `run` is the ledger. Only runs that succeeded count, and of those the ones that cover something; what
# counts, from the first window that was read, is where the first gap begins.

# %%
covering = (
    run.filter(pl.col("status") == "succeeded", pl.col("coveredUntil") > pl.col("windowStart"))
    .sort("windowStart", "runId")
    .with_columns(before=pl.col("coveredUntil").cum_max().shift(1))
    .collect()
)
gaps = covering.filter(pl.col("before") < pl.col("windowStart"))["before"]
covered_until = gaps.min() or covering["coveredUntil"].max()
print(
    f"covered until {covered_until:%Y-%m-%d %H:%M:%S} UTC, by {len(covering)} runs" if covered_until else "nothing yet"
)

# %% [markdown]
# ## One patient's studies
#
# A patient is `patientId` and its issuer, `issuerOfPatientId`, which may be null: two hospitals may use the same
# number. The one with the most studies is taken here; for another, put `pl.col("patientId") == "…"` into the filter.

# %%
patient = ["patientId", "issuerOfPatientId"]
most_studies = (
    study.filter(pl.col("patientId").is_not_null())
    .group_by(patient)
    .agg(pl.len().alias("studies"), pl.col("instanceCount").sum().alias("instances"))
    .sort("studies", "instances", *patient, descending=[True, True, False, False])
    .head(1)
)
patients_studies = (
    study.join(most_studies, on=patient, nulls_equal=True)
    .sort("studyDate", "studyInstanceUid")
    .select("patientId", "studyDate", "studyDescription", "modalitiesInStudy", "seriesCount", "instanceCount")
    .collect()
)
print(patients_studies)

# %% [markdown]
# ## The template tutorial's queries
#
# They run as they stand there, by Polars' SQL. `filePath` leads to the DICOM file: see `from_row_to_pixels.py`.
# Spark SQL over the same tables is `dicom-etl query "SELECT …"`.

# %%
sql = pl.SQLContext(instance=instance)
everything = sql.execute("SELECT * FROM instance").collect()
print(everything.head(5))

# %%
file_paths = sql.execute("SELECT sopInstanceUid, filePath FROM instance").collect()
print(file_paths.head(5))
