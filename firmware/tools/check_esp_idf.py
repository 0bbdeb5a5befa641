#!/usr/bin/env python3
"""Type-check the firmware against the headers of a real ESP-IDF, without its toolchain.

For each chip, ESP-IDF's own Kconfig files turn the project's sdkconfig.defaults into headers, and clang
checks every source that runs on the chip with them. It also checks that each setting in
sdkconfig.defaults took effect, that each component's CMakeLists.txt names its sources and the components
that they include, and that no source uses a library too large for a chip.

Needed: a checkout of ESP-IDF 5.5 or 6.0 with its submodules, the Python packages ziglang (clang for
Xtensa and RISC-V) and esp-idf-kconfig, and the headers of newlib and libstdc++ (Debian: libnewlib-dev,
libstdc++-arm-none-eabi-newlib). Nothing is linked: that needs `pio run` or `idf.py build`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "esp32_project"
NEWLIB = Path("/usr/include/newlib")

CLANG_FLAGS = {
    "esp32": ["--target=xtensa-esp-elf"],
    "esp32s3": ["--target=xtensa-esp-elf"],
    "esp32c3": ["--target=riscv32-esp-elf", "-march=rv32imc", "-mabi=ilp32"],
}
ARCHITECTURE = {"esp32": "xtensa", "esp32s3": "xtensa", "esp32c3": "riscv"}

# As in ESP-IDF's tools/cmake/build.cmake and CMakeLists.txt.
CXX_STANDARD = {"5": "gnu++2b", "6": "gnu++26"}
COMMON_FLAGS = [
    "-fsyntax-only",
    "-nostdinc++",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-DESP_PLATFORM",
    "-D_GNU_SOURCE",
    "-D_GLIBCXX_USE_POSIX_SEMAPHORE",
    "-D_GLIBCXX_HAVE_POSIX_SEMAPHORE",
    "-DSOC_MMU_PAGE_SIZE=CONFIG_MMU_PAGE_SIZE",
    '-DMBEDTLS_CONFIG_FILE="mbedtls/esp_config.h"',
]

# The public include folders of the components that we can reach, from their CMakeLists.txt, with {target}
# and {arch} to fill in. Folders that a version does not have are left out.
INCLUDE_FOLDERS = """
    app_update/include
    bootloader_support/include bootloader_support/bootloader_flash/include
    efuse/include efuse/{target}/include
    esp-tls
    esp_app_format/include
    esp_blockdev/include
    esp_bootloader_format/include
    esp_common/include
    esp_event/include
    esp_hal_gpio/include esp_hal_gpio/{target}/include
    esp_http_client/include
    esp_hw_support/include esp_hw_support/include/soc esp_hw_support/include/soc/{target}
    esp_hw_support/port/{target}/include esp_hw_support/port/{target} esp_hw_support/etm/include
    esp_libc/platform_include
    esp_mm/include
    esp_netif/include
    esp_partition/include
    esp_phy/include esp_phy/{target}/include
    esp_rom/include esp_rom/{target}/include esp_rom/{target}/include/{target} esp_rom/{target}
    esp_system/include
    esp_timer/include
    esp_wifi/include esp_wifi/include/local
    freertos/config/include freertos/config/include/freertos freertos/config/{arch}/include
    freertos/FreeRTOS-Kernel/include freertos/FreeRTOS-Kernel/portable/{arch}/include
    freertos/FreeRTOS-Kernel/portable/{arch}/include/freertos freertos/esp_additions/include
    hal/include hal/{target}/include hal/platform_port/include
    heap/include
    log/include
    lwip/include lwip/include/apps lwip/include/apps/sntp lwip/lwip/src/include lwip/port/include
    lwip/port/freertos/include lwip/port/esp32xx/include lwip/port/esp32xx/include/arch
    lwip/port/esp32xx/include/sys
    mbedtls/port/include mbedtls/mbedtls/include mbedtls/mbedtls/tf-psa-crypto/include
    mbedtls/mbedtls/tf-psa-crypto/drivers/builtin/include mbedtls/port/psa_driver/include
    mbedtls/esp_crt_bundle/include
    mqtt/esp-mqtt/include
    newlib/platform_include
    nvs_flash/include
    soc/include soc/{target} soc/{target}/include soc/{target}/register
    spi_flash/include
    tcp_transport/include
    {arch}/include {arch}/{target}/include
