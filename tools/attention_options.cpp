#include "tools/attention_options.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "io/pattern_file.h"
#include "ir/error.h"
#include "ir/score_expression.h"
#include "ir/sizes.h"
#include "runtime/output.h"
#include "tools/command_line.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

void require_two(const std::vector<int>& numbers, const char* flag, const char* meaning) {
    if (numbers.size() != 2) {
        throw UserError("{} is {}, but it takes two numbers with a comma between: {}", flag,
                        fmt::join(numbers, ","), meaning);
    }
}

}  // namespace

void add_pattern_options(CLI::App& command, AttentionOptions& options) {
    auto* file = command.add_option("--pattern", options.pattern_file,
                                    "file of nb lines of nb characters 0 or 1, or JSON of `spion "
                                    "discover`, CSV, PNG, a mask of NumPy, SciPy or safetensors");
    auto* density =
        command.add_option("--pattern-random", options.pattern_density,
                           "a random pattern of this density instead, 0 to 1; 1 is dense");
    auto* striped = command.add_option(
        "--pattern-striped", options.pattern_striped,
        "a band of so many blocks around the diagonal and so many random columns instead: 3,2");
    striped->delimiter(',')->expected(2)->take_all();  // as many as are given, for require_two
    file->excludes(density)->excludes(striped);
    density->excludes(striped);
    add_seed_option(command, "--pattern-seed", options.pattern_seed,
                    "seed of the random or striped pattern");
    command
        .add_option("--pattern-heads", options.pattern_heads,
                    "layer: all heads share a pattern; kv: one a head of K and V; query: one a "
                    "head. A file is then JSON of several, random ones have seeds one after the "
                    "other")
        ->capture_default_str();
    command.add_option("--sequence-patterns", options.sequence_patterns,
                       "with --sequences: so many of them, as many as a launch has or more, have "
                       "patterns of their own, one sequence's after the other in file or seeds; "
                       "without it all have the same");
}

void add_operation_options(CLI::App& command, AttentionOptions& options) {
    add_threads_option(command);
    command.add_option("--block", options.block, "edge of a block: 16, 32, 64 or 128")
        ->capture_default_str()
        ->each([&options](const std::string&) { options.block_given = true; });
    command.add_option("--heads", options.heads, "H, at least 1")->capture_default_str();
    command.add_option("--kv-heads", options.kv_heads,
                       "heads of K and V, which divide H; 0: as many as H");
    command.add_option("--head-dim", options.head_dim, "D: a multiple of 8 from 16 to 256")
        ->capture_default_str();
    command.add_option("--value-dim", options.value_dim, "Dv of V and O, likewise; 0: D");
    command.add_option("--batch", options.batch, "B, at least 1")->capture_default_str();
    command.add_option("--length", options.length,
                       "L, at least 1; without it, the pattern's rows times the block");
    command.add_option("--kv-length", options.kv_length,
                       "Lk, positions of K and V; 0: as many as Q. The last query stands beside "
                       "the last key");
    command.add_option("--dtype", options.dtype,
                       "fp32, tf32, bf16 or fp16 (the host has fp32); default bf16 on a GPU");
    command.add_option("--softmax", options.softmax, any_of_names(kSoftmaxNames))
        ->capture_default_str();
    command.add_flag("--causal", options.rules.causal,
                     "a query keeps the keys up to its own position");
    command
        .add_option_function<std::vector<int>>(
            "--window",
            [&rules = options.rules](const std::vector<int>& sides) {
                require_two(sides, "--window",
                            "how far a query sees to its left and right, 1024,0");
                rules.left = sides[0];
                rules.right = sides[1];
            },
            "a query keeps keys so many positions to its left and right: 1024,0")
        ->delimiter(',')
        ->expected(2)
        ->take_all();
    command.add_option("--dropout", options.dropout,
                       "of probabilities, by random numbers of the launch's: 0.1");
    command.add_option("--softcap", options.softcap, "scores s become C tanh(s / C): 50");
    command.add_flag("--alibi", options.alibi,
                     "a slope a head times the distance is taken from scores");
    command.add_flag("--sink", options.sink, "a score a head more in the sum of every row");
    command.add_option("--relative-bias", options.relative_bias,
                       "R of a learnable bias a head and relative position j - i of -R to R, "
                       "further ones as these: 128");
    command.add_option("--score", options.score,
                       "what a score becomes, an expression of score, q, k, head and batch: "
                       "30*tanh(score/30)-0.1*log(1+fabs(q-k))");
    command.add_option("--score-derivative", options.score_derivative,
                       "its derivative by score, checked against differences; without it, derived");
    command.add_option("--pack", options.packed_rows,
                       "block rows a tile, which streams the union of their blocks; 1: none are "
                       "packed; without it what the cost model chooses for the pattern");
}

