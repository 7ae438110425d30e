#!/usr/bin/env bash
# The first step of action.yml: puts cargo-lambda-image on the PATH of the steps that follow. In this order: what is on it already, the
# release's archive for this machine if its checksum fits, a build of the source.
#
# It runs on macOS too, where bash is 3.2.
set -euo pipefail

name=cargo-lambda-image

fail() { # TEXT
    local text=${1//'%'/%25}
    text=${text//$'\r'/%0D}
    printf '::error title=cargo lambda-image::%s\n' "${text//$'\n'/%0A}" >&2
    exit 1
}

own=$(grep -m 1 '^version = ' "$GITHUB_ACTION_PATH/Cargo.toml" | cut -d '"' -f 2)
version=${INPUT_VERSION:-$own}
version=${version#v}
number='(0|[1-9][0-9]*)'
[[ $version =~ ^$number\.$number\.$number(-[0-9A-Za-z.-]+)?$ ]] ||
    fail "the input \`version\` is a version such as \`$own\`, not \`$INPUT_VERSION\`"

if [ "$("$name" --version 2>/dev/null || true)" = "$name $version" ]; then
    echo "$name $version is installed already: $(command -v "$name")"
    exit
fi

case ${RUNNER_OS-}-${RUNNER_ARCH-} in
Linux-X64) target=x86_64-unknown-linux-musl ;;
Linux-ARM64) target=aarch64-unknown-linux-musl ;;
macOS-X64) target=x86_64-apple-darwin ;;
macOS-ARM64) target=aarch64-apple-darwin ;;
Windows-*) fail "$name does not run on Windows: use a runner with Linux or macOS" ;;
*) target= ;;
esac

work=$(mktemp -d "$RUNNER_TEMP/$name.XXXXXX")
archive=$name-$target-v$version

download() { # FILE of the release
    curl --fail --silent --show-error --location --proto '=https' --tlsv1.2 --connect-timeout 20 --retry 3 \
        --output "$work/$1" "$GITHUB_SERVER_URL/$ACTION_REPOSITORY/releases/download/v$version/$1"
}

sha256() { # FILE
    if command -v sha256sum >/dev/null; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d ' ' -f 1
}

if [ -n "$target" ] && [ -n "$ACTION_REPOSITORY" ] && download "$archive.tgz.sha256" && download "$archive.tgz"; then
    wanted=$(cut -d ' ' -f 1 "$work/$archive.tgz.sha256")
    found=$(sha256 "$work/$archive.tgz")
    [ "$found" = "$wanted" ] || fail "$archive.tgz has the SHA-256 digest $found, and not $wanted: nothing was installed"
    mkdir "$work/bin"
    tar -xzf "$work/$archive.tgz" -C "$work/bin" --strip-components 1 "$archive/$name"
else
    echo "No archive of $name $version for this machine could be had, so it is compiled."
    command -v cargo >/dev/null || fail "no archive of $name $version for this machine, and no cargo to build it with"
    source=("$name@$version")
    # This action's own version is here.
    [ "$version" != "$own" ] || source=(--path .)
    # Neither the settings nor the toolchain of the project in the working directory are meant for this.
    cd "$GITHUB_ACTION_PATH"
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
        cargo install --locked --root "$work" --target-dir "$work/target" "${source[@]}"
    rm -rf "$work/target"
fi
echo "$work/bin" >>"$GITHUB_PATH"
