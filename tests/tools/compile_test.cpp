// `spion compile`: every stage of a kernel for targets that are not here, and what it refuses.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "ir/parser.h"
#include "runtime/offline.h"
#include "tests/support/environment.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"
#include "tests/tools/compile_fixture.h"

namespace spion {
namespace {

using nlohmann::json;

TEST_F(Compile, RefusesWhatItDoesNotKnow) {
    expect_refused(pattern_ + "--target sm_70" + into_out(),
                   {"target 'sm_70' is not known", "sm_80", "sm_90a", "sm_120", "host"});
    expect_refused(here_ + "--emit ir,sas" + into_out(),
                   {"emit kind 'sas' is not known", "ir, tile, cuda, ptx, cubin, sass", "all"});
    expect_refused(here_ + "--role backward" + into_out(),
                   {"role 'backward' is not known", "forward, dq, dkdv or all"});
    expect_refused(here_ + "--print-after no_pass", {"no_pass", "walk_pattern", "order_work"});
    expect_refused(here_ + "--length 500" + into_out(), {"p.bits", "500"});
    expect_refused(here_, {"-o DIR", "--print"});
    expect_refused(here_ + "--batch 0" + into_out(), {"batch is 0", "1"});
    expect_refused("compile --pattern " + bits_ + into_out(), {"--target", "sm_90a"});
    expect_refused("compile nothing.ir" + kTarget + into_out(), {"nothing.ir"});
    EXPECT_FALSE(fs::exists(out_));
}

// Of sequences end to end, by the flag and by the text that it writes.
TEST_F(Compile, TakesSequencesEndToEnd) {
    const std::string asked = here_ + "--role forward --emit ir,tile --sequences --causal";
    const CommandResult result = run_command(asked + into_out());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string text = contents(kernel() / "attention.ir");
    EXPECT_NE(text.find(" mask=spans"), std::string::npos) << text;
    EXPECT_NE(text.find(" varlen=true"), std::string::npos) << text;
    const std::string program = contents(kernel() / "kernel.ir");
    const CommandResult again =
        run_command("compile " + (kernel() / "attention.ir").string() + kTarget +
                    " --role forward --emit tile -o " + scratch_.file("again"));
    ASSERT_EQ(again.exit_code, 0) << again.err;
    EXPECT_EQ(contents(fs::directory_iterator(scratch_.file("again"))->path() / "kernel.ir"),
              program);
    fs::remove_all(out_);
    expect_refused("compile --pattern-random 0.5 --length 90" + kTarget + " --sequence-patterns 2" +
                       into_out(),
                   {"sequence_patterns 2 are not allowed with varlen=false"});
    expect_refused(here_ + "--kv-sequences" + into_out(),
                   {"--kv-sequences was given without --sequences: give both"});
    const CommandResult own = run_command(
        "compile --pattern-random 0.5 --length 90 --kv-length 70 --block 16 --head-dim 32" +
        kTarget + " --role dkdv --emit ir --sequences --kv-sequences --sequence-patterns 2" +
        into_out());
    ASSERT_EQ(own.exit_code, 0) << own.err;
    const std::string patterns = contents(kernel() / "attention.ir");
    EXPECT_NE(patterns.find(" varlen=true key_starts=true sequence_patterns=2"), std::string::npos);
    EXPECT_NE(patterns.find("pattern L=90"), patterns.rfind("pattern L=90")) << patterns;
    fs::remove_all(out_);
    expect_refused(here_ + "--sequences --key-padding" + into_out(),
                   {"varlen takes mask=spans and no key padding"});
    expect_refused("compile " + bits_ + kTarget + " --sequences" + into_out(), {"--sequences"});
    EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Compile, AFolderThatCannotBeWrittenIsTheCallersError) {
    expect_refused(here_ + "--emit ir -o " + bits_ + "/out",
                   {"with -o", "p.bits/out", "Not a directory", "name a folder"});
}

#ifndef SPION_HOST_BACKEND
TEST_F(Compile, AHostTargetNeedsItsBackEnd) {
    expect_refused(pattern_ + "--target host --print", {"target host", "-DSPION_HOST_BACKEND=ON"});
}
#else

TEST_F(Compile, TheHostHasEveryStage) {
    const CommandResult result = run_command(pattern_ + "--dtype fp32 --target host" + into_out());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3) << result.out;
    for (const fs::directory_entry& item : fs::directory_iterator(out_)) {
        const std::string name = item.path().filename();
        const std::string entry = name.substr(0, name.find('-'));
        EXPECT_EQ(names_in(item),
                  (std::set<std::string>{"attention.ir", "kernel.ir", "kernel.ll", entry + ".bc",
                                         "kernel.opt.ll", "kernel.s", "kernel.o", "rebuild.sh",
                                         "report.txt", "report.json"}));
        EXPECT_NE(contents(item.path() / "kernel.s").find(entry + ":"), std::string::npos);
        EXPECT_NE(contents(item.path() / "kernel.opt.ll").find("define"), std::string::npos);
        EXPECT_EQ(contents(item.path() / "kernel.o").substr(0, 4), "\177ELF");
        const json report = json::parse(contents(item.path() / "report.json"));
        EXPECT_EQ(report.at("entry"), entry);
        EXPECT_GT(report.at("code_bytes"), 0);
        EXPECT_LT(report.at("code_bytes"), report.at("binary_bytes"));
        EXPECT_GT(report.at("predicted").at("milliseconds"), 0.0);
    }
}

// The line in rebuild.sh makes the same instructions with LLVM's tools alone.
TEST_F(Compile, LlvmsToolsRebuildAHostKernel) {
    ASSERT_EQ(run_command(pattern_ + "--role dkdv --target host" + into_out()).exit_code, 0);
    const std::string script = contents(kernel() / "rebuild.sh");
    EXPECT_EQ(std::count(script.begin(), script.end(), '\n'), 2) << script;
    const std::string command = script.substr(script.find('\n') + 1);
    ASSERT_TRUE(command.starts_with("llvm-link-")) << script;
    const std::string release = command.substr(9, command.find(' ') - 9);  // "-19"
    for (const char* tool : {"llvm-link", "opt", "llc", "llvm-objcopy"}) {
        if (std::system((tool + release + " --version >/dev/null 2>&1").c_str()) != 0) {
            GTEST_SKIP() << tool << release << " is not on PATH";
        }
    }
    const fs::path log = scratch_.path() / "log";
    const std::string line =
        fmt::format("cd / && sh {}/rebuild.sh >{} 2>&1", kernel().string(), log.string());
    ASSERT_EQ(std::system(line.c_str()), 0) << contents(log);
    const auto instructions = [&](const char* object) {
        const std::string bytes = scratch_.file("text");
        EXPECT_EQ(std::system(fmt::format("llvm-objcopy{} -O binary -j .text {} {}", release,
                                          (kernel() / object).string(), bytes)
                                  .c_str()),
                  0);
        return contents(bytes);
    };
    const std::string rebuilt = instructions("kernel.rebuilt.o");
    EXPECT_GT(rebuilt.size(), 100U);
    EXPECT_TRUE(rebuilt == instructions("kernel.o")) << "other instructions";
}

TEST_F(Compile, OnlyWhatIsAskedForIsWritten) {
    ASSERT_EQ(
        run_command(pattern_ + "--target host --role dq --emit tile,ir" + into_out()).exit_code, 0);
    EXPECT_EQ(names_in(kernel()), (std::set<std::string>{"attention.ir", "kernel.ir"}));
    expect_refused(pattern_ + "--target host --emit ir,ptx --print",
                   {"target host has no ptx", "ir, tile, llvm, asm, report, all"});
}

// What is written can be compiled again, and is the same then.
TEST_F(Compile, ItsIrIsReadBack) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const int block = pick_block(random);
    const BlockPattern pattern = pick_pattern(random, block, 6);
    scratch_.write("random.bits", pattern.to_bits());
    const std::string request = fmt::format(
        "compile --pattern {} --block {} --length {} --heads 3 --head-dim 16 "
        "--softmax masked --key-padding ",
        scratch_.file("random.bits"), block, pattern.length());
    const std::string rest = " --target host --emit ir,tile,report --role dkdv -o ";
    ASSERT_EQ(run_command(request + rest + out_.string()).exit_code, 0);
    const IrModule asked = parse_ir(contents(kernel() / "attention.ir"), "attention.ir");
    ASSERT_TRUE(asked.pattern && asked.attention);
    EXPECT_EQ(*asked.pattern, pattern);
    EXPECT_TRUE(asked.attention->key_padding);
    EXPECT_EQ(asked.attention->softmax, SoftmaxKind::kMasked);
    for (const char* file : {"attention.ir", "kernel.ir"}) {
        const fs::path again = scratch_.path() / "again" / file;
        const CommandResult result =
            run_command("compile " + (kernel() / file).string() + rest + again.string());
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const fs::path folder = again / kernel().filename();
        EXPECT_EQ(contents(folder / "kernel.ir"), contents(kernel() / "kernel.ir")) << file;
    }
    // The last of a repeated option counts.
    expect_refused("compile " + (kernel() / "kernel.ir").string() + rest + "x --role forward",
                   {"holds no program of role forward"});
    expect_refused("compile " + (kernel() / "kernel.ir").string() + " --target host --explain",
                   {"--explain", "kernel.ir"});
}

