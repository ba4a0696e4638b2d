// The CUDA kernel that moves dropout on, run on the host.
#include <gtest/gtest.h>

#include "compiler/launch/advance_dropout.h"
#include "kernels/dropout_arguments.h"
#include "tests/kernels/cuda_emulation.h"

namespace emulated_dropout_state {
void advance_dropout(const SpionDropoutAdvance&);
}

namespace spion {
namespace {

TEST(EmulatedDropout, TheOffsetIsAdvancedOnce) {
    SpionDropoutState state{.seed = 0x123456789ABCDEF, .offset = 0xFFFFFFFE, .enabled = 1};
    const SpionDropoutAdvance args{.state = &state, .by = 5};
    const LaunchGeometry geometry = advance_dropout_geometry();
    emulation::launch(geometry.work_items, geometry.threads, 0, 1,
                      [&] { emulated_dropout_state::advance_dropout(args); });
    EXPECT_EQ(state.seed, 0x123456789ABCDEFU);
    EXPECT_EQ(state.offset, 3U) << "modulo 2^32";
    EXPECT_EQ(state.enabled, 1);
}

}  // namespace
}  // namespace spion
