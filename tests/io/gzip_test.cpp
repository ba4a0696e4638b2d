#include "io/gzip.h"

#include <gtest/gtest.h>

#include <random>

#include "ir/error.h"
#include "tests/support/expect_error.h"

#ifdef SPION_TEST_ZLIB
#include <zlib.h>
#endif

namespace spion {
namespace {

TEST(Gzip, IsToldByItsFirstBytes) {
    EXPECT_TRUE(is_gzip("\x1f\x8b\x08"));
    EXPECT_FALSE(is_gzip("\x1f"));
    EXPECT_FALSE(is_gzip("text"));
}

#ifdef SPION_TEST_ZLIB
std::string packed(const std::string& text) {
    z_stream stream = {};
    EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string bytes(deflateBound(&stream, text.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
    stream.avail_out = static_cast<uInt>(bytes.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    bytes.resize(stream.total_out);
    deflateEnd(&stream);
    return bytes;
}

// Sizes around the pieces that are unpacked at a time, compressible and not.
TEST(Gzip, UnpacksWhatZlibPacked) {
    std::mt19937 random(5);
    for (const std::size_t size :
         {0U, 1U, 1000U, (1U << 20) - 1, 1U << 20, (1U << 20) + 1, 3000000U}) {
        for (const unsigned values : {1U, 256U}) {
            std::string text;
            for (std::size_t i = 0; i < size; ++i) text += static_cast<char>(random() % values);
            EXPECT_EQ(gunzip(packed(text), "f.gz").view, text) << size << ' ' << values;
        }
    }
    EXPECT_EQ(gunzip(packed("one") + packed("two"), "f.gz").view, "onetwo");
}

TEST(Gzip, SaysWhatIsDamaged) {
    const std::string whole = packed(std::string(5000, 'a') + "end");
    for (const std::size_t size : {std::size_t{3}, whole.size() / 2, whole.size() - 1}) {
        expect_error<UserError>([&] { gunzip(whole.substr(0, size), "f.gz"); },
                                "f.gz: the gzip file is damaged or cut short: fetch it again");
    }
    std::string wrong = whole;
    wrong[wrong.size() - 5] ^= 1;  // of the checksum
    expect_error<UserError>([&] { gunzip(wrong, "f.gz"); }, "f.gz: the gzip file is damaged");
}
#endif

}  // namespace
}  // namespace spion
