// The readers, the pictures and the escaping of `spion inspect`.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"
#include "tests/support/random_case.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"
#include "tools/inspect/analyse.h"
#include "tools/inspect/highlight.h"
#include "tools/inspect/read_metrics.h"
#include "tools/inspect/read_run.h"
#include "tools/inspect/svg.h"
#include "tools/inspect/text.h"

namespace spion::inspect {
namespace {

constexpr const char* kHeader =
    "step,phase,split,loss,accuracy,learning_rate,step_ms,steps_per_second,density,seconds\n";

std::size_t count(const std::string& text, std::string_view part) {
    std::size_t found = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++found;
    }
    return found;
}

TEST(InspectMetrics, ReadsRowsAndLeavesOutAnUnfinishedOne) {
    const auto rows = parse_metrics(std::string(kHeader) +
                                        "1,dense,train,2.5,0.125,0.001,7.5,133,1,0.1\n"
                                        "2,sparse,validation,2.25,0.5,,,,0.1,0.2\n"
                                        "3,sparse,tra",
                                    "m.csv");
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0].step, 1);
    EXPECT_EQ(rows[0].phase, Phase::kDense);
    EXPECT_EQ(rows[0].step_ms, 7.5);
    EXPECT_EQ(rows[0].learning_rate, 0.001);
    EXPECT_EQ(rows[1].split, "validation");
    EXPECT_EQ(rows[1].phase, Phase::kSparse);
    EXPECT_FALSE(rows[1].step_ms);
    EXPECT_EQ(rows[1].loss, 2.25);
}

TEST(InspectMetrics, NamesFileAndLineOfDamage) {
    const std::string good = "1,dense,train,2.5,0.1,,,,,0\n";
    const auto refuses = [&](const std::string& text, const std::string& part) {
        expect_error<UserError>([&] { parse_metrics(text, "m.csv"); }, part);
    };
    refuses(kHeader + good + "2,dense,train,abc,0.1,,,,,0\n", "m.csv:3: loss is 'abc'");
    refuses(kHeader + good + "2,dense,train\n", "m.csv:3: 3 cells");
    refuses(std::string(kHeader) + "2,warm,train,1,0.1,,,,,0\n", "m.csv:2: phase is 'warm'");
    refuses(std::string(kHeader) + "1.5,dense,train,1,0.1,,,,,0\n", "m.csv:2: step is '1.5'");
    refuses(std::string(kHeader) + "1,dense,train,,0.1,,,,,0\n", "m.csv:2: loss is empty");
    refuses("a,b\n", "m.csv:1: no column 'step'");
    refuses("", "m.csv:1: the file is empty");
}

