#!/usr/bin/env bash
# Builds and runs a project that uses spion, C99 and C++20, in one of four ways:
#     consumer.sh installed BUILD_FOLDER SCRATCH      find_package on an installation of that build
#     consumer.sh archives BUILD_FOLDER SCRATCH       the same on the .deb, which is made and installed
#                                                     below SCRATCH; the .tar.gz holds the same
#     consumer.sh add_subdirectory SOURCE SCRATCH     spion's source inside the project
#     consumer.sh fetch_content SOURCE SCRATCH        the same through FetchContent
# The last two build spion again, so without the host back end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
way=$1 from=$2 scratch=$3
rm -rf "$scratch"
mkdir -p "$scratch"

# The packages of the build, as ./run package makes them, and the .deb as dpkg unpacks it in $1.
install_packages() {
    local root=$1 needed
    (cd "$from" && cpack --config CPackConfig.cmake -B "$scratch/packages" >"$scratch/cpack.log" 2>&1) ||
        { cat "$scratch/cpack.log" >&2; return 1; }
    mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers}
    touch "$root"/var/lib/dpkg/{status,available}
    dpkg --root="$root" --force-not-root --force-depends --unpack "$scratch"/packages/*.deb
    dpkg-deb -f "$scratch"/packages/*.deb Depends | tr ',' '\n' | sed 's/(.*//; s/ //g' |
        while read -r needed; do
            dpkg-query -W -f='${db:Status-Status}\n' "$needed" | grep -qx installed ||
                { echo "the .deb depends on $needed, which is not installed here" >&2; exit 1; }
        done
    diff <(tar -tzf "$scratch"/packages/*.tar.gz | sed 's|^[^/]*/||' | grep -vE '(^|/)$' | sort) \
        <(cd "$root/usr" && find . ! -type d | sed 's|^[.]/||' | sort)
    for needed in llvm fmt json; do
        compgen -G "$root/usr/share/doc/spion/third-party/*$needed*" >/dev/null ||
            { echo "the .deb has no notice of $needed" >&2; exit 1; }
    done
    "$root/usr/bin/spion" --version
}

case $way in
    archives)
        install_packages "$scratch/root"
        way=installed
        options=("-DCMAKE_PREFIX_PATH=$scratch/root/usr")
        ;;
    installed)
        cmake --install "$from" --prefix "$scratch/prefix" --component spion_library >/dev/null
        options=("-DCMAKE_PREFIX_PATH=$scratch/prefix")
        ;;
    add_subdirectory | fetch_content)
        options=("-DSPION_SOURCE=$from" -DSPION_HOST_BACKEND=OFF)
        ;;
    *)
        echo "consumer.sh: '$way' is no way to use spion" >&2
        exit 2
        ;;
esac
cmake -S "$here/consumer" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DSPION_WAY="$way" "${options[@]}"
cmake --build "$scratch/build" -j "$(nproc)"
"$scratch/build/in_cpp"
"$scratch/build/in_c"
if [[ $(ctest --test-dir "$scratch/build" -N | grep -c 'Test *#') != 0 ]]; then
    echo "spion has added tests to the project that includes it" >&2
    exit 1
fi
