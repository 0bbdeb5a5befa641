"""Fuzz every parser, Python's with atheris and the firmware's with libFuzzer: python fuzz/run.py SECONDS [--inputs N].

Each parser runs for SECONDS, or each of Python's for N inputs. Findings are kept under build/fuzz/findings. Inputs that
reached new code are kept under build/fuzz/corpus; the next run starts from them and from the seeds in fuzz/corpus. To
try one input again: `python fuzz/python/fuzz_parser.py NAME FILE` or `build/fuzz/cpp/NAME FILE`.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import prove
from python.targets import TARGETS

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
BUILD = PROJECT / "build" / "fuzz"
CPP_PARSERS = ["notification", "envelope", "manifest", "http_response", "stored_state"]
# Inputs of this size are parsed within milliseconds.
LIMITS = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]


def fuzz(name: str, language: str, program: list[str], limit: str) -> bool:
    """Fuzz a parser until libFuzzer's `limit`, and return whether it held."""
    found = BUILD / "corpus" / language / name
    findings = BUILD / "findings"
    found.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    run = subprocess.run(
        [
            *program,
            *LIMITS,
            limit,
            "-print_final_stats=1",
            f"-artifact_prefix={findings}/{language}-{name}-",
            f"-dict={HERE / 'tokens.dict'}",
            found,
            HERE / "corpus" / name,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    executed = re.search(r"stat::number_of_executed_units: *(\d+)", run.stderr)
    inputs = int(executed[1]) if executed else 0
    held = run.returncode == 0 and inputs > 0
    print(f"fuzz: {name} ({language}): {inputs:,} inputs{'' if held else ', and a finding'}", flush=True)
    if not held:
        print("\n".join(run.stderr.splitlines()[-60:]), flush=True)
    if "OTA_PROOF_DIR" in os.environ:
        prove.report("inputs", f"{name} ({language})", tried=inputs, withstood=inputs if held else max(inputs - 1, 0))
    return held


def build_firmware_fuzzers() -> str | None:
    """Build the C++ fuzzers, and return why that is impossible, if it is."""
    missing = [program for program in ("clang++", "cmake", "ninja") if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} missing; `make fuzz` installs what is needed"
    build = str(BUILD / "cpp")
    configure = ["cmake", "-S", str(HERE / "cpp"), "-B", build, "-G", "Ninja", "-DCMAKE_CXX_COMPILER=clang++"]
    with (BUILD / "build.log").open("w") as log:
        for command in (configure, ["ninja", "-C", build, "--quiet"]):
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
                return f"see {BUILD / 'build.log'}"
    return None


def main() -> int:
    """Fuzz `--jobs` parsers at a time; by default, as many as there are cores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=int)
    parser.add_argument(
        "--inputs", type=int, metavar="N", help="give each Python parser N inputs, however long they take"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    seconds = f"-max_total_time={options.seconds}"
    BUILD.mkdir(parents=True, exist_ok=True)
    why_not = build_firmware_fuzzers()
    if why_not is not None:
        sys.exit(f"fuzz: the firmware's fuzzers cannot be built: {why_not}")
    tasks: list[tuple[str, str, list[str], str]] = []
    has_atheris = importlib.util.find_spec("atheris") is not None
    if has_atheris:
        script = str(HERE / "python" / "fuzz_parser.py")
        limit = f"-runs={options.inputs}" if options.inputs else seconds
        tasks += [(name, "Python", [sys.executable, script, name], limit) for name in TARGETS]
    tasks += [(name, "C++", [str(BUILD / "cpp" / name)], seconds) for name in CPP_PARSERS]
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda task: fuzz(*task), tasks))
    if not has_atheris:
        print("fuzz: Python's parsers: skipped, atheris has no wheel for this platform")
    # Outside CI, such a platform is not a failure.
    return 0 if all(outcomes) and (has_atheris or not os.environ.get("CI")) else 1


if __name__ == "__main__":
    sys.exit(main())