TEST(InspectEscape, LeavesNothingThatHtmlReads) {
    EXPECT_EQ(escape("<a href=\"x\">&'</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&lt;/a&gt;");
    EXPECT_EQ(escape("a\x01\xFF\x1B"), "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    EXPECT_EQ(escape("\xC3\xA9\n\t"), "\xC3\xA9\n\t");
    EXPECT_EQ(escape("\xC0\xAF\xED\xA0\x80").find('\xC0'), std::string::npos);
}

TEST(InspectHighlight, MarksTokensAndLosesNothing) {
    EXPECT_EQ(highlight("int a = 12; // <b>", Language::kCuda),
              "<span class=\"k\">int</span> a = <span class=\"n\">12</span>; "
              "<span class=\"c\">// &lt;b&gt;</span>");
    EXPECT_EQ(highlight("@x = i32 \"s\" ; note", Language::kLlvm),
              "<span class=\"v\">@x</span> = <span class=\"k\">i32</span> "
              "<span class=\"s\">&quot;s&quot;</span> <span class=\"c\">; note</span>");
    EXPECT_EQ(highlight("#include <a>\nx # y", Language::kCuda),
              "<span class=\"p\">#include &lt;a&gt;</span>\nx # y");
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const std::string letters = "ab1\"\\/*#;@%<&\n ._-";
    for (int i = 0; i < 300; ++i) {
        std::string text;
        for (int k = pick(random, 0, 40); k > 0; --k) {
            text += letters[static_cast<std::size_t>(
                pick(random, 0, static_cast<int>(letters.size()) - 1))];
        }
        for (const Language language :
             {Language::kCuda, Language::kLlvm, Language::kIr, Language::kAssembly}) {
            std::string plain = highlight(text, language);
            for (std::size_t at; (at = plain.find("<")) != std::string::npos;) {
                plain.erase(at, plain.find('>', at) + 1 - at);
            }
            EXPECT_EQ(plain, escape(text)) << text;
        }
    }
}

TEST(InspectPictures, CoverExactlyThePattern) {
    const BlockPattern pattern(48, 16, {1, 1, 0, 0, 1, 0, 1, 0, 1});
    const std::string svg = pattern_picture(pattern);
    EXPECT_NE(svg.find("d=\"M0 0h2v1h-2zM1 1h1v1h-1zM0 2h1v1h-1zM2 2h1v1h-1z\""), std::string::npos)
        << svg;
    EXPECT_NE(pattern_picture(BlockPattern::empty(32, 16)).find("no block"), std::string::npos);
    const std::vector<double> pooled = {0, 1, 0.25, 0};
    const std::string map = pooled_picture(pooled, 2);
    EXPECT_EQ(count(map, "class=\"score\""), 3U) << map;  // three distinct values
    EXPECT_NE(map.find("fill-opacity=\"1.000\" d=\"M1 0h1v1h-1z\""), std::string::npos) << map;
}

TEST(InspectPictures, ChartsSkipWhatIsNotFiniteAndMarkTheTransition) {
    Chart chart{
        .title = "<Loss>",
        .y_unit = "ms",
        .series = {{.name = "train", .style = "train", .points = {{1, 2}, {2, NAN}, {3, 4}}}},
        .mark_x = 2,
        .mark = "sparse & on"};
    const std::string svg = line_chart(chart);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_NE(svg.find("&lt;Loss&gt;"), std::string::npos);
    EXPECT_NE(svg.find("sparse &amp; on"), std::string::npos);
    chart.mark_x = 9;
    EXPECT_EQ(line_chart(chart).find("sparse"), std::string::npos);
    EXPECT_NE(line_chart({}).find("No measurement"), std::string::npos);
}

TEST(InspectPrograms, GiveTheirPatternBack) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20; ++i) {
        const int block = pick_block(random);
        const BlockPattern pattern = pick_pattern(random, block, 8);
        const Attention attention{.head_dim = 32,
                                  .length = pattern.length(),
                                  .dtype = DType::kBf16,
                                  .scale = default_scale(32)};
        for (const KernelRole role : {KernelRole::kForward, KernelRole::kKeyValueGradient}) {
            const TileProgram program = lower(attention, pattern, role, cuda_target(90));
            EXPECT_EQ(patterns_of(program), HeadPatterns(pattern));
            EXPECT_EQ(count(program_picture(program), "class=\"tile\""),
                      static_cast<std::size_t>(program.tiles()));
        }
    }
}

// One a query head, and one a head of K and V, whose dK and dV walk several members' patterns.
TEST(InspectPrograms, GiveThePatternsOfHeadsBack) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 12; ++i) {
        const int block = pick_block(random), heads = pick(random, 1, 2) * 2;
        const BlockPattern first = pick_pattern(random, block, 6);
        std::vector<BlockPattern> patterns = {first};
        while (static_cast<int>(patterns.size()) < (i % 2 == 0 ? heads : 2)) {
            std::vector<std::uint8_t> bits(static_cast<std::size_t>(first.rows()) *
                                           static_cast<std::size_t>(first.rows()));
            for (std::uint8_t& bit : bits) bit = pick(random, 0, 1) == 1 ? 1 : 0;
            patterns.emplace_back(first.length(), block, std::move(bits));
        }
        const HeadPatterns all(patterns);
        const Attention attention{.heads = heads,
                                  .head_dim = 32,
                                  .length = first.length(),
                                  .dtype = DType::kBf16,
                                  .scale = default_scale(32),
                                  .kv_heads = 2,
                                  .patterns = all.count()};
        for (const KernelRole role : {KernelRole::kForward, KernelRole::kKeyValueGradient}) {
            const TileProgram program = lower(attention, all, role, cuda_target(90));
            EXPECT_EQ(patterns_of(program), all);
            for (int pattern = 0; pattern < all.count(); ++pattern) {
                EXPECT_EQ(count(program_picture(program, pattern), "class=\"tile\""),
                          static_cast<std::size_t>(program.pattern_tiles()));
            }
        }
    }
}

