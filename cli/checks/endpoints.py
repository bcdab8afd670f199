"""Checks of what the endpoints of a stage need from SageMaker: quotas, instance types, prices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from cli.checks.account import Account, Line, Quota
from cli.checks.before import SUPPORT
from infra.stages import Stage

SERVERLESS_CONCURRENCY = "Maximum total concurrency that can be allocated across all serverless endpoints"
"""Name of quota L-96300102: 10 in a new account (reported by users)."""

SERVERLESS_MEMORY = "Memory size in MB per serverless endpoint"
"""Name of the limit in SageMaker's error message. Service Quotas does not list it (reported by users)."""

SERVERLESS_MEMORY_MB = 3072
"""Memory in MB that every account may use."""

PRICE_TOLERANCE = 0.01
"""Difference from the price list above which a stage's price is reported, as a share."""


@dataclass(frozen=True, slots=True)
class Need:
    """Instances of one type that a stage needs at once, at least and at most, and the price that it assumes."""

    minimum: int
    maximum: int
    usd_per_hour: float
    setting: str


def needs(stage: Stage) -> dict[str, Need]:
    """Returns the instances that a stage needs, by instance type. An endpoint is created with one instance."""
    counts = []
    if stage.bulk == "gpu":
        counts.append((stage.gpu_instance_type, stage.bulk_max_instances, stage.gpu_usd_per_hour, "gpu_usd_per_hour"))
    if stage.bulk == "cpu":
        counts.append((stage.cpu_instance_type, stage.bulk_max_instances, stage.cpu_usd_per_hour, "cpu_usd_per_hour"))
    if stage.interactive == "realtime":
        counts.append(
            (stage.gpu_instance_type, stage.interactive_max_instances, stage.gpu_usd_per_hour, "gpu_usd_per_hour")
        )
    found: dict[str, Need] = {}
    for kind, maximum, price, setting in counts:
        before = found.get(kind, Need(0, 0, price, setting))
        found[kind] = Need(before.minimum + 1, before.maximum + maximum, price, setting)
    return found


def own_endpoints(stage: Stage) -> set[str]:
    """Returns the names of the endpoints that the next deploy has."""
    return {stage.bulk_endpoint, stage.interactive_endpoint} - {""}


def instances(account: Account) -> Iterator[Line]:
    """The quota allows the instances of the endpoints, besides those that other endpoints use."""
    for kind, need in needs(account.stage).items():
        name = f"{kind} instances"
        quota = account.quota("sagemaker", f"{kind} for endpoint usage")
        if quota is None:
            continue  # reported by instance_types
        own = own_endpoints(account.stage)
        others = sum(one.instances.get(kind, 0) for one in account.endpoints if one.name not in own)
        free = quota.value - others
        used = f", of which other endpoints use {others}" if others else ""
        finding = f"The quota is {quota.value:g}{used}; the stage needs {need.minimum} to {need.maximum}."
        remedy = account.increase(quota, need.maximum + others)
        if free < need.minimum:
            if account.stage.bulk == "gpu":
                remedy += f'\nuntil then bulk = "serverless" in {account.file}'
            yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
        elif free < need.maximum:
            finding += f" The endpoints scale to {free:g}."
            yield Line(name=name, level="warning", finding=finding, remedy=remedy)
        else:
            yield Line(name=name, level="ok", finding=finding)


def instance_types(account: Account) -> Iterator[Line]:
    """The instance types exist in the Region, at the price of the stage.

    SageMaker has no operation that lists its instance types. Evidence is a quota for endpoints and a price for hosting.
    """
    for kind, need in needs(account.stage).items():
        quota = account.quota("sagemaker", f"{kind} for endpoint usage")
        price = _price(account, kind)
        remedy = (
            f"another instance type in {account.file}\nor another Region: https://aws.amazon.com/sagemaker/pricing/"
        )
        if quota is None and price is None:
            finding = f"{account.region} does not offer it for endpoints: it has neither a quota nor a price."
            yield Line(name=kind, level="fails the deploy", finding=finding, remedy=remedy)
        elif quota is None or price is None:
            missing = "quota in Service Quotas" if quota is None else "price in the Price List"
            finding = f"{account.region} may not offer it for endpoints: it has no {missing}."
            yield Line(name=kind, level="warning", finding=finding, remedy=remedy)
        elif abs(price - need.usd_per_hour) > PRICE_TOLERANCE * price:
            finding = f"It costs ${price:.3f} an hour in {account.region}; costs of jobs use ${need.usd_per_hour:.3f}."
            remedy = f"{need.setting} = {price:g} in {account.file}"
            yield Line(name=kind, level="warning", finding=finding, remedy=remedy)
        else:
            yield Line(name=kind, level="ok", finding=f"{account.region} offers it for ${price:.3f} an hour.")


