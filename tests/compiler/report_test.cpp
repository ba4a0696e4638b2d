// A kernel's report: occupancy, work and what is read from binaries and logs. No device.
#include "compiler/report.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "codegen/kernel_families.h"
#include "tests/support/lower_planned.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// By hand, from the limits of the programming guide.
TEST(Occupancy, IsTheScarcestResource) {
    const Rates h200 = rates_of(cuda_target(90)), a40 = rates_of(cuda_target(86));
    // 168 registers * 32 lanes = 5376 a warp; 4 warps: 21504; 65536 / 21504 = 3.
    EXPECT_EQ(occupancy(h200, 128, 166, 40960),
              (Occupancy{.blocks = 3, .warps = 12, .fraction = 12.0 / 64, .limit = "registers"}));
    // 100 KiB of 228, and 1 KiB for the system: 2 blocks.
    EXPECT_EQ(occupancy(h200, 128, 64, 100 * 1024),
              (Occupancy{.blocks = 2, .warps = 8, .fraction = 8.0 / 64, .limit = "shared memory"}));
    // 1536 threads: 6 blocks of 256, all 48 warps.
    EXPECT_EQ(occupancy(a40, 256, 32, 0),
              (Occupancy{.blocks = 6, .warps = 48, .fraction = 1.0, .limit = "threads"}));
    EXPECT_EQ(
        occupancy(a40, 32, 16, 0),
        (Occupancy{.blocks = 16, .warps = 16, .fraction = 16.0 / 48, .limit = "thread blocks"}));
    EXPECT_EQ(occupancy(a40, 128, 32, 110 * 1024).blocks, 0);
}

// Against a count of every element of the pattern, ragged edges and both walks.
TEST(KernelWork, CountsThePatternExactly) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 20; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random));
        const Attention attention{.heads = pick(random, 1, 5),
                                  .head_dim = 16 * pick(random, 1, 16),
                                  .length = pattern.length(),
                                  .dtype = pick(random, 0, 1) == 0 ? DType::kBf16 : DType::kFp32,
                                  .scale = 0.5F};
        std::int64_t elements = 0;
        for (int row = 0; row < pattern.rows(); ++row) {
            for (int column = 0; column < pattern.rows(); ++column) {
                elements += pattern.at(row, column)
                                ? std::int64_t{pattern.block_rows(row)} * pattern.block_rows(column)
                                : 0;
            }
        }
        elements *= attention.heads;
        const std::int64_t rows = attention.heads * attention.length;
        const std::int64_t bytes = attention.dtype == DType::kBf16 ? 2 : 4;
        const struct {
            KernelRole role;
            int flop, tensors, vectors;
        } roles[] = {{KernelRole::kForward, 4, 4, 1},
                     {KernelRole::kQueryGradient, 6, 6, 2},
                     {KernelRole::kKeyValueGradient, 8, 6, 2}};
        for (const auto& role : roles) {
            const KernelWork work = work_of(lower(attention, pattern, role.role, cuda_target(80)));
            EXPECT_EQ(work.elements, elements);
            EXPECT_EQ(work.flop, role.flop * elements * attention.head_dim);
            EXPECT_EQ(work.bytes,
                      rows * (role.tensors * attention.head_dim * bytes + role.vectors * 4));
            EXPECT_EQ(work.work_items % attention.heads, 0);
        }
    }
}

TEST(Report, ReadsTheCompilersLog) {
    const std::string log =
        "ptxas info : Used 40 registers, used 1 barriers\n"
        "ptxas warning : Registers are spilled\n"
        "ptxas info : Used 9 registers, used 3 barriers\n"
        "kernel.cu(3): warning #1: odd";
    EXPECT_EQ(barriers_in(log), 3);
    EXPECT_EQ(barriers_in("nothing"), 0);
    EXPECT_EQ(warnings_in(log), (std::vector<std::string>{"ptxas warning : Registers are spilled",
                                                          "kernel.cu(3): warning #1: odd"}));
    EXPECT_TRUE(warnings_in("").empty());
}

TEST(Report, WhatIsNoElfHasNoCode) {
    EXPECT_EQ(code_bytes(""), 0);
    EXPECT_EQ(code_bytes("\177ELF"), 0);
    EXPECT_EQ(code_bytes(std::string(4096, 'x')), 0);
    std::string truncated(64, '\xff');
    truncated.replace(0, 5, "\177ELF\2");
    EXPECT_EQ(code_bytes(truncated), 0);
}

TEST(Report, CodeIsNotLargerThanItsFile) {
    const auto elf = [](std::uint64_t section_bytes) {
        Elf64_Ehdr header{};
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_shoff = sizeof header;
        header.e_shentsize = sizeof(Elf64_Shdr);
        header.e_shnum = 2;
        Elf64_Shdr section{};
        section.sh_type = SHT_PROGBITS;
        section.sh_flags = SHF_EXECINSTR;
        section.sh_size = section_bytes;
        std::string text(reinterpret_cast<const char*>(&header), sizeof header);
        for (int i = 0; i < 2; ++i) {
            text.append(reinterpret_cast<const char*>(&section), sizeof section);
        }
        return text;
    };
    EXPECT_EQ(code_bytes(elf(80)), 160);
    EXPECT_EQ(code_bytes(elf(std::uint64_t{1} << 62)), 0);
}

TEST(Report, TextAndJsonTellTheSame) {
    const Target target = cuda_target(80);
    const BlockPattern pattern = BlockPattern::full(256, 64);
    const Attention attention{.heads = 2, .head_dim = 64, .length = 256, .scale = 0.125F};
    const TileProgram program = lower(attention, pattern, KernelRole::kForward, target);
    const CompileRequest request{.entry = "attention_forward",
                                 .text = "",
                                 .includes = {},
                                 .arch = "sm_80",
                                 .features = "",
                                 .options = {"-std=c++20"},
                                 .compiler = "nvrtc 13.0"};
    const KernelBinary binary{.code = "none",
                              .log = "ptxas warning : odd\nused 2 barriers",
                              .registers = 200,
                              .static_shared_bytes = 16,
                              .spill_bytes = 24,
                              .compile_ms = 7};
#ifdef SPION_CUDA_BACKEND
    const KernelReport report = report_on(program, plan_kernel(program, target, kernel_families()),
                                          target, "some-kernel", request, binary, 8);
    const std::string text = to_text(report);
    for (const char* part :
         {"some-kernel for sm_80", "200 a thread", "16 bytes static", "24 bytes", "2 thread blocks",
          "limited by registers", "ptxas warning : odd", "for 8 samples", "nvcc -cubin"}) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
    }
    const auto json = nlohmann::json::parse(to_json(report));
    EXPECT_EQ(json.at("registers"), 200);
    EXPECT_EQ(json.at("barriers"), 2);
    EXPECT_EQ(json.at("spill_bytes"), 24);
    EXPECT_EQ(json.at("occupancy").at("thread_blocks"), 2);
    EXPECT_EQ(json.at("warnings").size(), 1U);
    EXPECT_EQ(json.at("predicted").at("batch"), 8);
    EXPECT_EQ(json.at("work_a_sample").at("elements"), 2 * 256 * 256);
#else
    EXPECT_EQ(program.role, KernelRole::kForward);
    EXPECT_EQ(binary.registers, 200);
    EXPECT_EQ(request.arch, "sm_80");
#endif
}

}  // namespace
}  // namespace spion
