// Each pass on a small pattern against a text in goldens/, and all of them on random ones.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "compiler/passes/pipeline.h"
#include "ir/error.h"
#include "ir/parser.h"
#include "ir/verify.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"
#include "tests/support/meetings.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

constexpr std::array kRoles = {KernelRole::kForward, KernelRole::kQueryGradient,
                               KernelRole::kKeyValueGradient};

// Every row class; blocks come in aligned pairs, so that they can be merged. The last block has 10
// rows.
BlockPattern small_pattern() {
    return parse_bits("110000\n000000\n001111\n111111\n000011\n110011\n", 90, 16, "small");
}

Attention attention_for(const BlockPattern& pattern, DType dtype = DType::kBf16,
                        int head_dim = 32) {
    return {.heads = 2,
            .head_dim = head_dim,
            .length = pattern.length(),
            .dtype = dtype,
            .scale = default_scale(head_dim)};
}

// Every pass has something to do: two block rows a tile, two blocks a gather block, baked.
LaunchOptions wide_options() {
    LaunchOptions options;
    options.shape = TileShape{
        .stationary_rows = 32, .streamed_rows = 64, .gather_rows = 32, .warps = 2, .stages = 2};
    options.tables = Tables::kBaked;
    options.verify_passes = VerifyPasses::kAfterEach;
    return options;
}

struct Recorded {
    std::string name;
    TileProgram before, after;
};

std::vector<Recorded> record(const BlockPattern& pattern, KernelRole role, const Target& target,
                             LaunchOptions options, DType dtype = DType::kBf16) {
    std::vector<Recorded> passes;
    options.observer = [&](const PassResult& result) {
        passes.push_back({std::string(result.pass.name), result.before, result.after});
    };
    lower(attention_for(pattern, dtype), pattern, role, target, options);
    return passes;
}

// SPION_UPDATE_GOLDENS rewrites the texts instead.
void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(SPION_TEST_DATA) + "/passes/goldens/" + name + ".ir";
    if (std::getenv("SPION_UPDATE_GOLDENS") != nullptr) {
        std::ofstream(path) << text;
    }
    std::ifstream file(path, std::ios::binary);
    EXPECT_EQ(text, std::string(std::istreambuf_iterator<char>(file), {})) << path;
}

TEST(Passes, EachDoesItsPartOfASmallPattern) {
    const BlockPattern pattern = small_pattern();
    const std::vector<Recorded> passes =
        record(pattern, KernelRole::kForward, cuda_target(90), wide_options());
    ASSERT_EQ(passes.size(), pipeline().size());
    EXPECT_EQ(passes.front().before,
              seed_program(attention_for(pattern), pattern, KernelRole::kForward));
    expect_golden("seed", to_text(passes.front().before));
    for (std::size_t i = 0; i < passes.size(); ++i) {
        EXPECT_EQ(passes[i].name, pipeline()[i].name);
        expect_golden(passes[i].name, to_text(passes[i].after));
        EXPECT_NE(passes[i].before, passes[i].after) << passes[i].name;
    }
}

TEST(Passes, MergeAndPackNeedAShapeThatAsks) {
    const BlockPattern pattern = small_pattern();
    LaunchOptions options = wide_options();
    options.shape->stationary_rows = 16;
    options.shape->warps = 1;
    options.shape->gather_rows = 16;
    for (const Recorded& pass : record(pattern, KernelRole::kForward, cuda_target(90), options)) {
        if (pass.name == "merge_gather_blocks" || pass.name == "pack_rows") {
            EXPECT_EQ(pass.before, pass.after) << pass.name;
        }
    }
}

