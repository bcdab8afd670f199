"""Retention that really deletes: versions, interrupted uploads, results, files of edits, records and logs."""

from __future__ import annotations

from typing import Any

from maskdrop.flow import EDITS_KEPT
from tests.infra.conftest import Template


def rules(template: Template, name: str) -> list[dict[str, Any]]:
    bucket = template.body["Resources"][template.body["Outputs"][f"{name}Bucket"]["Value"]["Ref"]]["Properties"]
    found: list[dict[str, Any]] = bucket["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in found} == {"Enabled"}
    return found


def of_prefix(found: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    (rule,) = [rule for rule in found if rule.get("Prefix") == prefix]
    return rule


def test_uploads_their_versions_and_parts_of_interrupted_uploads_are_deleted(template: Template) -> None:
    found = rules(template, "Inbox")
    uploads = of_prefix(found, "uploads/")
    assert uploads["ExpirationInDays"] == 7
    assert uploads["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    everywhere = [rule for rule in found if "Prefix" not in rule]
    assert {"DaysAfterInitiation": 1} in [rule.get("AbortIncompleteMultipartUpload") for rule in everywhere]
    # Photos of the drop folder that were replaced or deleted, and the markers of deletions.
    (versions,) = [rule for rule in everywhere if "NoncurrentVersionExpiration" in rule]
    assert versions["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert versions["ExpiredObjectDeleteMarker"] is True


def test_results_bundles_and_files_of_edits_are_deleted(template: Template) -> None:
    found = rules(template, "Results")
    days = {prefix: of_prefix(found, prefix)["ExpirationInDays"] for prefix in ("results/", "bundles/", "edits/")}
    assert days == {"results/": 30, "bundles/": 7, "edits/": EDITS_KEPT.days + 1}
    assert any(rule.get("AbortIncompleteMultipartUpload") == {"DaysAfterInitiation": 1} for rule in found)


def test_every_table_deletes_expired_items_and_every_log_group_its_lines(stacks: dict[str, Template]) -> None:
    for template in stacks.values():
        for resource in template.body["Resources"].values():
            properties = resource.get("Properties", {})
            if resource["Type"] == "AWS::DynamoDB::Table":
                assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
            if resource["Type"] == "AWS::Logs::LogGroup":
                assert properties["RetentionInDays"] >= 1