def _price(account: Account, kind: str) -> float | None:
    """Returns the price of an instance for hosting, in US dollars an hour; None without one in this Region."""
    attributes = {"regionCode": account.region, "instanceName": kind, "component": "Hosting"}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in attributes.items()]
    prices = [
        float(dimension["pricePerUnit"]["USD"])
        for product in account.pages(
            "pricing", "get_products", "PriceList", ServiceCode="AmazonSageMaker", Filters=filters
        )
        for term in json.loads(product)["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if "USD" in dimension["pricePerUnit"]
    ]
    return max(prices, default=0) or None  # a free-tier price is 0


def gpu_mode(account: Account) -> Iterator[Line]:
    """Whether the quota allows the mode gpu, for a stage that uses another."""
    stage = account.stage
    if stage.bulk == "gpu":
        return
    kind = stage.gpu_instance_type
    quota = account.quota("sagemaker", f"{kind} for endpoint usage")
    if quota is None:
        finding = f'bulk = "gpu" is not possible with {kind}: it has no quota in {account.region}.'
        yield Line(name="GPU mode", level="ok", finding=finding, remedy=f"gpu_instance_type in {account.file}")
    elif quota.value < 1:
        finding = f'bulk = "gpu" is not possible yet: the quota of {kind} for endpoints is 0.'
        yield Line(name="GPU mode", level="ok", finding=finding, remedy=account.increase(quota, 1))
    else:
        finding = f'The quota ({quota.value:g} {kind} for endpoints) allows bulk = "gpu".'
        yield Line(name="GPU mode", level="ok", finding=finding, remedy=f'bulk = "gpu" in {account.file}')


def serverless_memory(account: Account) -> Iterator[Line]:
    """The account may create serverless endpoints with the memory of the stage."""
    stage, name = account.stage, "serverless memory"
    if "serverless" not in (stage.bulk, stage.interactive):
        return
    wanted = stage.serverless_memory_mb
    finding = f"The stage uses {wanted:,} MB for each endpoint."
    largest = max((one.memory_mb for one in account.endpoints), default=0)
    if wanted <= SERVERLESS_MEMORY_MB:
        yield Line(name=name, level="ok", finding=f"{finding} Every account may use {SERVERLESS_MEMORY_MB:,} MB.")
    elif wanted <= largest:
        yield Line(name=name, level="ok", finding=f"{finding} An endpoint of this account has {largest:,} MB.")
    elif (quota := account.quota("sagemaker", SERVERLESS_MEMORY)) is None:
        finding += f" A new account may use {SERVERLESS_MEMORY_MB:,} MB; Service Quotas does not list this limit."
        remedy = f"serverless_memory_mb = {SERVERLESS_MEMORY_MB} in {account.file}\nor a support case: {SUPPORT}"
        yield Line(name=name, level="warning", finding=finding, remedy=remedy)
    elif quota.value < wanted:
        finding += f" The quota is {quota.value:,.0f} MB."
        remedy = f"serverless_memory_mb = {quota.value:.0f} in {account.file}\nor {account.increase(quota, wanted)}"
        yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
    else:
        yield Line(name=name, level="ok", finding=f"{finding} The quota is {quota.value:,.0f} MB.")


def serverless_concurrency(account: Account) -> Iterator[Line]:
    """The quota allows the serverless endpoints of the stage besides all others of the account in the Region."""
    stage, name = account.stage, "serverless concurrency"
    settings = {
        "bulk_at_once": stage.bulk_at_once if stage.bulk == "serverless" else 0,
        "interactive_at_once": stage.interactive_at_once if stage.interactive == "serverless" else 0,
    }
    wanted = sum(settings.values())
    if not wanted:
        return
    own = own_endpoints(stage)
    others = {one.name: one.concurrency for one in account.endpoints if one.concurrency and one.name not in own}
    used = sum(others.values())
    finding = f"The stage uses {wanted}, other serverless endpoints {used}"
    finding += f" ({', '.join(sorted(others))})." if others else "."
    quota: Quota | None = account.quota("sagemaker", SERVERLESS_CONCURRENCY)
    if quota is None:
        finding += " Service Quotas does not list the limit of all serverless endpoints together."
        remedy = account.console("servicequotas/home/services/sagemaker/quotas")
        yield Line(name=name, level="warning", finding=finding, remedy=remedy)
        return
    finding += f" The quota for all together is {quota.value:g}."
    if wanted + used > quota.value:
        lower = " and ".join(setting for setting, value in settings.items() if value)
        remedy = f"{account.increase(quota, wanted + used)}\nor lower {lower} in {account.file}"
        yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
    else:
        yield Line(name=name, level="ok", finding=finding)
