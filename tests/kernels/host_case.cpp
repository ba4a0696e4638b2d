#include "tests/kernels/host_case.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "codegen/llvm/emit_llvm.h"
#include "ir/error.h"
#include "runtime/host/llvm_compiler.h"
#include "tests/kernels/host_storage.h"
#include "tests/support/softmax_kinds.h"

namespace spion::testing {
namespace {

void run_kernel(Device& device, const Target& target, const HostCase& host_case, KernelRole role,
                SpionAttentionArguments args) {
    const TileProgram program = make_program(host_case, role);
    args.order = program.order.data();
    args.offsets = program.offsets.data();
    args.gather_blocks = program.gather_blocks.data();
    args.tiles = program.tiles();
    run_source(device, target, emit(program, target),
               std::int64_t{host_case.batch} * program.attention.heads * program.tiles(), args);
}

// The reference for one head of one sample.
struct HeadReference {
    const HostCase& host_case;
    const Tensors<float>& in;
    Reference& out;
    std::int64_t base;  // first row of the head in [B, H, L]
    std::int64_t keys;  // that are not padding
    std::int64_t sample;

    // By the words of ir/attention.h and ir/element_spans.h.
    bool keeps(std::int64_t i, std::int64_t j) const {
        const MaskRules& rules = host_case.rules;
        const auto b = static_cast<std::size_t>(sample);
        if (host_case.attention.mask == ElementMask::kNone) {
            return true;
        }
        if (host_case.attention.mask == ElementMask::kCausal) {
            return i >= j;
        }
        const bool seen = i >= j || (!rules.prefixes.empty() && rules.prefixes[b] > j);
        const auto document = [&](std::int64_t l) {
            return rules.documents[b * static_cast<std::size_t>(host_case.attention.length) +
                                   static_cast<std::size_t>(l)];
        };
        return (!rules.causal || seen) && (!rules.left || i - j <= *rules.left) &&
               (!rules.right || j - i <= *rules.right) &&
               (rules.documents.empty() || document(i) == document(j)) &&
               (rules.query_lengths.empty() || rules.query_lengths[b] > i);
    }

    double dot(const std::vector<float>& a, std::int64_t i, const std::vector<float>& b,
               std::int64_t j) const {
        const std::int64_t width = host_case.attention.head_dim;
        double sum = 0;
        for (std::int64_t d = 0; d < width; ++d) {
            sum += double{a[static_cast<std::size_t>((base + i) * width + d)]} *
                   double{b[static_cast<std::size_t>((base + j) * width + d)]};
        }
        return sum;
    }

    void add(std::vector<double>& to, std::int64_t i, double factor, const std::vector<float>& from,
             std::int64_t j) const {
        const std::int64_t width = host_case.attention.head_dim;
        for (std::int64_t d = 0; d < width; ++d) {
            to[static_cast<std::size_t>((base + i) * width + d)] +=
                factor * double{from[static_cast<std::size_t>((base + j) * width + d)]};
        }
    }