void add_attention_options(CLI::App& command, AttentionOptions& options) {
    add_operation_options(command, options);
    command.add_option("--device", options.device, "auto, cpu or cuda")->capture_default_str();
    command
        .add_option("--lengths", options.lengths,
                    "valid keys of each sample, B numbers of 0 to L, with commas between them")
        ->delimiter(',');
    command
        .add_option("--documents", options.documents,
                    "lengths of documents that lie end to end in every sample, L together: a query "
                    "keeps the keys of its own")
        ->delimiter(',');
    command
        .add_option("--kv-documents", options.kv_documents,
                    "with --kv-length: lengths of the documents among the keys, Lk together")
        ->delimiter(',');
    command
        .add_option("--prefixes", options.rules.prefixes,
                    "with --causal: so many keys of each sample that every query keeps")
        ->delimiter(',');
    command
        .add_option("--query-lengths", options.rules.query_lengths,
                    "valid queries of each sample: the others keep nothing")
        ->delimiter(',');
    command
        .add_option("--sequences", options.rules.sequence_lengths,
                    "lengths of B sequences of at most L that lie end to end, nothing padded; the "
                    "pattern is cut to each")
        ->delimiter(',');
    command
        .add_option("--kv-sequences", options.rules.key_sequence_lengths,
                    "with --sequences: lengths of at most Lk of B sequences of keys, where they "
                    "are not those of the queries")
        ->delimiter(',');
}

std::unique_ptr<Device> open_device(const AttentionOptions& options) {
    const DeviceChoice choice = parse_device_choice(options.device);
    auto device = open_device(choice);
    if (!options.dtype.empty() && parse_dtype(options.dtype) != DType::kFp32 &&
        device->target().back_end == BackEnd::kHost) {
        throw UserError("--dtype {} needs a GPU and the device is {}; give --dtype fp32 for it",
                        options.dtype, device->name());
    }
    return device;
}

namespace {

// How many patterns --pattern-heads asks for, of a sequence where each has its own.
int head_pattern_count(const AttentionOptions& options) {
    if (options.pattern_heads == "layer") {
        return 1;
    }
    if (options.pattern_heads == "kv") {
        return std::max(1, options.kv_heads == 0 ? options.heads : options.kv_heads);
    }
    if (options.pattern_heads == "query") {
        return std::max(1, options.heads);
    }
    throw UserError("--pattern-heads is '{}': use layer, kv or query", options.pattern_heads);
}

// Pattern `index` of them.
BlockPattern load_pattern(const AttentionOptions& options, int index, bool several) {
    if (options.length && *options.length < 1) {
        throw UserError("L is {}: give at least 1 with --length, or leave it out for a file's",
                        *options.length);
    }
    if (options.kv_length < 0) {
        throw UserError("Lk is {}: give at least 1 with --kv-length, or leave it out for L of them",
                        options.kv_length);
    }
    if (!options.pattern_striped.empty() && options.length) {
        require_two(options.pattern_striped, "--pattern-striped", "a band and random columns, 3,2");
        return striped_pattern(*options.length, options.block, options.pattern_striped[0],
                               options.pattern_striped[1], options.pattern_seed + index,
                               options.kv_length);
    }
    if (options.pattern_file.empty()) {
        if (!options.pattern_density || !options.length) {
            throw UserError(
                "no pattern was given; give --pattern FILE, or --pattern-random DENSITY or "
                "--pattern-striped BAND,STRIPES together with --length L");
        }
        return random_pattern(*options.length, options.block, *options.pattern_density,
                              options.pattern_seed + index, options.kv_length);
    }
    const PatternRequest request{
        .block = options.block_given ? std::optional(options.block) : std::nullopt,
        .length = options.length.value_or(0),
        .key_length = options.kv_length};
    FoundPattern found = open_pattern(
        several ? fmt::format("{}:{}", options.pattern_file, index) : options.pattern_file,
        request);
    if (found.partial_blocks > 0) {
        say("spion: {} sets parts of {} blocks, which are computed whole\n", options.pattern_file,
            found.partial_blocks);
    }
    return std::move(found.pattern);
}

}  // namespace

