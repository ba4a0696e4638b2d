// Gzip files (RFC 1952), of one member or several end to end.
#pragma once

#include <string>
#include <string_view>

#include "io/bytes.h"

namespace spion {

bool is_gzip(std::string_view bytes);

// What it holds, held against its checksum. Throws UserError that begins with `origin` for a
// damaged or truncated file, for more than kLargestInMemory, and without zlib.
Bytes gunzip(std::string_view bytes, const std::string& origin);

// read_bytes, unpacked where the file is gzipped.
Bytes read_bytes_unpacked(const std::string& path);

}  // namespace spion
