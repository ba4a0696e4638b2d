// CIFAR-10 in its binary form and as pickles (goldens: make_pickles.py).
#include "train/data/cifar.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <initializer_list>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"
#include "train/data/pickle.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// What make_pickles.py stores: byte i of picture n is 3072 n + i modulo 256, labels 3 and 9.
std::string binary_batch() {
    std::string bytes;
    for (int n = 0; n < 2; ++n) {
        bytes += static_cast<char>(n == 0 ? 3 : 9);
        for (int i = 0; i < 3072; ++i) bytes += static_cast<char>((3072 * n + i) % 256);
    }
    return bytes;
}

void expect_batches(const PictureSamples& samples, int batches) {
    ASSERT_EQ(samples.samples(), 2 * batches);
    EXPECT_EQ(samples.length(), 1024);
    std::vector<std::uint16_t> tokens;
    for (std::int64_t n = 0; n < samples.samples(); ++n) {
        EXPECT_EQ(samples.label(n), n % 2 == 0 ? 3 : 9);
        samples.read(n, 0, tokens);
        for (std::size_t i = 0; i < 1024; ++i) {  // the three planes are equal, as 1024 % 256 is 0
            ASSERT_EQ(tokens[i], i % 256) << n << ' ' << i;
        }
    }
}

TEST(Cifar, IsReadInItsBinaryForm) {
    const ScratchFolder folder;
    EXPECT_FALSE(has_cifar(folder.path()));
    for (int n = 1; n <= 5; ++n) folder.write(fmt::format("data_batch_{}.bin", n), binary_batch());
    folder.write("test_batch.bin", binary_batch());
    EXPECT_TRUE(has_cifar(folder.path()));
    expect_batches(read_cifar(folder.path(), true), 5);
    expect_batches(read_cifar(folder.path(), false), 1);
    folder.write("test_batch.bin", binary_batch().substr(1));
    expect_error<UserError>([&] { read_cifar(folder.path(), false); },
                            "has 6145 bytes, not a multiple of the 3073 of a record");
    std::string wrong = binary_batch();
    wrong[0] = 10;
    folder.write("test_batch.bin", wrong);
    expect_error<UserError>([&] { read_cifar(folder.path(), false); }, "has the label 10");
    fs::remove(folder.file("data_batch_3.bin"));
    expect_error<UserError>([&] { read_cifar(folder.path(), true); },
                            "data_batch_3.bin cannot be read");
}

TEST(Cifar, IsReadFromPicklesOfEveryProtocol) {
    for (const int protocol : {2, 3, 5}) {
        SCOPED_TRACE(protocol);
        const ScratchFolder folder;
        const std::string bytes =
            read_file(fmt::format("{}/data/goldens/cifar{}.pickle", SPION_TEST_DATA, protocol));
        for (int n = 1; n <= 5; ++n) folder.write(fmt::format("data_batch_{}", n), bytes);
        folder.write("test_batch", bytes);
        expect_batches(read_cifar(folder.path(), true), 5);
        // Cut anywhere it is refused, never read beyond.
        for (std::size_t size = 1; size < bytes.size(); size += 97) {
            folder.write("test_batch", bytes.substr(0, size));
            EXPECT_THROW(read_cifar(folder.path(), false), UserError) << size;
        }
    }
}

// As Python 2 wrote them, labels first.
TEST(Cifar, IsReadFromThePicklesOfPython2) {
    const ScratchFolder folder;
    std::string pixels = binary_batch();
    pixels = pixels.substr(1, 3072) + pixels.substr(3074, 3072);
    const auto text = [](std::initializer_list<int> codes) {
        return std::string(codes.begin(), codes.end());
    };
    std::string bytes =
        text({0x80, 2, '}', '(', 'U', 6}) + "labels" +
        text({']', '(', 'K', 3, 'K', 9, 'e', 'U', 4}) + "data" +
        "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" +
        text({'K', 0, 0x85, 'U', 1, 'b', 0x87, 'R', '(', 'K', 1, 'K', 2, 'M', 0, 12, 0x86}) +
        "cnumpy\ndtype\n" + text({'U', 2,   'u', '1', 'K', 0,   'K', 1,    0x87, 'R', '(', 'K', 3,
                                  'U', 1,   '|', 'N', 'N', 'N', 'J', 255,  255,  255, 255, 'J', 255,
                                  255, 255, 255, 'K', 0,   't', 'b', 0x89, 'T',  0,   24,  0,   0});
    bytes += pixels + "tbu.";
    folder.write("data_batch_1", bytes);
    folder.write("test_batch", bytes);
    expect_batches(read_cifar(folder.path(), false), 1);
}

TEST(Pickle, RunsNothing) {
    const auto refuse = [](const std::string& bytes, const std::string& text) {
        expect_error<UserError>([&] { read_pickle(bytes, "f.pickle"); }, text);
    };
    refuse("cos\nsystem\n(S'true'\ntR.", "it calls os system, which is not run");
    refuse("\x80\x04\x8c\x05posix\x8c\x06system\x93)R.", "it calls posix system, which is not run");
    refuse("(S'a'\no.", "it has the operation 0x6f, which makes no data");
    refuse("", "it is cut short");
    refuse("a.", "it takes what it has not made");
    refuse("h\x05.", "it recalls what it has not made");
    refuse("]S'x\n.", "a string is not quoted");
    refuse("}(K\x01u.", "a key has no value");
    const PickleValue value = read_pickle("(lp0\nI1\naI-7\naL12L\na.", "f");
    EXPECT_EQ(value.integers("f"), (std::vector<std::int64_t>{1, -7, 12}));
    expect_error<UserError>([&] { value.member("data", "f"); }, "f: the pickle has no 'data'");
}

}  // namespace
}  // namespace spion
