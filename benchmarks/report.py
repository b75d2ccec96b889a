"""Record a benchmark's environment, and save its result."""

import json
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "triton", "transformers", "sentence-transformers", "lightning-ir", "onnxruntime")


def environment(device: torch.device) -> dict:
    """Return device, date, versions, commit and command, which are needed to repeat a measurement."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": versions,
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }


def device_name(device: torch.device) -> str:
    """Return the product name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def save(name: str, result: dict, directory: Path = RESULTS) -> Path:
    """Write NAME-DEVICE-DATE.json and return its path; a second run on the same day replaces the first."""
    device = "".join(letter if letter.isalnum() else "-" for letter in result["device"].lower())
    slug = "-".join(word for word in device.split("-") if word)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{slug}-{result['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _git(*arguments: str) -> str:
    """Return git's output, or an empty string if this is not a checkout."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
