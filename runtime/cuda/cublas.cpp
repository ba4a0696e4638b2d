#include "runtime/cuda/cublas.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "ir/error.h"
#include "ir/nvrtc_rules.h"
#include "runtime/cuda/cublas_abi.h"
#include "runtime/cuda/cublas_choice.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/library_search.h"
#include "runtime/cuda/shared_library.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using cublas_abi::Functions;
using cublas_abi::kSuccess;
using cublas_abi::MatmulDesc;
using cublas_abi::MatrixLayout;
using cublas_abi::Status;

struct Library {
    SharedLibrary library;
    Functions functions;
};

struct Opened {
    std::vector<std::unique_ptr<Library>> libraries;
    std::size_t taken = 0;  // of them
    std::string problem;    // empty: that one is usable
};

CompilerRelease release_of(const Library& library) {
    // 10000 * major + 100 * minor + patch
    const auto version = static_cast<int>(library.functions.cublasLtGetVersion());
    return {.major = version / 10000, .minor = version / 100 % 100};
}

// Opens `candidate` and keeps it if it is a cuBLASLt; else returns why it is none.
std::string open(Opened& opened, const std::string& candidate) {
    auto one =
        std::make_unique<Library>(Library{.library = SharedLibrary({candidate}), .functions = {}});
    if (!one->library.is_open()) return one->library.failures();
    const std::string& path = one->library.path();
    const auto same = [&](const auto& other) { return other->library.path() == path; };
    if (std::any_of(opened.libraries.begin(), opened.libraries.end(), same)) return "";
    if (const std::string missing = one->functions.load(one->library); !missing.empty()) {
        return fmt::format("{} (has no function {})", path, missing);
    }
    opened.libraries.push_back(std::move(one));
    return "";
}

Opened open_libraries() {
    Opened opened;
    std::string failures;
    for (const std::string& candidate :
         library_candidates(cublas_names(), environment_value, "/")) {
        const std::string failure = open(opened, candidate);
        failures += (failures.empty() || failure.empty() ? "" : ", ") + failure;
    }
    std::vector<FoundCublas> found;
    for (const auto& library : opened.libraries) {
        found.push_back({.path = library->library.path(), .release = release_of(*library)});
    }
    const CublasChoice choice = choose_cublas(found, driver_cuda_release());
    opened.taken = choice.taken.value_or(0);
    opened.problem = found.empty() ? fmt::format(
                                         "cuBLASLt, which multiplies matrices on GPUs, cannot be "
                                         "opened: {}; tried: {}",
                                         cublas_remedy(), failures)
                                   : choice.problem;
    return opened;
}

const Opened& opened_libraries() {
    static const Opened opened = open_libraries();
    return opened;
}

const Library& usable_library() {
    const Opened& opened = opened_libraries();
    if (!opened.problem.empty()) {
        throw DeviceError("{}", opened.problem);
    }
    return *opened.libraries[opened.taken];
}

void require(Status status, const char* call) {
    if (status != kSuccess) {
        throw DeviceError("{} failed: {}", call,
                          usable_library().functions.cublasLtGetStatusName(status));
    }
}

int data_type(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
            return cublas_abi::kFp32;
        case DType::kBf16:
            return cublas_abi::kBf16;
        case DType::kFp16:
            return cublas_abi::kFp16;
        case DType::kTf32:
            break;
    }
    throw InternalError("gemm: {} is not a type of its operands", to_string(dtype));
}

// Largest power of two up to 256 that divides the address.
std::uint32_t alignment(const void* data) {
    const auto address = reinterpret_cast<std::uintptr_t>(data) | 256U;
    return static_cast<std::uint32_t>(address & (~address + 1));
}

// Everything that the choice of an algorithm depends on.
auto key_of(const Gemm& gemm) {
    return std::make_tuple(gemm.transpose_a, gemm.transpose_b, gemm.m, gemm.n, gemm.k, gemm.lda,
                           gemm.ldb, gemm.ldc, gemm.input, gemm.output, gemm.beta == 0.0F,
                           alignment(gemm.a), alignment(gemm.b), alignment(gemm.c),
                           gemm.bias == nullptr ? 0U : alignment(gemm.bias));
}
using Key = decltype(key_of(Gemm{}));

// Owns a cuBLASLt object.
template <typename T>
class Owned {
  public:
    using Destroy = Status(T);
    explicit Owned(Destroy* destroy) : destroy_(destroy) {}
    ~Owned() {
        if (value_ != nullptr) {
            destroy_(value_);
        }
    }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    T* receive() { return &value_; }
    T get() const { return value_; }