HeadPatterns load_pattern(const AttentionOptions& options) {
    const int count = head_pattern_count(options) * std::max(1, options.sequence_patterns);
    std::vector<BlockPattern> patterns;
    patterns.reserve(static_cast<std::size_t>(count));
    for (int index = 0; index < count; ++index) {
        patterns.push_back(load_pattern(options, index, count > 1));
    }
    return HeadPatterns(std::move(patterns));
}

namespace {

// Whether there is a rule that a launch says; causal alone is the kernel's.
bool asks_for_spans(const AttentionOptions& options) {
    MaskRules beside_causal = options.rules;
    beside_causal.causal = false;
    return beside_causal != MaskRules{} || !options.documents.empty() ||
           !options.kv_documents.empty();
}

// Ids [length] of documents of these lengths, end to end.
std::vector<int> document_ids(const std::vector<int>& lengths, std::int64_t length,
                              const char* flag) {
    std::vector<int> ids;
    for (std::size_t n = 0; n < lengths.size(); ++n) {
        const int count = lengths[n];
        if (count < 0 || count > length - std::ssize(ids)) {
            break;
        }
        ids.insert(ids.end(), count, static_cast<int>(n));
    }
    if (std::ssize(ids) != length) {
        throw UserError(
            "{} gives lengths {}, which do not make {} together: give whole numbers of "
            "at least 0 that do",
            flag, fmt::join(lengths, ","), length);
    }
    return ids;
}

}  // namespace

MaskRules mask_rules(const AttentionOptions& options, std::int64_t length) {
    MaskRules rules = options.rules;
    const std::int64_t keys = options.kv_length == 0 ? length : options.kv_length;
    const auto for_every_sample = [&](const std::vector<int>& ids, std::vector<int>& all) {
        for (std::int64_t b = 0; b < options.batch; ++b) {
            all.insert(all.end(), ids.begin(), ids.end());
        }
    };
    if (!options.documents.empty()) {
        for_every_sample(document_ids(options.documents, length, "--documents"), rules.documents);
    }
    if (!options.kv_documents.empty()) {
        for_every_sample(document_ids(options.kv_documents, keys, "--kv-documents"),
                         rules.key_documents);
    }
    return rules;
}

Attention describe_attention(const AttentionOptions& options, std::int64_t length,
                             const Target& target) {
    if (!options.rules.key_sequence_lengths.empty() && options.rules.sequence_lengths.empty()) {
        throw UserError(
            "--kv-sequences was given without --sequences: give the lengths of the queries' "
            "sequences too");
    }
    const DType preferred = target.back_end == BackEnd::kCuda ? DType::kBf16 : DType::kFp32;
    Attention attention{
        .heads = options.heads,
        .head_dim = options.head_dim,
        .length = length,
        .dtype = options.dtype.empty() ? preferred : parse_dtype(options.dtype),
        .scale = options.head_dim > 0 ? default_scale(options.head_dim) : 1.0F,
        .softmax = parse_softmax_kind(options.softmax),
        .key_padding = !options.lengths.empty(),
        .dropout = options.dropout,
        .mask = asks_for_spans(options) ? ElementMask::kSpans
                : options.rules.causal  ? ElementMask::kCausal
                                        : ElementMask::kNone,
        .kv_heads = options.kv_heads,
        .kv_length = options.kv_length,
        .value_dim = options.value_dim,
        .patterns = head_pattern_count(options),
        .softcap = options.softcap,
        .alibi = options.alibi,
        .sink = options.sink,
        .relative_bias = options.relative_bias,
        .varlen = !options.rules.sequence_lengths.empty(),
        .key_starts = !options.rules.key_sequence_lengths.empty(),
        .sequence_patterns = options.sequence_patterns,
        .score = canonical_score(options.score),
        .score_derivative = canonical_score(options.score_derivative),
    };
    check(attention);
    check_batch(attention, options.batch);
    return attention;
}

}  // namespace spion
