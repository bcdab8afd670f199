"""The stages: one file `stages/<name>.toml` for each deployment of Maskdrop, typed and validated. A new stage is a new
file. Imports no CDK, so that the command `maskdrop` can read stages too."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskdrop.bot import API_URL
from maskdrop.catalog import ENGINES
from maskdrop.edit import EDITORS, EditorName
from maskdrop.errors import MaskdropError
from maskdrop.options import REFINER
from maskdrop.settings import Interactive

FOLDER = Path(__file__).resolve().parent.parent / "stages"

Bulk = Literal["gpu", "cpu", "serverless"]
"""Mode of the endpoint `bulk`, which processes jobs:

gpu          asynchronous, 0 to `bulk_max_instances` GPU instances. Needs a quota for the instance type.
cpu          asynchronous, 0 to `bulk_max_instances` CPU instances. Needs a quota for the instance type.
serverless   the function `invoke` sends small bundles to a serverless endpoint on CPUs. Needs no quota.
"""

BUNDLE_MAX: dict[Bulk, int] = {"gpu": 64, "cpu": 16, "serverless": 8}
"""Images of a bundle. A serverless endpoint has 60 s for a bundle: 8 photos of 48 MP take about 25 s on 2 vCPUs."""

IMAGES_PER_SECOND: dict[Bulk, int] = {"gpu": 20, "cpu": 4, "serverless": 1}
"""Estimated rate of one instance, or of one concurrent invocation of a serverless endpoint. Limits the backlog only."""

BACKLOG_S = 3600
"""Work that may be queued in the endpoint, in seconds. Further photos wait in SQS, where their messages are renewed;
the endpoint deletes a request after 6 hours."""

AUTHORIZE_EXECUTIONS = 20
"""Executions reserved for `authorize`, which takes some milliseconds: enough for about 1,000 requests a second."""

UNRESERVED_MIN = 100
"""Lambda executions that AWS keeps unreserved in an account. An account whose quota is lower can reserve none."""

STAGE_TAG = "maskdrop:stage"
"""Tag of every resource, whose value is the name of the stage."""

TAGS_MAX = 46
"""Tags of a stage besides STAGE_TAG. AWS allows 50 for a resource, and the CDK adds up to 3 of its own, to subnets."""

API_EXECUTIONS = 2
"""Concurrent Lambda executions that event sources leave to the API. The scheduled functions use one for seconds."""

SOURCES = 3
"""Event sources of the queues jobs, results and webhooks; `bundles` has its own concurrency."""

SOURCE_EXECUTIONS = 2, 10
"""Concurrent executions of one of them: Lambda's minimum, and the maximum, which limits the load on the table."""

BOT_EXECUTIONS = 2
"""Concurrent executions of `bot` that its queue starts, as EDIT_EXECUTIONS. Webhooks need further ones."""

EDIT_EXECUTIONS = 2
"""Concurrent executions of `edit`: Lambda's minimum for an event source. In a stage of 10 executions it uses those of
API_EXECUTIONS while it generates images."""

FARGATE_GB = {1: (2, 8), 2: (4, 16), 4: (8, 30), 8: (16, 60)}
"""Smallest and largest memory of a Fargate task by its vCPUs, in GB (Amazon ECS developer guide)."""

KeepDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]
"""Retention periods of CloudWatch Logs, in days."""