TEST_F(Compile, PrintsWithoutWriting) {
    const CommandResult result =
        run_command(pattern_ + "--target host --role forward --emit llvm --print");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("/kernel.ll <=="), std::string::npos);
    EXPECT_NE(result.out.find("/kernel.opt.ll <=="), std::string::npos);
    EXPECT_EQ(result.out.find(".bc <=="), std::string::npos) << "bitcode is no text";
    EXPECT_EQ(result.out.find('\0'), std::string::npos);
    EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Compile, PrintsPassesAndReasons) {
    const CommandResult all =
        run_command(pattern_ + "--target host --role forward --print-after all");
    ASSERT_EQ(all.exit_code, 0) << all.err;
    const CommandResult one =
        run_command(pattern_ + "--target host --role forward --print-after walk_pattern");
    EXPECT_NE(all.out.find("after order_work"), std::string::npos);
    EXPECT_EQ(one.out.find("after order_work"), std::string::npos);
    EXPECT_NE(one.out.find("after walk_pattern"), std::string::npos);
    const CommandResult why = run_command(pattern_ + "--target host --role dkdv --explain");
    ASSERT_EQ(why.exit_code, 0) << why.err;
    EXPECT_NE(why.out.find("attention_key_value_gradient"), std::string::npos) << why.out;
    EXPECT_NE(why.out.find("wins"), std::string::npos) << why.out;
}