""".split()

# Every component may use these without naming them (__COMPONENT_REQUIRES_COMMON in ESP-IDF's build).
COMMON_COMPONENTS = {
    *("cxx", "newlib", "esp_libc", "freertos", "esp_hw_support", "heap", "log", "soc", "hal"),
    *("esp_rom", "esp_common", "esp_system", "xtensa", "riscv"),
}

# Streams, locales and regular expressions cost 100 KiB and more of flash; threads and files belong to
# the ports.
BANNED_HEADERS = {"filesystem", "fstream", "iomanip", "iostream", "locale", "regex", "sstream", "thread"}

# Debian's newlib declares this pointer const, Espressif's does not.
REENT_SHIM = """#pragma once
#define _global_impure_ptr _debian_global_impure_ptr
#include_next <sys/reent.h>
#undef _global_impure_ptr
"""

STAND_IN_KEYS = """#pragma once
inline constexpr const char* kTrustedKeys[] = {"first", "second"};
"""


class CheckError(Exception):
    """The check cannot run: the message says what is missing."""


@dataclass(frozen=True)
class Idf:
    """A checkout of ESP-IDF."""

    path: Path
    version: str
    mqtt: Path
    """Folder of ESP-MQTT, which is a component of its own from 6.0 on."""

    @property
    def components(self) -> Path:
        """Folder of the components of ESP-IDF itself."""
        return self.path / "components"


def open_idf(path: Path, mqtt: Path | None) -> Idf:
    """Find out the version of the checkout, and check that its submodules are there."""
    version_file = path / "tools/cmake/version.cmake"
    if not version_file.is_file():
        raise CheckError(f"{path} is not an ESP-IDF checkout: it has no tools/cmake/version.cmake")
    parts = re.findall(r"set\(IDF_VERSION_\w+ (\d+)\)", version_file.read_text())
    major = parts[0]
    if major not in CXX_STANDARD:
        raise CheckError(f"{path} is ESP-IDF {'.'.join(parts)}, expected 5.5 or 6.0")
    mqtt = mqtt or path / "components/mqtt/esp-mqtt"
    for folder, name in [
        (mqtt / "include", "espressif/esp-mqtt (from 6.0 on, give its checkout with --mqtt)"),
        (path / "components/mbedtls/mbedtls/include", "Mbed TLS"),
        (path / "components/lwip/lwip/src/include", "lwIP"),
    ]:
        if not folder.is_dir():
            raise CheckError(f"{folder} is missing: {name}. Run git submodule update --init in {path}")
    return Idf(path=path, version=".".join(parts), mqtt=mqtt)


def clang_command() -> list[str]:
    """The clang of ziglang, with the C and C++ library headers that it uses."""
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None or importlib.util.find_spec("kconfgen") is None:
        raise CheckError("Python packages are missing: pip install ziglang esp-idf-kconfig")
    libstdcxx = sorted(NEWLIB.glob("c++/*"))
    if not libstdcxx:
        raise CheckError(f"{NEWLIB}/c++ is missing: apt-get install libnewlib-dev libstdc++-arm-none-eabi-newlib")
    folders = [
        libstdcxx[-1],
        libstdcxx[-1] / "arm-none-eabi",
        Path(package.origin).parent / "lib/include",
    ]
    return [sys.executable, "-m", "ziglang", "clang", *(f"-isystem{folder}" for folder in folders)]


def generate_sdkconfig(idf: Idf, target: str, folder: Path) -> None:
    """Write sdkconfig and sdkconfig.h as ESP-IDF's build would, from the project's defaults."""
    kconfigs: dict[str, list[Path]] = {"Kconfig": [], "Kconfig.projbuild": []}
    for name, files in kconfigs.items():
        for component in [*sorted(idf.components.iterdir()), idf.mqtt, PROJECT / "src"]:
            if (component / name).is_file():
                files.append(component / name)
        (folder / name).write_text("".join(f'source "{file}"\n' for file in files))
    # The C library whose headers are used here. 5.5 has no other.
    defaults = folder / "newlib.defaults"
    defaults.write_text("CONFIG_LIBC_NEWLIB=y\n")
    environment = {
        "IDF_PATH": idf.path,
        "IDF_TARGET": target,
        "IDF_TOOLCHAIN": "gcc",
        "IDF_VERSION": idf.version,
        "IDF_INIT_VERSION": idf.version,
        "IDF_ENV_FPGA": "",
        "IDF_MINIMAL_BUILD": "n",
        "COMPONENT_KCONFIGS_SOURCE_FILE": folder / "Kconfig",
        "COMPONENT_KCONFIGS_PROJBUILD_SOURCE_FILE": folder / "Kconfig.projbuild",
    }
    command: list[str | Path] = [sys.executable, "-m", "kconfgen", "--kconfig", idf.path / "Kconfig"]
    command += ["--sdkconfig-rename", idf.path / "sdkconfig.rename", "--config", folder / "sdkconfig"]
    command += ["--defaults", defaults, "--defaults", PROJECT / "sdkconfig.defaults"]
    for name, value in environment.items():
        command += ["--env", f"{name}={value}"]
    command += ["--output", "header", folder / "sdkconfig.h", "--output", "config", folder / "sdkconfig"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if run.returncode != 0:
        raise CheckError(f"kconfgen failed for {target}:\n{run.stdout}{run.stderr}")


def check_settings(folder: Path) -> list[str]:
    """Find the settings in sdkconfig.defaults that this ESP-IDF does not know or has overruled."""
    effective = set((folder / "sdkconfig").read_text().splitlines())
    wanted = (PROJECT / "sdkconfig.defaults").read_text().splitlines()
    return [
        f"sdkconfig.defaults: {line} has no effect: the setting does not exist, or another one excludes it"
        for line in wanted
        if re.match(r"(# )?CONFIG_", line) and line not in effective
    ]


def component_folders() -> list[Path]:
    """The components of the project."""
    return [PROJECT / "src", *sorted((PROJECT / "components").iterdir())]


def sources_of(component: Path) -> list[Path]:
    """The sources that run on a chip: all but another platform's port."""
    return sorted(
        file
        for file in component.rglob("*.[ch]pp")
        if "port" not in file.relative_to(component).parts[:-1] or "posix" not in file.parts
    )


