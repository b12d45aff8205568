"""Bulk update of studies: `POST /v2/studies/$bulkUpdate` (design/service-protocol.md: Bulk update, Change of UIDs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.answers import dicom_json, plain_json
from dicom_emulator.http.bodies import read_body
from dicom_emulator.http.errors import Conflict, InstanceExists, InstancePending, NotFound
from dicom_emulator.http.jsontext import loads
from dicom_emulator.http.parameters import refuse_tags
from dicom_emulator.http.routing import partition_of, service_of, version_of
from dicom_emulator.routes.rewriting import NotRewritable, rewrite_file
from dicom_emulator.routes.stow import failed_attributes
from dicom_emulator.routes.updaterequest import BadChange, UpdateRequest, read_request
from dicom_emulator.state.history import FeedRow
from dicom_emulator.state.instances import Instance
from dicom_emulator.state.service import DicomService, Metadata
from dicom_emulator.state.uids import InstanceKey


async def post_bulk_update(request: Request) -> Response:
    """202 with the operation's id and href; 400, 404 (API v1), or 409 while another update runs."""
    if version_of(request) < 2:
        raise NotFound("")
    refuse_tags(request)
    service, partition = service_of(request), partition_of(request)
    try:
        asked = read_request(await read_body(request, service.options.max_body_bytes))
    except BadChange as error:
        return dicom_json({"00741048": failed_attributes(error.comments)}, 400)
    if service.operations.is_running("update"):
        raise Conflict("There is already an active update operation.")
    work = partial(update_studies, service, partition, asked)
    polls, now = service.options.operation_polls, service.clock.now_ticks()
    operation = await run_in_threadpool(service.operations.start, "update", polls, now, work)
    href = f"{str(request.base_url).rstrip('/')}/v{request.path_params['version']}/operations/{operation.id}"
    return plain_json({"id": operation.id, "href": href}, 202, {"location": href})


def update_studies(service: DicomService, partition: str, asked: UpdateRequest) -> tuple[bool, dict[str, Any]]:
    """Applies the change study by study; returns whether all succeeded, and the operation's results.

    A study is changed whole or not at all; unknown studies count for nothing.
    """
    updated = failed = instances = 0
    for study in asked.studies:
        chosen = service.instances(partition, study, asked.series, asked.sop)
        try:
            rows = _update(service, chosen, asked) if chosen else []
        except (NotRewritable, KeyError, OSError, InstanceExists, InstancePending):
            failed += 1
            continue
        updated += bool(rows)
        instances += len(rows)
    results: dict[str, Any] = {
        "studyProcessed": updated + failed,
        "studyUpdated": updated,
        "studyFailed": failed,
        "instanceUpdated": instances,
    }
    if failed:
        results["errors"] = [f"Failed to update {failed} of the studies."]
    return failed == 0, results


def _update(service: DicomService, instances: Sequence[Instance], asked: UpdateRequest) -> list[FeedRow]:
    changed = [_changed(one, asked.change) for one in instances]
    if not asked.new_uids:
        return service.update_together(changed)
    return service.change_uids(
        [(key, key._replace(**asked.new_uids), document, file) for key, document, file in changed]
    )


def _changed(instance: Instance, change: Mapping[str, Any]) -> tuple[InstanceKey, Metadata, bytes | None]:
    """Key, metadata with the change overlaid, and the file with the change written into it."""
    metadata: dict[str, Any] = loads(instance.current.metadata) | dict(change)
    file = instance.current.file
    return (
        instance.key,
        dict(sorted(metadata.items())),
        None if file is None else rewrite_file(file, change),
    )
