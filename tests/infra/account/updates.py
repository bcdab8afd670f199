"""What a deployment over another one does to each resource, by the rules of CloudFormation and of the services.

An update first creates and changes resources, then deletes what is left over. A failed update rolls back: it changes
the resources again, in the other direction, while the old ones still exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.infra.account import schemas
from tests.infra.account.assembly import Assembly, Node, Resource, references
from tests.infra.account.names import physical

Effect = Literal["in place", "replacement", "created", "deleted", "refused", "loses"]
"""refused: the deployment fails. loses: it succeeds and undoes something of the running stage."""


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of an update on one resource.

    path: the changed property, or "" for the resource.
    """

    resource: str
    path: str
    effect: Effect
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.effect}: {self.resource} {self.path} {self.reason}".rstrip()


def update(old: Assembly, new: Assembly) -> list[Change]:
    """All changes of an update, and the rules that refuse it. `cdk deploy --all` leaves a stack that the new assembly
    lacks as it is."""
    changes = [*_changes(old, new)]
    replaced = {one.resource for one in changes if one.effect == "replacement"}
    for rule in RULES:
        changes += rule(old, new, replaced)
    return changes


def problems(old: Assembly, new: Assembly) -> list[str]:
    """The changes that fail or lose something. Empty: the update succeeds."""
    return [str(one) for one in update(old, new) if one.effect in ("refused", "loses")]


def _changes(old: Assembly, new: Assembly) -> Iterator[Change]:
    replaced: set[Node] = set()
    # A reference to a replaced resource changes too: repeat until no further resource is replaced.
    while True:
        changes = [change for node in sorted(new.resources) for change in _of_resource(old, new, node, replaced)]
        found = {new_node for new_node, change in changes if change.effect == "replacement"}
        if found == replaced:
            break
        replaced = found
    yield from (change for _, change in changes)
    for node in sorted(_removed(old, new)):
        yield Change(str(old.resources[node]), "", "deleted")


def _removed(old: Assembly, new: Assembly) -> set[Node]:
    return {node for node in old.resources.keys() - new.resources.keys() if node[0] in new.templates}


def _of_resource(old: Assembly, new: Assembly, node: Node, replaced: set[Node]) -> Iterator[tuple[Node, Change]]:
    after, before = new.resources[node], old.resources.get(node)
    if before is None:
        yield node, Change(str(after), "", "created")
        return
    if before.type != after.type:
        yield node, Change(str(after), "", "refused", "CloudFormation cannot change the type of a resource")
        return
    needs = schemas.replaced_with(after.type)
    for name in sorted(before.raw.keys() | after.raw.keys()):
        was, becomes = before.raw.get(name), after.raw.get(name)
        refers = {(node[0], one) for one in references(becomes)} & replaced
        if was == becomes and not refers:
            continue
        paths = [path for path in needs if path.partition(".")[0] == name]
        replaces = any(
            refers or [*schemas.values(before.raw, path)] != [*schemas.values(after.raw, path)] for path in paths
        )
        yield node, Change(str(after), name, "replacement" if replaces else "in place")


Rule = Callable[[Assembly, Assembly, set[str]], Iterator[Change]]


def fixed_name_on_a_replaced_resource(old: Assembly, new: Assembly, replaced: set[str]) -> Iterator[Change]:
    """CloudFormation creates the new resource first: its name is still in use (resource reference, "Name type")."""
    for node, after in new.resources.items():
        before = old.resources.get(node)
        if before and str(after) in replaced and (name := physical(after)) and name == physical(before):
            yield Change(str(after), "", "refused", f"{name[1]} is replaced under the same name")