#endif  // SPION_HOST_BACKEND

#ifdef SPION_CUDA_BACKEND

// Needs no NVRTC: nothing is compiled.
TEST_F(Compile, SourceNeedsNoCompiler) {
    const Environment nowhere("SPION_NVRTC_LIBRARY", "/nonexistent/libnvrtc.so");
    const std::string request = pattern_ + "--target sm_80 --role forward";
    const CommandResult result = run_command(request + " --emit ir,tile,cuda" + into_out());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(contents(kernel() / "kernel.cu").find("kHeadDim = 32 };"), std::string::npos);
    EXPECT_EQ(
        contents(kernel() / "rebuild.sh"),
        rebuild_script("nvcc -cubin -arch=sm_80 -std=c++20 -I. kernel.cu -o kernel.rebuilt.cubin"));
    expect_refused(request + " --emit ptx" + into_out(), {"NVRTC", "SPION_NVRTC_LIBRARY"});
}

TEST_F(Compile, PredictsForTheCardThatIsNamed) {
    const std::string request = pattern_ + "--target sm_90a --role forward --explain --card ";
    const CommandResult h100 = run_command(request + "h100"), h200 = run_command(request + "h200");
    ASSERT_EQ(h100.exit_code, 0) << h100.err;
    EXPECT_NE(h100.out, h200.out);
    EXPECT_EQ(h200.out, run_command(pattern_ + "--target sm_90a --role forward --explain").out);
    expect_refused(request + "h300", {"card 'h300' is not known", "h100 or h200"});
    expect_refused(pattern_ + "--target sm_80 --explain --card h100", {"target sm_90a"});
}

