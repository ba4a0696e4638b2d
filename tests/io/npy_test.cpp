#include "io/npy.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// A file as numpy.save writes it, from its parts.
std::string npy(const std::string& dictionary, const std::string& elements, char version = 1) {
    std::string text = "\x93NUMPY";
    text += version;
    text += '\0';
    const std::string header = dictionary + "\n";
    const int length_bytes = version == 1 ? 2 : 4;
    for (int i = 0; i < length_bytes; ++i) {
        text += static_cast<char>(header.size() >> (8 * i));
    }
    return text + header + elements;
}

std::string dictionary(const std::string& descr, const std::string& order,
                       const std::string& shape) {
    return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

Array read_npy(const std::string& path) {
    return parse_npy(read_bytes(path), path);
}

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

TEST(Npy, ReadsEveryVersion) {
    const ScratchFolder folder;
    const std::vector<float> floats = {0.5F, -1.25F, 3.0F, 1e-30F, 0.0F, 7.0F};
    const std::vector<double> doubles = {0.1, 1e300, -2.0, 0.0, 5.0, 6.0};
    for (char version : {'\x01', '\x02', '\x03'}) {
        const Array single = read_npy(folder.write(
            "f4.npy", npy(dictionary("<f4", "False", "(2, 3)"), bytes_of(floats), version)));
        EXPECT_EQ(single.shape, (std::vector<std::int64_t>{2, 3}));
        EXPECT_EQ(single.values(), std::vector<double>(floats.begin(), floats.end()));
        const Array wide = read_npy(folder.write(
            "f8.npy", npy(dictionary("<f8", "False", "(6,)"), bytes_of(doubles), version)));
        EXPECT_EQ(wide.shape, (std::vector<std::int64_t>{6}));
        EXPECT_EQ(wide.values(), doubles);
    }
}

TEST(Npy, ReadsAnyLegalSpellingOfTheHeader) {
    const ScratchFolder folder;
    const std::string elements = bytes_of(std::vector<float>{4.0F});
    const Array scalar = read_npy(folder.write(
        "a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", elements)));
    EXPECT_TRUE(scalar.shape.empty());
    EXPECT_EQ(scalar.values(), std::vector<double>{4.0});
    const Array other = read_npy(folder.write(
        "b.npy",
        npy("{ \"shape\":(1 , 1),\"fortran_order\" : False,\"descr\":\"<f4\"}   ", elements)));
    EXPECT_EQ(other.shape, (std::vector<std::int64_t>{1, 1}));
    const Array none =
        read_npy(folder.write("c.npy", npy(dictionary("<f8", "False", "(0, 4)"), "")));
    EXPECT_TRUE(none.values().empty());
}

TEST(Npy, RefusesOtherContents) {
    const ScratchFolder folder;
    const std::string four = bytes_of(std::vector<float>(4));
    const auto refuses = [&](const std::string& bytes, const std::string& message) {
        const std::string path = folder.write("given.npy", bytes);
        expect_error<UserError>([&] { read_npy(path); }, path + ": " + message);
    };
    const std::string good = dictionary("<f4", "False", "(2, 2)");
    refuses("PK\x03\x04 and more bytes",
            "is not a .npy file: use a .npy file of bool, integers or floats");
    refuses(npy(good, four, 4), ".npy version 4 is not supported: use version 1, 2 or 3");
    refuses(npy(dictionary("<c8", "False", "(2, 2)"), four), "dtype <c8 is not supported: use a");
    refuses(npy(dictionary("|O", "False", "(2, 2)"), four), "dtype |O is not supported");
    refuses(npy(dictionary("|V1", "False", "(2, 2)"), four), "dtype |V1 is not supported");
    refuses(npy(dictionary("f4", "False", "(2, 2)"), four), "dtype f4 is not supported");
    refuses(npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (4,)}", four),
            "dtype [('x', '<f4')] is not supported");
    refuses(npy(good + std::string(1 << 16, ' '), four, 2), "the .npy header has 65596 bytes");
    refuses(npy(good, four.substr(1)), "holds 15 bytes of elements where its shape needs 4 of 4");
    refuses(npy(good, four + "x"), "holds 17 bytes");
    refuses(npy(good, four).substr(0, 40), "is cut short within its header");
    refuses(npy(good, four).substr(0, 8), "is not a .npy file");
    refuses(npy(good, four, 2).substr(0, 11), "is cut short within its header");
    refuses(npy(dictionary("<f4", "False", "(4294967296, 4294967296)"), four), "the shape in its");
}

