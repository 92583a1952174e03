"""A real SLURM on this machine: controller, one node, and the keys they share, all in one folder."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel")

CONF = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=10
MinJobAge=2
MessageTimeout=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why a SLURM cannot be started here; empty where it can."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if absent:
        packages = "slurm-wlm slurmctld slurmd slurm-client munge"
        return f"needs SLURM, {', '.join(absent)} not found: apt-get install --no-install-recommends {packages}"
    return "" if os.geteuid() == 0 else "a SLURM is started by root only"


@contextlib.contextmanager
def slurm(folder: Path):
    """Start SLURM and give the environment in which its commands speak to it."""
    conf = folder / "slurm.conf"
    for name in ("state", "spool"):
        (folder / name).mkdir()
    os.chmod(folder, 0o755)
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, controller=_free_port(), node=_free_port()))
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": _path()}
    with contextlib.ExitStack() as stack:
        _start_munge(folder, stack, environment)
        for command in (
            ["slurmctld", "-D", "-i", "-f", str(conf)],
            ["slurmd", "-D", "-N", socket.gethostname(), "-f", str(conf)],
        ):
            stack.enter_context(_running(command, folder, environment))
        _wait(lambda: "idle" in _told(["sinfo", "-h", "-o", "%t"], environment), "no node became idle", folder)
        yield environment
        _told(["scancel", "--user", "root"], environment)
        _wait(lambda: not _told(["squeue", "-h"], environment).strip(), "jobs did not end", folder)


def _start_munge(folder: Path, stack: contextlib.ExitStack, environment: dict[str, str]) -> None:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "munge.log", "pid-file": "munge.pid"}
    options = [f"--{option}={folder / name}" for option, name in {**files, "seed-file": "munge.seed"}.items()]
    stack.enter_context(_running(["munged", "--foreground", "--force", *options], folder, environment))
    _wait(lambda: (folder / "munge.socket").exists(), "munged did not start", folder)


@contextlib.contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]):
    with open(folder / f"{command[0]}.out", "w") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=environment)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


def _wait(is_true, complaint: str, folder: Path, seconds: float = 60.0) -> None:
    stop = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > stop:
            logs = "\n".join(f"{p.name}: {p.read_text()[-2000:]}" for p in sorted(folder.glob("*.[lo]*[gt]")))
            raise RuntimeError(f"{complaint}\n{logs}")
        time.sleep(0.2)


def _told(command: list[str], environment: dict[str, str]) -> str:
    try:
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60).stdout
    except subprocess.TimeoutExpired:  # whoever waits for an answer asks again, and says what was not to be had
        return "no answer"


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
