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
# What lies in the lake, in Spark SQL: how far it has been read, how much of what there is, one patient's studies, the
# two queries of the Data Factory template's tutorial, and a chart.
#
# The lake is the one that dicom-etl's settings name: `DICOM_ETL_CONFIG=demo-lake/demo.toml` after `make demo`, or
# `DICOM_ETL__LAKE__ROOT=/data/lake`. Nothing is written into it.
#
# **What this notebook prints belongs to patients.** Clear its outputs before you share it or commit it.

# %%
import atexit
import os
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from dicom_etl.commands.query import answer
from dicom_etl.core.settings.load import load_settings

# %% [markdown]
# ## Open the lake
#
# A notebook on a cluster has a session, `spark`, and it is used; elsewhere dicom-etl starts one of its own. In it,
# `instance`, `series` and `study` are views: `spark.sql` knows them by name.

# %%
settings = load_settings()
lake = ExitStack()
atexit.register(lake.close)  # should a cell fail
instance = lake.enter_context(answer(settings, "SELECT * FROM instance", spark=globals().get("spark")))
spark = instance.sparkSession
print(f"{instance.count()} instances, {len(instance.columns)} columns: {', '.join(instance.columns)}")

# %% [markdown]
# ## How far has it been read?
#
# The table `run` is the ledger. Only runs that succeeded count, and of those the ones that cover something; what
# counts, from the first window that was read, is where the first gap begins.

# %%
freshness = spark.sql("""
    WITH covering AS (
      SELECT windowStart, coveredUntil FROM run WHERE status = 'succeeded' AND coveredUntil > windowStart
    ), ordered AS (
      SELECT *, max(coveredUntil) OVER (
        ORDER BY windowStart ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
      FROM covering
    )
    SELECT date_format(
             coalesce(min(CASE WHEN before < windowStart THEN before END), max(coveredUntil)),
             "yyyy-MM-dd HH:mm:ss 'UTC'") AS coveredUntil,
           count(*) AS runs
    FROM ordered
""")
freshness.show(truncate=False)

# %% [markdown]
# ## By modality and year
#
# `year` is null where an instance has no study date. A study counts for each modality that it has.

# %%
by_modality_and_year = spark.sql("""
    SELECT modality, year(studyDate) AS year,
           count(DISTINCT partitionName, studyInstanceUid) AS studies, count(*) AS instances
    FROM instance
    GROUP BY modality, year(studyDate)
    ORDER BY year NULLS FIRST, modality NULLS FIRST
""")
by_modality_and_year.show(100, truncate=False)

# %% [markdown]
# ## One patient's studies
#
# A patient is `patientId` and its issuer, `issuerOfPatientId`, which may be null: two hospitals may use the same
# number. The one with the most studies is taken here; for another, put `patientId = '…'` into the first SELECT.

# %%
patients_studies = spark.sql("""
    WITH patient AS (
        SELECT patientId, issuerOfPatientId
        FROM study
        WHERE patientId IS NOT NULL
        GROUP BY patientId, issuerOfPatientId
        ORDER BY count(*) DESC, sum(instanceCount) DESC, patientId, issuerOfPatientId
        LIMIT 1
    )
    SELECT study.patientId, studyDate, studyDescription, modalitiesInStudy, seriesCount, instanceCount
    FROM study JOIN patient
      ON study.patientId = patient.patientId AND study.issuerOfPatientId <=> patient.issuerOfPatientId
    ORDER BY studyDate, studyInstanceUid
""")
patients_studies.show(100, truncate=False)

# %% [markdown]
# ## The template tutorial's queries
#
# They run as they stand there. `filePath` leads to the DICOM file: see `from_row_to_pixels.py`.

# %%
everything = spark.sql("SELECT * FROM instance")
everything.show(5)

# %%
file_paths = spark.sql("SELECT sopInstanceUid, filePath FROM instance")
file_paths.show(5, truncate=False)

# %% [markdown]
# ## A chart
#
# Instances by year, a colour for each modality, by matplotlib (the extra `notebook` of the wheel's file).

# %%
counted = pd.DataFrame(by_modality_and_year.collect(), columns=by_modality_and_year.columns)
by_year = counted.pivot_table(
    index=counted["year"].map(lambda year: "no date" if pd.isna(year) else f"{year:.0f}"),
    columns=counted["modality"].fillna("none"),
    values="instances",
    aggfunc="sum",
)
chart = by_year.plot.barh(stacked=True, xlabel="instances", ylabel="year of the study").figure
chart_file = Path(os.environ.get("NOTEBOOK_PICTURES", ".")) / "instances_by_year.png"
chart_file.parent.mkdir(parents=True, exist_ok=True)
chart.savefig(chart_file, bbox_inches="tight")
print(f"the chart is in {chart_file.name}")
chart  # noqa: B018 - a notebook shows its last value

# %% [markdown]
# ## Close
#
# Stops the session that dicom-etl started; one of a cluster's own goes on.

# %%
lake.close()
