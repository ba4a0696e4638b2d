// Every stage of the compiler as text or bytes, for targets that are not here.
#include <gtest/gtest.h>

#include <string>

#include "spion/spion.h"
#include "tests/api/expect_status.h"

namespace spion::test {
namespace {

const Attention kAttention{.heads = 2, .head_dim = 64, .length = 1024, .block = 64};
const Attention kHostAttention{
    .heads = 2, .head_dim = 32, .length = 256, .block = 32, .dtype = DType::kFp32};

bool has(const std::string& text, const std::string& words) {
    return text.find(words) != std::string::npos;
}

TEST(ApiEmit, GivesTheStagesOfAGpuThatIsNotHere) {
    const PlanOptions options{.typical = Pattern::full(1024, 64)};
    EXPECT_TRUE(has(emit(kAttention, "sm_80", Kernel::kForward, Stage::kAttention, options),
                    "attention H=2 D=64 L=1024"));
    EXPECT_TRUE(has(emit(kAttention, "sm_80", Kernel::kForward, Stage::kProgram, options),
                    "role=attention_forward"));
    EXPECT_TRUE(has(emit(kAttention, "sm_80", Kernel::kForward, Stage::kSource), "kHeadDim = 64"));
    EXPECT_TRUE(has(emit(kAttention, "sm_80", Kernel::kBackwardSecond, Stage::kProgram),
                    "role=attention_key_value_gradient"));
    const std::string table = explain(kAttention, "sm_90a");
    EXPECT_TRUE(has(table, "attention_forward on sm_90a"));
    EXPECT_TRUE(has(table, "backward: "));
}

TEST(ApiEmit, GivesTheStagesOfTheHost) {
    EXPECT_TRUE(has(emit(kHostAttention, "host", Kernel::kForward, Stage::kSource), "kHeadDim"));
    const std::string llvm = emit(kHostAttention, "host", Kernel::kForward, Stage::kLlvm);
    EXPECT_TRUE(has(llvm, "define")) << llvm.substr(0, 200);
    const std::string object = emit(kHostAttention, "host", Kernel::kForward, Stage::kBinary);
    EXPECT_EQ(object.substr(1, 3), "ELF");
    EXPECT_TRUE(
        has(emit(kHostAttention, "host", Kernel::kForward, Stage::kAssembly), "attention_forward"));
}

// The header's names and numbers are the compiler's, to the last one.
TEST(ApiEmit, SoftmaxKindsAreTheCompilers) {
    Attention attention = kAttention;
    for (const std::string_view name : kSoftmaxNames) {
        attention.softmax = softmax_named(name).value();
        EXPECT_TRUE(has(emit(attention, "sm_80", Kernel::kForward, Stage::kAttention),
                        "softmax=" + std::string(name)));
    }
    EXPECT_FALSE(softmax_named("hard").has_value());
    attention.softmax = static_cast<Softmax>(std::size(kSoftmaxNames));
    expect_status<UserError>([&] { emit(attention, "sm_80", Kernel::kForward, Stage::kAttention); },
                             "is not known: use the spion_softmax that is masked or pruned_zero");
}

TEST(ApiEmit, SaysWhatThereIsNot) {
    expect_status<UserError>([] { emit(kAttention, "sm_42", Kernel::kForward, Stage::kSource); },
                             "target 'sm_42' is not known");
    expect_status<UserError>([] { emit(kHostAttention, "host", Kernel::kForward, Stage::kPtx); },
                             "target host has no PTX");
    expect_status<UserError>([] { emit(kAttention, "sm_80", Kernel::kForward, Stage::kLlvm); },
                             "target sm_80 has no LLVM IR");
    expect_status<UserError>(
        [] { emit(kAttention, "sm_80", static_cast<Kernel>(3), Stage::kSource); },
        "kernel 3 is not known");
    expect_status<UserError>(
        [] { emit(kAttention, "sm_80", Kernel::kForward, static_cast<Stage>(9)); },
        "stage 9 is not known");
    expect_status<UserError>([] { emit(kAttention, "host", Kernel::kForward, Stage::kSource); },
                             "fp32");
}

}  // namespace
}  // namespace spion::test
