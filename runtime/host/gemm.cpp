#include "runtime/host/gemm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "ir/error.h"
#include "runtime/host/gemm_kernel.h"

namespace spion {
namespace {

struct Workspace {
    alignas(64) float values[kGemmWorkspace];
};

// A thread's own, kept for its next product.
float* workspace() {
    thread_local const std::unique_ptr<Workspace> own(new Workspace);
    return own->values;
}

struct Kernel {
    GemmKernel* multiply;
    GemmPack* pack;
};

Kernel kernel_of(int lanes) {
#if defined(__x86_64__)
    if (lanes >= 16) return {multiply_16_lanes, pack_16_lanes};
    if (lanes >= 8) return {multiply_8_lanes, pack_8_lanes};
#endif
    return {multiply_4_lanes, pack_4_lanes};
}

void check(const Gemm& gemm) {
    if (gemm.input != DType::kFp32 || gemm.output != DType::kFp32) {
        throw UserError(
            "the CPU back end multiplies fp32 matrices, not {} into {}: choose fp32 or a "
            "GPU",
            to_string(gemm.input), to_string(gemm.output));
    }
    constexpr std::int64_t kLimit = std::numeric_limits<int>::max();
    const std::int64_t a_width = gemm.transpose_a ? gemm.m : gemm.k;
    const std::int64_t b_width = gemm.transpose_b ? gemm.k : gemm.n;
    if (gemm.m < 0 || gemm.n < 0 || gemm.k < 0 || std::max({gemm.m, gemm.n, gemm.k}) > kLimit ||
        gemm.lda < a_width || gemm.ldb < b_width || gemm.ldc < gemm.n ||
        std::max({gemm.lda, gemm.ldb, gemm.ldc}) > kLimit) {
        throw InternalError("gemm m={} n={} k={} with pitches {} {} {}", gemm.m, gemm.n, gemm.k,
                            gemm.lda, gemm.ldb, gemm.ldc);
    }
}

// c[m0:m1, :] (+)= alpha * op(a)[m0:m1, k0:k1] * op(b)[k0:k1, :]
struct Piece {
    std::int64_t m0, m1, k0, k1;
    float* c = nullptr;
    std::int64_t ldc = 0;
    float beta = 0.0F;
};

GemmPart part_of(const Gemm& gemm, const Piece& piece) {
    GemmPart part{.m = piece.m1 - piece.m0,
                  .n = gemm.n,
                  .k = piece.k1 - piece.k0,
                  .a = static_cast<const float*>(gemm.a),
                  .a_row = gemm.transpose_a ? 1 : gemm.lda,
                  .a_column = gemm.transpose_a ? gemm.lda : 1,
                  .b = static_cast<const float*>(gemm.b),
                  .b_row = gemm.transpose_b ? 1 : gemm.ldb,
                  .b_column = gemm.transpose_b ? gemm.ldb : 1,
                  .c = piece.c,
                  .ldc = piece.ldc,
                  .alpha = gemm.alpha,
                  .beta = piece.beta};
    part.a += piece.m0 * part.a_row + piece.k0 * part.a_column;
    part.b += piece.k0 * part.b_row;
    return part;
}

constexpr std::int64_t kRowsPerPiece = 256;
constexpr std::int64_t kProductsPerPiece = 4096;  // of k

// Many rows: pieces of rows. A small b is packed once for all of them.
void multiply_by_rows(const Gemm& gemm, ThreadPool& pool, const Kernel& kernel) {
    const float* packed = nullptr;
    if (gemm_packed_floats(gemm.n, gemm.k) <= kGemmWorkspace) {
        kernel.pack(part_of(gemm, {.m0 = 0, .m1 = 0, .k0 = 0, .k1 = gemm.k}), workspace());
        packed = workspace();
    }
    auto* c = static_cast<float*>(gemm.c);
    pool.parallel_for(gemm.m, kRowsPerPiece, [&](std::int64_t m0, std::int64_t m1) {
        GemmPart part = part_of(gemm, {.m0 = m0,
                                       .m1 = m1,
                                       .k0 = 0,
                                       .k1 = gemm.k,
                                       .c = c + m0 * gemm.ldc,
                                       .ldc = gemm.ldc,
                                       .beta = gemm.beta});
        part.bias = static_cast<const float*>(gemm.bias);
        part.packed = packed;
        kernel.multiply(part, packed == nullptr ? workspace() : nullptr);
    });
}

// A small result of long sums, as weight gradients are: pieces of k, added up in order.
void multiply_by_products(const Gemm& gemm, ThreadPool& pool, const Kernel& kernel) {
    const std::int64_t pieces = (gemm.k + kProductsPerPiece - 1) / kProductsPerPiece;
    const std::int64_t elements = gemm.m * gemm.n;
    const auto* bias = static_cast<const float*>(gemm.bias);
    std::vector<float> partials(static_cast<std::size_t>(pieces * elements));  // [pieces, m, n]
    pool.parallel_for(pieces, 1, [&](std::int64_t piece, std::int64_t) {
        kernel.multiply(part_of(gemm, {.m0 = 0,
                                       .m1 = gemm.m,
                                       .k0 = piece * kProductsPerPiece,
                                       .k1 = std::min((piece + 1) * kProductsPerPiece, gemm.k),
                                       .c = partials.data() + piece * elements,
                                       .ldc = gemm.n}),
                        workspace());
    });
    pool.parallel_for(gemm.m, 16, [&](std::int64_t m0, std::int64_t m1) {
        for (std::int64_t row = m0; row < m1; ++row) {
            float* c = static_cast<float*>(gemm.c) + row * gemm.ldc;
            for (std::int64_t column = 0; column < gemm.n; ++column) {
                float sum = 0.0F;
                for (std::int64_t piece = 0; piece < pieces; ++piece) {
                    sum += partials[piece * elements + row * gemm.n + column];
                }
                c[column] = sum + (gemm.beta == 0.0F ? 0.0F : gemm.beta * c[column]) +
                            (bias == nullptr ? 0.0F : bias[column]);
            }
        }
    });
}

// A product of odd sizes, transposed operands included, against plain sums in double.
double error_of(GemmKernel& kernel) {
    constexpr std::int64_t kM = 29, kN = 71, kK = 300;
    std::vector<float> a(kM * kK), b(kK * kN), c(kM * kN);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 17) - 8.0F;
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 13) - 6.0F;
    double error = 0;
    for (const bool transposed : {false, true}) {
        const GemmPart part{.m = kM,
                            .n = kN,
                            .k = kK,
                            .a = a.data(),
                            .a_row = transposed ? 1 : kK,
                            .a_column = transposed ? kM : 1,
                            .b = b.data(),
                            .b_row = transposed ? 1 : kN,
                            .b_column = transposed ? kK : 1,
                            .c = c.data(),
                            .ldc = kN};
        kernel(part, workspace());
        for (std::int64_t i = 0; i < kM; ++i) {
            for (std::int64_t j = 0; j < kN; ++j) {
                double sum = 0;
                for (std::int64_t p = 0; p < kK; ++p) {
                    sum += double{part.a[i * part.a_row + p * part.a_column]} *
                           double{part.b[p * part.b_row + j * part.b_column]};
                }
                error = std::max(error,
                                 std::abs(sum - double{c[static_cast<std::size_t>(i * kN + j)]}));
            }
        }
    }
    return error;
}

