// Runs the CUDA bodies on the host, one fiber a thread, so that their arithmetic, addresses and
// synchronisation are tested where there is no GPU. Stands in for kernels/cuda/common/ptx.cuh and for the
// words that CUDA adds to C++; include it, then the emitted source within a namespace of its own.
//
// Stricter than a GPU: fibers run in a shuffled order between synchronisations; shared memory
// starts as NaN; an asynchronous copy lands at the wait that covers it and no sooner; every access
// to shared memory is checked for bounds and alignment, every asynchronous copy's source for
// bounds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define SPION_PTX_CUH
#define SPION_DEVICE static inline
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define threadIdx (::spion::emulation::thread_index())
#define blockIdx (::spion::emulation::block_index())
#define gridDim (::spion::emulation::grid_dimension())

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct uint4 {
    unsigned x, y, z, w;
};

namespace spion::emulation {

struct Index {
    unsigned x;
};
Index thread_index();
Index block_index();
Index grid_dimension();

// Runs `kernel` for every thread of every block, blocks in order. Throws std::runtime_error when a
// thread breaks a rule above, or when the threads of a warp or block wait for different things.
void launch(std::int64_t blocks, int threads, int shared_bytes, unsigned seed,
            const std::function<void()>& kernel);

// The same with all blocks at once, as a cooperative launch. `beside`, called between the turns of
// the threads, does what hardware does beside them and returns whether that was anything.
void launch_together(std::int64_t blocks, int threads, int shared_bytes, unsigned seed,
                     const std::function<void()>& kernel, const std::function<bool()>& beside);
// Until `ready`, which need not change where it is asked, holds.
void wait_until(const std::function<bool()>& ready);
// Of the running thread's block.
std::uint8_t* shared_memory(unsigned address, unsigned bytes);
[[noreturn]] void fail(const std::string& message);

// Global memory that asynchronous copies may read during the launches of this thread.
void allow_reads(const void* data, std::size_t bytes);
void forget_reads();

void wait_for_block();  // __syncthreads
void wait_at_named(int id, int threads);
void arrive_at_named(int id, int threads);
void wait_for_warp();  // __syncwarp
// Every lane gives 32 bytes and gets those of all 32 lanes.
struct Words {
    unsigned word[8];
};
const Words* exchange(const Words& mine);

void read_shared(unsigned address, void* data, unsigned bytes);
void write_shared(unsigned address, const void* data, unsigned bytes);
void copy_async(unsigned target, const void* source, unsigned bytes, bool present);
void cp_async_commit_group();
void cp_async_wait_group(int pending);

float round_to(float value, int mantissa_bits, bool ties_to_even);
std::uint16_t to_bf16(float value);
std::uint16_t to_fp16(float value);
float from_bf16(std::uint16_t bits);
float from_fp16(std::uint16_t bits);

void ldmatrix_x4(unsigned (&out)[4], unsigned address, bool transposed);
// a_rows: for tests of 16-bit (k = 16) and tf32 (k = 8) products; decode turns a word into values.
void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int k,
         float (*decode)(unsigned word, int half));

}  // namespace spion::emulation

// ---- the functions of ptx.cuh ----------------------------------------------------------------

