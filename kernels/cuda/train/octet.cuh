// Eight neighbouring channels: sixteen bytes of 16-bit elements, as they are moved, and fp32, as
// they are computed with.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/train/contract.cuh"

struct Octet {
    float value[8];
};

__device__ __forceinline__ Octet unpack(const uint4& packed) {
    return {{Element::low(packed.x), Element::high(packed.x), Element::low(packed.y),
             Element::high(packed.y), Element::low(packed.z), Element::high(packed.z),
             Element::low(packed.w), Element::high(packed.w)}};
}
__device__ __forceinline__ uint4 pack(const Octet& octet) {
    const float* v = octet.value;
    return make_uint4(Element::pack(v[0], v[1]), Element::pack(v[2], v[3]),
                      Element::pack(v[4], v[5]), Element::pack(v[6], v[7]));
}