// All numbers above are whole and their sums exact, so any difference is a fault of the processor
// or of how this file was compiled.
void check_once(int lanes) {
    static std::once_flag checked[3];
    std::call_once(checked[lanes >= 16  ? 2
                           : lanes >= 8 ? 1
                                        : 0],
                   [&] {
                       if (const double error = error_of(*kernel_of(lanes).multiply); error != 0) {
                           throw DeviceError(
                               "a matrix product with vectors of {} floats is wrong by {} on this "
                               "processor: set "
                               "SPION_HOST_FEATURES to {}",
                               lanes, error, lanes >= 16 ? "avx2" : "sse");
                       }
                   });
}

}  // namespace

std::string gemm_name(int lanes) {
    check_once(lanes);
    return fmt::format("vectors of {} fp32, checked against plain sums", lanes >= 16  ? 16
                                                                         : lanes >= 8 ? 8
                                                                                      : 4);
}

void host_gemm(const Gemm& gemm, ThreadPool& pool, int lanes) {
    check(gemm);
    check_once(lanes);
    if (gemm.m == 0 || gemm.n == 0) {
        return;
    }
    const Kernel kernel = kernel_of(lanes);
    if (gemm.m <= 2 * kRowsPerPiece && gemm.k > 2 * kProductsPerPiece) {
        multiply_by_products(gemm, pool, kernel);
    } else {
        multiply_by_rows(gemm, pool, kernel);
    }
}

}  // namespace spion
