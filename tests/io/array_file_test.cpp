// Files that NumPy, ml_dtypes and safetensors wrote, and what each of them holds.
#include "io/array_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/npy.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tools/storage.h"

namespace spion {
namespace {

const std::string kGoldens = SPION_TEST_DATA "/goldens/";

TEST(ArrayFile, ReadsWhatOtherLibrariesWrite) {
    std::ifstream file(kGoldens + "expected.json");
    const nlohmann::json expected = nlohmann::json::parse(file);
    EXPECT_EQ(expected.size(), 33U);
    for (const auto& [name, holds] : expected.items()) {
        SCOPED_TRACE(name);
        const Array array = open_array(kGoldens + name);
        EXPECT_EQ(array.shape, holds["shape"].get<std::vector<std::int64_t>>());
        EXPECT_EQ(array.values(), holds["values"].get<std::vector<double>>());
    }
}

TEST(ArrayFile, KnowsTheirElementTypes) {
    const auto type = [](const char* name) {
        return std::string(to_string(open_array(kGoldens + name).type));
    };
    EXPECT_EQ(type("float16.npy"), "float16");
    EXPECT_EQ(type("bfloat16.npy"), "bfloat16");
    EXPECT_EQ(type("float32-big.npy"), "float32");
    EXPECT_EQ(type("u2.npy"), "uint16");
    EXPECT_EQ(type("bool.npy"), "bool");
    EXPECT_EQ(type("tensors.safetensors:brain"), "bfloat16");
    EXPECT_EQ(type("tensors.safetensors:count"), "int64");
}

// Every 16-bit pattern, against the conversion that the device's buffers use.
TEST(ArrayFile, DecodesEveryHalf) {
    for (const ElementType type : {ElementType::kFloat16, ElementType::kBFloat16}) {
        std::string bytes(2 * 65536, '\0');
        for (std::size_t bits = 0; bits < 65536; ++bits) {
            bytes[2 * bits] = static_cast<char>(bits & 0xFF);
            bytes[2 * bits + 1] = static_cast<char>(bits >> 8);
        }
        const Array array{.origin = "halves", .shape = {65536}, .type = type, .data = own(bytes)};
        const std::vector<double> values = array.values();
        const DType dtype = type == ElementType::kFloat16 ? DType::kFp16 : DType::kBf16;
        for (std::size_t bits = 0; bits < values.size(); ++bits) {
            const double wanted = load(dtype, bytes.data() + 2 * bits);
            ASSERT_TRUE(std::isnan(wanted) ? std::isnan(values[bits]) : values[bits] == wanted)
                << bits << ": " << values[bits] << " instead of " << wanted;
            ASSERT_EQ(std::signbit(values[bits]), std::signbit(wanted)) << bits;
        }
    }
}

// Any stretch of an array in Fortran order reads as it does in C order.
TEST(ArrayFile, ReadsStretchesOfFortranOrder) {
    const Array cube = open_array(kGoldens + "cube-fortran.npy");
    EXPECT_TRUE(cube.fortran_order);
    for (std::int64_t first = 0; first < 24; ++first) {
        for (std::int64_t count = 0; first + count <= 24; ++count) {
            std::vector<double> part(static_cast<std::size_t>(count));
            cube.read(first, part);
            for (std::int64_t i = 0; i < count; ++i) {
                ASSERT_EQ(part[static_cast<std::size_t>(i)], static_cast<double>(first + i));
            }
        }
    }
    std::vector<double> beyond(2);
    EXPECT_THROW(cube.read(23, beyond), InternalError);
}

TEST(ArrayFile, AsksForANameWhereThereAreSeveral) {
    const auto refuses = [](const std::string& name, const std::string& message) {
        expect_error<UserError>([&] { open_array(name); }, message);
    };
    refuses(kGoldens + "deflated.npz",
            "deflated.npz: holds 2 arrays (other, scores): name one as ");
    refuses(kGoldens + "deflated.npz:none", "there is no array none: it has other, scores");
    refuses(kGoldens + "tensors.safetensors", "holds 6 arrays (brain, count, half, layer.q, mask");
    refuses(kGoldens + "tensors.safetensors:q",
            "there is no tensor of that name: it has brain, count");
    refuses(kGoldens + "float32.npy:scores", "is a .npy file, which holds one array: leave out");
    refuses(kGoldens + "expected.json", "is not a .npy, .npz or .safetensors file");
    EXPECT_EQ(open_array(kGoldens + "deflated.npz:scores.npy").count(), 12);
}

TEST(ArrayFile, ANameWithAColonIsAFileWhereThereIsOne) {
    const ScratchFolder folder;
    const std::vector<std::int64_t> shape{1};
    write_npy(folder.file("map:7"), shape, std::vector<float>{7});
    EXPECT_EQ(open_array(folder.file("map:7")).values(), std::vector<double>{7});
    EXPECT_EQ(split_name("none.npz:layer:q").path, "none.npz:layer");
    EXPECT_EQ(split_name("none.npz:layer:q").member, "q");
    EXPECT_EQ(split_name("none.npz").member, "");
}

// A file above the size from which it is mapped instead of read: 4096 x 4096 of float32, sparse.
TEST(ArrayFile, MapsLargeFiles) {
    const ScratchFolder folder;
    const std::string path = folder.file("large.npy");
    const std::string header =
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4096, 4096), }         \n";
    {
        std::ofstream file(path, std::ios::binary);
        file << kNpyMagic << '\x01' << '\0' << static_cast<char>(header.size()) << '\0' << header;
        file.seekp((4L << 24) - 4, std::ios::cur);
        const float last = 2.5F;
        file.write(reinterpret_cast<const char*>(&last), sizeof last);
    }
    const Array array = open_array(path);
    std::vector<double> row(4096);
    array.read(4095L * 4096, row);
    EXPECT_EQ(row.front(), 0.0);
    EXPECT_EQ(row.back(), 2.5);
}

}  // namespace
}  // namespace spion
