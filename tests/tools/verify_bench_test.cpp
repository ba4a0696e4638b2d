// `spion verify` and `spion bench` on the host, as scripts use them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "io/array_file.h"
#include "tests/support/run_command.h"
#include "tools/oracle/reference_attention.h"

namespace spion {
namespace {

constexpr const char* kBits = "1001\n0000\n0110\n1011\n";

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> result;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
        result.push_back(line);
    }
    return result;
}

TEST(Verify, PrintsOneLineATensorAndNothingElseButRepeatability) {
    const ScratchFolder folder;
    const std::string bits = folder.write("bits", kBits);
    for (const char* softmax : {"pruned_zero", "masked"}) {
        const auto result = run_command("verify --device cpu --pattern " + bits +
                                        " --block 16 --length 60 --heads 2 --head-dim 16 --batch 3"
                                        " --lengths 60,0,33 --seed 9 --softmax " +
                                        softmax);
        EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
        const auto out = lines(result.out);
        ASSERT_EQ(out.size(), 6U) << result.out;
        const char* names[] = {"o", "lse", "dq", "dk", "dv"};
        for (int n = 0; n < 5; ++n) {
            const std::regex form(std::string(names[n]) +
                                  R"( +relative error \d\.\d{3}e[-+]\d+  tolerance 1e-05  ok)"
                                  R"(  worst at \[\d, \d, \d+(, \d+)?\]: got [-+.e\d]+, )"
                                  R"(wanted [-+.e\d]+)");
            EXPECT_TRUE(std::regex_match(out[n], form)) << out[n];
        }
        EXPECT_EQ(out[5], "repeatable: yes, a second run gave the same bytes");
        EXPECT_NE(result.err.find("seed=9"), std::string::npos) << result.err;
    }
}

TEST(Verify, TakesAnExpressionOfScores) {
    const ScratchFolder folder;
    const std::string verify =
        "verify --device cpu --block 16 --length 60 --heads 2 --head-dim 16 --batch 2 --causal "
        "--pattern " +
        folder.write("bits", kBits);
    const auto result = run_command(verify +
                                    " --score '3 * tanh(score / 3) - (1 + head) * log(1 + q - k)' "
                                    "--score-derivative '1 - tanh(score/3) * tanh(score/3)'");
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    EXPECT_NE(result.err.find("score=3*tanh(score/3)-(1+head)*log(1+q-k) score_derivative="),
              std::string::npos)
        << result.err;
    const auto refused = [&](const std::string& flags, const std::string& sentence) {
        const auto one = run_command(verify + flags);
        EXPECT_EQ(one.exit_code, 2) << one.out << one.err;
        EXPECT_NE(one.err.find(sentence), std::string::npos) << one.err;
    };
    refused(" --score 'tanh(score); q'",
            "score 'tanh(score); q': at column 12, ';' is not expected");
    refused(" --score score/2 --score-derivative 0.4",
            "score_derivative '0.4' is not the derivative of score 'score/2'");
    refused(" --score score/2 --softcap 3", "softcap=3 beside score 'score/2' is not supported");
}

TEST(Verify, DumpsWhatItComparedSoThatOthersCan) {
    const ScratchFolder folder;
    const std::string bits = folder.write("bits", kBits);
    const std::string arguments =
        "verify --device cpu --block 32 --length 100 --heads 2 "
        "--head-dim 32 --batch 2 --lengths 100,41 --softmax masked "
        "--layout packed --pattern " +
        bits + " --dump " + folder.file("a");
    ASSERT_EQ(run_command(arguments).exit_code, 0);
    const Attention attention{.heads = 2,
                              .head_dim = 32,
                              .length = 100,
                              .dtype = DType::kFp32,
                              .scale = default_scale(32),
                              .softmax = SoftmaxKind::kMasked,
                              .key_padding = true};
    const auto read = [&](const char* name, const std::vector<std::int64_t>& shape) {
        const Array array = open_array(folder.file("a/" + std::string(name) + ".npy"));
        EXPECT_EQ(array.shape, shape) << name;
        const std::vector<double> values = array.values();
        return std::vector<float>(values.begin(), values.end());
    };
    const std::vector<std::int64_t> tensor{2, 2, 100, 32}, rows{2, 2, 100};
    const auto q = read("q", tensor), k = read("k", tensor), v = read("v", tensor);
    const auto d_o = read("do", tensor);
    const std::vector<int> lengths{100, 41};
    const ReferenceResult reference =
        reference_attention({.attention = attention,
                             .pattern = parse_bits(kBits, 100, 32, "bits"),
                             .batch = 2,
                             .lengths = lengths,
                             .q = q,
                             .k = k,
                             .v = v,
                             .d_o = d_o});
    const auto expect_near = [](const std::vector<float>& got, const std::vector<double>& wanted) {
        ASSERT_EQ(got.size(), wanted.size());
        for (std::size_t n = 0; n < got.size(); ++n) {
            if (std::isinf(wanted[n])) {
                ASSERT_EQ(double(got[n]), wanted[n]);
            } else {
                ASSERT_NEAR(got[n], wanted[n], 1e-4);
            }
        }
    };
    expect_near(read("o", tensor), reference.o);
    expect_near(read("lse", rows), reference.lse);
    expect_near(read("dq", tensor), reference.d_q);
    expect_near(read("dk", tensor), reference.d_k);
    expect_near(read("dv", tensor), reference.d_v);
}