TEST(Passes, GatherBlocksAreMergedOnlyWhereAllComeInGroups) {
    const auto gather_block = [](const std::string& bits, int streamed_rows, int asked) {
        LaunchOptions options = wide_options();
        options.shape = TileShape{.stationary_rows = 16,
                                  .streamed_rows = streamed_rows,
                                  .gather_rows = asked,
                                  .warps = 1,
                                  .stages = 2};
        const BlockPattern pattern = parse_bits(bits, 90, 16, "bits");
        return lower(attention_for(pattern), pattern, KernelRole::kForward, cuda_target(90),
                     options)
            .gather_rows;
    };
    const std::string rest = "000000\n000000\n000000\n000000\n000000\n";
    EXPECT_EQ(gather_block("110011\n" + rest, 64, 32), 32);
    EXPECT_EQ(gather_block("011000\n" + rest, 64, 32), 16) << "adjacent, but not aligned";
    EXPECT_EQ(gather_block("110001\n" + rest, 64, 32), 16) << "half a group at the end";
    EXPECT_EQ(gather_block("101000\n" + rest, 64, 32), 16) << "a gap";
    EXPECT_EQ(gather_block("111111\n" + rest, 64, 64), 64) << "the last group is short";
    EXPECT_EQ(gather_block("110011\n" + rest, 64, 64), 32) << "as far as it goes";
    EXPECT_EQ(gather_block("111111\n" + rest, 32, 64), 32) << "no more than a step takes";
    EXPECT_EQ(gather_block("111111\n" + rest, 64, 16), 16) << "not asked for";
}

TEST(Passes, RandomProgramsCoverAndPrintAndParse) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    constexpr std::array kDTypes = {DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16};
    for (int round = 0; round < 150; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random), 5);
        const KernelRole role = kRoles[static_cast<std::size_t>(pick(random, 0, 2))];
        const Target target =
            pick(random, 0, 3) == 0
                ? Target{.back_end = BackEnd::kHost, .arch = "znver4", .features = ""}
                : cuda_target(pick(random, 0, 1) == 0 ? 80 : 90);
        const DType dtype = kDTypes[static_cast<std::size_t>(pick(random, 0, 3))];
        LaunchOptions options;
        options.verify_passes = VerifyPasses::kAfterEach;
        options.tables = pick(random, 0, 1) == 0 ? Tables::kPassed : Tables::kBaked;
        if (pick(random, 0, 2) != 0) {
            const int stationary = 16 << pick(random, 0, 3);
            options.shape =
                TileShape{.stationary_rows = stationary,
                          .streamed_rows = 128,
                          .gather_rows = 16 << pick(random, 0, 3),
                          .warps = stationary / 16,
                          .stages = pick(random, 1, 3),
                          .unit = target.back_end == BackEnd::kHost ? MatrixUnit::kVector
                                  : dtype == DType::kFp32           ? MatrixUnit::kFma
                                                                    : MatrixUnit::kMmaSync};
        }
        const std::vector<Recorded> passes = record(pattern, role, target, options, dtype);
        for (const Recorded& pass : passes) {
            const std::string text = to_text(pass.after);
            const IrModule read = parse_ir(text, pass.name);
            ASSERT_EQ(read.programs, std::vector<TileProgram>{pass.after}) << text;
            ASSERT_EQ(to_text(read), text);
        }
        const TileProgram& program = passes.back().after;
        ASSERT_NO_THROW(verify(program, pattern)) << to_text(program);
        ASSERT_EQ(meetings(program), wanted_meetings(pattern, role)) << to_text(program);
        const IrModule whole{.attention = program.attention,
                             .pattern = pattern,
                             .programs = {program, passes.front().after}};
        ASSERT_EQ(parse_ir(to_text(whole), "whole"), whole);
    }
}

// A work item with everything that must move along with it.
struct Item {
    int tile;
    std::vector<std::int32_t> gather_blocks;
    std::vector<std::uint32_t> block_row_masks;
    std::optional<RowClass> row_class;
    bool operator==(const Item&) const = default;
};

std::vector<Item> items_of(const TileProgram& program) {
    std::vector<Item> items;
    for (std::size_t w = 0; w < program.order.size(); ++w) {
        const auto begin = program.offsets[w], end = program.offsets[w + 1];
        const auto slice = [&](const auto& all) {
            return all.empty()
                       ? all
                       : std::decay_t<decltype(all)>(all.begin() + begin, all.begin() + end);
        };
        items.push_back({.tile = program.order[w],
                         .gather_blocks = slice(program.gather_blocks),
                         .block_row_masks = slice(program.block_row_masks),
                         .row_class = program.classes.empty() ? std::nullopt
                                                              : std::optional(program.classes[w])});
    }
    return items;
}

