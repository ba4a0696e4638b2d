// Problems of attention on a GPU, held against the float64 reference.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "runtime/cache.h"
#include "tests/runtime/gpu_fixture.h"
#include "tools/oracle/attention_case.h"

namespace spion {

template <typename Parameter>
class GpuCase : public GpuTest, public ::testing::WithParamInterface<Parameter> {
  protected:
    void expect_passes(const AttentionCase& problem) {
        const CaseReport report = check_case(problem, *device_, cache_);
        EXPECT_TRUE(report.passed()) << to_text(problem) << "\n"
                                     << problem.pattern.front().to_bits() << report.failures();
    }

    KernelCache cache_{std::nullopt};
};

constexpr ElementMask kMasks[] = {ElementMask::kCausal, ElementMask::kSpans};

}  // namespace spion
