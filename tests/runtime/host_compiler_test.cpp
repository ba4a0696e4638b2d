// LLVM IR text and bitcode bodies -> objects -> functions, and every way in which that is refused.
#include "runtime/host/llvm_compiler.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "codegen/llvm/emit_llvm.h"
#include "ir/error.h"
#include "runtime/host/host_target.h"
#include "runtime/host/jit.h"
#include "tests/support/expect_error.h"
#include "tests/support/small_attention.h"

namespace spion {
namespace {

CompileRequest request_for(const KernelSource& source, const Target& target) {
    return {.entry = source.entry,
            .text = source.text,
            .includes = source.includes,
            .arch = target.arch,
            .features = target.features,
            .options = {},
            .compiler = "llvm " + llvm_version()};
}

CompileRequest summary_request(HostVectors vectors) {
    const Target target = host_target(vectors, 1);
    const ScoreSummaryProgram program{
        .attention = small_attention(), .block = 32, .filter = 31, .tile = 32};
    return request_for(emit_host(program, target), target);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A kernel written in the text itself: data[i] += 1 for every item i.
constexpr const char* kCounter = R"(
define void @count(ptr %data, i64 %begin, i64 %end) {
    br label %loop
loop:
    %i = phi i64 [ %begin, %0 ], [ %next, %body ]
    %more = icmp slt i64 %i, %end
    br i1 %more, label %body, label %done
body:
    %at = getelementptr i32, ptr %data, i64 %i
    %old = load i32, ptr %at
    %new = add i32 %old, 1
    store i32 %new, ptr %at
    %next = add i64 %i, 1
    br label %loop
done:
    ret void
}
)";

CompileRequest text_request(const std::string& text, const std::string& entry) {
    CompileRequest request = summary_request(HostVectors::kBest);  // a body names the target
    request.text += text;
    request.entry = entry;
    return request;
}

TEST(HostCompiler, LoadsAFunctionThatComputes) {
    const KernelBinary binary = compile_with_llvm(text_request(kCounter, "count"));
    EXPECT_EQ(binary.code.substr(1, 3), "ELF");
    EXPECT_GT(binary.compile_ms, 0);
    Jit jit;
    const auto kernel = jit.load("count", binary.code);
    EXPECT_EQ(kernel->entry(), "count");
    std::vector<int> data(10, 5);
    kernel->function()(data.data(), 2, 9);
    EXPECT_EQ(data, (std::vector<int>{5, 5, 6, 6, 6, 6, 6, 6, 6, 5}));
}

TEST(HostCompiler, IsAFunctionOfItsRequest) {
    const CompileRequest request = summary_request(HostVectors::kBest);
    const std::string code = compile_with_llvm(request).code;
    std::string on_threads[2];
    {
        std::vector<std::jthread> threads;
        for (std::string& result : on_threads) {
            threads.emplace_back([&] { result = compile_with_llvm(request).code; });
        }
    }
    EXPECT_EQ(on_threads[0], code);
    EXPECT_EQ(on_threads[1], code);
}

TEST(HostCompiler, FoldsConstantsAndKeepsOnlyTheEntry) {
    const std::string ir = optimised_ir(summary_request(HostVectors::kBest));
    EXPECT_NE(ir.find(" @score_summary(ptr"), std::string::npos);
    EXPECT_EQ(ir.find("@kHeadDim"), std::string::npos);
    EXPECT_NE(ir.find("<16 x float>"), std::string::npos);
}

TEST(HostCompiler, UsesTheVectorsOfTheTarget) {
    const Target best = host_target(HostVectors::kBest, 1);
    const std::string avx2 = assembly(summary_request(HostVectors::kAvx2));
    const std::string sse = assembly(summary_request(HostVectors::kSse));
    EXPECT_EQ(avx2.find("%zmm"), std::string::npos);
    EXPECT_EQ(sse.find("%ymm"), std::string::npos);
    if (best.vector_floats < 8) {
        GTEST_SKIP() << "this CPU has no AVX2";
    }
    EXPECT_NE(avx2.find("%ymm"), std::string::npos);
    if (best.vector_floats == 16) {
        EXPECT_NE(assembly(summary_request(HostVectors::kBest)).find("%zmm"), std::string::npos);
    }
}

TEST(HostCompiler, TargetsNarrowWithTheirFeatures) {
    const Target avx2 = host_target(HostVectors::kAvx2, 3);
    EXPECT_LE(avx2.vector_floats, 8);
    EXPECT_EQ(avx2.features.find("+avx512"), std::string::npos);
    EXPECT_EQ(avx2.sm_count, 3);
    const Target sse = host_target(HostVectors::kSse, 1);
    EXPECT_EQ(sse.vector_floats, 4);
    EXPECT_EQ(sse.features.find("+avx"), std::string::npos);
    EXPECT_EQ(host_target(HostVectors::kBest, 1).features,
              host_target(HostVectors::kBest, 1).features);
    EXPECT_EQ(parse_host_vectors(""), HostVectors::kBest);
    EXPECT_EQ(parse_host_vectors("avx2"), HostVectors::kAvx2);
    expect_error<UserError>([] { parse_host_vectors("avx3"); },
                            "SPION_HOST_FEATURES is 'avx3', but must be best, avx2 or sse");
}

TEST(HostCompiler, RefusesBadText) {
    CompileRequest request = summary_request(HostVectors::kBest);
    request.text += "@broken = constant i33x 1\n";
    expect_error<InternalError>([&] { compile_with_llvm(request); },
                                "LLVM rejects the text of 'score_summary', line ");
}

TEST(HostCompiler, RefusesBadBitcode) {
    CompileRequest request = summary_request(HostVectors::kBest);
    request.includes[0].text.resize(request.includes[0].text.size() / 2);
    expect_error<InternalError>([&] { compile_with_llvm(request); },
                                "LLVM rejects the bitcode of score_summary.bc");
}

TEST(HostCompiler, RefusesMissingAndMistypedConstants) {
    CompileRequest request = summary_request(HostVectors::kBest);
    request.text = replaced(request.text, "@kHeadDim ", "@kOther ");
    expect_error<InternalError>([&] { compile_with_llvm(request); },
                                "needs the constant kHeadDim, which its text does not define");
    request = summary_request(HostVectors::kBest);
    request.text = replaced(request.text, "@kHeadDim = constant i32", "@kHeadDim = constant i64");
    expect_error<InternalError>([&] { compile_with_llvm(request); },
                                "constant kHeadDim has another type in score_summary.bc");
}

TEST(HostCompiler, RefusesUnknownEntriesAndOptions) {
    CompileRequest request = summary_request(HostVectors::kBest);
    request.entry = "score_summery";
    expect_error<InternalError>([&] { compile_with_llvm(request); },
                                "define no function of that name");
    request = summary_request(HostVectors::kBest);
    request.options = {"O4"};
    expect_error<InternalError>([&] { compile_with_llvm(request); },
                                "takes one option of O0, O1, O2 and O3, not 'O4'");
    request = text_request(kCounter, "count");
    request.options = {"O1"};
    EXPECT_FALSE(compile_with_llvm(request).code.empty());
}

TEST(HostCompiler, RefusesCallsOfLibraries) {
    const CompileRequest request = text_request(R"(
declare float @sinf(float)
define void @wave(ptr %data, i64 %begin, i64 %end) {
    %x = load float, ptr %data
    %y = call float @sinf(float %x)
    store float %y, ptr %data
    ret void
}
)",
                                                "wave");
    expect_error<InternalError>([&] { compile_with_llvm(request); }, "'wave' calls sinf");
}

TEST(HostJit, RefusesWhatIsNoObjectOrLacksTheEntry) {
    Jit jit;
    expect_error<InternalError>([&] { jit.load("count", "no object"); }, "ORC cannot load count");
    const KernelBinary binary = compile_with_llvm(text_request(kCounter, "count"));
    expect_error<InternalError>([&] { jit.load("other", binary.code); }, "ORC cannot load other");
    EXPECT_EQ(jit.load("count", binary.code)->entry(), "count");  // still works afterwards
}

}  // namespace
}  // namespace spion
