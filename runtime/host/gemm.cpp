#include "runtime/host/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "ir/error.h"

namespace spion {
namespace {

// OpenBLAS's own threads would compete with the pool's: each call computes on its caller's thread.
void use_one_blas_thread() {
    static std::once_flag once;
    std::call_once(once, [] { openblas_set_num_threads(1); });
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
    float* c;
    std::int64_t ldc;
    float beta;
};

void multiply(const Gemm& gemm, const Piece& piece) {
    const auto* a = static_cast<const float*>(gemm.a);
    const auto* b = static_cast<const float*>(gemm.b);
    a += gemm.transpose_a ? piece.k0 * gemm.lda + piece.m0 : piece.m0 * gemm.lda + piece.k0;
    b += gemm.transpose_b ? piece.k0 : piece.k0 * gemm.ldb;
    cblas_sgemm(CblasRowMajor, gemm.transpose_a ? CblasTrans : CblasNoTrans,
                gemm.transpose_b ? CblasTrans : CblasNoTrans, static_cast<int>(piece.m1 - piece.m0),
                static_cast<int>(gemm.n), static_cast<int>(piece.k1 - piece.k0), gemm.alpha, a,
                static_cast<int>(gemm.lda), b, static_cast<int>(gemm.ldb), piece.beta, piece.c,
                static_cast<int>(piece.ldc));
}

void add_bias(const Gemm& gemm, std::int64_t m0, std::int64_t m1) {
    if (gemm.bias == nullptr) {
        return;
    }
    const auto* bias = static_cast<const float*>(gemm.bias);
    for (std::int64_t row = m0; row < m1; ++row) {
        float* c = static_cast<float*>(gemm.c) + row * gemm.ldc;
        for (std::int64_t column = 0; column < gemm.n; ++column) {
            c[column] += bias[column];
        }
    }
}

constexpr std::int64_t kRowsPerPiece = 256;
constexpr std::int64_t kProductsPerPiece = 4096;  // of k

// Many rows: pieces of rows.
void multiply_by_rows(const Gemm& gemm, ThreadPool& pool) {
    auto* c = static_cast<float*>(gemm.c);
    pool.parallel_for(gemm.m, kRowsPerPiece, [&](std::int64_t m0, std::int64_t m1) {
        multiply(gemm, {.m0 = m0,
                        .m1 = m1,
                        .k0 = 0,
                        .k1 = gemm.k,
                        .c = c + m0 * gemm.ldc,
                        .ldc = gemm.ldc,
                        .beta = gemm.beta});
        add_bias(gemm, m0, m1);
    });
}

// A small result of long sums, as weight gradients are: pieces of k, added up in order.
void multiply_by_products(const Gemm& gemm, ThreadPool& pool) {
    const std::int64_t pieces = (gemm.k + kProductsPerPiece - 1) / kProductsPerPiece;
    const std::int64_t elements = gemm.m * gemm.n;
    std::vector<float> partials(static_cast<std::size_t>(pieces * elements));  // [pieces, m, n]
    pool.parallel_for(pieces, 1, [&](std::int64_t piece, std::int64_t) {
        multiply(gemm, {.m0 = 0,
                        .m1 = gemm.m,
                        .k0 = piece * kProductsPerPiece,
                        .k1 = std::min((piece + 1) * kProductsPerPiece, gemm.k),
                        .c = partials.data() + piece * elements,
                        .ldc = gemm.n,
                        .beta = 0.0F});
    });
    pool.parallel_for(gemm.m, 16, [&](std::int64_t m0, std::int64_t m1) {
        for (std::int64_t row = m0; row < m1; ++row) {
            float* c = static_cast<float*>(gemm.c) + row * gemm.ldc;
            for (std::int64_t column = 0; column < gemm.n; ++column) {
                float sum = 0.0F;
                for (std::int64_t piece = 0; piece < pieces; ++piece) {
                    sum += partials[piece * elements + row * gemm.n + column];
                }
                c[column] = sum + (gemm.beta == 0.0F ? 0.0F : gemm.beta * c[column]);
            }
        }
        add_bias(gemm, m0, m1);
    });
}

}  // namespace

void host_gemm(const Gemm& gemm, ThreadPool& pool) {
    check(gemm);
    use_one_blas_thread();
    if (gemm.m == 0 || gemm.n == 0) {
        return;
    }
    if (gemm.m <= 2 * kRowsPerPiece && gemm.k > 2 * kProductsPerPiece) {
        multiply_by_products(gemm, pool);
    } else {
        multiply_by_rows(gemm, pool);
    }
}

}  // namespace spion
