#!/bin/sh
# Installs what the host build needs on Debian 12 or Ubuntu, when it may; otherwise says the command.
set -eu

packages="g++ cmake ninja-build clang clang-format clang-tidy libclang-rt-dev libcurl4-openssl-dev libmosquitto-dev
libmbedtls-dev libgtest-dev mosquitto openssl python3"

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "The host build of the firmware needs packages that are not installed. Run:" >&2
    echo "  sudo apt-get update && sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
# shellcheck disable=SC2086  # Both are lists of words.
{
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
}