    void row(std::int64_t i) const {
        const Attention& attention = host_case.attention;
        const std::int64_t length = attention.length;
        const int block = host_case.pattern.block();
        std::vector<std::int64_t> allowed;
        std::int64_t listed = 0, kept = 0;
        for (std::int64_t j = 0; j < length; ++j) {
            if (!keeps(i, j)) {
                continue;
            }
            ++kept;
            if (host_case.pattern.at(static_cast<int>(i / block), static_cast<int>(j / block))) {
                ++listed;
                if (j < keys) {
                    allowed.push_back(j);
                }
            }
        }
        const std::int64_t pruned = test::pruned_elements(attention.softmax, kept, listed);
        double row_max = pruned > 0 ? 0 : -std::numeric_limits<double>::infinity();
        std::vector<double> p;
        for (std::int64_t j : allowed) {
            p.push_back(double{attention.scale} * dot(in.q, i, in.k, j));
            row_max = std::max(row_max, p.back());
        }
        double total = pruned > 0 ? static_cast<double>(pruned) * std::exp(-row_max) : 0;
        for (double& value : p) {
            value = std::exp(value - row_max);
            total += value;
        }
        out.lse[static_cast<std::size_t>(base + i)] =
            total > 0 ? row_max + std::log(total) : -std::numeric_limits<double>::infinity();
        double delta = 0;
        std::vector<double> d_p;
        for (std::size_t n = 0; n < allowed.size(); ++n) {
            p[n] /= total;
            add(out.o, i, p[n], in.v, allowed[n]);
            d_p.push_back(dot(in.d_o, i, in.v, allowed[n]));
            delta += p[n] * d_p.back();
        }
        out.delta[static_cast<std::size_t>(base + i)] = delta;
        for (std::size_t n = 0; n < allowed.size(); ++n) {
            const double d_s = double{attention.scale} * p[n] * (d_p[n] - delta);
            add(out.d_q, i, d_s, in.k, allowed[n]);
            add(out.d_k, allowed[n], d_s, in.q, i);
            add(out.d_v, allowed[n], p[n], in.d_o, i);
            const double term =
                double{attention.scale} * p[n] * (std::abs(d_p[n]) + std::abs(delta));
            out.d_q_terms += term * term * dot(in.k, allowed[n], in.k, allowed[n]);
            out.d_k_terms += term * term * dot(in.q, i, in.q, i);
        }
    }
};

}  // namespace

std::string HostCase::describe() const {
    std::string text = fmt::format(
        "B={} {} block={} density={:.3f} tile={}x{}/{} layout={} spread={} seed={} lengths=", batch,
        to_text(attention), pattern.block(), pattern.density(), shape.stationary_rows,
        shape.streamed_rows, shape.gather_rows, static_cast<int>(layout), spread, seed);
    return text + fmt::format("{}", fmt::join(lengths, ","));
}

Tensors<float> random_inputs(const HostCase& host_case) {
    std::mt19937 random(host_case.seed);
    std::normal_distribution<float> normal;
    const auto count = static_cast<std::size_t>(Sizes(host_case).elements());
    const auto draw = [&](float spread) {
        std::vector<float> values(count);
        for (float& value : values) {
            value = spread * normal(random);
        }
        return values;
    };
    Tensors<float> tensors;
    tensors.q = draw(host_case.spread);
    tensors.k = draw(host_case.spread);
    tensors.v = draw(1.0F);
    tensors.d_o = draw(1.0F);
    // Of some heads, the last queries have no gradient, as padded ones in training: kernels pass over
    // whole tiles of them.
    const auto of_head = static_cast<std::size_t>(host_case.attention.length) *
                         static_cast<std::size_t>(host_case.attention.value_head_dim());
    for (std::size_t first = 0; first < count; first += of_head) {
        if (random() % 2 == 0) continue;
        const auto end = tensors.d_o.begin() + static_cast<std::ptrdiff_t>(first + of_head);
        std::fill(end - static_cast<std::ptrdiff_t>(random() % of_head), end, 0.0F);
    }
    return tensors;
}

CompileRequest request_for(const KernelSource& source, const Target& target) {
    return {.entry = source.entry,
            .text = source.text,
            .includes = source.includes,
            .arch = target.arch,
            .features = target.features,
            .options = {},
            .compiler = "llvm " + llvm_version()};
}

void run_source(Device& device, const Target& target, const KernelSource& source,
                std::int64_t work_items, const SpionAttentionArguments& args) {
    // Compilation is most of a test's time, and the same text and CPU give the same object.
    static std::map<std::string, KernelBinary> compiled;
    KernelBinary& binary = compiled[target.features + source.text];
    if (binary.code.empty()) {
        binary = device.compile(request_for(source, target));
    }
    const std::unique_ptr<LoadedKernel> kernel = device.load(source.entry, binary);
    device.launch(*kernel, {.work_items = work_items}, args);
}

void run_kernels(Device& device, const Target& target, const HostCase& host_case,
                 Tensors<float>& tensors) {
    Storage inputs(host_case, 3), gradients(host_case, 3);
    Storage output(host_case, 1), output_gradient(host_case, 1);
    inputs.set(0, tensors.q);
    inputs.set(1, tensors.k);
    inputs.set(2, tensors.v);
    output_gradient.set(0, tensors.d_o);
    const auto rows = static_cast<std::size_t>(Sizes(host_case).rows());
    tensors.lse.assign(rows, kNaN);
    tensors.delta.assign(rows, kNaN);
    SpionAttentionArguments args{};
    args.q = inputs.view(0);
    args.k = inputs.view(1);
    args.v = inputs.view(2);
    args.o = output.view(0);
    args.d_o = output_gradient.view(0);
    args.d_q = gradients.view(0);
    args.d_k = gradients.view(1);
    args.d_v = gradients.view(2);
    args.lse = tensors.lse.data();
    args.delta = tensors.delta.data();
    args.lengths = host_case.lengths.empty() ? nullptr : host_case.lengths.data();
    args.batch = host_case.batch;
    const ElementSpans spans =
        element_spans(host_case.rules, host_case.batch, host_case.attention.length);
    if (host_case.attention.mask == ElementMask::kSpans) {
        args.query_spans = spans.queries.data();
        args.key_spans = spans.keys.data();
    }
    for (KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        run_kernel(device, target, host_case, role, args);
    }
    tensors.o = output.get(0);
    tensors.d_q = gradients.get(0);
    tensors.d_k = gradients.get(1);
    tensors.d_v = gradients.get(2);
    if (!output.gaps_untouched() || !gradients.gaps_untouched()) {
        throw std::runtime_error("a kernel wrote between the rows of an output");
    }
}

Reference reference(const HostCase& host_case, const Tensors<float>& inputs) {
    const Sizes sizes(host_case);
    Reference out;
    for (auto* tensor : {&out.o, &out.d_q, &out.d_k, &out.d_v}) {
        tensor->assign(static_cast<std::size_t>(sizes.elements()), 0.0);
    }
    out.lse.assign(static_cast<std::size_t>(sizes.rows()), 0.0);
    out.delta = out.lse;
    for (std::int64_t b = 0; b < sizes.batch; ++b) {
        for (std::int64_t h = 0; h < sizes.heads; ++h) {
            const HeadReference head{.host_case = host_case,
                                     .in = inputs,
                                     .out = out,
                                     .base = sizes.row(b, h, 0),
                                     .keys = host_case.lengths.empty()
                                                 ? sizes.length
                                                 : host_case.lengths[static_cast<std::size_t>(b)],
                                     .sample = b};
            for (std::int64_t i = 0; i < sizes.length; ++i) {
                head.row(i);
            }
        }
    }
    out.d_q_terms = std::sqrt(out.d_q_terms);
    out.d_k_terms = std::sqrt(out.d_k_terms);
    return out;
}

double relative_error(const std::vector<float>& got, const std::vector<double>& want,
                      double terms) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        if (std::isinf(want[i])) {
            if (double{got[i]} != want[i]) {
                return std::numeric_limits<double>::infinity();
            }
            continue;
        }
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    const double scale = std::max(std::sqrt(norm), terms / 2);
    return scale == 0 ? std::sqrt(difference) : std::sqrt(difference) / scale;
}

