#!/usr/bin/env bash
# Builds and runs a project that uses spion, C99 and C++20, in one of three ways:
#     consumer.sh installed BUILD_FOLDER SCRATCH      find_package on an installation of that build
#     consumer.sh add_subdirectory SOURCE SCRATCH     spion's source inside the project
#     consumer.sh fetch_content SOURCE SCRATCH        the same through FetchContent
# The last two build spion again, so without the host back end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
way=$1 from=$2 scratch=$3
rm -rf "$scratch"
mkdir -p "$scratch"

case $way in
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