def name_in_use_by_another_resource(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """A resource with another logical ID, or in another stack, is created before that of the same name is deleted."""
    existing = {name: node for node, one in old.resources.items() if (name := physical(one))}
    for node, one in new.resources.items():
        name = physical(one)
        if name and node not in old.resources and name in existing and existing[name] != node:
            yield Change(str(one), "", "refused", f"{name[1]} exists as {'/'.join(existing[name])}")


def endpoint_of_another_kind(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """SageMaker does not convert an endpoint between serverless, asynchronous and real-time (serverless: developer
    guide, "Create a serverless endpoint"; asynchronous: believed)."""
    for before, after in _endpoints_in_both(old, new):
        kinds = kind(old, before), kind(new, after)
        if kinds[0] != kinds[1]:
            yield Change(str(after), "EndpointConfigName", "refused", f"{kinds[0]} endpoint cannot become {kinds[1]}")


def instance_type_of_a_scaled_variant(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """The update fails while a scalable target names the variant (developer guide, "Update endpoints that use auto
    scaling")."""
    for before, after in _endpoints_in_both(old, new):
        types = [_instance_types(assembly, one) for assembly, one in ((old, before), (new, after))]
        changed = {name for name in types[0].keys() & types[1].keys() if types[0][name] != types[1][name]}
        targets = {one.properties["ResourceId"] for one in old.of("AWS::ApplicationAutoScaling::ScalableTarget")}
        for name in sorted(changed):
            if f"endpoint/{before.properties['EndpointName']}/variant/{name}" in targets:
                yield Change(str(after), "EndpointConfigName", "refused", f"the instance type of {name} scales")


def initial_count_of_a_running_variant(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """Without RetainAllVariantProperties (default: false), an update sets the initial instance count again (API
    reference, UpdateEndpoint): ten busy instances become one, and a sleeping endpoint starts one."""
    for before, after in _endpoints_in_both(old, new):
        same_config = config(old, before).raw == config(new, after).raw and model(old, before) == model(new, after)
        if not same_config and _instance_types(new, after) and not after.properties.get("RetainAllVariantProperties"):
            yield Change(str(after), "EndpointConfigName", "loses", "the number of running instances")


def export_in_use(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """CloudFormation refuses to delete or change an export that a deployed stack imports. Stacks are updated in the
    order of their dependencies: the importing stack still has the old template."""
    imported = {name for template in old.templates.values() for name in _import_names(template)}
    for name, (stack, value) in old.exports.items():
        if name not in imported or stack not in new.templates:
            continue
        if name not in new.exports or new.resolve(new.exports[name][0], new.exports[name][1]) != old.resolve(
            stack, value
        ):
            yield Change(stack, name, "refused", "another stack imports the export")


def two_changes_of_global_indexes(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """DynamoDB creates or deletes one global secondary index per update (API reference, UpdateTable)."""
    for before, after in _in_both(old, new, "AWS::DynamoDB::Table"):
        indexes = [
            {json.dumps(index, sort_keys=True) for index in one.raw.get("GlobalSecondaryIndexes", [])}
            for one in (before, after)
        ]
        if len(indexes[0] ^ indexes[1]) > 1:
            yield Change(str(after), "GlobalSecondaryIndexes", "refused", "more than one index changes")


def data_deleted(old: Assembly, new: Assembly, replaced: set[str]) -> Iterator[Change]:
    """A replaced or removed bucket, table, key or queue takes its data with it, or the stage loses sight of it."""
    removed = _removed(old, new)
    for node, before in old.resources.items():
        if re.fullmatch(REBUILT, before.logical_id):
            continue
        if before.type in STORES and (node in removed or str(before) in replaced):
            yield Change(str(before), "", "loses", "the stored data")


def retained_under_a_fixed_name(old: Assembly, new: Assembly, replaced: set[str]) -> Iterator[Change]:
    """A removed resource that is retained blocks the deployment that creates it again: the way back fails."""
    for node in sorted(_removed(old, new)):
        before = old.resources[node]
        policy = before.body.get("DeletionPolicy", "Delete")
        if policy.startswith("Retain") and physical(before):
            yield Change(str(before), "", "refused", "it remains, and the way back cannot create it again")


def emptied_without_permission(old: Assembly, new: Assembly, _replaced: set[str]) -> Iterator[Change]:
    """The function that empties a bucket first reads a tag of it, and empties only a bucket with the tag. If the bucket
    stays, its policy and its tag change before CloudFormation calls the function (aws-cdk#14649, aws-cdk#37303)."""
    for node in _removed(old, new):
        if old.resources[node].type != "Custom::S3AutoDeleteObjects":
            continue
        roles = [one for one in old.of("AWS::IAM::Role") if "S3AutoDelete" in one.logical_id]
        if "s3:GetBucketTagging" not in json.dumps([one.properties.get("Policies") for one in roles]):
            yield Change(str(old.resources[node]), "", "refused", "its function may not read the tag of the bucket")


RULES: tuple[Rule, ...] = (
    fixed_name_on_a_replaced_resource,
    name_in_use_by_another_resource,
    endpoint_of_another_kind,
    instance_type_of_a_scaled_variant,
    initial_count_of_a_running_variant,
    export_in_use,
    two_changes_of_global_indexes,
    data_deleted,
    retained_under_a_fixed_name,
    emptied_without_permission,
)

STORES = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::KMS::Key", "AWS::SQS::Queue")
"""Types that hold data of users: photos, results, jobs, waiting messages, and the key that decrypts them."""


REBUILT = r"QueuesBundles[0-9A-F]{8}"
"""Logical IDs of stores whose content is derived: the sweep queues the jobs of a lost bundle again."""


def left_by_a_failed_creation(assembly: Assembly) -> list[str]:
    """The resources that remain when the first deployment fails. The next one creates them again, and fails if they
    have fixed names. "RetainExceptOnCreate" exists for that (CloudFormation user guide, DeletionPolicy attribute)."""
    return [str(one) for one in assembly.resources.values() if one.body.get("DeletionPolicy") == "Retain"]


def kind(assembly: Assembly, endpoint: Resource) -> str:
    found = config(assembly, endpoint)
    if "AsyncInferenceConfig" in found.raw:
        return "asynchronous"
    (variant,) = found.raw["ProductionVariants"]
    return "serverless" if "ServerlessConfig" in variant else "real-time"


def config(assembly: Assembly, endpoint: Resource) -> Resource:
    return _referenced(assembly, endpoint, "EndpointConfigName")


def model(assembly: Assembly, endpoint: Resource) -> dict[str, Any]:
    """Properties of the model of an endpoint with one variant."""
    found = config(assembly, endpoint)
    (variant,) = found.raw["ProductionVariants"]
    (name,) = references(variant["ModelName"])
    return assembly.resources[found.stack, name].raw


def _referenced(assembly: Assembly, resource: Resource, name: str) -> Resource:
    (logical_id,) = references(resource.raw[name])
    return assembly.resources[resource.stack, logical_id]


def _instance_types(assembly: Assembly, endpoint: Resource) -> dict[str, str]:
    """Instance type by the name of a variant; {} for a serverless endpoint."""
    variants = config(assembly, endpoint).properties["ProductionVariants"]
    return {one["VariantName"]: one["InstanceType"] for one in variants if "InstanceType" in one}


def _endpoints_in_both(old: Assembly, new: Assembly) -> Iterator[tuple[Resource, Resource]]:
    """Endpoints that an update changes in place: the same resource under the same name."""
    for before, after in _in_both(old, new, "AWS::SageMaker::Endpoint"):
        if before.properties.get("EndpointName") == after.properties.get("EndpointName"):
            yield before, after


def _in_both(old: Assembly, new: Assembly, resource_type: str) -> Iterator[tuple[Resource, Resource]]:
    for before in old.of(resource_type):
        after = new.resources.get(before.node)
        if after and after.type == resource_type:
            yield before, after


def _import_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("Fn::ImportValue"), str):
            yield value["Fn::ImportValue"]
        for item in value.values():
            yield from _import_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _import_names(item)
