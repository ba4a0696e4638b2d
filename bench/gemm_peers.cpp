// Times spion's matrix product beside OpenBLAS and oneDNN, one thread each, at the shapes of a
// training step on the host:
//     cmake --build build --target gemm_peers && build/gemm_peers
// The libraries are opened if they are installed (Debian: libopenblas0-pthread, libdnnl2). OpenBLAS
// takes OPENBLAS_CORETYPE; set it to compare its cores.
#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "runtime/host/gemm_kernel.h"
#include "runtime/host/host_target.h"

namespace spion {
namespace {

using CblasSgemm = void(int order, int transpose_a, int transpose_b, int m, int n, int k,
                        float alpha, const float* a, int lda, const float* b, int ldb, float beta,
                        float* c, int ldc);
using DnnlSgemm = int(char transpose_a, char transpose_b, std::int64_t m, std::int64_t n,
                      std::int64_t k, float alpha, const float* a, std::int64_t lda, const float* b,
                      std::int64_t ldb, float beta, float* c, std::int64_t ldc);

template <typename Function>
Function* find(const char* library, const char* name) {
    void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    return handle == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle, name));
}

// Median seconds of a call, over at least 0.3 s and 5 calls.
double seconds_of(const std::function<void()>& call) {
    using Clock = std::chrono::steady_clock;
    call();
    std::vector<double> times;
    const auto start = Clock::now();
    while (times.size() < 5 || Clock::now() - start < std::chrono::milliseconds(300)) {
        const auto begin = Clock::now();
        call();
        times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

struct Shape {
    bool transpose_a, transpose_b;
    std::int64_t m, n, k;
};

// Rows of a piece (256) with d_model 64 and a feed-forward width of 128: forward, backward by the
// input, backward by the weight; then whole matrices, and a wider model.
constexpr Shape kShapes[] = {
    {false, true, 256, 64, 64},     {false, true, 256, 128, 64},  {false, true, 256, 64, 128},
    {false, false, 256, 64, 64},    {false, false, 256, 64, 128}, {true, false, 64, 64, 4096},
    {true, false, 128, 64, 4096},   {true, false, 64, 128, 4096}, {false, true, 2048, 128, 64},
    {false, true, 65536, 128, 64},  {false, true, 256, 512, 512}, {false, true, 256, 2048, 512},
    {false, false, 256, 512, 2048},
};

struct Peers {
    CblasSgemm* openblas = find<CblasSgemm>("libopenblas.so.0", "cblas_sgemm");
    DnnlSgemm* dnnl = find<DnnlSgemm>("libdnnl.so.2", "dnnl_sgemm");
};

void print_row(const Shape& s, GemmKernel& kernel, const Peers& peers) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> a(static_cast<std::size_t>(s.m * s.k)),
        b(static_cast<std::size_t>(s.k * s.n)), c(static_cast<std::size_t>(s.m * s.n));
    for (float& value : a) value = normal(random);
    for (float& value : b) value = normal(random);
    const std::int64_t lda = s.transpose_a ? s.m : s.k, ldb = s.transpose_b ? s.k : s.n;
    struct alignas(64) Workspace {
        float values[kGemmWorkspace];
    };
    static Workspace workspace;
    const auto rate = [&](const std::function<void()>& call) {
        return fmt::format("{:.0f}",
                           2e-9 * static_cast<double>(s.m * s.n * s.k) / seconds_of(call));
    };
    const std::string ours = rate([&] {
        kernel({.m = s.m,
                .n = s.n,
                .k = s.k,
                .a = a.data(),
                .a_row = s.transpose_a ? 1 : lda,
                .a_column = s.transpose_a ? lda : 1,
                .b = b.data(),
                .b_row = s.transpose_b ? 1 : ldb,
                .b_column = s.transpose_b ? ldb : 1,
                .c = c.data(),
                .ldc = s.n},
               workspace.values);
    });
    constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;
    const std::string openblas = peers.openblas == nullptr ? "-" : rate([&] {
        peers.openblas(kRowMajor, s.transpose_a ? kTranspose : kNoTranspose,
                       s.transpose_b ? kTranspose : kNoTranspose, static_cast<int>(s.m),
                       static_cast<int>(s.n), static_cast<int>(s.k), 1.0F, a.data(),
                       static_cast<int>(lda), b.data(), static_cast<int>(ldb), 0.0F, c.data(),
                       static_cast<int>(s.n));
    });
    const std::string dnnl = peers.dnnl == nullptr ? "-" : rate([&] {
        peers.dnnl(s.transpose_a ? 'T' : 'N', s.transpose_b ? 'T' : 'N', s.m, s.n, s.k, 1.0F,
                   a.data(), lda, b.data(), ldb, 0.0F, c.data(), s.n);
    });
    fmt::print("{}{} {:>6} {:>5} {:>5} {:>8} {:>9} {:>8}\n", s.transpose_a ? 'T' : 'N',
               s.transpose_b ? 'T' : 'N', s.m, s.n, s.k, ours, openblas, dnnl);
}

int compare() {
    const Target target = this_host_target(1);
    const Peers peers;
    using CoreName = char*();
    auto* core = find<CoreName>("libopenblas.so.0", "openblas_get_corename");
    fmt::print("{}, {} lanes; OpenBLAS core {}; GFLOP/s of one thread\n", cpu_model(),
               target.vector_floats, core == nullptr ? "none" : core());
    fmt::print("op      m     n     k    spion  OpenBLAS   oneDNN\n");
#if defined(__x86_64__)
    GemmKernel& kernel = target.vector_floats == 16  ? multiply_16_lanes
                         : target.vector_floats == 8 ? multiply_8_lanes
                                                     : multiply_4_lanes;
#else
    GemmKernel& kernel = multiply_4_lanes;
#endif
    for (const Shape& shape : kShapes) print_row(shape, kernel, peers);
    return 0;
}

}  // namespace
}  // namespace spion

// OpenBLAS and OpenMP read their numbers of threads when they are loaded, so these are set first.
int main() {
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    return spion::compare();
}
