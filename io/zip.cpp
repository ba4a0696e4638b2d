#include "io/zip.h"

#ifdef SPION_ZLIB
#include <zlib.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include "io/printable.h"
#include "ir/error.h"

namespace spion {
namespace {

// APPNOTE.TXT, sections 4.3.7 to 4.3.16. All numbers are little-endian.
constexpr std::string_view kLocalHeader{"PK\x03\x04", 4};
constexpr std::string_view kCentralHeader{"PK\x01\x02", 4};
constexpr std::string_view kEnd{"PK\x05\x06", 4};
constexpr std::string_view kEnd64{"PK\x06\x06", 4};
constexpr std::string_view kEnd64Locator{"PK\x06\x07", 4};
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                      kLocatorBytes = 20;
constexpr std::size_t kLongestComment = 65535;
constexpr std::uint64_t kMostMembers = 65536;
constexpr std::uint32_t kIn64 = 0xFFFFFFFF;  // "look into the ZIP64 field"

// A number of `bytes` bytes, 0 beyond the end.
std::uint64_t number(std::string_view text, std::uint64_t at, int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes && at + i < text.size(); ++i) {
        value |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[at + i])) << (8 * i);
    }
    return value;
}

bool has(std::string_view text, std::uint64_t at, std::string_view signature, std::size_t bytes) {
    return at <= text.size() && text.size() - at >= bytes && text.substr(at).starts_with(signature);
}

// Fields of 32 bits that say kIn64 have their values, in this order, in the extra field of id 1.
void take_zip64(std::string_view extra, ZipMember& member) {
    while (extra.size() >= 4) {
        const std::uint64_t id = number(extra, 0, 2);
        const std::uint64_t length = number(extra, 2, 2);
        std::string_view field = extra.substr(4, length);
        extra.remove_prefix(std::min<std::size_t>(extra.size(), 4 + length));
        if (id != 1) {
            continue;
        }
        for (std::uint64_t* value : {&member.bytes, &member.packed_bytes, &member.header}) {
            if (*value == kIn64 && field.size() >= 8) {
                *value = number(field, 0, 8);
                field.remove_prefix(8);
            }
        }
    }
}

struct Directory {
    std::uint64_t members = 0, offset = 0;
};

// Where the list of members lies; it is named at the archive's end, in front of a comment.
bool find_directory(std::string_view bytes, Directory& directory) {
    if (bytes.size() < kEndBytes) {
        return false;
    }
    const std::size_t window = std::min(bytes.size(), kEndBytes + kLongestComment);
    const std::size_t tail = bytes.substr(bytes.size() - window).rfind(kEnd);
    const std::size_t end = bytes.size() - window + tail;
    if (tail == std::string_view::npos || !has(bytes, end, kEnd, kEndBytes)) {
        return false;
    }
    directory = {.members = number(bytes, end + 10, 2), .offset = number(bytes, end + 16, 4)};
    if (end >= kLocatorBytes && has(bytes, end - kLocatorBytes, kEnd64Locator, kLocatorBytes)) {
        const std::uint64_t end64 = number(bytes, end - kLocatorBytes + 8, 8);
        if (!has(bytes, end64, kEnd64, kEnd64Bytes)) {
            return false;
        }
        directory = {.members = number(bytes, end64 + 32, 8),
                     .offset = number(bytes, end64 + 48, 8)};
    }
    return true;
}

#ifdef SPION_ZLIB
// At most `bytes` bytes of a raw deflate stream; fewer, or an empty text, when it is damaged.
// Memory grows with what is unpacked, not with what a header promises.
std::string inflate_raw(std::string_view packed, std::uint64_t bytes) {
    z_stream stream = {};
    std::string out;
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
        return out;
    }
    constexpr std::size_t kChunk = std::numeric_limits<std::int32_t>::max();
    std::size_t used = 0;
    int state = Z_OK;
    while (state == Z_OK && used < bytes) {
        if (stream.avail_in == 0) {
            stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
            stream.avail_in = static_cast<uInt>(std::min(packed.size(), kChunk));
            packed.remove_prefix(stream.avail_in);
        }
        if (used == out.size()) {
            out.resize(std::min<std::uint64_t>(bytes, std::max<std::size_t>(65536, 2 * used)));
        }
        const std::size_t room = std::min(out.size() - used, kChunk);
        stream.next_out = reinterpret_cast<Bytef*>(out.data() + used);
        stream.avail_out = static_cast<uInt>(room);
        state = inflate(&stream, Z_NO_FLUSH);
        used += room - stream.avail_out;
    }
    inflateEnd(&stream);
    out.resize(used);
    return out;
}