def check_source_lists() -> list[str]:
    """Find sources that CMakeLists.txt does not list, and listed sources that do not exist."""
    findings = []
    for component in component_folders():
        listed = set(re.findall(r'"([\w/]+\.cpp)"', (component / "CMakeLists.txt").read_text()))
        present = {str(s.relative_to(component)) for s in sources_of(component) if s.suffix == ".cpp"}
        for name in sorted(listed ^ present):
            problem = "is in CMakeLists.txt, but does not exist" if name in listed else "is not in CMakeLists.txt"
            findings.append(f"{component.relative_to(PROJECT) / name} {problem}")
    return findings


def check_includes(include_folders: list[Path]) -> list[str]:
    """Find includes of components that CMakeLists.txt does not require, and of banned headers."""
    findings = []
    for component in component_folders():
        cmake = (component / "CMakeLists.txt").read_text()
        required = set(re.findall(r"[\w-]+", " ".join(re.findall(r"REQUIRES ([^)\n]*)", cmake))))
        for source in sources_of(component):
            place = source.relative_to(PROJECT)
            for bracket, name in re.findall(r'^#include ([<"])([^>"]+)', source.read_text(), re.MULTILINE):
                if bracket == "<" and name in BANNED_HEADERS:
                    findings.append(f"{place}: <{name}> is too large for a chip")
                owner = owner_of(name, include_folders)
                if owner and owner != component.name and owner not in required | COMMON_COMPONENTS:
                    findings.append(f"{place}: {name} is in component {owner}, which CMakeLists.txt does not require")
    return findings