TEST(Npy, ReadsTheLongIntegersOfPython2) {
    const ScratchFolder folder;
    const std::string path = folder.write("given.npy", npy(dictionary("<f4", "False", "(2L, 1L)"),
                                                           bytes_of(std::vector<float>{0.5F, -3})));
    const Array array = read_npy(path);
    EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 1}));
    EXPECT_EQ(array.values(), (std::vector<double>{0.5, -3}));
}

TEST(Npy, RefusesDamagedHeaders) {
    const ScratchFolder folder;
    for (const char* header :
         {"", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1)",
          "{'descr': <f4, 'fortran_order': False, 'shape': (1,)}",
          "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (x,)}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1)}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1LL,)}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (L,)}",
          "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'extra': 1}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} trailing", "{'descr': '<f4"}) {
        const std::string path =
            folder.write("given.npy", npy(header, bytes_of(std::vector<float>(1))));
        SCOPED_TRACE(header);
        expect_error<UserError>([&] { read_npy(path); }, path + ": the .npy header is damaged");
    }
}

TEST(Npy, NamesFilesThatCannotBeRead) {
    const ScratchFolder folder;
    const std::string missing = folder.file("missing.npy");
    expect_error<UserError>([&] { read_npy(missing); },
                            missing + " cannot be read (No such file or directory)");
    expect_error<UserError>([&] { read_npy(folder.file("")); }, "is a folder");
    const std::string empty = folder.write("empty.npy", "");
    expect_error<UserError>([&] { read_npy(empty); }, empty + " is empty");
}

TEST(Npy, WritesWhatItReads) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const ScratchFolder folder;
    const std::string path = folder.file("out.npy");
    for (int round = 0; round < 30; ++round) {
        std::vector<std::int64_t> shape(static_cast<std::size_t>(pick(random, 0, 4)));
        std::int64_t count = 1;
        for (std::int64_t& extent : shape) {
            extent = pick(random, 0, 6);
            count *= extent;
        }
        std::vector<float> values(static_cast<std::size_t>(count));
        for (float& value : values) {
            value = std::normal_distribution<float>()(random);
        }
        write_npy(path, shape, values);
        const Array read = read_npy(path);
        ASSERT_EQ(read.shape, shape);
        ASSERT_EQ(read.values(), std::vector<double>(values.begin(), values.end()));
        std::ifstream file(path, std::ios::binary);
        const std::string bytes{std::istreambuf_iterator<char>(file), {}};
        ASSERT_EQ((bytes.size() - values.size() * sizeof(float)) % 64, 0U);  // elements aligned
        ASSERT_EQ(bytes[bytes.size() - values.size() * sizeof(float) - 1], '\n');
    }
    EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

TEST(Npy, WritesNumpysHeader) {
    const ScratchFolder folder;
    const std::string path = folder.file("out.npy");
    const auto header = [&](std::vector<std::int64_t> shape) {
        const std::int64_t count =
            std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
        write_npy(path, shape, std::vector<float>(static_cast<std::size_t>(count)));
        std::ifstream file(path, std::ios::binary);
        std::string bytes{std::istreambuf_iterator<char>(file), {}};
        return bytes.substr(10, bytes.find('}') - 9);
    };
    EXPECT_EQ(header({2, 3}), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    EXPECT_EQ(header({5}), "{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }");
    EXPECT_EQ(header({}), "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
}

TEST(Npy, SaysWhyItCannotWrite) {
    const ScratchFolder folder;
    const std::string path = folder.file("no/such/folder/out.npy");
    const std::vector<std::int64_t> shape = {1};
    expect_error<UserError>([&] { write_npy(path, shape, std::vector<float>(1)); },
                            path + " cannot be written: No such file or directory");
    expect_error<InternalError>(
        [&] { write_npy(folder.file("x.npy"), shape, std::vector<float>(2)); },
        "2 values for another shape");
}

}  // namespace
}  // namespace spion
