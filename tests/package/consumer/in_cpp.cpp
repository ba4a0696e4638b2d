// Plans, emits and is refused: what a library without a device can do, wherever it came from.
#include <spion/spion.h>

#include <cstdio>
#include <string>

int main() {
    const auto pattern = spion::Pattern::from_text(256, 64, "1000\n1100\n0110\n0011\n");
    const spion::Attention attention{.heads = 2, .head_dim = 64, .length = 256};
    const std::string source = spion::emit(attention, "sm_80", spion::Kernel::kForward,
                                           spion::Stage::kSource, {.typical = pattern});
    if (source.find("kHeadDim") == std::string::npos) {
        std::fprintf(stderr, "the source of the forward kernel names no kHeadDim\n");
        return 1;
    }
    try {
        spion::Pattern::full(256, 48);
    } catch (const spion::UserError& error) {
        std::printf("refused: %s\n", error.what());
        return pattern.block_count() == 7 ? 0 : 1;
    }
    std::fprintf(stderr, "a block of 48 was not refused\n");
    return 1;
}