TEST(Verify, RefusesWhatItCannotDo) {
    const ScratchFolder folder;
    const std::string bits = folder.write("bits", kBits);
    const std::string cpu = "verify --device cpu --pattern " + bits + " ";
    expect_refused("verify --device cpu", {"give --pattern FILE"});
    expect_refused("verify --device cpu --pattern " + folder.file("none"), {"none cannot be read"});
    expect_refused("verify --device cpu --pattern " + folder.file("."), {"is a folder"});
    expect_refused("verify --device cpu --pattern " + folder.write("empty", "\n"),
                   {"holds no bits"});
    expect_refused("verify --device cpu --pattern " + folder.write("nothing", ""),
                   {"nothing is empty", "name a file that holds something"});
    expect_refused(cpu + "--length 0", {"L is 0: give at least 1"});
    expect_refused(cpu + "--seed -1", {"--seed was given -1", "from 0 to 18446744073709551615"});
    expect_refused(cpu + "--seed 18446744073709551616", {"a seed is a whole number"});
    expect_refused(cpu + "--pattern-seed 0x1", {"--pattern-seed was given 0x1"});
    expect_refused(cpu + "--heads 65537", {"65537 heads were given"});
    expect_refused("verify --device cpu --pattern " + folder.write("two", "10\n21\n"), {"two:2"});
    expect_refused(cpu + "--pattern-random 0.5",
                   {"--pattern", "--pattern-random", "leave one out"});
    expect_refused(cpu + "--block 48", {"16, 32, 64 or 128"});
    expect_refused(cpu + "--block 16 --length 99", {"needs 7 x 7"});
    expect_refused(cpu + "--head-dim 44", {"a multiple of 8 from 16 to 256"});
    expect_refused(cpu + "--heads 0", {"at least 1"});
    expect_refused(cpu + "--batch 0", {"at least 1"});
    expect_refused(cpu + "--dtype bf16", {"needs a GPU"});
    expect_refused(cpu + "--dtype int8", {"fp32, tf32, bf16"});
    expect_refused(cpu + "--softmax hard", {"masked or pruned_zero"});
    expect_refused(cpu + "--layout odd", {"heads_first or packed"});
    expect_refused(cpu + "--lengths 1,2", {"one for each sample"});
    expect_refused(cpu + "--lengths 300", {"0 to L = 256"});
    expect_refused(cpu + "--lengths=-1", {"0 to L = 256"});
    expect_refused(cpu + "--dump " + bits, {"cannot be made"});
    expect_refused("verify --device tpu --pattern " + bits, {"cpu"});
}

TEST(Verify, SaysThatThereIsNoGpu) {
    const ScratchFolder folder;
    const std::string bits = folder.write("bits", kBits);
    const std::string arguments = "verify --device cuda --pattern " + bits;
    if (run_command(arguments).exit_code == 0) {
        GTEST_SKIP() << "there is a GPU";
    }
    expect_refused(arguments, {"cuda"});
    expect_refused("bench anchors", {"cuda"});
}

TEST(Bench, PrintsJsonAlone) {
    const auto result = run_command(
        "bench attention --device cpu --json --repeat 3 --block 32 --length 256 --head-dim 32 "
        "--heads 2 --pattern-random 0.2 --pattern-seed 4");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_EQ(json.at("blocks"), 13);  // 0.2 * 8 * 8
    EXPECT_EQ(json.at("dtype"), "fp32");
    for (const nlohmann::json* measured : {&json, &json.at("dense")}) {
        for (const char* pass : {"forward", "backward"}) {
            EXPECT_GT(measured->at(pass).at("ms"), 0);
            EXPECT_GT(measured->at(pass).at("tflops"), 0);
            EXPECT_GT(measured->at(pass).at("gb_per_s"), 0);
        }
        const auto& kernels = measured->at("kernels");
        ASSERT_EQ(kernels.size(), 3U);
        EXPECT_EQ(kernels[0].at("role"), "attention_forward");
        EXPECT_EQ(kernels[1].at("role"), "attention_query_gradient");
        EXPECT_EQ(kernels[2].at("role"), "attention_key_value_gradient");
        for (const auto& kernel : kernels) {
            EXPECT_GT(kernel.at("ms"), 0);
            EXPECT_EQ(kernel.at("packed_rows"), 1);
        }
        EXPECT_GT(measured->at("compile_cold_ms"), 0);
        EXPECT_GT(measured->at("compile_cached_ms"), 0);
    }
    EXPECT_GT(json.at("times_faster_than_dense").at("both"), 0);
}

