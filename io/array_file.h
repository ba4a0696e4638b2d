// Arrays by the names that people give on a command line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/array.h"

namespace spion {

// "file", or "file:member" where no file has the whole name.
struct FileName {
    std::string path;
    std::string member;  // "" for none
};
FileName split_name(const std::string& name);

// Opens
//     file.npy               its array
//     file.npz               its only array, or the one named by file.npz:NAME
//     file.safetensors:NAME  the tensor of that name, or its only one without it
//     -                      any of these from standard input
// by what the file holds, whatever its name ends in. Throws UserError that begins with the name for
// anything else, naming what the file holds where a member has to be named.
Array open_array(const std::string& name);

// The same of bytes that were read already; `member`: "" for the only one.
Array parse_array(const Bytes& bytes, const std::string& origin, const std::string& member);

// The names of an archive's or a safetensors file's arrays, sorted; empty for a .npy.
std::vector<std::string> array_names(const Bytes& bytes, const std::string& origin);

}  // namespace spion
