#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

std::string file_of(const std::string& header, const std::string& data) {
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i) {
        bytes[static_cast<std::size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
    }
    return bytes + header + data;
}

TEST(Safetensors, RefusesDamage) {
    const auto refuses = [](const std::string& bytes, const std::string& message) {
        expect_error<UserError>([&] { parse_safetensors(own(bytes), "a", "given"); }, message);
    };
    const std::string four(4, '\0');
    const auto tensor = [](const std::string& fields) { return "{\"a\":{" + fields + "}}"; };
    const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
    EXPECT_EQ(parse_safetensors(own(file_of(tensor(good), four)), "a", "given").count(), 1);
    refuses(file_of(tensor(good), four).substr(0, 20), "the safetensors file is damaged (it does");
    refuses(file_of(tensor(good), "123"), "a tensor lies outside the file");
    refuses(file_of("{\"a\":", four), "its header is no JSON object");
    refuses(file_of("{\"b\":{}}", four), "given: there is no tensor of that name: it has b");
    refuses(file_of("{\"a\":7}", four), "a tensor is no JSON object");
    refuses(file_of(tensor(R"("shape":[1])"), four), "its header names no dtype");
    refuses(file_of(tensor(R"("dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4])"), four),
            "dtype F8_E4M3 is not supported: use BOOL, an integer, F16, BF16, F32 or F64");
    refuses(file_of(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), four),
            "a shape or an offset is no list of sizes");
    refuses(file_of(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), four),
            "a tensor has another size than its shape needs");
    refuses(file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), four),
            "a tensor lies outside the file");
    refuses(file_of(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],)"
                           R"("data_offsets":[0,4])"),
                    four),
            "the shape in its header is too large to be true");
}

TEST(Safetensors, WritesWhatItReads) {
    const ScratchFolder folder;
    const std::string path = folder.file("out.safetensors");
    const std::vector<float> q{1, 2, 3, 4, 5, 6}, scalar{0.5F};
    const std::vector<NamedTensor> tensors{{.name = "q", .shape = {2, 3}, .values = q},
                                           {.name = "scale", .shape = {}, .values = scalar}};
    write_safetensors(path, tensors);
    const Bytes bytes = read_bytes(path);
    EXPECT_EQ(safetensors_names(bytes.view, path), (std::vector<std::string>{"q", "scale"}));
    const Array array = parse_safetensors(bytes, "q", path);
    EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(array.values(), std::vector<double>(q.begin(), q.end()));
    EXPECT_EQ(parse_safetensors(bytes, "scale", path).values(), std::vector<double>{0.5});
    EXPECT_EQ((array.data.view.data() - bytes.view.data()) % 8, 0);  // aligned as the format asks
    expect_error<UserError>([&] { write_safetensors(folder.file("no/such/folder"), tensors); },
                            "cannot be written: No such file or directory");
}

}  // namespace
}  // namespace spion