bool checksum_holds(std::string_view bytes, std::uint32_t wanted) {
    const auto* begin = reinterpret_cast<const Bytef*>(bytes.data());
    return crc32_z(0, begin, bytes.size()) == wanted;
}
#else
bool checksum_holds(std::string_view /*bytes*/, std::uint32_t /*wanted*/) {
    return true;  // zlib has the sum
}
#endif

}  // namespace

bool is_zip(std::string_view bytes) {
    return bytes.starts_with(kLocalHeader) || bytes.starts_with(kEnd);
}

void Zip::fail(std::string_view what) const {
    throw UserError("{}: the archive is damaged ({}): save it again", origin_, what);
}

Zip::Zip(Bytes bytes, std::string origin) : bytes_(std::move(bytes)), origin_(std::move(origin)) {
    const std::string_view text = bytes_.view;
    Directory directory;
    if (!find_directory(text, directory)) {
        fail("it has no list of its members");
    }
    if (directory.members > kMostMembers) {
        throw UserError("{}: the archive says that it has {} members: at most {} are read", origin_,
                        directory.members, kMostMembers);
    }
    std::uint64_t at = directory.offset;
    for (std::uint64_t index = 0; index < directory.members; ++index) {
        if (!has(text, at, kCentralHeader, kCentralBytes)) {
            fail("the list of its members is cut short");
        }
        const std::uint64_t name_bytes = number(text, at + 28, 2);
        const std::uint64_t extra_bytes = number(text, at + 30, 2);
        const std::uint64_t comment_bytes = number(text, at + 32, 2);
        if (text.size() - at - kCentralBytes < name_bytes + extra_bytes) {
            fail("the list of its members is cut short");
        }
        ZipMember member{.name = std::string(text.substr(at + kCentralBytes, name_bytes)),
                         .method = static_cast<int>(number(text, at + 10, 2)),
                         .encrypted = (number(text, at + 8, 2) & 1U) != 0,
                         .crc = static_cast<std::uint32_t>(number(text, at + 16, 4)),
                         .packed_bytes = number(text, at + 20, 4),
                         .bytes = number(text, at + 24, 4),
                         .header = number(text, at + 42, 4)};
        take_zip64(text.substr(at + kCentralBytes + name_bytes, extra_bytes), member);
        members_.push_back(std::move(member));
        at += kCentralBytes + name_bytes + extra_bytes + comment_bytes;
    }
}

Bytes Zip::read(const ZipMember& member) const {
    const std::string_view text = bytes_.view;
    const std::string name = printable(member.name);
    if (member.encrypted) {
        throw UserError("{}: {} is encrypted: save it without a password", origin_, name);
    }
    if (!has(text, member.header, kLocalHeader, kLocalBytes)) {
        fail(name + " does not begin where the list says");
    }
    const std::uint64_t begin = member.header + kLocalBytes + number(text, member.header + 26, 2) +
                                number(text, member.header + 28, 2);
    if (begin > text.size() || text.size() - begin < member.packed_bytes) {
        fail(name + " is cut short");
    }
    const std::string_view packed = text.substr(begin, member.packed_bytes);
    Bytes unpacked{.view = packed, .owner = bytes_.owner};
    if (member.method == 8) {
        if (member.bytes > kLargestInMemory) {
            throw UserError(
                "{}: {} has {} bytes, and what is compressed is unpacked up to {}: save "
                "it uncompressed (numpy.save, numpy.savez)",
                origin_, name, member.bytes, kLargestInMemory);
        }
#ifdef SPION_ZLIB
        unpacked = own(inflate_raw(packed, member.bytes));
#else
        throw UserError(
            "{}: {} is compressed and this spion was built without zlib: save it with "
            "numpy.savez or build with zlib",
            origin_, name);
#endif
    } else if (member.method != 0) {
        throw UserError("{}: {} is packed by method {}: use numpy.savez or numpy.savez_compressed",
                        origin_, name, member.method);
    }
    if (unpacked.view.size() != member.bytes || !checksum_holds(unpacked.view, member.crc)) {
        fail(name + " has another checksum than the list says");
    }
    return unpacked;
}

}  // namespace spion
