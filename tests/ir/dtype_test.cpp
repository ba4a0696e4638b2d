#include "ir/dtype.h"

#include <gtest/gtest.h>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

TEST(DType, NamesAndSizes) {
    struct Row {
        DType dtype;
        const char* name;
        int bytes;
    };
    for (const Row& row : {Row{DType::kFp32, "fp32", 4}, Row{DType::kTf32, "tf32", 4},
                           Row{DType::kBf16, "bf16", 2}, Row{DType::kFp16, "fp16", 2}}) {
        EXPECT_EQ(to_string(row.dtype), row.name);
        EXPECT_EQ(parse_dtype(row.name), row.dtype);
        EXPECT_EQ(storage_bytes(row.dtype), row.bytes);
    }
}

TEST(DType, UnknownNameListsTheKnown) {
    expect_error<UserError>([] { parse_dtype("float"); },
                            "dtype 'float' is not known: use fp32, tf32, bf16 or fp16");
    expect_error<UserError>([] { parse_dtype(""); }, "dtype ''");
}

}  // namespace
}  // namespace spion
