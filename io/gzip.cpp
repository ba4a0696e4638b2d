#include "io/gzip.h"

#ifdef SPION_ZLIB
#include <zlib.h>
#endif

#include <algorithm>

#include "ir/error.h"

namespace spion {

bool is_gzip(std::string_view bytes) {
    return bytes.starts_with("\x1f\x8b");
}

#ifdef SPION_ZLIB
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;  // bytes unpacked or handed over at a time

// zlib's state, freed at the end.
struct Inflater {
    z_stream stream = {};
    explicit Inflater(const std::string& origin) {
        constexpr int kGzip = 16 + MAX_WBITS;
        if (inflateInit2(&stream, kGzip) != Z_OK) {
            throw UserError("{}: there is no memory to unpack it", origin);
        }
    }
    ~Inflater() { inflateEnd(&stream); }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;
};

}  // namespace

Bytes gunzip(std::string_view bytes, const std::string& origin) {
    Inflater inflater(origin);
    z_stream& stream = inflater.stream;
    std::string text;
    std::size_t given = 0;
    int result = Z_OK;
    while (true) {
        if (stream.avail_in == 0 && given < bytes.size()) {
            const std::size_t piece = std::min(kPiece, bytes.size() - given);
            stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + given));
            stream.avail_in = static_cast<uInt>(piece);
            given += piece;
        }
        const std::size_t used = text.size();
        text.resize(used + kPiece);
        stream.next_out = reinterpret_cast<Bytef*>(text.data() + used);
        stream.avail_out = static_cast<uInt>(kPiece);
        result = inflate(&stream, Z_NO_FLUSH);
        text.resize(used + kPiece - stream.avail_out);
        if (text.size() > kLargestInMemory) {
            throw UserError("{} holds more than {} bytes: unpack it first", origin,
                            kLargestInMemory);
        }
        const bool rest = stream.avail_in > 0 || given < bytes.size();
        if (result == Z_STREAM_END && rest) {
            inflateReset(&stream);  // another member follows
            continue;
        }
        if (result == Z_STREAM_END) return own(std::move(text));
        if (result != Z_OK || (!rest && stream.avail_out > 0)) {
            throw UserError("{}: the gzip file is damaged or cut short: fetch it again", origin);
        }
    }
}
#else
Bytes gunzip(std::string_view /*bytes*/, const std::string& origin) {
    throw UserError("{} is gzipped, and this build has no zlib: unpack it with gunzip", origin);
}
#endif

Bytes read_bytes_unpacked(const std::string& path) {
    Bytes bytes = read_bytes(path);
    return is_gzip(bytes.view) ? gunzip(bytes.view, path) : bytes;
}

}  // namespace spion