SPION_DEVICE unsigned shared_memory_start() {
    return 0;
}
SPION_DEVICE unsigned run_time_zero() {
    return 0;
}
SPION_DEVICE void bar_sync(int id, int threads) {
    spion::emulation::wait_at_named(id, threads);
}
SPION_DEVICE void bar_arrive(int id, int threads) {
    spion::emulation::arrive_at_named(id, threads);
}
SPION_DEVICE void cp_async_16(unsigned target, const void* source, bool present) {
    spion::emulation::copy_async(target, source, 16, present);
}
SPION_DEVICE void cp_async_4(unsigned target, const void* source, bool present) {
    spion::emulation::copy_async(target, source, 4, present);
}
SPION_DEVICE void cp_async_commit_group() {
    spion::emulation::cp_async_commit_group();
}
template <int kPending>
SPION_DEVICE void cp_async_wait_group() {
    spion::emulation::cp_async_wait_group(kPending);
}
SPION_DEVICE void ldmatrix_x4(unsigned (&out)[4], unsigned address) {
    spion::emulation::ldmatrix_x4(out, address, false);
}
SPION_DEVICE void ldmatrix_x4_trans(unsigned (&out)[4], unsigned address) {
    spion::emulation::ldmatrix_x4(out, address, true);
}
SPION_DEVICE void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    spion::emulation::mma(d, a, b0, b1, 16, [](unsigned word, int half) {
        return spion::emulation::from_bf16(static_cast<std::uint16_t>(word >> (16 * half)));
    });
}
SPION_DEVICE void mma_fp16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    spion::emulation::mma(d, a, b0, b1, 16, [](unsigned word, int half) {
        return spion::emulation::from_fp16(static_cast<std::uint16_t>(word >> (16 * half)));
    });
}
SPION_DEVICE float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
SPION_DEVICE unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
SPION_DEVICE void mma_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    spion::emulation::mma(d, a, b0, b1, 8,
                          [](unsigned word, int) { return __uint_as_float(word); });
}
SPION_DEVICE float ex2_approx(float x) {
    return std::exp2(x);
}
SPION_DEVICE float rsqrtf(float x) {
    return 1.0F / std::sqrt(x);
}
SPION_DEVICE float lg2_approx(float x) {
    return std::log2(x);
}
SPION_DEVICE float rcp_approx(float x) {
    return 1.0F / x;
}
SPION_DEVICE float sqrt_approx(float x) {
    return std::sqrt(x);
}
SPION_DEVICE float tanh_approx(float x) {
    return std::tanh(x);
}
SPION_DEVICE unsigned long long multiply_wide(unsigned a, unsigned b) {
    return (unsigned long long)a * b;
}

SPION_DEVICE float keep_where(unsigned bits, float x) {
    return bits != 0 ? x : 0.0F;
}

SPION_DEVICE unsigned permute_bytes(unsigned low, unsigned high, unsigned selector) {
    const unsigned long long bytes = low | static_cast<unsigned long long>(high) << 32;
    unsigned word = 0;
    for (int n = 0; n < 4; ++n) {
        const unsigned digit = selector >> (4 * n) & 15U;
        const auto byte = static_cast<unsigned>(bytes >> (8 * (digit & 7U)) & 255U);
        word |= (digit < 8 ? byte : byte >= 128 ? 255U : 0U) << (8 * n);
    }
    return word;
}
SPION_DEVICE unsigned pack_bf16(float low, float high) {
    return spion::emulation::to_bf16(low) | unsigned{spion::emulation::to_bf16(high)} << 16;
}
SPION_DEVICE unsigned pack_fp16(float low, float high) {
    return spion::emulation::to_fp16(low) | unsigned{spion::emulation::to_fp16(high)} << 16;
}
SPION_DEVICE float fp16_to_float(unsigned short bits) {
    return spion::emulation::from_fp16(bits);
}
SPION_DEVICE unsigned cvt_rna_tf32(float x) {
    return __float_as_uint(spion::emulation::round_to(x, 10, false));
}
SPION_DEVICE float load_shared_float(unsigned address) {
    float value;
    spion::emulation::read_shared(address, &value, 4);
    return value;
}
SPION_DEVICE float2 load_shared_float2(unsigned address) {
    float2 value;
    spion::emulation::read_shared(address, &value, 8);
    return value;
}
SPION_DEVICE uint4 load_shared_16(unsigned address) {
    uint4 value;
    spion::emulation::read_shared(address, &value, 16);
    return value;
}
SPION_DEVICE void store_shared_16(unsigned address, uint4 value) {
    spion::emulation::write_shared(address, &value, 16);
}
SPION_DEVICE void store_global_16(void* target, uint4 value, bool present) {
    if (present) *static_cast<uint4*>(target) = value;
}
SPION_DEVICE void store_shared_float(unsigned address, float value) {
    spion::emulation::write_shared(address, &value, 4);
}
SPION_DEVICE void store_shared_float2(unsigned address, float x, float y) {
    const float2 value{x, y};
    spion::emulation::write_shared(address, &value, 8);
}
SPION_DEVICE unsigned load_shared_word(unsigned address) {
    unsigned value;
    spion::emulation::read_shared(address, &value, 4);
    return value;
}
SPION_DEVICE void store_shared_word(unsigned address, unsigned value) {
    spion::emulation::write_shared(address, &value, 4);
}

