#include "ir/sha256.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace spion {
namespace {

// Published examples of FIPS 180-4 (first 128 bits): one chunk, none, two, and many.
TEST(Sha256, PublishedVectors) {
    EXPECT_EQ(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223");
    EXPECT_EQ(digest_of(""), "e3b0c44298fc1c149afbf4c8996fb924");
    EXPECT_EQ(digest_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039");
    EXPECT_EQ(digest_of(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67");
}

// Where the padding moves from one chunk to two (55 | 56 bytes) and back (63 | 64).
TEST(Sha256, EveryLengthAroundTheChunkEdgeDiffers) {
    std::set<std::string> digests;
    for (std::size_t length = 0; length <= 130; ++length) {
        digests.insert(digest_of(std::string(length, '\0')));
    }
    EXPECT_EQ(digests.size(), 131U);
    EXPECT_EQ(digest_of(std::string(55, 'a')), "9f4390f8d30c2dd92ec9f095b65e2b9a");
    EXPECT_EQ(digest_of(std::string(56, 'a')), "b35439a4ac6f0948b6d6f9e3c6af0f5f");
    EXPECT_EQ(digest_of(std::string(64, 'a')), "ffe054fe7ae0cb6dc65c3af9b61d5209");
}

}  // namespace
}  // namespace spion
