# Installs what the scripts need and this machine lacks. Sourced, not run.
#
#   need COMMAND PACKAGE     a Debian package that brings the command
#   need_file PATH PACKAGE   the same for what is no command
#   need_machines            what tests/vm boots its machines with
#   need_rust                cargo, new enough for this tree, and a linker

missing=()

need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2")
}

need_file() {
    [ -e "$1" ] || missing+=("$2")
}

need_machines() {
    [ "$(uname -m)" = x86_64 ] || return 0
    need qemu-system-x86_64 qemu-system-x86
    need_file /usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so qemu-block-extra
    need sg_persist sg3-utils
    need_file /bin/busybox busybox-static
    need mkfs.ext4 e2fsprogs
    need mkfs.xfs xfsprogs
    need lvm lvm2
    need python3 python3
    need gcc gcc
    need_file /usr/include/stdio.h libc6-dev
}

install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "Installing Debian packages: ${missing[*]}" >&2
    command -v apt-get >/dev/null ||
        { echo "This needs ${missing[*]}, and apt-get is not here to install it." >&2; return 1; }
    [ "$(id -u)" = 0 ] || { echo "Run it as root, or install them yourself." >&2; return 1; }
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "${missing[@]}" >&2 ||
        { apt-get update >&2 && apt-get install -y --no-install-recommends "${missing[@]}" >&2; }
    missing=()
}

need_rust() {
    PATH=$PATH:$HOME/.cargo/bin
    need cc build-essential
    command -v cargo >/dev/null || missing+=(rustup)
    if ! install_missing; then
        echo "Rust 1.90 or newer is needed; see rustup's page on how to install it." >&2
        return 1
    fi
    cargo --version >/dev/null 2>&1 || rustup default stable >&2
}

need_root() {
    [ "$(id -u)" = 0 ] && return
    echo "This makes network namespaces and loop devices: run it as root." >&2
    exit 77
}

PATH=$PATH:/usr/sbin:/sbin
