#!/bin/sh
# Installs the system's packages that a command needs, and says so: tools/install_packages.sh GROUP …
#
# On Debian and Ubuntu it installs what is missing, as root or by sudo, which in a terminal may ask for a password, once.
# Where it may not install, and on macOS, it ends with the command to run. When nothing is missing it is silent.
set -eu
cd "$(dirname "$0")/.."

# Groups; the package in Debian and in Homebrew ("-": not needed there); the programs of which any one will do.
packages='
python                   python3-venv         -             ensurepip
demo,firmware-test,test  openssl              openssl       openssl
firmware                 g++                  -             c++
firmware,fuzz            cmake                cmake         cmake
firmware,fuzz            ninja-build          ninja         ninja
firmware                 libcurl4-openssl-dev curl          curl-config
firmware                 libmosquitto-dev     mosquitto
firmware,fuzz            libmbedtls-dev       mbedtls
firmware                 libgtest-dev         googletest
firmware-test            mosquitto            mosquitto     mosquitto
firmware-style           clang-format         clang-format  clang-format
firmware-style           clang-tidy           llvm          clang-tidy
fuzz                     clang                llvm          clang++
fuzz                     libclang-rt-dev      llvm
test                     curl                 curl          curl
test                     wget                 wget          wget
test                     postgresql-client    libpq         psql
test                     chromium             -             chromium chromium-browser google-chrome
ci                       git                  git           git
ci                       make                 make          make
ci                       python3              python        python3
ci                       ca-certificates      -
engine                   podman               podman        podman
engine                   runc                 -             runc
engine                   conmon               -
engine                   netavark             -
engine                   aardvark-dns         -
engine                   iptables             -
engine                   busybox-static       -
'

python=${PYTHON:-python3}
if [ "$(uname)" = Darwin ]; then
    system=macos
elif command -v apt-get >/dev/null; then
    system=debian
else
    system=other
fi

has_any_program() {
    for program; do
        case $program in
        ensurepip) ! "$python" -c 'import ensurepip' 2>/dev/null || return 0 ;; # a module of Python's
        *) ! command -v "$program" >/dev/null || return 0 ;;
        esac
    done
    return 1
}

has_package() {
    case $system in
    debian) case $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) in installed*) ;; *) return 1 ;; esac ;;
    macos) brew list --versions "$1" >/dev/null 2>&1 ;;
    other) [ -z "$programs" ] ;; # what is known by no program is left to CMake
    esac
}

missing=""
known=""
while read -r groups debian homebrew programs <&3; do
    known=$known,$groups
    package=$debian
    [ $system != macos ] || package=$homebrew
    for group; do
        case ,$groups, in *,"$group",*) ;; *) continue ;; esac
        case " $missing - " in *" $package "*) continue ;; esac
        # shellcheck disable=SC2086  # It is a list of words.
        ! has_any_program $programs || continue
        # Debian keeps ensurepip, without which there is no venv, apart from Python, for each version of it.
        [ "$package" != python3-venv ] \
            || package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' || echo python3-venv)
        has_package "$package" || missing="$missing $package"
    done
done 3<<TABLE
$packages
TABLE
for group; do
    case $known, in *,"$group",*) ;; *) echo "packages: there is no group $group" >&2 && exit 2 ;; esac
done
missing=${missing# }
[ -n "$missing" ] || exit 0

end_with() {
    printf 'packages: %s\n  %s\n' "$1" "$2" >&2
    exit 1
}

case $system in
macos) end_with "some are missing. Run:" "brew install $missing" ;;
other) end_with "some are missing, and there is no apt-get. Install what Debian calls:" "$missing" ;;
esac

update="apt-get update"
install="apt-get install --no-install-recommends $missing"
by_hand="sudo $update && sudo $install"
as_root=sudo
if [ "$(id -u)" -eq 0 ]; then
    by_hand="$update && $install"
    as_root=""
    note=""
elif ! command -v sudo >/dev/null; then
    end_with "some are missing, and this account may not install them. Run:" "su -c '$update && $install'"
elif sudo -n true 2>/dev/null; then
    note=" (with sudo)"
elif [ -t 0 ] && (: </dev/tty) 2>/dev/null; then # which is where sudo asks
    note=" (with sudo, which asks for your password)"
else
    end_with "some are missing, and sudo would ask for a password. Run:" "$by_hand"
fi
echo "packages: installing $missing$note"

# In one shell, so that sudo asks once; the log is made before, so that it is not root's. A source that cannot be reached
# may be another's: the installation decides. It removes nothing, and waits while another apt-get is at work.
mkdir -p build
: >build/packages.log
# shellcheck disable=SC2016,SC2086  # The inner shell expands its own parameters; the others are lists of words.
$as_root sh -c '
    exec </dev/null >build/packages.log 2>&1
    apt-get -qq update
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=600 install "$@"
    ' sh $missing || {
    tail -n 5 build/packages.log >&2
    end_with "not installed; see above, and build/packages.log. To try by hand, run:" "$by_hand"
}