TEST_F(Compile, AFileCanBakeItsTables) {
    const std::string request = " --target sm_80 --emit tile,cuda -o ";
    ASSERT_EQ(run_command(pattern_ + "--role forward" + request + out_.string()).exit_code, 0);
    std::string text = contents(kernel() / "kernel.ir");
    const std::size_t passed = text.find("tables=passed");
    text.replace(passed, 13, "tables=baked");
    const fs::path again = scratch_.path() / "again";
    const CommandResult result =
        run_command("compile " + scratch_.write("baked.ir", text) + request + again.string());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const fs::path folder = again / (kernel().filename().string() + "-baked");
    EXPECT_EQ(contents(folder / "kernel.ir"), text);
    EXPECT_NE(contents(folder / "kernel.cu").find("kGatherBlocks[] = {"), std::string::npos);
}

TEST_F(Compile, PackedTilesAreAskedForByNameOrByFile) {
    const std::string request = " --target sm_80 --emit tile,cuda -o ";
    const CommandResult made = run_command(
        "compile --pattern-random 0.3 --length 200 --block 32 --head-dim 64 --pack 2 "
        "--dtype bf16 --role forward" +
        request + out_.string());
    ASSERT_EQ(made.exit_code, 0) << made.err;
    EXPECT_NE(kernel().filename().string().find("-packed"), std::string::npos);
    const std::string text = contents(kernel() / "kernel.ir");
    EXPECT_NE(text.find("stationary_rows=64"), std::string::npos) << text;
    EXPECT_NE(contents(kernel() / "kernel.cu").find("SPION_PACKED_ROWS 2"), std::string::npos);
    const fs::path again = scratch_.path() / "again";
    const CommandResult result =
        run_command("compile " + scratch_.write("packed.ir", text) + request + again.string());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(contents(again / kernel().filename() / "kernel.cu"),
              contents(kernel() / "kernel.cu"));
    expect_refused(
        "compile --pattern-random 0.3 --length 200 --block 64 --pack 3" + request + again.string(),
        {"3 block rows a tile", "2 to 2"});
}

TEST_F(Compile, ARejectedSourceIsOursToMendAndIsKept) {
    const Environment place("SPION_CACHE_DIR", scratch_.path().string());
    const Environment rejecting("SPION_NVRTC_LIBRARY", SPION_FAKE_NVRTC);
    const CommandResult result = run_command(pattern_ + "--target sm_90a" + into_out());
    EXPECT_EQ(result.exit_code, 3);
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err.find("kernel.cu(7): error: this compiler likes nothing"),
              std::string::npos)
        << result.err;
    EXPECT_NE(result.err.find("internal error: please report it"), std::string::npos);
    const std::size_t begin = result.err.find(scratch_.path().string());
    ASSERT_NE(begin, std::string::npos) << result.err;
    const fs::path kept = result.err.substr(begin, result.err.find(';', begin) - begin);
    EXPECT_NE(contents(kept).find("attention_forward"), std::string::npos);
    EXPECT_FALSE(fs::exists(out_));
    // Once: the same source goes to the same place.
    EXPECT_EQ(kept.parent_path().parent_path(), scratch_.path() / "rejected");
    EXPECT_EQ(run_command(pattern_ + "--target sm_90a" + into_out()).err, result.err);
    const fs::directory_iterator folders(scratch_.path() / "rejected");
    EXPECT_EQ(std::distance(fs::begin(folders), fs::end(folders)), 1);
}

#endif  // SPION_CUDA_BACKEND

}  // namespace
}  // namespace spion