def owner_of(header: str, include_folders: list[Path]) -> str | None:
    """Name of the component that owns the header, or None for the C and C++ libraries."""
    for folder in include_folders:
        if (folder / header).is_file():
            parts = folder.parts
            if "components" in parts:
                return parts[len(parts) - 1 - parts[::-1].index("components") + 1]
            return "mqtt"
    return None


def check_target(idf: Idf, target: str, folder: Path, clang: list[str]) -> list[str]:
    """Check everything for one chip, and return the findings."""
    folder.mkdir()
    generate_sdkconfig(idf, target, folder)
    (folder / "trusted_keys.h").write_text(STAND_IN_KEYS)
    (folder / "shim/sys").mkdir(parents=True)
    (folder / "shim/sys/reent.h").write_text(REENT_SHIM)

    names = [name.format(target=target, arch=ARCHITECTURE[target]) for name in INCLUDE_FOLDERS]
    idf_folders = [idf.components / name for name in names if (idf.components / name).is_dir()]
    idf_folders.append(idf.mqtt / "include")
    own_folders = [c / "include" for c in component_folders() if (c / "include").is_dir()]

    flags = [*CLANG_FLAGS[target], f"-std={CXX_STANDARD[idf.version[0]]}", f"-I{folder}", *COMMON_FLAGS]
    flags += [f"-I{own}" for own in own_folders]
    flags += [f"-isystem{system}" for system in idf_folders]
    # clang searches the folders in this order, and ESP-IDF's headers wrap those of newlib.
    library = [option for option in clang if option.startswith("-isystem")]
    command = [option for option in clang if not option.startswith("-isystem")]
    flags += [*library, f"-isystem{folder / 'shim'}", f"-isystem{NEWLIB}"]

    def compile_source(source: Path) -> str:
        run = subprocess.run([*command, *flags, source], capture_output=True, text=True, check=False)
        return "" if run.returncode == 0 else run.stderr

    sources = [s for c in component_folders() for s in sources_of(c) if s.suffix == ".cpp"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = [error for error in pool.map(compile_source, sources) if error]
    findings = [*check_settings(folder), *check_source_lists()]
    findings += [*check_includes([*own_folders, *idf_folders]), *errors]
    print(f"ESP-IDF {idf.version}, {target}: {len(sources)} sources, {len(findings)} findings")
    return findings


def main() -> int:
    """Run the check. Exit status: 0 clean or skipped, 1 findings, 2 the check cannot run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("idf", nargs="?", default=os.environ.get("IDF_PATH"), help="default: IDF_PATH")
    parser.add_argument("--mqtt", type=Path, help="checkout of espressif/esp-mqtt, for ESP-IDF 6.0")
    parser.add_argument("--target", action="append", choices=sorted(CLANG_FLAGS), help="default: all")
    arguments = parser.parse_args()
    if not arguments.idf:
        print("SKIPPED: no ESP-IDF was given (argument or IDF_PATH)")
        return 0
    try:
        idf = open_idf(Path(arguments.idf).resolve(), arguments.mqtt)
        clang = clang_command()
        findings = []
        with tempfile.TemporaryDirectory() as scratch:
            for target in arguments.target or CLANG_FLAGS:
                findings += check_target(idf, target, Path(scratch) / target, clang)
    except CheckError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(dict.fromkeys(findings)), end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
