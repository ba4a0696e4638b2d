// `spion verify` on one's own tensors, and on patterns in other forms than bits.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/array_file.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "tests/support/run_command.h"

namespace spion {
namespace {

const std::string kGoldens = SPION_IO_GOLDENS "/";

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// NumPy computed the same attention from the same tensors, which safetensors wrote.
TEST(VerifyInputs, ComputesOnThem) {
    const ScratchFolder folder;
    const std::string bits = folder.write("bits", "10\n11\n");
    const CommandResult result = run_command(
        "verify --device cpu --softmax masked --scale 0.3 --block 16 --pattern " + bits +
        " --inputs " + kGoldens + "attention.safetensors --dump " + folder.file("out"));
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    EXPECT_NE(result.err.find("H=2 D=16 L=20"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("scale=0.3 "), std::string::npos) << result.err;
    std::ifstream file(kGoldens + "attention.json");
    const nlohmann::json golden = nlohmann::json::parse(file);
    for (const char* name : {"o", "dv"}) {
        const std::vector<double> got = open_array(folder.file("out/") + name + ".npy").values();
        ASSERT_EQ(got.size(), golden[name].size());
        for (std::size_t i = 0; i < got.size(); ++i) {
            ASSERT_NEAR(got[i], golden[name][i], 1e-5) << name << " " << i;
        }
    }
    const std::string shape = open_array(folder.file("out/q.npy")).shape_text();
    EXPECT_EQ(shape, "(1, 2, 20, 16)");
}

TEST(VerifyInputs, ReadBackWhatWasDumped) {
    const ScratchFolder folder;
    const std::string problem =
        "verify --device cpu --block 16 --pattern-random 0.5 --batch 2 --lengths 50,33 --layout "
        "packed --softmax masked ";
    ASSERT_EQ(run_command(problem + "--length 50 --heads 3 --head-dim 32 --seed 11 --dump " +
                          folder.file("a"))
                  .exit_code,
              0);
    const CommandResult again =
        run_command(problem + "--inputs " + folder.file("a") + " --dump " + folder.file("b"));
    EXPECT_EQ(again.exit_code, 0) << again.err;
    for (const char* name : {"q", "do", "o", "lse", "dq", "dk", "dv"}) {
        EXPECT_EQ(contents(folder.file("a/") + name + ".npy"),
                  contents(folder.file("b/") + name + ".npy"))
            << name;
    }
    // One tensor from elsewhere, no dO, which is then random.
    std::remove(folder.file("a/do.npy").c_str());
    const CommandResult mixed = run_command(problem + "--inputs " + folder.file("a") + " --k " +
                                            folder.file("a/v.npy") + " --dump " + folder.file("c"));
    EXPECT_EQ(mixed.exit_code, 0) << mixed.err;
    EXPECT_EQ(contents(folder.file("c/k.npy")), contents(folder.file("a/v.npy")));
    EXPECT_NE(contents(folder.file("c/do.npy")), contents(folder.file("b/do.npy")));
}

TEST(VerifyInputs, RefusesWhatDoesNotFit) {
    const ScratchFolder folder;
    const std::string tensors = kGoldens + "attention.safetensors";
    const std::string bits = folder.write("bits", "10\n11\n");
    const std::string cpu = "verify --device cpu --block 16 --pattern " + bits + " ";
    const std::vector<std::int64_t> shape{2, 20, 16};
    std::vector<float> values(640, 1.0F);
    write_npy(folder.file("v.npy"), std::vector<std::int64_t>{2, 16, 20}, values);
    expect_refused(cpu + "--inputs " + tensors + " --v " + folder.file("v.npy"),
                   {"v.npy: v has shape (2, 16, 20) and", "another: give tensors of one shape"});
    values[33] = std::numeric_limits<float>::infinity();
    write_npy(folder.file("q.npy"), shape, values);
    expect_refused(cpu + "--inputs " + tensors + " --q " + folder.file("q.npy"),
                   {"q.npy: element 33 (in C order) is inf"});
    expect_refused(cpu + "--inputs " + folder.path().string() + " --q " + tensors + ":q",
                   {"there is no k: give --k FILE, or --inputs with q, k and v in it"});
    expect_refused(cpu + "--inputs " + tensors + " --heads 4",
                   {"--heads is 4 and the tensors have 2: leave it out"});
    expect_refused(cpu + "--inputs " + tensors + " --length 32",
                   {"--length is 32 and the tensors have 20"});
    expect_refused(cpu + "--inputs " + tensors + " --scale -1", {"scale -1 is not allowed"});
    expect_refused(cpu + "--inputs " + folder.file("none"), {"none cannot be read"});
    EXPECT_EQ(run_command(cpu + "--inputs " + tensors + " --heads 2 --length 20").exit_code, 0);
}

// The same problem by a pattern of every form, which says length and block where it can.
TEST(VerifyInputs, TakesPatternsInEveryForm) {
    const ScratchFolder folder;
    const std::string flags = " --device cpu --head-dim 16 --seed 5 --dump " + folder.file("out");
    std::string first;
    for (const std::string pattern :
         {"patterns.json", "mask-blocks.npy --block 16 --length 72",
          "mask-elements.npz:mask --block 16 --length 72", "bsr.npz --block 16 --length 72",
          "mask-blocks.csv --block 16 --length 72"}) {
        const CommandResult result = run_command("verify --pattern " + kGoldens + pattern + flags);
        EXPECT_EQ(result.exit_code, 0) << pattern << result.err;
        const std::string o = contents(folder.file("out/o.npy"));
        EXPECT_FALSE(o.empty());
        EXPECT_EQ(o, first.empty() ? o : first) << pattern;
        first = o;
    }
    expect_refused("verify --device cpu --block 64 --pattern " + kGoldens + "patterns.json",
                   {"its blocks are of 16 and --block says 64: leave --block out"});
    const std::string causal = folder.write("causal.csv", "1,0,0\n1,1,0\n1,1,1\n");
    const CommandResult partial =
        run_command("verify --device cpu --head-dim 16 --length 3 --block 16 --pattern " + causal);
    EXPECT_EQ(partial.exit_code, 0) << partial.err;
    EXPECT_NE(partial.err.find("causal.csv sets parts of 1 blocks, which are computed whole"),
              std::string::npos)
        << partial.err;
}

// What discover prints, verify and compile take, without any other flag.
TEST(VerifyInputs, FollowDiscover) {
    const ScratchFolder folder;
    const CommandResult found =
        run_command("discover " + kGoldens + "masked.npz --block 16 --quantile 0.7 --format json");
    const std::string json = folder.write("found.json", found.out);
    EXPECT_EQ(run_command("verify --device cpu --head-dim 16 --pattern " + json).exit_code, 0);
    const CommandResult compiled = run_command("compile --target sm_80 --head-dim 32 --pattern " +
                                               json + " -o " + folder.file("compiled"));
    EXPECT_EQ(compiled.exit_code, 0) << compiled.err;
    const CommandResult each =
        run_command("discover " + kGoldens + "masked.npz --block 16 --maps each --format json");
    const std::string all = folder.write("each.json", each.out);
    EXPECT_EQ(run_command("verify --device cpu --head-dim 16 --pattern " + all + ":3").exit_code,
              0);
    expect_refused("verify --device cpu --pattern " + all, {"holds 4 patterns: name one as "});
}

}  // namespace
}  // namespace spion