TEST(Bench, PrintsATable) {
    const auto result = run_command(
        "bench attention --device cpu --repeat 1 --no-dense --block 16 --length 64 --head-dim 16 "
        "--pattern-random 1");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("16 of 4 x 4 blocks of 16, density 1.0000"), std::string::npos)
        << result.out;
    EXPECT_NE(result.out.find("\nforward "), std::string::npos);
    EXPECT_NE(result.out.find("\nbackward "), std::string::npos);
    EXPECT_NE(result.out.find("\nof that dQ "), std::string::npos);
    EXPECT_NE(result.out.find("1 forward, 1 dQ, 1 dK and dV"), std::string::npos);
    EXPECT_EQ(result.out.find("dense"), std::string::npos);
}

TEST(Bench, MeasuresDiscovery) {
    const auto result = run_command(
        "bench summary --device cpu --json --repeat 1 --block 32 --filter 31 --length 256 "
        "--head-dim 32");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_GT(json.at("summary_ms"), 0);
    EXPECT_GT(json.at("discovery_ms"), 0);
    EXPECT_GT(json.at("dense_forward_ms"), 0);
}

TEST(Bench, ComparesTiers) {
    const ScratchFolder folder;
    const std::string file = folder.file("tiers.json");
    const auto table = run_command("bench tiers --device cpu --repeat 1 --json " + file);
    ASSERT_EQ(table.exit_code, 0) << table.err;
    EXPECT_NE(table.out.find("host-256 "), std::string::npos) << table.out;
    const auto result = run_command("bench tiers --device cpu --repeat 1 --json");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    std::ifstream written(file);
    for (const auto& json : {nlohmann::json::parse(written), nlohmann::json::parse(result.out)}) {
        ASSERT_EQ(json["rows"].size(), 2U);
        for (const auto& row : json["rows"]) {
            for (const char* pass : {"forward", "backward", "both"}) {
                for (const char* number : {"tier0_ms", "tier1_ms", "ratio"}) {
                    EXPECT_GT(row[pass][number].get<double>(), 0) << row.dump();
                }
            }
            EXPECT_GT(row["compile_ms"][0].get<double>(), 0);
            EXPECT_GT(row["compile_ms"][1].get<double>(), 0);
            EXPECT_EQ(row["tried_in_training"], row["why_not"].get<std::string>().empty());
        }
    }
    expect_refused("bench tiers --device cpu --repeat 0", {"--repeat is 0", "at least 1"});
    expect_refused("bench tiers --device cpu --repeat 1 --json " + folder.file("no/where.json"),
                   {"where.json", "--json"});
}

TEST(Bench, RefusesWhatItCannotDo) {
    const std::string shape = "--device cpu --length 64 --block 16 --pattern-random ";
    expect_refused("bench attention --device cpu", {"give --pattern FILE"});
    expect_refused("bench attention " + shape + "1.5", {"between 0 and 1"});
    expect_refused("bench attention " + shape + "1 --repeat 0", {"--repeat is 0"});
    expect_refused("bench attention " + shape + "1 --batch 0", {"the batch is 0"});
    expect_refused("bench attention " + shape + "1 --lengths 1,2", {"one for each sample"});
    expect_refused("bench attention " + shape + "1 --dtype bf16", {"needs a GPU"});
    expect_refused("bench attention " + shape + "1 --documents 30,20",
                   {"--documents gives lengths 30,20, which do not make 64 together", "that do"});
    expect_refused("bench attention " + shape + "1 --kv-length 40 --kv-documents 60",
                   {"--kv-documents gives lengths 60, which do not make 40 together"});
    for (const char* window : {"5", "5,3,2"}) {
        expect_refused(
            "bench attention " + shape + "1 --window " + window,
            {std::string("--window is ") + window + ", but it takes two numbers with a"});
    }
    expect_refused("bench attention --device cpu --length 64 --block 16 --pattern-striped 3",
                   {"--pattern-striped is 3, but it takes two numbers", "a band and random"});
    expect_refused("bench attention " + shape + "1 --kv-length 40 --kv-sequences 30",
                   {"--kv-sequences was given without --sequences: give the lengths"});
    expect_refused("bench summary --device cpu --length 0", {"sequence length 0"});
}

}  // namespace
}  // namespace spion
