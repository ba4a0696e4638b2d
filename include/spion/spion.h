// spion as a C++20 library: inline over spion_c.h, whose comments say what each part means; no C++
// type crosses the library's border, so compiler and standard library may be others than its own.
//
//     const auto context = spion::Context::cuda();
//     const auto plan = context.plan({.heads = 8, .head_dim = 64, .length = 4096});
//     const std::vector<std::int32_t> tables = plan.tables(pattern);   // copy them to the device
//     plan.forward({.q = ..., .tables = device_tables, ...}, stream);
//
// What fails throws UserError, DeviceError, InternalError or Frozen, all of them an Error, with one
// sentence: what was given, what is allowed, how to mend it.
#ifndef SPION_SPION_H
#define SPION_SPION_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "spion/attention.h"
#include "spion/error.h"
#include "spion/mask.h"
#include "spion/pattern.h"
#include "spion/spion_c.h"

namespace spion {
inline namespace abi0 {  // as SPION_ABI_MAJOR

// ------------------------------------------------------------------ plans

struct PlanOptions {
    std::optional<Pattern> typical = {};
    std::int64_t max_blocks = 0;  // 0: all
    std::int64_t batch = 0;       // 0: 32

    spion_plan_options c() const {  // valid while *this is
        spion_plan_options c = SPION_PLAN_OPTIONS_INIT;
        c.typical = typical ? typical->c() : nullptr;
        c.max_blocks = max_blocks;
        c.batch = batch;
        return c;
    }
};

// ------------------------------------------------------------------ calls

struct Workspace {
    std::size_t bytes = 0;
    std::size_t alignment = 0;
};

// A [B, H, L, D] view: strides in elements.
inline spion_tensor tensor(void* data, DType dtype, const std::int64_t (&shape)[4],
                           const std::int64_t (&strides)[4]) {
    return {data,
            static_cast<std::int32_t>(dtype),
            4,
            {shape[0], shape[1], shape[2], shape[3]},
            {strides[0], strides[1], strides[2], strides[3]}};
}
// The same, contiguous.
inline spion_tensor tensor(void* data, DType dtype, std::int64_t batch, std::int64_t heads,
                           std::int64_t length, std::int64_t width) {
    return tensor(data, dtype, {batch, heads, length, width},
                  {heads * length * width, length * width, width, 1});
}

// A [H, T, D] view, for plans with varlen: of a tensor [T, H, D] the strides are D, H * D and 1.
inline spion_tensor tensor(void* data, DType dtype, const std::int64_t (&shape)[3],
                           const std::int64_t (&strides)[3]) {
    return {data,
            static_cast<std::int32_t>(dtype),
            3,
            {shape[0], shape[1], shape[2], 0},
            {strides[0], strides[1], strides[2], 0}};
}

using DropoutState = spion_dropout_state;

struct ForwardArguments {
    spion_tensor q, k, v, o;
    float* lse = nullptr;
    const void* tables = nullptr;
    std::size_t table_bytes = 0;
    const std::int32_t* lengths = nullptr;
    void* workspace = nullptr;
    std::size_t workspace_bytes = 0;
    std::uint64_t flags = 0;
    const void* table_head = nullptr;  // on the host: where the tables of Plan::tables begin
    const std::int32_t* query_spans = nullptr;  // of spans(), where the tensors are
    const std::int32_t* key_spans = nullptr;
    const DropoutState* dropout = nullptr;          // where the tensors are, with dropout
    const float* alibi_slopes = nullptr;            // [H] with alibi
    const float* sinks = nullptr;                   // [H] with sinks
    const std::int32_t* cu_seqlens = nullptr;       // [B + 1] where the tensors are, with varlen
    const std::int32_t* host_cu_seqlens = nullptr;  // the same on the host: looked at
    std::int64_t sequences = 0;                     // B, with varlen
    const float* relative_bias = nullptr;           // [H, 2R + 1] with relative_bias
    const std::int32_t* key_cu_seqlens = nullptr;   // [B + 1] with key_starts, of K and V
    const std::int32_t* host_key_cu_seqlens = nullptr;
};

struct BackwardArguments {
    spion_tensor q, k, v, o, d_o, d_q, d_k, d_v;
    const float* lse = nullptr;
    const void* tables = nullptr;
    std::size_t table_bytes = 0;
    const std::int32_t* lengths = nullptr;
    void* workspace = nullptr;
    std::size_t workspace_bytes = 0;
    std::uint64_t flags = 0;
    const void* table_head = nullptr;
    const std::int32_t* query_spans = nullptr;
    const std::int32_t* key_spans = nullptr;
    const DropoutState* dropout = nullptr;
    const float* alibi_slopes = nullptr;
    const float* sinks = nullptr;
    float* d_sinks = nullptr;  // [H] written; null: not wanted
    const std::int32_t* cu_seqlens = nullptr;
    const std::int32_t* host_cu_seqlens = nullptr;
    std::int64_t sequences = 0;
    const float* relative_bias = nullptr;
    float* d_relative_bias = nullptr;  // [H, 2R + 1] written; null: not wanted
    const std::int32_t* key_cu_seqlens = nullptr;
    const std::int32_t* host_key_cu_seqlens = nullptr;
};

// Immutable; copies share it, and so may threads.
class Plan {
  public:
    spion_plan_info info() const {
        spion_plan_info info = SPION_PLAN_INFO_INIT;
        detail::check(spion_plan_query(c(), &info));
        return info;
    }
    std::size_t table_bytes() const { return info().table_bytes; }
    Origin origin() const { return static_cast<Origin>(info().origin); }
    std::string explain() const {
        spion_blob* blob = nullptr;
        detail::check(spion_plan_explain(c(), &blob));
        return detail::take(blob);
    }
    std::vector<std::int32_t> tables(const Pattern& pattern) const {
        std::vector<std::int32_t> tables(table_bytes() / sizeof(std::int32_t));
        detail::check(spion_plan_write_tables(c(), pattern.c(), tables.data(),
                                              tables.size() * sizeof(std::int32_t)));
        return tables;
    }
    Workspace workspace(std::int64_t batch, Pass pass) const {
        Workspace workspace;
        detail::check(spion_plan_workspace(c(), batch, static_cast<std::int32_t>(pass),
                                           &workspace.bytes, &workspace.alignment));
        return workspace;
    }
    void prepare_workspace(std::int64_t batch, Pass pass, void* workspace, std::size_t bytes,
                           void* stream = nullptr) const {
        detail::check(spion_plan_prepare_workspace(c(), batch, static_cast<std::int32_t>(pass),
                                                   workspace, bytes, stream));
    }
    void forward(const ForwardArguments& args, void* stream = nullptr) const {
        const spion_forward_args call = {sizeof(spion_forward_args),
                                         args.q,
                                         args.k,
                                         args.v,
                                         args.o,
                                         args.lse,
                                         args.tables,
                                         args.table_bytes,
                                         args.lengths,
                                         args.workspace,
                                         args.workspace_bytes,
                                         args.flags,
                                         args.table_head,
                                         args.query_spans,
                                         args.key_spans,
                                         args.dropout,
                                         args.alibi_slopes,
                                         args.sinks,
                                         args.cu_seqlens,
                                         args.host_cu_seqlens,
                                         args.sequences,
                                         args.relative_bias,
                                         args.key_cu_seqlens,
                                         args.host_key_cu_seqlens};
        detail::check(spion_forward(c(), &call, stream));
    }
    void backward(const BackwardArguments& args, void* stream = nullptr) const {
        const spion_backward_args call = {sizeof(spion_backward_args),
                                          args.q,
                                          args.k,
                                          args.v,
                                          args.o,
                                          args.d_o,
                                          args.d_q,
                                          args.d_k,
                                          args.d_v,
                                          args.lse,
                                          args.tables,
                                          args.table_bytes,
                                          args.lengths,
                                          args.workspace,
                                          args.workspace_bytes,
                                          args.flags,
                                          args.table_head,
                                          args.query_spans,
                                          args.key_spans,
                                          args.dropout,
                                          args.alibi_slopes,
                                          args.sinks,
                                          args.d_sinks,
                                          args.cu_seqlens,
                                          args.host_cu_seqlens,
                                          args.sequences,
                                          args.relative_bias,
                                          args.d_relative_bias,
                                          args.key_cu_seqlens,
                                          args.host_key_cu_seqlens};
        detail::check(spion_backward(c(), &call, stream));
    }
    // Once a step, behind its last backward call: the next forward call draws other numbers.
    void advance_dropout(DropoutState* state, std::uint32_t by = 1, void* stream = nullptr) const {
        detail::check(spion_plan_advance_dropout(c(), state, by, stream));
    }
    const spion_plan* c() const { return handle_.get(); }

  private:
    friend class Context;
    explicit Plan(spion_plan* handle) : handle_(handle, spion_plan_release) {}
    std::shared_ptr<spion_plan> handle_;
};

struct DiscovererArguments {
    spion_tensor q, k;
    const float* lse = nullptr;  // of dense attention
    const std::int32_t* lengths = nullptr;
    float* sums = nullptr;
    std::size_t sum_bytes = 0;
    const float* alibi_slopes = nullptr;
};

// The pooled map of Q and K, made on the device without L x L scores.
class Discoverer {
  public:
    std::size_t sum_bytes() const {
        std::size_t bytes = 0;
        detail::check(spion_discoverer_sum_bytes(handle_.get(), &bytes));
        return bytes;
    }
    void run(const DiscovererArguments& args, void* stream = nullptr) const {
        const spion_discoverer_args call = {sizeof(spion_discoverer_args),
                                            args.q,
                                            args.k,
                                            args.lse,
                                            args.lengths,
                                            args.sums,
                                            args.sum_bytes,
                                            args.alibi_slopes};
        detail::check(spion_discoverer_run(handle_.get(), &call, stream));
    }
    // sums: a copy on the host.
    Pattern finish(std::span<const float> sums) const {
        spion_pattern* pattern = nullptr;
        detail::check(spion_discoverer_finish(handle_.get(), sums.data(), sums.size_bytes(),
                                              nullptr, &pattern));
        return Pattern::adopt(pattern);
    }
    const spion_discoverer* c() const { return handle_.get(); }

  private:
    friend class Context;
    explicit Discoverer(spion_discoverer* handle) : handle_(handle, spion_discoverer_release) {}
    std::shared_ptr<spion_discoverer> handle_;
};

// ------------------------------------------------------------------ context

struct ContextOptions {
    int threads = 0;                         // of the host; 0: all
    bool frozen = false;                     // what would compile throws Frozen
    bool memory_only = false;                // no cache on disk
    std::optional<std::string> cache = {};   // folder of the cache; nothing: the command's
    std::optional<std::string> bundle = {};  // folder that is looked in first
    spion_log_function log = nullptr;
    void* log_user = nullptr;
};

// A device and its kernels. Copies share it, and so may threads.
class Context {
  public:
    static Context host(const ContextOptions& options = {}) {
        return Context(SPION_HOST, 0, options);
    }
    static Context cuda(int ordinal = 0, const ContextOptions& options = {}) {
        return Context(SPION_CUDA, ordinal, options);
    }
    std::string device() const { return spion_context_device(handle_.get()); }
    std::string target() const { return spion_context_target(handle_.get()); }
    void freeze(bool frozen = true) const {
        detail::check(spion_context_freeze(handle_.get(), frozen ? 1 : 0));
    }
    spion_counters counters() const {
        spion_counters counters = SPION_COUNTERS_INIT;
        detail::check(spion_context_counters(handle_.get(), &counters));
        return counters;
    }
    Plan plan(const Attention& attention, const PlanOptions& options = {}) const {
        const spion_attention operation = attention.c();
        const spion_plan_options wanted = options.c();
        spion_plan* plan = nullptr;
        detail::check(spion_plan_create(handle_.get(), &operation, &wanted, &plan));
        return Plan(plan);
    }
    Discoverer discoverer(const Attention& attention, const Discovery& discovery = {}) const {
        const spion_attention operation = attention.c();
        const spion_discovery settings = discovery.c();
        spion_discoverer* discoverer = nullptr;
        detail::check(spion_discoverer_create(handle_.get(), &operation, &settings, &discoverer));
        return Discoverer(discoverer);
    }
    void warm_up(std::span<const Attention> attentions) const {
        std::vector<spion_attention> operations;
        for (const Attention& attention : attentions) {
            operations.push_back(attention.c());
        }
        detail::check(
            spion_context_warm_up(handle_.get(), operations.data(), nullptr, operations.size()));
    }
    const spion_context* c() const { return handle_.get(); }

  private:
    Context(std::int32_t device, int ordinal, const ContextOptions& options) {
        spion_context_options c = SPION_CONTEXT_OPTIONS_INIT;
        c.device = device;
        c.ordinal = ordinal;
        c.threads = options.threads;
        c.frozen = options.frozen ? 1 : 0;
        c.cache = options.memory_only ? SPION_CACHE_MEMORY
                  : options.cache     ? SPION_CACHE_FOLDER
                                      : SPION_CACHE_DEFAULT;
        c.cache_folder = options.cache ? options.cache->c_str() : nullptr;
        c.bundle = options.bundle ? options.bundle->c_str() : nullptr;
        c.log = options.log;
        c.log_user = options.log_user;
        spion_context* context = nullptr;
        detail::check(spion_context_create(&c, &context));
        handle_.reset(context, spion_context_release);
    }
    std::shared_ptr<spion_context> handle_;
};

// ------------------------------------------------------------------ without a device

inline std::string emit(const Attention& attention, const std::string& target, Kernel kernel,
                        Stage stage, const PlanOptions& options = {}) {
    const spion_attention operation = attention.c();
    const spion_plan_options wanted = options.c();
    spion_blob* blob = nullptr;
    detail::check(spion_emit(&operation, &wanted, target.c_str(), static_cast<std::int32_t>(kernel),
                             static_cast<std::int32_t>(stage), &blob));
    return detail::take(blob);
}

inline std::string explain(const Attention& attention, const std::string& target,
                           const PlanOptions& options = {}) {
    const spion_attention operation = attention.c();
    const spion_plan_options wanted = options.c();
    spion_blob* text = nullptr;
    detail::check(spion_explain(&operation, &wanted, target.c_str(), &text));
    return detail::take(text);
}

inline void write_bundle(std::span<const Attention> attentions,
                         std::span<const std::string> targets, const std::string& path) {
    std::vector<spion_attention> operations;
    for (const Attention& attention : attentions) {
        operations.push_back(attention.c());
    }
    std::vector<const char*> names;
    for (const std::string& target : targets) {
        names.push_back(target.c_str());
    }
    detail::check(spion_bundle_write(operations.data(), nullptr, operations.size(), names.data(),
                                     names.size(), path.c_str()));
}

inline std::string check_bundle(const std::string& path) {
    spion_blob* text = nullptr;
    detail::check(spion_bundle_check(path.c_str(), &text));
    return detail::take(text);
}

}  // namespace abi0
}  // namespace spion

#endif
