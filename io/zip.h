// ZIP archives as numpy.savez and scipy.sparse.save_npz write them (.npz): members stored or
// deflated, with or without ZIP64.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace spion {

struct ZipMember {
    std::string name;
    int method = 0;  // 0: stored, 8: deflated
    bool encrypted = false;
    std::uint32_t crc = 0;
    std::uint64_t packed_bytes = 0, bytes = 0;
    std::uint64_t header = 0;  // where its local header begins
};

bool is_zip(std::string_view bytes);

class Zip {
  public:
    // Reads the list of members. Throws UserError that begins with `origin` for a damaged one.
    Zip(Bytes bytes, std::string origin);
    const std::vector<ZipMember>& members() const { return members_; }
    // What it holds, held against its checksum: a view of the archive where it is stored. Throws
    // UserError for what is damaged, encrypted or packed in another way, and for a deflated one
    // above kLargestInMemory or without zlib.
    Bytes read(const ZipMember& member) const;

  private:
    [[noreturn]] void fail(std::string_view what) const;

    Bytes bytes_;
    std::string origin_;
    std::vector<ZipMember> members_;
};

}  // namespace spion
