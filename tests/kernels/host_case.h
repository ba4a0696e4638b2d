// Random attention problems for the host kernels: run through emission, LLVM and ORC on one side,
// and through a plain float64 computation on the other.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/element_spans.h"
#include "ir/kernel_source.h"
#include "ir/tile_program.h"
#include "kernels/attention_arguments.h"
#include "runtime/device.h"

namespace spion::testing {

// How Q, K, V (and dQ, dK, dV) lie in memory.
enum class Layout {
    kContiguous,   // [B, H, L, D] each
    kInterleaved,  // [B, L, 3, H, D], O and dO [B, L, H, D]
    kPaddedRows,   // [B, H, L, D + 16] each
};

struct TileShape {
    int stationary_rows, streamed_rows, gather_rows;
};

struct HostCase {
    int batch = 1;
    Attention attention;
    BlockPattern pattern = BlockPattern::empty(1, 16);
    TileShape shape{16, 16, 16};
    std::vector<int> lengths;  // [B], empty without key padding
    MaskRules rules;           // of a mask of spans
    Layout layout = Layout::kContiguous;
    float spread = 1.0F;  // standard deviation of Q and K
    std::uint32_t seed = 0;

    std::string describe() const;
};

// [B, H, L, D] each, lse and delta [B, H, L].
template <typename T>
struct Tensors {
    std::vector<T> q, k, v, d_o;
    std::vector<T> o, lse, delta, d_q, d_k, d_v;
};

Tensors<float> random_inputs(const HostCase& host_case);

// What a device is asked to compile for `source` on `target`.
CompileRequest request_for(const KernelSource& source, const Target& target);

// Compiles, loads and launches.
void run_source(Device& device, const Target& target, const KernelSource& source,
                std::int64_t work_items, const SpionAttentionArguments& args);

// Poisons every output with NaN, runs the three kernels, compiled for `target`.
void run_kernels(Device& device, const Target& target, const HostCase& host_case,
                 Tensors<float>& tensors);

struct Reference : Tensors<double> {
    // Norms of what dQ and dK would be if dP and delta did not cancel in dP - delta: rounding either
    // is an error in proportion to these. Where a row has one large P, |dQ| is far smaller.
    double d_q_terms = 0, d_k_terms = 0;
};

// The outputs in float64, element by element from the definition in ir/attention.h.
Reference reference(const HostCase& host_case, const Tensors<float>& inputs);

// ||got - want|| / ||want||, or / (terms / 2) where that is larger, or ||got|| where both are zero;
// infinities must agree in place and sign.
double relative_error(const std::vector<float>& got, const std::vector<double>& want,
                      double terms = 0);

// A random permutation as order, so that nothing depends on the one that lowering chooses.
TileProgram make_program(const HostCase& host_case, KernelRole role);

std::vector<std::uint8_t> random_bits(std::mt19937& random, int blocks, double density);

}  // namespace spion::testing
