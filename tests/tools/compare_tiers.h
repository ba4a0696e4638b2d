// Tier 1 against tier 0 on one problem: the same bytes must come out.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>

#include "compiler/compile_attention.h"
#include "tools/oracle/attention_buffers.h"
#include "tools/oracle/attention_case.h"

namespace spion {

// Every output's bytes, guards and poison included, of a forward and a backward pass.
inline std::string bytes_of(const AttentionCase& problem, Tables tables, Device& device,
                            KernelCache& cache) {
    CompileOptions options;
    options.tables = tables;
    options.packed_rows = problem.packed_rows;
    options.roles = kSplitBackwardRoles;  // the others take no baked tables
    const auto layers =
        compile_attention(problem.attention, {&problem.pattern, 1}, device, cache, options);
    for (int role = 0; role < 3; ++role) {
        const auto& part = layers.front()->part(static_cast<KernelRole>(role));
        EXPECT_EQ(part.program.tables, tables);
        // Baked kernels have no tables to be passed: none are uploaded, none can be read.
        EXPECT_EQ(static_cast<bool>(part.walk), tables == Tables::kPassed);
    }
    AttentionBuffers buffers(problem.attention, problem.batch, problem.lengths, problem.layout,
                             device);
    buffers.set_inputs(random_inputs(problem));
    buffers.poison_outputs();
    layers.front()->forward(buffers.arguments());
    layers.front()->backward(buffers.arguments());
    return buffers.output_bytes();
}

inline void expect_equal_tiers(const AttentionCase& problem, Device& device, KernelCache& cache) {
    EXPECT_TRUE(bytes_of(problem, Tables::kPassed, device, cache) ==
                bytes_of(problem, Tables::kBaked, device, cache))
        << to_text(problem) << "\n"
        << problem.pattern.front().to_bits();
}

}  // namespace spion
