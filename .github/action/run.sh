#!/usr/bin/env bash
# The second step of action.yml: runs cargo-lambda-image by the inputs, which are variables INPUT_*. An input is an argument, or
# one a line, and never evaluated. The step's outputs are the program's own doing, and so is its exit code.
#
# It runs on macOS too, where bash is 3.2.
set -euo pipefail

fail() { # TEXT, which may say anything and stays one line of the log
    local text=${1//'%'/%25}
    text=${text//$'\r'/%0D}
    printf '::error title=cargo lambda-image::%s\n' "${text//$'\n'/%0A}" >&2
    exit 2
}

arguments=()

one() { # FLAG VALUE: nothing for no value; behind `=` no value is taken for a flag
    [ -z "$2" ] || arguments+=("$1=$2")
}

each() { # FLAG LINES
    local line
    while IFS= read -r line; do
        one "$1" "$line"
    done <<<"$2"
}

switch() { # INPUT VALUE
    case $2 in
    true) arguments+=("--$1") ;;
    false | "") ;;
    *) fail "the input \`$1\` is \`true\` or \`false\`, not \`$2\`" ;;
    esac
}

one --manifest-path "$INPUT_MANIFEST_PATH"
one --package "$INPUT_PACKAGE"
one --bin "$INPUT_BIN"
one --repository "$INPUT_REPOSITORY"
each --tag "$INPUT_TAGS"
each --function "$INPUT_FUNCTION"
one --alias "$INPUT_ALIAS"
switch publish "$INPUT_PUBLISH"
switch dry-run "$INPUT_DRY_RUN"
while IFS= read -r line; do
    [ -z "$line" ] || arguments+=("$line")
done <<<"$INPUT_ARGS"

case $INPUT_COMMAND in
build | push) one --image "$INPUT_IMAGE" ;;
verify) [ -z "$INPUT_IMAGE" ] || arguments+=(-- "$INPUT_IMAGE") ;;
*) fail "the input \`command\` is \`push\`, \`build\` or \`verify\`, not \`$INPUT_COMMAND\`" ;;
esac

if [ -z "$INPUT_SARIF_FILE" ]; then
    # In the place of this shell, so that the runner's signals reach it.
    exec cargo-lambda-image "$INPUT_COMMAND" "${arguments[@]+"${arguments[@]}"}"
fi
code=0
cargo-lambda-image "$INPUT_COMMAND" --message-format=sarif "${arguments[@]+"${arguments[@]}"}" >"$INPUT_SARIF_FILE" || code=$?
# A file without a report would be one more error in the step that uploads it.
[ -s "$INPUT_SARIF_FILE" ] || rm -f -- "$INPUT_SARIF_FILE"
exit "$code"
