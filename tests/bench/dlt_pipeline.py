"""The feed by `dlt`, as a Python user would set it up: run by the Python of its own venv, `dlt_pipeline.py …`.

`rest_api` source with an offset paginator, Delta tables in a folder, merge (upsert) on the key, the metadata as one
JSON string. One table; no series, no studies, no look at `state`, `action` or the sequence.
"""

import argparse
import json
import time

import dlt
from dlt.sources.rest_api import rest_api_source


def _metadata_as_text(entry):
    metadata = entry.get("metadata")
    return {**entry, "metadata": None if metadata is None else json.dumps(metadata)}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("--base-url", "--start", "--end", "--root"):
        options.add_argument(name, required=True)
    given = options.parse_args()
    began = time.monotonic()
    source = rest_api_source(
        {
            "client": {"base_url": given.base_url},
            "resources": [
                {
                    "name": "instance",
                    "endpoint": {
                        "path": "v2/changefeed",
                        "params": {"startTime": given.start, "endTime": given.end},
                        "paginator": {
                            "type": "offset",
                            "limit": 200,
                            "total_path": None,
                            "stop_after_empty_page": True,
                        },
                        "data_selector": "$",
                    },
                    "primary_key": ["partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid"],
                    "write_disposition": {"disposition": "merge", "strategy": "upsert"},
                    "table_format": "delta",
                    "processing_steps": [{"map": _metadata_as_text}],
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=f"{given.root}/pipelines",
        destination=dlt.destinations.filesystem(f"file://{given.root}/lake"),
        dataset_name="dicom",
    )
    pipeline.run(source)
    steps = {
        name: sum(
            (one["finished_at"] - one["started_at"]).total_seconds()
            for load in getattr(pipeline.last_trace, f"last_{name}_info").metrics.values()
            for one in load
        )
        for name in ("extract", "normalize", "load")
    }
    rows = pipeline.last_trace.last_normalize_info.row_counts["instance"]
    print(json.dumps({"rows": rows, "seconds": time.monotonic() - began, **steps}))  # noqa: T201


if __name__ == "__main__":
    main()