TileProgram make_program(const HostCase& host_case, KernelRole role) {
    const TileShape& shape = host_case.shape;
    const BlockPattern visited = visited_blocks(host_case.pattern, host_case.attention);
    const BlockPattern pattern =
        role == KernelRole::kKeyValueGradient ? visited.transpose() : visited;
    const std::int64_t length = host_case.attention.length;
    TileProgram program{.role = role,
                        .attention = host_case.attention,
                        .block = pattern.block(),
                        .stationary_rows = shape.stationary_rows,
                        .streamed_rows = shape.streamed_rows,
                        .gather_rows = shape.gather_rows,
                        .warps = 1,
                        .stages = 1,
                        .unit = MatrixUnit::kVector,
                        .order = {},
                        .offsets = {0},
                        .gather_blocks = {}};
    program.order.resize(
        static_cast<std::size_t>((length + shape.stationary_rows - 1) / shape.stationary_rows));
    std::iota(program.order.begin(), program.order.end(), 0);
    std::mt19937 random(host_case.seed + 1);
    std::shuffle(program.order.begin(), program.order.end(), random);
    for (std::int32_t tile : program.order) {
        const int row =
            static_cast<int>(std::int64_t{tile} * shape.stationary_rows / pattern.block());
        for (std::int32_t column : pattern.row(row)) {
            for (std::int64_t first = std::int64_t{column} * pattern.block();
                 first <
                 std::min<std::int64_t>((column + 1) * std::int64_t{pattern.block()}, length);
                 first += shape.gather_rows) {
                program.gather_blocks.push_back(
                    static_cast<std::int32_t>(first / shape.gather_rows));
            }
        }
        program.offsets.push_back(static_cast<std::int32_t>(program.gather_blocks.size()));
    }
    verify(program, host_case.pattern);
    return program;
}

std::vector<std::uint8_t> random_bits(std::mt19937& random, int blocks, double density) {
    std::bernoulli_distribution chosen(density);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks) * blocks);
    for (std::uint8_t& bit : bits) {
        bit = chosen(random) ? 1 : 0;
    }
    return bits;
}

}  // namespace spion::testing
