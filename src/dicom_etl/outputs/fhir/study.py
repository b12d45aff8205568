"""The ImagingStudy of a study, as the rules of the mapping make it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dicom_etl.outputs.fhir.digest import canonical
from dicom_etl.outputs.fhir.facts import Facts, Json, MappingOptions, Resource, SeriesFacts, StudyFacts
from dicom_etl.outputs.fhir.mapping import STUDY
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.rule import INSTANCE, SERIES, Context, Filler, Rule, filled, fillers

# The Azure service takes resources of slightly less than 2 MB.
MOST_BYTES: Final = 1_500_000


def imaging_study(
    study: StudyFacts, subject: Json, endpoints: Sequence[str], options: MappingOptions, rules: Sequence[Rule] = STUDY
) -> Resource:
    """FHIR R4 ImagingStudy. ``subject`` is a Reference, ``endpoints`` are ids of Endpoints, ``rules`` the mapping's.

    Series and instances stand in the order of their numbers, then UIDs, so that equal facts give equal bytes. Counts
    are those of the living rows, also of what cannot be written. With ``instances`` ``auto`` a resource above 1.5 MB of
    canonical JSON has no instances, which ``left_out`` then counts.
    """
    whole = Context(options, LeftOut(), subject, tuple(endpoints))
    within = Context(options, LeftOut(), subject)
    body: Json = {"resourceType": "ImagingStudy", **(filled(fillers(rules), study, whole) or {})}
    made_of = fillers(rules, SERIES)
    written = [(one, made) for one in _sorted(study.series) if (made := filled(made_of, one, whole)) is not None]
    if written:
        body["series"] = [made for _, made in written]
    if options.instances != "none":
        made_by = fillers(rules, INSTANCE)
        for one, made in written:
            if instances := _instances(one, made_by, within):
                made["instance"] = instances
        if options.instances == "auto" and len(canonical(body)) > MOST_BYTES:
            within.left_out.clear()
            within.left_out[Reason.INSTANCES] = sum(len(one.instances) for one, _ in written)
            for _, made in written:
                made.pop("instance", None)
    counted = whole.left_out + within.left_out
    return Resource("ImagingStudy", body["id"], body, {str(reason): counted[reason] for reason in sorted(counted)})


def _instances(series: SeriesFacts, made_by: Sequence[Filler], context: Context) -> list[Json]:
    instances = sorted(series.instances, key=_instance_order)
    return [made for one in instances if (made := filled(made_by, one, context)) is not None]


def _sorted(series: Sequence[SeriesFacts]) -> list[SeriesFacts]:
    return sorted(series, key=lambda one: (*_number_order(one.values.get("SeriesNumber")), one.uid))


def _instance_order(instance: Facts) -> tuple[bool, int, str]:
    return *_number_order(instance.get("InstanceNumber")), str(instance["SOPInstanceUID"])


def _number_order(number: int | None) -> tuple[bool, int]:
    """Those without a number come last."""
    return number is None, number or 0
