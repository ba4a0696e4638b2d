// What both passes of the embedding before the first layer share: where an octet and its dropout's bits lie.
#pragma once

#include "kernels/cuda/train/draws.cuh"

enum : int { kOctets = kChannels / 8 };
static_assert(kChannels == 64, "two channels a lane");

// Octets, and so words, are counted in 32 bits, which FusedEmbedding checks.
SPION_DEVICE unsigned octet_index(const SpionTokenPositionArguments& args, unsigned sample,
                                  unsigned position, unsigned octet) {
    return (sample * (unsigned)args.length + position) * kOctets + octet;
}
SPION_DEVICE unsigned kept_word(const SpionTokenPositionArguments& args, unsigned quad,
                                unsigned position, unsigned octet) {
    return (quad * (unsigned)args.length + position) * kOctets + octet;
}
