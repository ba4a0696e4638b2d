// The flags that describe one attention problem, shared by `verify` and `bench`.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ir/attention.h"
#include "ir/element_spans.h"
#include "ir/head_patterns.h"
#include "runtime/device.h"

namespace spion {

struct AttentionOptions {
    std::string pattern_file;               // a name for open_pattern(); or
    std::optional<double> pattern_density;  // of a random pattern
    std::vector<int> pattern_striped;       // band, stripes of a striped one; empty: none
    std::uint64_t pattern_seed = 1;
    std::string pattern_heads = "layer";  // one pattern a layer, "kv" or "query" head
    int sequence_patterns = 0;  // so many sequences have these of their own; 0: all have the same
    int block = 64;
    bool block_given = false;  // by its flag: a pattern file may say another one otherwise
    int heads = 1;
    int kv_heads = 0;  // 0: as many as heads
    int head_dim = 64;
    int value_dim = 0;  // of V and O; 0: head_dim
    std::int64_t batch = 1;
    std::optional<std::int64_t> length;  // nothing: the file's rows * block
    std::int64_t kv_length = 0;          // of K and V; 0: as many positions as Q
    std::string dtype;                   // "": bf16 on a GPU, fp32 on the host
    std::string softmax = "pruned_zero";
    std::string device = "auto";
    std::vector<int> lengths;  // empty: no key padding
    float dropout = 0.0F;
    float softcap = 0.0F;  // 0: none
    bool alibi = false, sink = false;
    int relative_bias = 0;                // 0: none
    std::string score, score_derivative;  // expressions; empty: none, and a derived one
    MaskRules rules;                      // those whose flags say them as they are
    std::vector<int> documents;      // lengths of documents, L together, the same of every sample
    std::vector<int> kv_documents;   // the same of keys, where Lk is not L
    std::optional<int> packed_rows;  // block rows a tile; nothing: what the cost model chooses
};

// Add the flags; `options` must outlive the parse.
void add_pattern_options(CLI::App& command, AttentionOptions& options);
// Block, heads, head dimension, batch, length, dtype and softmax.
void add_operation_options(CLI::App& command, AttentionOptions& options);
// These, and the device and the lengths of samples.
void add_attention_options(CLI::App& command, AttentionOptions& options);

// Opens the device that --device asks for, after a check that its back end can compute in --dtype.
std::unique_ptr<Device> open_device(const AttentionOptions& options);

// The pattern and the operation that the flags describe, the dtype chosen for `target`. Throw
// UserError for values out of range and files that cannot be read. A pattern's file may say its
// length and block itself. One line on stderr says so when a mask sets parts of blocks.
HeadPatterns load_pattern(const AttentionOptions& options);
// The rules of a launch's mask, documents among them, for an attention whose mask is kSpans.
MaskRules mask_rules(const AttentionOptions& options, std::int64_t length);
Attention describe_attention(const AttentionOptions& options, std::int64_t length,
                             const Target& target);

}  // namespace spion