// ---- CUDA's own functions --------------------------------------------------------------------

SPION_DEVICE void __syncthreads() {
    spion::emulation::wait_for_block();
}
SPION_DEVICE void __syncwarp() {
    spion::emulation::wait_for_warp();
}
template <typename T>
SPION_DEVICE T spion_from_lane(T value, int lane) {
    static_assert(sizeof(T) == 4);
    spion::emulation::Words mine{};
    std::memcpy(mine.word, &value, 4);
    std::memcpy(&value, spion::emulation::exchange(mine)[lane].word, 4);
    return value;
}
template <typename T>
SPION_DEVICE T __shfl_sync(unsigned, T value, int lane, int width = 32) {
    const int mine = static_cast<int>(threadIdx.x % 32);
    return spion_from_lane(value, mine / width * width + (lane & (width - 1)));
}
template <typename T>
SPION_DEVICE T __shfl_xor_sync(unsigned, T value, int lanes) {
    return spion_from_lane(value, static_cast<int>(threadIdx.x % 32) ^ lanes);
}
SPION_DEVICE unsigned __ballot_sync(unsigned, bool predicate) {
    spion::emulation::Words mine{};
    mine.word[0] = predicate;
    const spion::emulation::Words* all = spion::emulation::exchange(mine);
    unsigned result = 0;
    for (int lane = 0; lane < 32; ++lane) result |= all[lane].word[0] << lane;
    return result;
}
SPION_DEVICE bool __any_sync(unsigned, bool predicate) {
    return __ballot_sync(0xFFFFFFFFU, predicate) != 0;
}
SPION_DEVICE unsigned __reduce_add_sync(unsigned, unsigned value) {
    spion::emulation::Words mine{};
    mine.word[0] = value;
    const spion::emulation::Words* all = spion::emulation::exchange(mine);
    unsigned result = 0;
    for (int lane = 0; lane < 32; ++lane) result += all[lane].word[0];
    return result;
}
SPION_DEVICE int __ffs(int bits) {
    return __builtin_ffs(bits);
}
SPION_DEVICE int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
// Of both halves of a word.
SPION_DEVICE unsigned __vmaxu2(unsigned a, unsigned b) {
    const unsigned high = std::max(a >> 16, b >> 16), low = std::max(a & 0xFFFFU, b & 0xFFFFU);
    return high << 16 | low;
}
SPION_DEVICE unsigned __viaddmin_u16x2(unsigned a, unsigned b, unsigned c) {
    const unsigned high = std::min(((a >> 16) + (b >> 16)) & 0xFFFFU, c >> 16);
    return high << 16 | std::min((a + b) & 0xFFFFU, c & 0xFFFFU);
}
SPION_DEVICE float __fmaf_rn(float a, float b, float c) {
    return std::fma(a, b, c);
}
SPION_DEVICE float2 make_float2(float x, float y) {
    return {x, y};
}
SPION_DEVICE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
SPION_DEVICE int min(int a, int b) {
    return a < b ? a : b;
}
SPION_DEVICE int max(int a, int b) {
    return a > b ? a : b;
}