  private:
    T value_ = nullptr;
    Destroy* destroy_;
};

// cuBLAS is column-major, and a row-major matrix read by columns is its transpose. So
// c^T [n, m] = op(b)^T op(a)^T is computed: its first operand is b, its second is a, and the bias
// [n], constant along a row of c, is constant along a column of c^T, which is what cuBLASLt adds.
struct Plan {
    explicit Plan(const Functions& cublas)
        : product(cublas.cublasLtMatmulDescDestroy),
          first(cublas.cublasLtMatrixLayoutDestroy),
          second(cublas.cublasLtMatrixLayoutDestroy),
          result(cublas.cublasLtMatrixLayoutDestroy) {}
    Owned<MatmulDesc> product;
    Owned<MatrixLayout> first, second, result;
    cublas_abi::Algorithm algorithm{};
};

template <typename T>
void set(const Functions& cublas, MatmulDesc product, int attribute, const T& value) {
    require(cublas.cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof(value)),
            "cublasLtMatmulDescSetAttribute");
}

template <typename T>
void set(const Functions& cublas, cublas_abi::Preference preference, int attribute,
         const T& value) {
    require(
        cublas.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
        "cublasLtMatmulPreferenceSetAttribute");
}

// A stored row-major [rows, columns] matrix as the column-major [columns, rows] that it is.
void describe(const Functions& cublas, Owned<MatrixLayout>& layout, DType dtype, std::int64_t rows,
              std::int64_t columns, std::int64_t pitch) {
    require(cublas.cublasLtMatrixLayoutCreate(layout.receive(), data_type(dtype),
                                              static_cast<std::uint64_t>(columns),
                                              static_cast<std::uint64_t>(rows), pitch),
            "cublasLtMatrixLayoutCreate");
}

void choose_algorithm(const Functions& cublas, cublas_abi::Handle handle, const Gemm& gemm,
                      Plan& plan) {
    Owned<cublas_abi::Preference> preference(cublas.cublasLtMatmulPreferenceDestroy);
    require(cublas.cublasLtMatmulPreferenceCreate(preference.receive()),
            "cublasLtMatmulPreferenceCreate");
    set(cublas, preference.get(), cublas_abi::kPreferMaxWorkspaceBytes,
        std::uint64_t{kCublasWorkspaceBytes});
    // Partial sums of a long k in fp32, reduced in a step of its own, never rounded to the output
    // type. Only for whole multiples: version 13.1 loses the last 8 of 40328 = 30 * 1344 + 8
    // products on an H200 when it splits k 30 times.
    constexpr std::int64_t kWholePart = 64;
    set(cublas, preference.get(), cublas_abi::kPreferReductionSchemes,
        gemm.k % kWholePart == 0 ? cublas_abi::kReductionInComputeType : cublas_abi::kNoReduction);
    set(cublas, preference.get(), cublas_abi::kPreferMinAlignmentA, alignment(gemm.b));
    set(cublas, preference.get(), cublas_abi::kPreferMinAlignmentB, alignment(gemm.a));
    set(cublas, preference.get(), cublas_abi::kPreferMinAlignmentC, alignment(gemm.c));
    set(cublas, preference.get(), cublas_abi::kPreferMinAlignmentD, alignment(gemm.c));
    cublas_abi::HeuristicResult best{};
    int found = 0;
    const Status status = cublas.cublasLtMatmulAlgoGetHeuristic(
        handle, plan.product.get(), plan.first.get(), plan.second.get(), plan.result.get(),
        plan.result.get(), preference.get(), 1, &best, &found);
    if (status != kSuccess || found == 0 || best.state != kSuccess) {
        throw DeviceError(
            "cuBLASLt has no algorithm for [{}, {}] x [{}, {}] in {} to {} with pitches {}, {}, {}",
            gemm.m, gemm.k, gemm.k, gemm.n, to_string(gemm.input), to_string(gemm.output), gemm.lda,
            gemm.ldb, gemm.ldc);
    }
    plan.algorithm = best.algorithm;
}

