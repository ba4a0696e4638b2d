// Block patterns in every form that people have them in.
#pragma once

#include <string>
#include <string_view>

#include "io/bytes.h"
#include "io/mask.h"

namespace spion {

// Opens, by what the file holds, whatever its name ends in (docs/formats.md):
//     bits      nb lines of nb characters 0 or 1
//     JSON      an object with block, length and pattern (`spion discover --format json`), or an
//               array of them, of which file:INDEX names one
//     CSV       numbers 0 and 1, or false and true, with commas, semicolons or blanks between
//     arrays    of bool or integers (io/array_file.h): .npy, file.npz:NAME, file.safetensors:NAME
//     .npz      of scipy.sparse.save_npz, CSR and BSR
//     PNG       white is set
// "-" is standard input. Throws UserError that begins with the name for anything else, and where
// the request says another block or length than the file.
FoundPattern open_pattern(const std::string& name, const PatternRequest& request);

// The same of bytes that were read already; `member`: "" for none.
FoundPattern parse_pattern(const Bytes& bytes, const std::string& origin, const std::string& member,
                           const PatternRequest& request);

}  // namespace spion