TEST(Passes, WorkIsOrderedByLengthThenByTile) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    int ties = 0;
    for (int round = 0; round < 50; ++round) {
        const BlockPattern pattern = pick_pattern(random, 16, 12);
        const KernelRole role = kRoles[static_cast<std::size_t>(pick(random, 0, 2))];
        LaunchOptions options = wide_options();
        options.shape->warps = pick(random, 1, 2);
        options.shape->stationary_rows = 16 * options.shape->warps;
        for (const Recorded& pass : record(pattern, role, cuda_target(90), options)) {
            if (pass.name != "order_work") {
                continue;
            }
            std::vector<Item> wanted = items_of(pass.before);
            std::sort(wanted.begin(), wanted.end(), [](const Item& a, const Item& b) {
                return a.gather_blocks.size() != b.gather_blocks.size()
                           ? a.gather_blocks.size() > b.gather_blocks.size()
                           : a.tile < b.tile;
            });
            EXPECT_EQ(items_of(pass.after), wanted) << to_text(pass.after);
            for (std::size_t i = 1; i < wanted.size(); ++i) {
                ties +=
                    wanted[i].gather_blocks.size() == wanted[i - 1].gather_blocks.size() ? 1 : 0;
            }
        }
    }
    EXPECT_GT(ties, 10);
}

TileProgram drop_a_gather_block(TileProgram program, const PassContext& /*context*/) {
    program.gather_blocks.pop_back();
    program.offsets.back() -= 1;
    return program;
}

TEST(Pipeline, ABadPassIsNamedWhenPassesAreVerified) {
    std::vector<Pass> passes(pipeline().begin(), pipeline().begin() + 2);
    passes.push_back({"drop_a_gather_block", drop_a_gather_block, "nothing good"});
    const BlockPattern pattern = BlockPattern::full(64, 32);
    const Target target = cuda_target(80);
    const PassContext context{.pattern = pattern,
                              .walked = pattern,
                              .target = target,
                              .shape = {.stationary_rows = 32,
                                        .streamed_rows = 64,
                                        .gather_rows = 32,
                                        .warps = 2,
                                        .stages = 2}};
    const auto run = [&](VerifyPasses verify_passes) {
        return run_passes(passes,
                          seed_program(attention_for(pattern), pattern, KernelRole::kForward),
                          context, {}, verify_passes);
    };
    EXPECT_EQ(run(VerifyPasses::kNo).gather_blocks.size(), 3U);
    expect_error<InternalError>(
        [&] { run(VerifyPasses::kAfterEach); },
        "after pass drop_a_gather_block: tile 1 lacks gather block 1 of the pattern");
}

TEST(Pipeline, PrintsWhatIsAskedFor) {
    const BlockPattern pattern = small_pattern();
    const auto printed = [&](const std::string& names, LaunchOptions options) {
        std::string text;
        options.observer = print_after(names, [&](std::string_view part) { text += part; });
        lower(attention_for(pattern), pattern, KernelRole::kForward, cuda_target(90), options);
        return text;
    };
    const std::string all = printed("all", wide_options());
    for (const Pass& pass : pipeline()) {
        EXPECT_NE(all.find(fmt::format("after {} (", pass.name)), std::string::npos);
        EXPECT_FALSE(pass.establishes.empty());
    }
    const std::string some = printed("order_work,walk_pattern", wide_options());
    EXPECT_EQ(some.find("after walk_pattern ("), 0U);
    EXPECT_NE(some.find(" ms):\nprogram role="), std::string::npos);
    EXPECT_NE(some.find("after order_work ("), std::string::npos);
    EXPECT_EQ(some.find("after pack_rows"), std::string::npos);
    const std::string unchanged = printed("pack_rows", {});
    EXPECT_EQ(unchanged.substr(unchanged.find(" ms):")), " ms): (unchanged)\n");
    expect_error<UserError>(
        [] { print_after("walk_patern", {}); },
        "pass 'walk_patern' is not known: use set_shape, walk_pattern, "
        "merge_gather_blocks, pack_rows, classify_rows, order_work, mark_coverage, choose_tables, "
        "or all");
    expect_error<UserError>([] { print_after("pack_rows,", {}); }, "pass '' is not known");
}

}  // namespace
}  // namespace spion
