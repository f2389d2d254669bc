# Sourced by the other scripts. Goes to the checkout and says where things are.
#
# LSA_VENV moves the Python environment that holds libtorch and the demo's model out of the checkout (a CI cache,
# say); `.venv` is then a link to it.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${LSA_VENV:-$PWD/.venv}

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }

# Whether the user brings a libtorch of their own.
own_libtorch() { [ -n "${LIBTORCH:-}" ] || [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; }

# Cargo takes .libtorch by itself (.cargo/config.toml). With a shared environment the real folder is named instead:
# the path is part of what libtorch's C++ glue is compiled for and of the binaries' run path, so it must be the same
# for every checkout.
export_libtorch() {
    if [ -n "${LSA_VENV:-}" ] && ! own_libtorch; then
        LIBTORCH=$(readlink -f .libtorch)
        export LIBTORCH
    fi
}
