# cmake -DOUTPUT=embedded.cpp -DHEADER=kernels/embedded.h -DNAMESPACE=spion
#       "-DFILES=/root/kernels/a.cuh;/build/b.bc" "-DROOTS=/root;/build" -P embed.cmake
# Writes embedded.cpp: every file's bytes as an array, sorted by name, behind the functions that
# HEADER declares in NAMESPACE as kernels/embedded.h does. A file's name is its path below the last
# of ROOTS that it lies in (here kernels/a.cuh and b.bc).
set(arrays "")
set(entries "")
set(index 0)
set(sorted "")
foreach(path IN LISTS FILES)
    set(name ${path})
    foreach(root IN LISTS ROOTS)
        string(FIND "${path}" "${root}/" at)
        if(at EQUAL 0)
            string(LENGTH "${root}/" length)
            string(SUBSTRING "${path}" ${length} -1 name)
        endif()
    endforeach()
    list(APPEND sorted "${name}|${path}")
endforeach()
list(SORT sorted)
foreach(item IN LISTS sorted)
    string(REPLACE "|" ";" item "${item}")
    list(GET item 0 name)
    list(GET item 1 path)
    file(READ ${path} hex HEX)
    string(LENGTH "${hex}" digits)
    math(EXPR size "${digits} / 2")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(APPEND arrays "const unsigned char kFile${index}[] = {${bytes}0};\n")
    string(APPEND entries
        "    {\"${name}\", {reinterpret_cast<const char*>(kFile${index}), ${size}}},\n")
    math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUTPUT} "#include \"${HEADER}\"

#include <algorithm>

namespace ${NAMESPACE} {
namespace {
${arrays}
const EmbeddedFile kFiles[] = {
${entries}};
}  // namespace

std::span<const EmbeddedFile> embedded_files() { return kFiles; }

const EmbeddedFile* find_embedded(std::string_view name) {
    const auto* found = std::find_if(std::begin(kFiles), std::end(kFiles),
                                     [&](const EmbeddedFile& file) { return file.name == name; });
    return found == std::end(kFiles) ? nullptr : found;
}

}  // namespace ${NAMESPACE}
")
