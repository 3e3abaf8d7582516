# Installs what the scripts need and this machine lacks. Sourced, not run.
#
#   need COMMAND PACKAGE     a Debian package that brings the command
#   need_rust                cargo, new enough for this tree, and a linker

missing=()

need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2")
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
