// What a call of a plan is made of: its arrays, each borrowed and looked at, and its workspace.
#pragma once

#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "python/core/array.h"

namespace spion::python {

struct LentContext {
    Context context;
    bool cuda;
    int ordinal;
};

struct LentPlan {
    Plan plan;
    bool cuda;
    int ordinal;
    std::size_t table_bytes;
    std::int64_t varlen = 0;  // L of sequences that lie end to end; 0: samples have one length
    std::int64_t bias_entries = 0;  // 2R + 1 of a bias by relative position; 0: there is none
};

// Numbers of B, H, L and Lk of a call.
struct CallSizes {
    std::int64_t batch, heads, queries, keys;
};
inline CallSizes sizes_of(const spion_tensor& q, const spion_tensor& k) {
    return {q.shape[0], q.shape[1], q.shape[2], k.shape[2]};
}

// Arrays of one call: each checked for its device when it is read.
class Call {
  public:
    Call(bool cuda, int ordinal, std::optional<std::uintptr_t> stream, nb::handle first)
        : cuda_(cuda),
          ordinal_(ordinal),
          stream_(!cuda    ? nullptr
                  : stream ? reinterpret_cast<void*>(*stream)
                           : current_stream(first, ordinal)) {}

    void* stream() const { return stream_; }
    Array read(nb::handle object, const char* name, Access access) const {
        return Array(object, name, access, stream_);
    }
    const Array& checked(const Array& array) const {
        array.check_device(cuda_, ordinal_);
        return array;
    }

  private:
    bool cuda_;
    int ordinal_;
    void* stream_;
};

// Tables, lengths, LSE and workspace of a call.
struct Beside {
    Beside(const Call& call, nb::handle lse, Access lse_access, nb::handle tables,
           nb::handle lengths, nb::handle spans, nb::handle workspace,
           nb::handle starts = nb::none(), nb::handle host_starts = nb::none()) {
        if (!lse.is_none()) {
            lse_.emplace(lse, "lse", lse_access, call.stream());
            call.checked(*lse_).check_plain(3, dlpack::kFloat, 32);
        }
        if (!tables.is_none()) {
            tables_.emplace(tables, "tables", Access::kRead, call.stream());
            call.checked(*tables_).check_plain(1, dlpack::kInt, 32);
        }
        if (!lengths.is_none()) {
            lengths_.emplace(lengths, "lengths", Access::kRead, call.stream());
            call.checked(*lengths_).check_plain(1, dlpack::kInt, 32);
        }
        if (!spans.is_none()) {
            spans_.emplace(spans, "spans", Access::kRead, call.stream());
            call.checked(*spans_);
        }
        if (!workspace.is_none()) {
            workspace_.emplace(workspace, "workspace", Access::kWrite, call.stream());
            call.checked(*workspace_).check_plain(1, dlpack::kUInt, 8);
        }
        if (!starts.is_none()) {
            starts_.emplace(starts, "cu_seqlens", Access::kRead, call.stream());
            call.checked(*starts_).check_plain(1, dlpack::kInt, 32);
        }
        if (!host_starts.is_none()) {
            host_starts_.emplace(host_starts, "cu_seqlens", Access::kRead, nullptr);
            host_starts_->check_device(false, 0);
            host_starts_->check_plain(1, dlpack::kInt, 32);
            if (sequences() + 1 != host_starts_->seen().shape[0]) {
                refuse("cu_seqlens on the host has ", host_starts_->seen().shape[0],
                       "that where the tensors are has", sequences() + 1);
            }
        }
    }

    // The library reads B + 1 numbers.
    std::int64_t sequences() const { return starts_ ? starts_->seen().shape[0] - 1 : 0; }

    // The library reads [B] numbers, and [B, H, L]: their number is checked here.
    void check_counts(const CallSizes& sizes) const {
        if (lengths_ && lengths_->seen().shape[0] != sizes.batch) {
            refuse("lengths has ", lengths_->seen().shape[0], "batch", sizes.batch);
        }
        if (spans_) {
            check_spans(sizes);
        }
        const std::int64_t rows = sizes.batch * sizes.heads * sizes.queries;
        if (lse_ && static_cast<std::int64_t>(lse_->bytes() / sizeof(float)) != rows) {
            refuse("lse has ", static_cast<std::int64_t>(lse_->bytes() / sizeof(float)),
                   "B * H * L", rows);
        }
    }

    // [2, B, L, 2] or, for Lk keys, a row of 2 * B * (L + Lk) numbers.
    void check_spans(const CallSizes& sizes) const {
        queries_ = 2 * sizes.batch * sizes.queries;
        if (sizes.queries != sizes.keys) {
            spans_->check_plain(1, dlpack::kInt, 32);
            const std::int64_t wanted = queries_ + 2 * sizes.batch * sizes.keys;
            if (spans_->seen().shape[0] != wanted) {
                refuse("spans have ", spans_->seen().shape[0], "2 * B * (L + Lk)", wanted);
            }
            return;
        }
        spans_->check_plain(4, dlpack::kInt, 32);
        const std::int64_t* const shape = spans_->seen().shape;
        if (shape[0] != 2 || shape[1] != sizes.batch || shape[2] != sizes.queries ||
            shape[3] != 2) {
            throw UserError(SPION_INVALID,
                            "spans are not [2, B, L, 2] of q's batch and length: make them by "
                            "spans()");
        }
    }

