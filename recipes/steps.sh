# What the recipes share: steps that are skipped once they are done. Sourced by them, from the repository's directory.

# step FILE COMMAND...: run a command, unless the file that it ends with is there.
step() {
    local file=$1
    shift
    if [[ -e $file ]]; then
        echo "== $file is there: skipped"
    else
        echo "== $*"
        "$@"
    fi
}

# print_to FILE COMMAND...: the same for a command that prints what the file is to hold. It is written whole or not at all.
print_to() {
    local file=$1
    shift
    step "$file" redirect "$file" "$@"
}
redirect() {
    local file=$1
    shift
    "$@" >"$file.part"
    mv "$file.part" "$file"
}