TEST(InspectText, DrawsSparklines) {
    EXPECT_EQ(sparkline(std::vector<double>{0, 7, 3.5}), "▁█▅");
    EXPECT_EQ(sparkline(std::vector<double>{1, 3, 9, 11}, 2), "▁█");
    EXPECT_EQ(sparkline(std::vector<double>{1, NAN}), "▁?");
    EXPECT_EQ(sparkline({}), "");
}

TEST(InspectAnswers, DescribePatterns) {
    EXPECT_NE(describe_pattern(BlockPattern::full(64, 16)).find("dense"), std::string::npos);
    EXPECT_NE(describe_pattern(BlockPattern::empty(64, 16)).find("empty"), std::string::npos);
    std::vector<std::uint8_t> bits(64);
    for (std::size_t i = 0; i < 8; ++i) bits[i * 8 + i] = bits[i * 8 + 2] = 1;
    const std::string text = describe_pattern(BlockPattern(128, 16, bits));
    EXPECT_NE(text.find("the whole diagonal"), std::string::npos) << text;
    EXPECT_NE(text.find("7 in column 2 (most queries look at tokens 32 to 47)"), std::string::npos)
        << text;
}

TEST(InspectAnswers, GradeHowNearTheLimitIs) {
    EXPECT_EQ(describe_share(1.3, Bound::kMemory), "near the limit");
    EXPECT_EQ(describe_share(0.8, Bound::kMemory), "near the limit");
    EXPECT_EQ(describe_share(0.79, Bound::kProducts),
              "more than half of the limit; the model sees it bound by products");
    EXPECT_EQ(describe_share(0.5, Bound::kCache),
              "more than half of the limit; the model sees it bound by L2");
    EXPECT_EQ(describe_share(0.49, Bound::kLatency),
              "far from the limit; the model sees it bound by latency");
    EXPECT_EQ(describe_share(0.0001, Bound::kExponentials),
              "far from the limit; the model sees it bound by exponentials");
}

// Of a run of two layers with the summary's attention_ms: attention in a step of either phase.
std::pair<double, double> attention_of_step(const std::string& transition,
                                            const std::string& attention_ms) {
    const ScratchFolder folder;
    folder.write("metrics.csv", kHeader);
    folder.write("summary.json", fmt::format("{{\"transition_step\": {}, \"dense_step_ms\": 9, "
                                             "\"sparse_step_ms\": 4, \"attention_ms\": {}}}",
                                             transition, attention_ms));
    const Facts facts = read_folder(folder.file(""));
    return {facts.dense_attention_ms, facts.sparse_attention_ms};
}

TEST(InspectFolder, SplitsTheStepsOfBothPhases) {
    const std::string layers =
        "\"layers\": [{\"forward\": 0.5, \"backward\": 1}, {\"forward\": 0.25, \"backward\": 0.5}]";
    const std::string dense = ", \"dense\": {\"forward\": 1, \"backward\": 2}";
    EXPECT_EQ(attention_of_step("3", "{" + layers + dense + "}"), std::pair(6.0, 2.25));
    EXPECT_EQ(attention_of_step("3", "{" + layers + "}"), std::pair(0.0, 2.25));
    EXPECT_EQ(attention_of_step("null", "{" + layers + "}"), std::pair(2.25, 0.0));
    EXPECT_EQ(attention_of_step("3", "{\"layers\": []" + dense + "}"), std::pair(0.0, 0.0));
    EXPECT_EQ(attention_of_step("3", "{}"), std::pair(0.0, 0.0));
}

TEST(InspectFolder, RefusesWhatIsNeitherRunNorKernels) {
    const ScratchFolder folder;
    expect_error<UserError>([&] { read_folder(folder.file("none")); }, "is no folder");
    expect_error<UserError>([&] { read_folder(folder.file("")); }, "holds neither a training run");
    folder.write("metrics.csv", kHeader);
    const Facts facts = read_folder(folder.file(""));
    EXPECT_EQ(facts.kind, FolderKind::kRun);
    EXPECT_GE(facts.absent.size(), 3U);  // device, config, summary
    folder.write("summary.json", "{\"steps\": ");
    expect_error<UserError>([&] { read_folder(folder.file("")); }, "summary.json is damaged");
}

}  // namespace
}  // namespace spion::inspect