    float* lse() const { return lse_ ? static_cast<float*>(lse_->data()) : nullptr; }
    const std::int32_t* lengths() const {
        return lengths_ ? static_cast<const std::int32_t*>(lengths_->data()) : nullptr;
    }
    const std::int32_t* query_spans() const {
        return spans_ ? static_cast<const std::int32_t*>(spans_->data()) : nullptr;
    }
    const std::int32_t* key_spans() const { return spans_ ? query_spans() + queries_ : nullptr; }
    const std::int32_t* starts() const { return numbers(starts_); }
    const std::int32_t* host_starts() const { return numbers(host_starts_); }
    const Array& tables() const { return *tables_; }
    const std::optional<Array>& workspace() const { return workspace_; }

  private:
    [[noreturn]] static void refuse(const char* what, std::int64_t given, const char* wanted,
                                    std::int64_t number) {
        throw UserError(SPION_INVALID, (what + std::to_string(given) + " numbers, and " + wanted +
                                        " is " + std::to_string(number))
                                           .c_str());
    }

    static const std::int32_t* numbers(const std::optional<Array>& array) {
        return array ? static_cast<const std::int32_t*>(array->data()) : nullptr;
    }

    std::optional<Array> lse_, tables_, lengths_, spans_, workspace_, starts_, host_starts_;
    mutable std::int64_t queries_ = 0;  // numbers of the spans of queries; by check_counts
};

// The caller's workspace or, on the host, memory for the time of a call; made ready where asked.
class Scratch {
  public:
    Scratch(const Plan& plan, std::int64_t batch, Pass pass, const std::optional<Array>& given,
            bool prepare, void* stream) {
        if (given) {
            data_ = given->data();
            bytes_ = given->bytes();
        } else {
            bytes_ = plan.workspace(batch, pass).bytes;
            own_ = std::make_unique_for_overwrite<std::max_align_t[]>(
                bytes_ / sizeof(std::max_align_t) + 1);
            data_ = own_.get();
        }
        if (prepare || !given) {
            plan.prepare_workspace(batch, pass, data_, bytes_, stream);
        }
    }
    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

  private:
    std::unique_ptr<std::max_align_t[]> own_;
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

// What calls read for dropout, slopes, sinks and a bias by relative position, and where the gradients of
// the latter two go; each may be None. state: 16 bytes of integers, a spion_dropout_state; bias and d_bias:
// [H, 2R + 1] float32; the others [H] float32.
struct ScoreHandles {
    nb::handle state = Py_None, slopes = Py_None, sinks = Py_None, d_sinks = Py_None;
    nb::handle bias = Py_None, d_bias = Py_None;
};

// The same, borrowed.
class ScoreArrays {
  public:
    ScoreArrays(const Call& call, const ScoreHandles& given);
    // The library reads as many numbers of each: of H heads, and 2R + 1 biases of each of them.
    void check_counts(std::int64_t heads, std::int64_t bias_entries) const;

    const DropoutState* dropout() const { return of<const DropoutState>(arrays_[0]); }
    const float* alibi_slopes() const { return of<const float>(arrays_[1]); }
    const float* sinks() const { return of<const float>(arrays_[2]); }
    float* d_sinks() const { return of<float>(arrays_[3]); }
    const float* relative_bias() const { return of<const float>(arrays_[kBias]); }
    float* d_relative_bias() const { return of<float>(arrays_[kBias + 1]); }

  private:
    template <typename T>
    static T* of(const std::optional<Array>& array) {
        return array ? static_cast<T*>(array->data()) : nullptr;
    }
    static constexpr std::size_t kBias = 4;  // from here on of rank 2
    std::optional<Array> arrays_[6];
};

struct RunOptions {
    bool prepare = false;         // the workspace, before the call
    bool known = false;           // the arrays are of a library that knows which GPU they are on
    const void* head = nullptr;   // of the tables, on the host
    std::mutex* alone = nullptr;  // held over the launches, where the workspace is shared
    const ScoreArrays* scores = nullptr;
};

// A pass of the plan that writes to o and lse, or to d_q, d_k and d_v. arrays: q k v o, then d_o d_q
// d_k d_v. Gives Python's lock back meanwhile.
void run_forward(const LentPlan& plan, const Call& call, const Array* const (&arrays)[4],
                 const Beside& beside, const RunOptions& options);
void run_backward(const LentPlan& plan, const Call& call, const Array* const (&arrays)[8],
                  const Beside& beside, const RunOptions& options);

// Plan.forward and Plan.backward of Python.
void forward(const LentPlan& plan, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
             nb::handle lse, nb::handle tables, nb::handle lengths, nb::handle spans,
             nb::handle workspace, nb::handle head, bool prepare,
             std::optional<std::uintptr_t> stream, nb::handle state, nb::handle slopes,
             nb::handle sinks, nb::handle starts, nb::handle host_starts, nb::handle bias);
void backward(const LentPlan& plan, nb::handle d_o, nb::handle q, nb::handle k, nb::handle v,
              nb::handle o, nb::handle lse, nb::handle d_q, nb::handle d_k, nb::handle d_v,
              nb::handle tables, nb::handle lengths, nb::handle spans, nb::handle workspace,
              nb::handle head, bool prepare, std::optional<std::uintptr_t> stream, nb::handle state,
              nb::handle slopes, nb::handle sinks, nb::handle d_sinks, nb::handle starts,
              nb::handle host_starts, nb::handle bias, nb::handle d_bias);

}  // namespace spion::python