Host = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]
Source = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/([^/*?$\s\x00-\x1f\x7f]+/)*)?$")]
Positive = Annotated[int, Field(ge=1)]
TagKey = Annotated[str, Field(pattern=r"^[\w .:/=+@-]+$", max_length=128)]
TagValue = Annotated[str, Field(pattern=r"^[\w .:/=+@-]*$", max_length=256)]
KEY_ID = r"(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"
Key = Annotated[str, Field(pattern=rf"^(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{{12}}:key/{KEY_ID})?$")]
GpuInstance = Annotated[str, Field(pattern=r"^ml\.[gp]\d[a-z0-9-]*\.[a-z0-9-]+$")]
CpuInstance = Annotated[str, Field(pattern=r"^ml\.[cmrt]\d+([a-fh-z][a-z0-9-]*)?\.[a-z0-9-]+$")]
Cidr = Annotated[str, Field(pattern=r"^(\d{1,3}\.){3}\d{1,3}/\d{1,2}$")]
EngineName = Annotated[str, Field(pattern=rf"^(\*|{'|'.join((*ENGINES, REFINER))})$")]
Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[a-z0-9_.:\[\]-]+)$")]

FORMS = {
    "name": "a name of at most 16 lower-case letters, digits and hyphens that starts with a letter (name of the file)",
    "mail": 'one e-mail address, or ""',
    "weights": "s3://BUCKET/PREFIX/ with a slash at the end",
    "engines": 'the name of an engine, such as "modnet" (docs/engines.md), or "*"',
    "cors": 'an origin without a path and a slash at the end, such as "https://a.example", or "*"',
    "trusted_hosts": 'a host name in lower case without https:// and port, such as "images.corp"',
    "source_buckets": '"BUCKET" or "BUCKET/PREFIX/", without s3://, spaces and wildcards',
    "gpu_instance_type": "a type with an NVIDIA GPU, such as ml.g6.xlarge",
    "cpu_instance_type": "a type with x86 processors, not a GPU or Graviton, such as ml.c6i.xlarge",
    "kms_key": "the ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID; an alias is not accepted",
    "former_kms_keys": "ARNs of keys, arn:aws:kms:REGION:ACCOUNT:key/ID",
    "domain.name": "a host name in lower case, such as images.example.com",
    "domain.certificate": "the ARN of a certificate, arn:aws:acm:REGION:ACCOUNT:certificate/ID",
    "door.name": "a host name in lower case, such as cutouts.example.com",
    "door.certificate": "the ARN of a certificate, arn:aws:acm:REGION:ACCOUNT:certificate/ID",
    "door.sources": "ranges of IPv4 addresses, such as 203.0.113.0/24",
    "web.name": "a host name in lower case, such as console.example.com",
    "web.certificate": "the ARN of a certificate in us-east-1, arn:aws:acm:us-east-1:ACCOUNT:certificate/ID",
    "bot.parameter": "the name of an SSM parameter that starts with a slash, such as /maskdrop/bot",
    "bot.api_url": "https:// and a host name in lower case, without a path",
    "permissions_boundary": "the name of a policy with its path, such as boundaries/developer, without its ARN",
    "qualifier": "at most 10 lower-case letters and digits",
    "tags": "letters, digits, spaces and _ . : / = + - @",
}
"""What is accepted, for each option whose values have a pattern."""

TYPES = {
    "string_type": "text in quotes",
    "bool_type": "true or false, without quotes",
    "int_type": "a whole number, without quotes",
    "float_type": "a number, without quotes",
    "tuple_type": 'a list of texts, such as ["a", "b"]',
    "dict_type": "a table",
    "model_type": "a table, such as [domain] with its options on the lines below",
}
"""What is accepted, for each type error of pydantic that a TOML value can cause."""


class InvalidStage(MaskdropError):
    """The file of a stage is missing or invalid."""

    code = "invalid_stage"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Domain(_Table):
    """A domain name for the API.

    certificate: ARN of the ACM certificate, in the same Region.
    zone: ID of the Route 53 hosted zone in which the alias record is created; "": create the record yourself.
    """

    name: Host
    certificate: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/.+$")]
    zone: str = ""


class Door(_Table):
    """The API in one process on Fargate, behind a load balancer, for images above API Gateway's 4 MB (`infra.door`).

    certificate: ARN of the ACM certificate, in the same Region; "": HTTP, for callers in `sources` only.
    name: host name of the certificate that callers use. Create its DNS record yourself, as an alias of `DoorHost`.
    sources: ranges of IP addresses that may call it.
    min_tasks, max_tasks: number of tasks, which follows their CPU use.
    vcpus, memory_gb: of a task. An image of 48 MP takes 0.77 GB at the peak, and each vCPU processes one at a time.
    """

    certificate: Annotated[str, Field(pattern=r"^(arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/.+)?$")] = ""
    name: Annotated[str, Field(pattern=r"^[a-z0-9_.-]*$")] = ""
    sources: Annotated[tuple[Cidr, ...], Field(strict=False, min_length=1, max_length=50)] = ("0.0.0.0/0",)
    min_tasks: Annotated[int, Field(ge=1, le=100)] = 1
    max_tasks: Annotated[int, Field(ge=1, le=100)] = 2
    vcpus: Literal[1, 2, 4, 8] = 1
    memory_gb: Annotated[int, Field(ge=2, le=60)] = 4

    @model_validator(mode="after")
    def _consistent(self) -> Door:
        if self.min_tasks > self.max_tasks:
            raise ValueError(f"min_tasks must not exceed max_tasks; got {self.min_tasks} and {self.max_tasks}")
        least, most = FARGATE_GB[self.vcpus]
        if not least <= self.memory_gb <= most or (self.vcpus == 8 and self.memory_gb % 4):
            raise ValueError(
                f"memory_gb must be {least} to {most} with {self.vcpus} vCPUs"
                f"{', in steps of 4' if self.vcpus == 8 else ''}; got {self.memory_gb}"
            )
        if not self.certificate and "0.0.0.0/0" in self.sources:
            raise ValueError(
                "certificate is missing: API keys would cross the internet unencrypted. Set it, or limit sources to "
                "the IP addresses of your callers"
            )
        return self


class Console(_Table):
    """The web console on CloudFront (`infra.console`).

    name: host name of the console; "": the one of CloudFront.
    certificate: ARN of the ACM certificate for `name`, in us-east-1, where CloudFront reads it.
    zone: ID of the Route 53 hosted zone in which the alias records are created; "": create the record yourself, as an
        alias or CNAME of the output `WebHost`.
    logs: whether CloudFront writes access logs into a bucket of the stack, which keeps them for 90 days.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_.-]*$")] = ""
    certificate: Annotated[str, Field(pattern=r"^(arn:aws[a-z-]*:acm:us-east-1:\d{12}:certificate/.+)?$")] = ""
    zone: str = ""
    logs: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Console:
        if bool(self.name) != bool(self.certificate):
            raise ValueError("name and certificate belong together: set both, or neither")
        if self.zone and not self.name:
            raise ValueError("zone needs name: the record has the name of the console")
        return self


class BotOptions(_Table):
    """The Telegram bot (docs/bot.md). `maskdrop bot install` writes the parameter and registers the webhook.

    parameter: name of the SSM parameter (SecureString) with token and secret.
    chats: ids of the chats that may use the bot; empty: all.
    messages_per_minute: messages of one chat in a minute that the bot replies to.
    images_per_day: images of one chat in a day (UTC).
    api_url: URL of the Bot API server: Telegram's, or your own.
    """

    parameter: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]+$", max_length=500)]
    chats: Annotated[tuple[int, ...], Field(strict=False)] = ()
    messages_per_minute: Positive = 20
    images_per_day: Positive = 200
    api_url: Annotated[str, Field(pattern=r"^https://[a-z0-9.-]+$")] = API_URL


class Stage(_Table):
    """Settings of one deployment.

    name: name of the file, part of the names of stacks and resources.
    bulk: mode of the endpoint for jobs.
    bulk_max_instances: maximum number of instances of `bulk` in the modes gpu and cpu.
    bulk_at_once: concurrent bundles of `bulk` in the mode serverless.
    gpu_instance_type, gpu_usd_per_hour: the GPU instance of both endpoints, and its price.
    cpu_instance_type, cpu_usd_per_hour: the CPU instance of `bulk` in the mode cpu, and its price. Default prices are
        list prices of us-east-1 (AWS Price List, August 2026); set those of your Region. They only affect `cost_usd`.
    interactive: mode of the endpoint for single images. "realtime" always runs at least one GPU instance.
    interactive_at_once: concurrent requests of `interactive` in the mode serverless. All serverless endpoints of an
        account share a quota, which is 10 in a new account.
    interactive_max_instances: maximum number of instances of `interactive` in the mode realtime.
    serverless_memory_mb: memory of each serverless endpoint; vCPUs scale with it. New accounts may use 3,072 MB. A
        48 MP image takes 0.77 GB at the peak.
    rekognition: whether the endpoints may send images to Amazon Rekognition, for labels that no own detector knows.
        A call costs $0.001 (us-east-1, autumn 2026).
    non_commercial: whether the endpoints run engines whose weights may not be used commercially. Every result of them
        has a warning.
    batching_window_s: how long photos are collected for a bundle before `ingest` runs, in seconds. A longer window
        fills bundles better and delays a single photo.
    editor: what generates images from text: "local" draws studio backdrops without a paid service, "stability" is a
        model on Amazon Bedrock in us-east-1, us-east-2 and us-west-2. "titan" and "nova" are models that new accounts
        cannot use any more. "off": requests with `edit` are refused.
    edit_usd_per_month: maximum US dollars for generated images of one owner in a calendar month (UTC). `maskdrop keys
        cap` sets another one for an owner.
    images_per_month: maximum images of one owner in a calendar month (UTC); 0: no maximum. `maskdrop keys quota` sets
        another one for an owner.
    gib_per_day: maximum GiB that the requests of one owner may store in a day.
    mail: e-mail address for alarms and budget notifications; "": none.
    weights: s3://bucket/prefix/ in this account, uploaded by `maskdrop models push`; "": the weights in the image.
    engines: names of further engines that the containers have, because you put their weights into `weights` or into the
        image, or "vitmatte"; "*": any. By default any with `weights`, and none without. Requests for other engines are
        refused.
    cors: origins whose pages may call the API, or "*".
    trusted_hosts: your hosts that sources and webhooks may name although they are not public.
    source_buckets: buckets of this account and Region, or `bucket/prefix/` without spaces. Any caller may create jobs
        from their images.
    http_sources: whether sources may use http:// URLs.
    waf: whether AWS WAF protects the API.
    malware_scan: whether GuardDuty scans photos and uploads, and jobs wait for the result (infra/malware.py).
    keep_results_days: retention of results, and of photos that were replaced or deleted.
    keep_jobs_days: retention of the records of finished jobs, at most as long as the results.
    keep_corrections_days: retention of corrections as training records (docs/training.md); 0: corrections are refused,
        and earlier ones are deleted.
    keep_logs_days: retention of every log group.
    keep_data: whether buckets and tables remain when the stack is deleted. false: they are deleted with their content.
    requests_per_second, burst: limits of all callers together, on each route, in API Gateway. One key has half of them.
    requests_per_month: limit of one API key. The key's own rate limit applies after these.
    budget_usd: monthly budget; e-mail is sent at 50 %, 80 % and 100 % of it.
    budget_scope: costs that the budget counts: of the whole account, or of the stage by the cost-allocation tag
        maskdrop:stage, which has to be activated in the billing console.
    lambda_concurrency: concurrent Lambda executions that the stage may use: the quota of the account, or a share of it.
        A new account has 10.
    reserved_concurrency: function -> executions reserved for it, and its maximum. At least 100 of
        `lambda_concurrency` must remain: AWS reserves no more.
    kms_key: ARN of a customer managed key in the Region of the stage, which encrypts all data (infra/encryption.py);
        "": keys of AWS. Key policy: docs/security.md.
    former_kms_keys: ARNs of keys that were `kms_key` before. Objects and messages keep the key that encrypted them;
        the stage may still read them.
    vpc: whether endpoints and the functions without internet access run in a VPC without NAT.
    domain: domain name of the API.
    door: a second URL for requests with images of up to 22 MB. None: none.
    bot: Telegram bot that processes the images of chats.
    web: web console on CloudFront. None: none.
    permissions_boundary: name of the IAM policy in this account that limits every role of the stage, with its path.
    qualifier: qualifier of the CDK bootstrap stack; "": the default.
    tags: further tags of every resource, at most 46. IAM does not distinguish keys by upper and lower case.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
    bulk: Bulk = "serverless"
    bulk_max_instances: Positive = 1
    bulk_at_once: Annotated[int, Field(ge=2, le=200)] = 2
    gpu_instance_type: GpuInstance = "ml.g6.xlarge"
    gpu_usd_per_hour: Annotated[float, Field(gt=0)] = 1.127
    cpu_instance_type: CpuInstance = "ml.c6i.xlarge"
    cpu_usd_per_hour: Annotated[float, Field(gt=0)] = 0.204
    interactive: Interactive = "serverless"
    interactive_at_once: Annotated[int, Field(ge=1, le=200)] = 3
    interactive_max_instances: Positive = 2
    serverless_memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 3072
    rekognition: bool = False
    non_commercial: bool = False
    batching_window_s: Annotated[int, Field(ge=1, le=300)] = 1
    editor: EditorName = "local"
    edit_usd_per_month: Annotated[float, Field(ge=0)] = 10.0
    images_per_month: Annotated[int, Field(ge=0)] = 0
    gib_per_day: Positive = 1024
    mail: Annotated[str, Field(pattern=r"^([^@\s]+@[^@\s]+)?$")] = ""
    weights: Annotated[str, Field(pattern=r"^(s3://[^/]+/(.+/)+)?$")] = ""
    engines: Annotated[tuple[EngineName, ...], Field(strict=False)] = ()
    cors: Annotated[tuple[Origin, ...], Field(strict=False)] = ()
    trusted_hosts: Annotated[tuple[Host, ...], Field(strict=False)] = ()
    source_buckets: Annotated[tuple[Source, ...], Field(strict=False)] = ()
    http_sources: bool = False
    waf: bool = False
    malware_scan: bool = False
    keep_results_days: Positive = 30
    keep_jobs_days: Positive = 30
    keep_corrections_days: Annotated[int, Field(ge=0, le=3653)] = 0
    keep_logs_days: KeepDays = 14
    keep_data: bool = False
    requests_per_second: Positive = 50
    burst: Positive = 100
    requests_per_month: Positive = 1_000_000
    budget_usd: Positive = 50
    budget_scope: Literal["account", "stage"] = "account"
    lambda_concurrency: Annotated[int, Field(ge=10)] = 10
    reserved_concurrency: dict[str, Positive] = Field(default_factory=dict)
    kms_key: Key = ""
    former_kms_keys: Annotated[tuple[Key, ...], Field(strict=False)] = ()
    vpc: bool = False
    domain: Domain | None = None
    door: Door | None = None
    bot: BotOptions | None = None
    web: Console | None = None
    permissions_boundary: Annotated[str, Field(pattern=r"^([\w+=,.@/-]+)?$")] = ""
    qualifier: Annotated[str, Field(pattern=r"^([a-z0-9]{1,10})?$")] = ""
    tags: dict[TagKey, TagValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if self.keep_jobs_days > self.keep_results_days:
            raise ValueError(
                "keep_jobs_days must not exceed keep_results_days: a record would name a deleted result; "
                f"got {self.keep_jobs_days} and {self.keep_results_days}"
            )
        if any({".", ".."} & {*source.split("/")} for source in self.source_buckets):
            raise ValueError('source_buckets must not contain the parts "." and ".."')
        most = self.lambda_concurrency - API_EXECUTIONS - SOURCES * SOURCE_EXECUTIONS[0]
        if self._bundles_at_once > most:
            raise ValueError(
                f"bulk_at_once must be at most {most}: the other functions take the rest of lambda_concurrency "
                f"({self.lambda_concurrency}); got {self.bulk_at_once}"
            )
        if self.vpc and "serverless" in (self.bulk, self.interactive):
            raise ValueError("vpc needs endpoints on instances: SageMaker runs serverless endpoints in no VPC")
        unknown = set(self.reserved_concurrency) - set(self.functions)
        if unknown:
            raise ValueError(
                f"reserved_concurrency: not a function of this stage: {', '.join(sorted(unknown))}; "
                f"functions are {', '.join(self.functions)}"
            )
        reserved = sum(self.reserved_concurrency.values())
        if reserved and reserved + UNRESERVED_MIN > self.lambda_concurrency:
            raise ValueError(
                f"reserved_concurrency: {reserved} executions are reserved and AWS keeps {UNRESERVED_MIN} unreserved; "
                f"lambda_concurrency must be at least {reserved + UNRESERVED_MIN}, got {self.lambda_concurrency}"
            )
        misplaced = [key for key in self.tags if key in set(Stage.model_fields) - set(TABLES)]
        if misplaced:
            raise ValueError(f"tags: {', '.join(misplaced)} is an option of the stage; options precede [tags]")
        for function, number in self.reserved_concurrency.items():
            if number < self.executions_by_queue.get(function, 0):
                raise ValueError(
                    f"reserved_concurrency: {function} has at least {self.executions_by_queue[function]} executions, "
                    f"which its queue starts, got {number}: Lambda would throttle the others"
                )
        keys = [key.lower() for key in self.tags]
        if any(key.startswith("aws:") or key == STAGE_TAG for key in keys) or len(keys) > TAGS_MAX:
            raise ValueError(
                f"tags: at most {TAGS_MAX}, without {STAGE_TAG} and keys that start with aws:, which are reserved"
            )
        if len(keys) > len(set(keys)):
            raise ValueError("tags: two keys differ only by upper and lower case, which IAM does not distinguish")
        return self

    @property
    def repository(self) -> str:
        """Name of the ECR repository. Its key cannot be changed: another key creates another repository."""
        key = f"-{sha256(self.kms_key.encode()).hexdigest()[:8]}" if self.kms_key else ""
        return f"maskdrop-{self.name}{key}"

    @property
    def installed_engines(self) -> tuple[str, ...]:
        """Engines that the containers have, as in `maskdrop.settings.Settings.engines`."""
        image = [row.name for row in ENGINES.values() if row.light and (self.rekognition or not row.paid)]
        image.remove("detector")  # a network of the user's own
        return (*image, *(self.engines or (["*"] if self.weights else [])))

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions in lambdas/ that the stage deploys."""
        edit = ("edit",) if self.editor != "off" else ()
        invoke = ("invoke",) if self.bulk == "serverless" else ()
        bot = ("bot",) if self.bot else ()
        return ("api", "authorize", *bot, "dead_letters", *edit, "ingest", *invoke, "record", "sweep", "webhooks")

    @property
    def all_tags(self) -> dict[str, str]:
        """Tags of every resource."""
        return {STAGE_TAG: self.name, **self.tags}

    @property
    def bulk_endpoint(self) -> str:
        """Name of the endpoint `bulk`. SageMaker does not convert an endpoint to another kind, nor change the instance
        type of one that scales: the name contains both, so that such a change creates a new endpoint."""
        kinds = {"gpu": self.gpu_instance_type, "cpu": self.cpu_instance_type, "serverless": ""}
        return _endpoint(self.name, "bulk", kinds[self.bulk])

    @property
    def interactive_endpoint(self) -> str:
        """Name of the endpoint `interactive`; "" without one."""
        if self.interactive == "off":
            return ""
        return _endpoint(self.name, "interactive", self.gpu_instance_type if self.interactive == "realtime" else "")

    @property
    def uses_gpu(self) -> bool:
        """Whether an endpoint runs on GPU instances."""
        return self.bulk == "gpu" or self.interactive == "realtime"

    @property
    def source_concurrency(self) -> int:
        """Concurrent executions of `ingest`, `record` and `webhooks` each: all of them, those of `invoke` and those of
        the API fit into `lambda_concurrency`."""
        free = self.lambda_concurrency - API_EXECUTIONS - self._bundles_at_once
        return min(free // SOURCES, SOURCE_EXECUTIONS[1])

    @property
    def reserved(self) -> dict[str, int]:
        """`reserved_concurrency`, and AUTHORIZE_EXECUTIONS of the authorizer where the stage has enough: no other
        function can then keep callers from being authenticated. An account of 10 executions can reserve none."""
        given = sum(self.reserved_concurrency.values())
        free = self.lambda_concurrency - UNRESERVED_MIN - given >= AUTHORIZE_EXECUTIONS
        return ({"authorize": AUTHORIZE_EXECUTIONS} if free else {}) | self.reserved_concurrency

    @property
    def fetches_at_once(self) -> int:
        """Downloads of one owner at a time: a host may take 15 s for each, in which the function does nothing else."""
        return max(2, self.lambda_concurrency // 10)

    @property
    def calls_at_once(self) -> int:
        """Images of one owner that are processed synchronously at a time: others get half of the executions."""
        return max(8, self.lambda_concurrency // 2)

    @property
    def webhooks_at_once(self) -> int:
        """Webhooks of one owner that are delivered at a time: a receiver may take 15 s for each."""
        return max(1, self.source_concurrency // 3)

    @property
    def executions_by_queue(self) -> dict[str, int]:
        """Concurrent executions of the functions that queues start. A function whose reserved concurrency is lower is
        throttled, and each throttled message loses one of its deliveries."""
        found = dict.fromkeys(("ingest", "record", "webhooks"), self.source_concurrency)
        if self.editor != "off":
            found["edit"] = EDIT_EXECUTIONS
        if self.bot:
            found["bot"] = BOT_EXECUTIONS
        return found | ({"invoke": self.bulk_at_once} if self.bulk == "serverless" else {})

    @property
    def _bundles_at_once(self) -> int:
        """Concurrent executions of `invoke`."""
        return self.bulk_at_once if self.bulk == "serverless" else 0

    @property
    def bundle_max(self) -> int:
        """Images of a full bundle."""
        return BUNDLE_MAX[self.bulk]

    @property
    def backlog_max(self) -> int:
        """Images that may be submitted to `bulk` and not finished: BACKLOG_S of work."""
        workers = self.bulk_at_once if self.bulk == "serverless" else self.bulk_max_instances
        return IMAGES_PER_SECOND[self.bulk] * BACKLOG_S * workers


TABLES: dict[str, type[_Table]] = {"domain": Domain, "door": Door, "web": Console, "bot": BotOptions}
"""The options of a stage that are tables of their own."""


def _endpoint(stage: str, purpose: str, instance_type: str) -> str:
    kind = instance_type.removeprefix("ml.").replace(".", "-") or "serverless"
    return f"maskdrop-{stage}-{purpose}-{kind}"


def check_region(stage: Stage, region: str) -> None:
    """Raises InvalidStage where the model of the stage's editor is not offered in a Region. region: "" if unknown."""
    regions = EDITORS[stage.editor].regions
    if region and regions and region not in regions:
        raise InvalidStage(
            f"stages/{stage.name}.toml: editor {stage.editor!r} is a model that Amazon Bedrock offers in "
            f'{", ".join(regions)} only; got the Region {region}. Deploy there, or set editor to "local" or "off".'
        )


def names(folder: Path = FOLDER) -> list[str]:
    """The stages that have a file."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load(name: str, folder: Path = FOLDER) -> Stage:
    """Reads a stage. Raises InvalidStage that names every fault: an unknown stage, a malformed file, an unknown option
    or an invalid value."""
    if name not in names(folder):
        raise InvalidStage(
            f"There is no stage {name!r}; stages are {', '.join(names(folder))}. "
            f"A new stage is a new file: stages/{name.removesuffix('.toml')}.toml."
        )
    file = f"stages/{name}.toml"
    try:
        options = tomllib.loads((folder / f"{name}.toml").read_text())
    except tomllib.TOMLDecodeError as error:
        raise InvalidStage(
            f"{file}: {error}. Text needs quotes, true and false need none, and an option may occur once."
        ) from error
    if "name" in options:
        raise InvalidStage(f"{file}: name is not an option; the name of the file is the name.")
    try:
        return Stage(name=name, **options)
    except ValidationError as error:
        raise InvalidStage("\n".join(f"{file}: {_fault(fault)}" for fault in error.errors())) from error


def _fault(fault: Any) -> str:
    """Returns what is wrong and what is accepted, for an error of pydantic."""
    path = [part for part in fault["loc"] if part != "[key]"]
    option = ".".join(str(part) for part in path)
    kind, value = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        return _unknown(option, table=path[0] if len(path) > 1 else None)
    if kind in TYPES:
        return f"{option} must be {TYPES[kind]}; got {value!r}."
    if kind == "string_pattern_mismatch":
        return f"{option} must be {FORMS.get(option) or FORMS[path[0]]}; got {value!r}."
    message = fault["msg"].removeprefix("Value error, ")
    return f"{option}: {message}; got {value!r}." if option else f"{message}."


def _unknown(option: str, table: str | None) -> str:
    if table:
        known, place = sorted(TABLES[table].model_fields), f" Options of the stage precede [{table}]."
    else:
        known, place = sorted(set(Stage.model_fields) - {"name"}), ""
    similar = get_close_matches(option, known, n=1)
    options = f"did you mean {similar[0]}? Options" if similar else "options"
    return f"{option} is not an option; {options} are {', '.join(known)}.{place}"
