// Archives: members by name, and every way in which one can be damaged.
#include "io/zip.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

const std::string kGoldens = SPION_TEST_DATA "/goldens/";

std::string golden(const char* name) {
    return std::string(read_bytes(kGoldens + name).view);
}

TEST(Zip, ListsAndUnpacks) {
    const Zip zip(own(golden("deflated.npz")), "given");
    ASSERT_EQ(zip.members().size(), 2U);
    EXPECT_EQ(zip.members()[0].name, "scores.npy");
    EXPECT_EQ(zip.members()[0].method, 8);
    EXPECT_TRUE(zip.read(zip.members()[0]).view.starts_with("\x93NUMPY"));
    const Zip large(own(golden("zip64.npz")), "given");
    ASSERT_EQ(large.members().size(), 1U);
    EXPECT_EQ(large.members()[0].bytes, 224U);
    EXPECT_EQ(large.read(large.members()[0]).view.size(), 224U);
}

TEST(Zip, RefusesDamage) {
    const auto refuses = [](std::string bytes, const std::string& message) {
        expect_error<UserError>(
            [&] {
                const Zip zip(own(std::move(bytes)), "given");
                for (const ZipMember& member : zip.members()) {
                    zip.read(member);
                }
            },
            message);
    };
    const std::string good = golden("stored.npz");
    refuses(good.substr(0, good.size() - 30), "given: the archive is damaged (it has no list of");
    std::string bytes = good;
    bytes[200] = static_cast<char>(bytes[200] ^ 1);  // within the elements
    refuses(bytes, "arr_0.npy has another checksum than the list says");
    bytes = good;
    bytes[0] = 'X';
    refuses(bytes, "arr_0.npy does not begin where the list says");
    const std::size_t list = good.find("PK\x01\x02");
    ASSERT_NE(list, std::string::npos);
    bytes = good;
    bytes[list + 10] = 12;  // bzip2
    refuses(bytes, "arr_0.npy is packed by method 12: use numpy.savez");
    bytes = good;
    bytes[list + 8] = 1;
    refuses(bytes, "arr_0.npy is encrypted: save it without a password");
    bytes = good;
    bytes[list + 20] = '\xFF';
    bytes[list + 21] = '\xFF';
    refuses(bytes, "arr_0.npy is cut short");
    bytes = good;
    bytes[list + 1] = 'X';
    refuses(bytes, "the list of its members is cut short");
    bytes = golden("deflated.npz");
    const std::size_t packed = bytes.find("PK\x01\x02");
    bytes[packed + 27] = '\x7F';  // two gigabytes that are not there
    refuses(bytes, "scores.npy has another checksum than the list says");
}

TEST(Zip, AnyEditIsReadOrRefused) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    int read = 0, refused = 0;
    for (int round = 0; round < 2000; ++round) {
        std::string bytes = golden(round % 2 == 0 ? "deflated.npz" : "zip64.npz");
        bytes[random() % bytes.size()] = static_cast<char>(random());
        try {
            const Zip zip(own(std::move(bytes)), "given");
            for (const ZipMember& member : zip.members()) {
                zip.read(member);
            }
            ++read;
        } catch (const UserError&) {
            ++refused;
        }
    }
    EXPECT_GT(read, 0);
    EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace spion
