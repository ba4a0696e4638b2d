// random_combinations [--device cpu|cuda] [--count N] [--a-kernel N] [--seed N] [--seconds S]: random
// combinations of everything that an operation can have, each held against the float64 reference on
// poisoned outputs, twice. So many cases go through one operation's kernels: patterns, lengths, the
// rules of masks, batch and layout are the launch's. No case begins after S seconds. Exit status 1
// when a case fails.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <chrono>
#include <limits>
#include <map>
#include <random>
#include <string>

#include "ir/error.h"
#include "tests/support/seed.h"
#include "tests/tools/pick_attention.h"
#include "tools/oracle/attention_case.h"

namespace {

using namespace spion;

// A dimension that every family may meet: mostly small ones, on the host's account.
int pick_width(std::mt19937_64& random) {
    return 8 * (pick(random, 0, 3) > 0 ? pick(random, 2, 16) : pick(random, 17, 32));
}

constexpr int kMostSamples = 3;  // of a launch

// What the kernels are made for.
AttentionCase draw_operation(std::mt19937_64& random, bool on_host) {
    const DType dtypes[] = {DType::kBf16, DType::kFp16, DType::kBf16, DType::kTf32, DType::kFp32};
    const int width = pick_width(random);
    AttentionCase problem =
        pick_attention(random, on_host ? DType::kFp32 : dtypes[pick(random, 0, 4)], width,
                       pick_block(random), pick_softmax(random));
    if (pick(random, 0, 1) == 0) {
        problem = with_other_keys(random, problem);
    }
    if (pick(random, 0, 1) == 0) {
        problem = with_grouped_heads(random, problem);
    }
    Attention& attention = problem.attention;
    attention.mask = static_cast<ElementMask>(pick(random, 0, 2));
    if (attention.mask == ElementMask::kSpans && pick(random, 0, 1) == 0) {
        attention.varlen = true;
        attention.key_starts = attention.diagonal() != 0 || pick(random, 0, 3) == 0;
        attention.key_padding = false;
        attention.sequence_patterns = pick(random, 0, 1) == 0 ? kMostSamples : 0;
    }
    attention.value_dim = pick(random, 0, 2) == 0 ? pick_width(random) : 0;
    const int heads[] = {1, attention.key_value_heads(), attention.heads};
    attention.patterns = heads[pick(random, 0, 2)];
    if (pick(random, 0, 1) == 0) {
        problem = with_changed_scores(random, problem);
    }
    problem.packed_rows = problem.pattern.block() <= 32 && pick(random, 0, 2) == 0 ? 2 : 1;
    return problem;
}

// The same kernels, launched on something else.
AttentionCase draw_launch(std::mt19937_64& random, AttentionCase problem) {
    const Attention& attention = problem.attention;
    const auto keys = static_cast<int>(attention.key_value_length());
    problem.seed = random();
    problem.batch = pick(random, 1, kMostSamples);
    problem.layout = pick(random, 0, 1) == 0 ? Layout::kPacked : Layout::kHeadsFirst;
    problem.lengths.clear();
    for (std::int64_t b = 0; attention.key_padding && b < problem.batch; ++b) {
        problem.lengths.push_back(pick(random, 0, 3) == 0 ? keys : pick(random, 0, keys));
    }
    problem.values = random_score_values(attention, problem.seed);
    problem.values->dropout_enabled = pick(random, 0, 4) > 0;
    problem = attention.key_starts ? with_key_sequences(random, problem)
              : attention.varlen   ? with_sequences(random, problem)
                                   : with_mask(random, problem, attention.mask);
    std::vector<BlockPattern> patterns;
    patterns.reserve(static_cast<std::size_t>(attention.pattern_count()));
    for (int n = 0; n < attention.pattern_count(); ++n) {
        patterns.push_back(random_blocks(random, problem.pattern.front()));
    }
    problem.pattern = HeadPatterns(std::move(patterns));
    return problem;
}

struct Counts {
    int passed = 0, failed = 0;
    std::map<std::string, int> refused = {};  // by their sentence
};

void run_case(const AttentionCase& problem, Device& device, KernelCache& cache, Counts& counts) {
    try {
        const CaseReport report = check_case(problem, device, cache);
        if (report.passed()) {
            ++counts.passed;
            return;
        }
        ++counts.failed;
        fmt::print("FAILED {}\n{}", to_text(problem), report.failures());
    } catch (const UserError& error) {
        ++counts.refused[error.what()];
    }
}

struct Amount {
    int count = 300, a_kernel = 24;
    double seconds = std::numeric_limits<double>::infinity();
};

int run(const std::string& device_name, const Amount& amount, std::uint64_t seed) {
    const auto device = open_device(parse_device_choice(device_name));
    const bool on_host = device->target().back_end == BackEnd::kHost;
    KernelCache cache(std::nullopt);
    std::mt19937_64 random(seed);
    fmt::print("{}; repeat with --seed {}\n", device->name(), seed);
    Counts counts;
    const auto start = std::chrono::steady_clock::now();
    int done = 0, operations = 0;
    const auto more = [&] {
        const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
        return done < amount.count && passed.count() < amount.seconds;
    };
    for (; more(); ++operations) {
        const AttentionCase operation = draw_operation(random, on_host);
        for (int n = 0; n < amount.a_kernel && more(); ++n, ++done) {
            run_case(draw_launch(random, operation), *device, cache, counts);
        }
    }
    int refused = 0;
    for (const auto& [sentence, times] : counts.refused) {
        fmt::print("refused {} times: {}\n", times, sentence);
        refused += times;
    }
    fmt::print("{} cases of {} operations: {} passed, {} failed, {} refused\n", done, operations,
               counts.passed, counts.failed, refused);
    // The host has a kernel for every combination.
    return counts.failed > 0 || counts.passed == 0 || (on_host && refused > 0) ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        CLI::App app("random combinations of everything that attention can have");
        std::string device = "cpu";
        Amount amount;
        std::uint64_t seed = spion::test::fresh_seed();
        app.add_option("--device", device, "cpu or cuda");
        app.add_option("--count", amount.count, "cases");
        app.add_option("--a-kernel", amount.a_kernel,
                       "cases of one operation, whose kernels are the same");
        app.add_option("--seconds", amount.seconds, "after which no case begins");
        app.add_option("--seed", seed, "of all that is drawn");
        CLI11_PARSE(app, argc, argv);
        return run(device, amount, seed);
    } catch (const std::exception& error) {
        std::fputs((std::string(error.what()) + "\n").c_str(), stdout);
        return 1;
    }
}