std::unique_ptr<Plan> make_plan(const Functions& cublas, cublas_abi::Handle handle,
                                const Gemm& gemm) {
    auto plan = std::make_unique<Plan>(cublas);
    require(cublas.cublasLtMatmulDescCreate(plan->product.receive(), cublas_abi::kComputeFp32,
                                            cublas_abi::kFp32),
            "cublasLtMatmulDescCreate");
    const auto operation = [](bool transpose) {
        return transpose ? cublas_abi::kTranspose : cublas_abi::kKeep;
    };
    set(cublas, plan->product.get(), cublas_abi::kDescTransA, operation(gemm.transpose_b));
    set(cublas, plan->product.get(), cublas_abi::kDescTransB, operation(gemm.transpose_a));
    if (gemm.bias != nullptr) {
        set(cublas, plan->product.get(), cublas_abi::kDescEpilogue, cublas_abi::kEpilogueBias);
        set(cublas, plan->product.get(), cublas_abi::kDescBiasPointer, gemm.bias);
    }
    describe(cublas, plan->first, gemm.input, gemm.transpose_b ? gemm.n : gemm.k,
             gemm.transpose_b ? gemm.k : gemm.n, gemm.ldb);
    describe(cublas, plan->second, gemm.input, gemm.transpose_a ? gemm.k : gemm.m,
             gemm.transpose_a ? gemm.m : gemm.k, gemm.lda);
    describe(cublas, plan->result, gemm.output, gemm.m, gemm.n, gemm.ldc);
    choose_algorithm(cublas, handle, gemm, *plan);
    return plan;
}

}  // namespace

std::optional<std::string> cublas_problem() {
    const std::string& problem = opened_libraries().problem;
    return problem.empty() ? std::nullopt : std::optional(problem);
}

std::string cublas_version() {
    // 10000 * major + 100 * minor + patch
    const std::size_t version = usable_library().functions.cublasLtGetVersion();
    return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::vector<std::string> cublas_libraries_found() {
    std::vector<std::string> found;
    for (const auto& library : opened_libraries().libraries) {
        found.push_back(
            fmt::format("{} at {}", to_text(release_of(*library)), library->library.path()));
    }
    return found;
}

std::string cublas_path() {
    return usable_library().library.path();
}

void check_cuda_gemm(const Gemm& gemm) {
    const auto refuse_unless = [](bool holds, const char* rule) {
        if (!holds) {
            throw InternalError("gemm: {}", rule);
        }
    };
    refuse_unless(gemm.m >= 1 && gemm.n >= 1 && gemm.k >= 1, "m, n and k must be at least 1");
    refuse_unless(gemm.a != nullptr && gemm.b != nullptr && gemm.c != nullptr,
                  "a, b and c must not be null");
    refuse_unless(gemm.lda >= (gemm.transpose_a ? gemm.m : gemm.k),
                  "lda must be at least the columns of a");
    refuse_unless(gemm.ldb >= (gemm.transpose_b ? gemm.k : gemm.n),
                  "ldb must be at least the columns of b");
    refuse_unless(gemm.ldc >= gemm.n, "ldc must be at least n");
    refuse_unless(gemm.input != DType::kTf32, "tf32 is not a type of a and b");
    refuse_unless(gemm.output == gemm.input || gemm.output == DType::kFp32,
                  "the output must be fp32 or have the type of the input");
}

struct Cublas::State {
    const Functions& cublas = usable_library().functions;
    Owned<cublas_abi::Handle> handle{cublas.cublasLtDestroy};
    driver_abi::Stream stream = nullptr;
    void* workspace = nullptr;
    std::map<Key, std::unique_ptr<Plan>> plans;
};

Cublas::Cublas(driver_abi::Stream stream, void* workspace) : state_(std::make_unique<State>()) {
    require(state_->cublas.cublasLtCreate(state_->handle.receive()), "cublasLtCreate");
    state_->stream = stream;
    state_->workspace = workspace;
}

Cublas::~Cublas() = default;

void Cublas::run(const Gemm& gemm) {
    check_cuda_gemm(gemm);
    const Functions& cublas = state_->cublas;
    std::unique_ptr<Plan>& plan = state_->plans[key_of(gemm)];
    if (!plan) {
        plan = make_plan(cublas, state_->handle.get(), gemm);
    }
    if (gemm.bias != nullptr) {
        set(cublas, plan->product.get(), cublas_abi::kDescBiasPointer, gemm.bias);
    }
    require(cublas.cublasLtMatmul(state_->handle.get(), plan->product.get(), &gemm.alpha, gemm.b,
                                  plan->first.get(), gemm.a, plan->second.get(), &gemm.beta, gemm.c,
                                  plan->result.get(), gemm.c, plan->result.get(), &plan->algorithm,
                                  state_->workspace, kCublasWorkspaceBytes, state_->stream),
            "cublasLtMatmul");
}

}  // namespace spion
