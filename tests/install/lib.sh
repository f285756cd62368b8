# Sourced by the scripts beside it: where things go, and how steps are told.

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/shock-absorber"
INSTALL_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$CACHE"

# step "what" command...: runs the command quietly; shows its output only if it fails.
step() {
    local what="$1" started=$SECONDS log
    shift
    log="$(mktemp)"
    printf '  %-44s ' "$what"
    if "$@" >"$log" 2>&1 </dev/null; then
        printf 'done (%ds)\n' $((SECONDS - started))
        rm -f "$log"
    else
        local code=$?
        printf 'FAILED\n'
        sed 's/^/    | /' "$log" | tail -40
        rm -f "$log"
        return "$code"
    fi
}

present() {
    printf '  %-44s there\n' "$1"
}

# Debian keeps daemons where an ordinary user's PATH doesn't look.
have() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

# apt_install package...: installs, and starts no service.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made_policy=""
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || { echo "missing: $*; install them, or run this as root"; return 1; }
        as_root=(sudo -n)
    fi
    have apt-get || { echo "missing: $*; there is no apt-get here, so install them by hand"; return 1; }
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null && "${as_root[@]}" chmod +x "$policy"
        made_policy=yes
    fi
    local code=0
    apt_get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@"; }
    # The lists may be missing or old; so they are fetched only when it doesn't work without.
    apt_get install --no-install-recommends "$@" || { apt_get update && apt_get install --no-install-recommends "$@"; } || code=$?
    [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"
    return "$code"
}
