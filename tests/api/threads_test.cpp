// Many threads in one context, on shared and on own plans: the bits of one thread alone, each
// thread's own error, and nothing for ThreadSanitizer to find (the preset tsan).
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "spion/spion.h"
#include "tests/support/scratch_folder.h"

namespace spion::test {
namespace {

constexpr int kThreads = 4;
constexpr std::int64_t kLength = 128, kWidth = 16, kHeads = 2;
constexpr std::size_t kCount = kHeads * kLength * kWidth;

Attention attention(float scale = 0) {
    return {.heads = kHeads,
            .head_dim = kWidth,
            .length = kLength,
            .block = 32,
            .dtype = DType::kFp32,
            .scale = scale};
}

Pattern pattern() {
    std::vector<std::uint8_t> bits(16);
    for (std::size_t i = 0; i < 16; ++i) bits[i] = i % 5 == 0 || i % 3 == 0 ? 1 : 0;
    return Pattern::from_bits(kLength, 32, bits);
}

std::vector<float> values(double step) {
    std::vector<float> numbers(kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
        numbers[i] = static_cast<float>(std::sin(step * static_cast<double>(i)));
    }
    return numbers;
}

// o, lse and the gradients, one after the other.
std::vector<float> run(const Plan& plan, const Pattern& walked) {
    std::vector<float> q = values(0.37), k = values(0.73), v = values(1.1), d_o = values(0.19);
    std::vector<float> o(kCount), d_q(kCount), d_k(kCount), d_v(kCount), lse(kHeads * kLength);
    const std::vector<std::int32_t> tables = plan.tables(walked);
    std::vector<double> workspace(plan.workspace(1, Pass::kBackward).bytes / sizeof(double) + 1);
    const std::size_t bytes = workspace.size() * sizeof(double);
    plan.prepare_workspace(1, Pass::kBackward, workspace.data(), bytes);
    const auto view = [](std::vector<float>& data) {
        return tensor(data.data(), DType::kFp32, 1, kHeads, kLength, kWidth);
    };
    plan.forward({.q = view(q),
                  .k = view(k),
                  .v = view(v),
                  .o = view(o),
                  .lse = lse.data(),
                  .tables = tables.data(),
                  .table_bytes = tables.size() * sizeof(std::int32_t),
                  .workspace = workspace.data(),
                  .workspace_bytes = bytes});
    plan.backward({.q = view(q),
                   .k = view(k),
                   .v = view(v),
                   .o = view(o),
                   .d_o = view(d_o),
                   .d_q = view(d_q),
                   .d_k = view(d_k),
                   .d_v = view(d_v),
                   .lse = lse.data(),
                   .tables = tables.data(),
                   .table_bytes = tables.size() * sizeof(std::int32_t),
                   .workspace = workspace.data(),
                   .workspace_bytes = bytes});
    std::vector<float> all = o;
    for (const auto* part : {&lse, &d_q, &d_k, &d_v}) {
        all.insert(all.end(), part->begin(), part->end());
    }
    return all;
}

template <typename Job>
void on_threads(const Job& job) {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) threads.emplace_back([&job, i] { job(i); });
}

TEST(ApiThreads, ShareOnePlan) {
    const Context context = Context::host({.threads = 2, .memory_only = true});
    const Plan plan = context.plan(attention());
    const Pattern walked = pattern();
    const std::vector<float> alone = run(plan, walked);
    std::atomic<int> different = 0;
    on_threads([&](int) {
        for (int round = 0; round < 5; ++round) different += run(plan, walked) == alone ? 0 : 1;
    });
    EXPECT_EQ(different, 0);
}

// Equal and different plans at once, with calls on those that are there, counters and freezing.
TEST(ApiThreads, MakePlansWhileOthersCompute) {
    const Context context = Context::host({.threads = 2, .memory_only = true});
    const Pattern walked = pattern();
    const Plan shared = context.plan(attention());
    const std::vector<float> alone = run(shared, walked);
    std::atomic<int> wrong = 0;
    on_threads([&](int i) {
        const Plan own = context.plan(attention(i % 2 == 0 ? 0.0F : 0.5F));
        const bool same = run(own, walked) == alone;
        wrong += same == (i % 2 == 0) ? 0 : 1;
        wrong += run(shared, walked) == alone ? 0 : 1;
        context.freeze(false);
        wrong += context.counters().compiled >= 3 ? 0 : 1;
    });
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(context.counters().compiled, 6);  // of two scales, whoever came first
}

TEST(ApiThreads, HearOfTheirOwnErrors) {
    std::atomic<int> wrong = 0;
    on_threads([&](int i) {
        for (int round = 0; round < 50; ++round) {
            spion_pattern* none = nullptr;
            const int block = 17 + i;
            wrong += spion_pattern_full(100, block, &none) == SPION_INVALID ? 0 : 1;
            const std::string wanted = "block " + std::to_string(block) + " is not allowed";
            wrong += std::string(spion_last_error()).find(wanted) == 0 ? 0 : 1;
        }
    });
    EXPECT_EQ(wrong, 0);
}

// One folder of kernels, a context on each thread, and a log that several threads write to.
TEST(ApiThreads, ShareAFolderOfKernels) {
    const ScratchFolder scratch;
    const std::string folder = (scratch.path() / "cache").string();
    std::atomic<int> wrong = 0, lines = 0;
    const auto count = [](void* user, std::int32_t, const char*) {
        ++*static_cast<std::atomic<int>*>(user);
    };
    const Pattern walked = pattern();
    std::vector<std::vector<float>> results(kThreads);
    on_threads([&](int i) {
        const Context own =
            Context::host({.threads = 2, .cache = folder, .log = count, .log_user = &lines});
        const std::vector<Attention> both{attention(), attention()};
        own.warm_up(both);
        results[static_cast<std::size_t>(i)] = run(own.plan(attention()), walked);
        const spion_counters seen = own.counters();
        wrong += seen.compiled + seen.from_disk == 3 ? 0 : 1;
    });
    EXPECT_EQ(wrong, 0);
    EXPECT_GE(lines, kThreads * 3);
    for (const std::vector<float>& seen : results) EXPECT_EQ(seen, results[0]);
}

// The last holder of a plan, and with it of its context, is whichever thread is last.
TEST(ApiThreads, LetGoOfWhatTheyShare) {
    const Pattern walked = pattern();
    std::vector<float> alone;
    std::atomic<int> different = 0;
    std::vector<std::jthread> threads;
    {
        const Context context = Context::host({.threads = 2, .memory_only = true});
        const Plan plan = context.plan(attention());
        alone = run(plan, walked);
        for (int i = 0; i < kThreads; ++i) {
            threads.emplace_back([&different, &walked, &alone, plan] {
                different += run(plan, walked) == alone ? 0 : 1;
            });
        }
    }
    threads.clear();
    EXPECT_EQ(different, 0);
}

// Whether this build compiles for the target.
bool knows(const std::string& target) {
    try {
        return !explain(attention(), target).empty();
    } catch (const UserError&) {
        return false;
    }
}

// All ask for a GPU at once, and get one, or the same sentence.
TEST(ApiThreads, OpenAGpu) {
    if (!knows("sm_80")) {
        GTEST_SKIP() << "a build without the CUDA back end";
    }
    std::vector<std::string> seen(kThreads);
    on_threads([&](int i) {
        try {
            seen[static_cast<std::size_t>(i)] = Context::cuda(0, {.memory_only = true}).device();
        } catch (const DeviceError& error) {
            seen[static_cast<std::size_t>(i)] = error.what();
        }
    });
    EXPECT_GT(seen[0].size(), 3U);
    for (const std::string& text : seen) EXPECT_EQ(text, seen[0]);
}

// Patterns, discovery and the compiler without a context.
TEST(ApiThreads, LookAtTheCompiler) {
    const Pattern shared = pattern();
    const std::string object = emit(attention(), "host", Kernel::kForward, Stage::kBinary);
    std::vector<float> scores(64 * 64);
    for (std::size_t i = 0; i < scores.size(); ++i) {
        scores[i] = static_cast<float>(std::sin(0.1 * static_cast<double>(i)) + 1) / 64;
    }
    const Discovery discovery{.block = 16, .filter = 3, .quantile = 0.5};
    const std::string found = discover_scores(discovery, 64, scores).text();
    std::vector<std::string> targets{"host"};
    if (knows("sm_80")) targets.insert(targets.end(), {"sm_80", "sm_90a"});
    std::atomic<int> wrong = 0;
    on_threads([&](int) {
        wrong += emit(attention(), "host", Kernel::kForward, Stage::kBinary) == object ? 0 : 1;
        for (const std::string& target : targets) {
            wrong += emit(attention(), target, Kernel::kForward, Stage::kSource).empty() ? 1 : 0;
        }
        wrong += explain(attention(), "host").empty() ? 1 : 0;
        wrong += shared.transpose().transpose().digest() == shared.digest() ? 0 : 1;
        wrong += discover_scores(discovery, 64, scores).text() == found ? 0 : 1;
    });
    EXPECT_EQ(wrong, 0);
}

// Discoverers run while plans are made, freed and frozen.
TEST(ApiThreads, DiscoverWhileOthersMakePlans) {
    const Context context = Context::host({.threads = 2, .memory_only = true});
    const Pattern full = Pattern::full(kLength, 32);
    const std::vector<float> alone = run(context.plan(attention()), full);
    const std::vector<float> lse(alone.begin() + kCount, alone.begin() + kCount + kHeads * kLength);
    std::atomic<int> wrong = 0;
    on_threads([&](int i) {
        if (i % 2 == 0) {
            for (const float scale : {0.25F, 0.75F}) context.plan(attention(scale));
            return;
        }
        const Discoverer discoverer =
            context.discoverer(attention(), {.block = 32, .filter = 3, .quantile = 0.5});
        std::vector<float> q = values(0.37), k = values(0.73);
        std::vector<float> sums(discoverer.sum_bytes() / sizeof(float));
        const auto view = [](std::vector<float>& data) {
            return tensor(data.data(), DType::kFp32, 1, kHeads, kLength, kWidth);
        };
        discoverer.run({.q = view(q),
                        .k = view(k),
                        .lse = lse.data(),
                        .sums = sums.data(),
                        .sum_bytes = discoverer.sum_bytes()});
        wrong += discoverer.finish(sums).block_count() > 0 ? 0 : 1;
    });
    EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace spion::test
