// The CUDA attention kernels, run on the host, against the definition of the operation in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "codegen/emit.h"
#include "kernels/random.h"
#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/kernels/emulated_kernels.h"
#include "tests/kernels/emulated_tensor.h"
#include "tests/support/random_mask.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// One (b, h): everything as [L] or [L * D] in double.
struct Reference {
    std::vector<double> o, lse, dq, dk, dv, delta;
    // Squares of the terms P dP of dQ and dK, from which P delta is subtracted: all of it where a row
    // has one key, which leaves the rounding errors of both.
    double dq_terms = 0, dk_terms = 0;
};

struct Problem {
    EmulatedCase c;
    int batch;
    std::vector<EmulatedBlocks> blocks;  // of each pattern
    std::vector<int> lengths;            // [B]
    MaskRules rules;                     // of a mask of spans
    ElementSpans spans;
    SpionDropoutState dropout;
    std::vector<float> slopes, sinks;  // [H]
    Tensor q, k, v, d_o, o, d_q, d_k, d_v;
    std::vector<float> lse, delta;  // [B, H, L]

    Problem(const EmulatedCase& c_, int batch_, std::mt19937& random)
        : c(c_),
          batch(batch_),
          q(c, batch, true),
          k(c, batch, true, true),
          v(c, batch, false, true),
          d_o(c, batch, false),
          o(c, batch, false),
          d_q(c, batch, false),
          d_k(c, batch, true, true),
          d_v(c, batch, true, true) {
        const auto rows_of_blocks = static_cast<std::size_t>((c.length + c.block - 1) / c.block);
        const auto columns = static_cast<std::size_t>((c.keys() + c.block - 1) / c.block);
        std::bernoulli_distribution present(0.5);
        blocks.assign(static_cast<std::size_t>(c.patterns),
                      EmulatedBlocks(rows_of_blocks, std::vector<bool>(columns)));
        for (EmulatedBlocks& pattern : blocks) {
            for (std::size_t i = 0; i < rows_of_blocks; ++i) {
                // The second row of blocks stays empty, the last is full.
                for (std::size_t j = 0; j < columns; ++j) {
                    pattern[i][j] = i + 1 == rows_of_blocks || (i != 1 && present(random));
                }
            }
        }
        std::uniform_int_distribution<int> length(1, static_cast<int>(c.keys()));
        for (int b = 0; b < batch; ++b) {
            lengths.push_back(!c.key_padding || b == 0 ? static_cast<int>(c.keys())
                              : b == 1                 ? 0
                                                       : length(random));
        }
        if (c.mask == ElementMask::kSpans) {
            rules = test::random_rules([&](int n) { return static_cast<int>(random() % n); }, batch,
                                       c.length, c.keys());
            spans = element_spans(rules, batch, c.length, c.keys());
        }
        dropout = {.seed = random() * 0x100000001ULL,
                   .offset = static_cast<unsigned>(random()),
                   .enabled = random() % 4 != 0};
        std::normal_distribution<float> normal;
        for (int h = 0; h < c.heads; ++h) {
            slopes.push_back(0.05F * normal(random));
            sinks.push_back(2.0F * normal(random));
        }
        q.fill(random, 2.0F);
        k.fill(random, 1.0F);
        v.fill(random, 1.0F);
        d_o.fill(random, 1.0F);
        poison_padded_keys();
        const auto rows = static_cast<std::size_t>(batch * c.heads * c.length);
        lse.assign(rows, std::nanf(""));
        delta.assign(rows, std::nanf(""));
    }

    // What lies beyond a sample's length must not matter, even if it is not a number.
    void poison_padded_keys() {
        for (int b = 0; b < batch; ++b) {
            for (int h = 0; h < k.heads; ++h) {
                for (std::int64_t l = lengths[static_cast<std::size_t>(b)]; l < c.keys(); ++l) {
                    for (int d = 0; d < c.head_dim; ++d) {
                        k.set(b, h, l, d, std::nanf(""));
                        v.set(b, h, l, d, std::nanf(""));
                    }
                }
            }
        }
    }
    // By the words of ir/attention.h and ir/element_spans.h.
    bool keeps(int b, std::int64_t i, std::int64_t j) const {
        const auto sample = static_cast<std::size_t>(b);
        if (c.mask == ElementMask::kNone) return true;
        const std::int64_t beside = i + c.keys() - c.length;
        if (c.mask == ElementMask::kCausal) return j <= beside;
        const bool prefix = !rules.prefixes.empty() && j < rules.prefixes[sample];
        if (rules.causal && j > beside && !prefix) return false;
        if (rules.left && j < beside - *rules.left) return false;
        if (rules.right && j > beside + *rules.right) return false;
        const std::vector<int>& key_documents =
            rules.key_documents.empty() ? rules.documents : rules.key_documents;
        if (!rules.documents.empty() &&
            rules.documents[static_cast<std::size_t>(b * c.length + i)] !=
                key_documents[static_cast<std::size_t>(b * c.keys() + j)]) {
            return false;
        }
        return rules.query_lengths.empty() || i < rules.query_lengths[sample];
    }
    bool in_pattern(int h, std::int64_t i, std::int64_t j) const {
        const auto pattern = static_cast<std::size_t>(h / (c.heads / c.patterns));
        return blocks[pattern][static_cast<std::size_t>(i / c.block)]
                     [static_cast<std::size_t>(j / c.block)];
    }

    // The score of an element, and its derivative by the product of its vectors; what it counts.
    struct Changed {
        double score, slope, factor;
    };
    Changed changed(int b, int h, std::int64_t i, std::int64_t j, double product) const {
        const auto head = static_cast<std::size_t>(h);
        const double scale = default_scale(c.head_dim);
        Changed result{scale * product, scale, 1};
        if (c.softcap > 0) {
            const double t = std::tanh(result.score / double{c.softcap});
            result = {double{c.softcap} * t, scale * (1 - t * t), 1};
        }
        if (c.alibi) {
            const std::int64_t apart = std::abs(i + c.keys() - c.length - j);
            result.score -= double{slopes[head]} * static_cast<double>(apart);
        }
        if (c.dropout > 0 && dropout.enabled != 0) {
            const SpionRandomBits bits = spion_attention_bits(
                static_cast<unsigned>(i / 16 * 4 + i % 8 / 2),
                static_cast<unsigned>(j / 16 * 4 + j % 8 / 2),
                static_cast<unsigned>(b * c.heads + h), dropout.offset, dropout.seed);
            const unsigned word = bits.word[i % 2 * 2 + j % 2];
            const unsigned byte = word >> (i / 8 % 2 * 16 + j / 8 % 2 * 8) & 255U;
            const double lost = std::round(256.0 * double{c.dropout});
            result.factor = byte < lost ? 0 : 256 / (256 - lost);
        }
        return result;
    }

    Reference reference(int b, int h) {
        const std::int64_t L = c.length, keys = c.keys();
        const int key_head = h * k.heads / c.heads;
        const int D = c.head_dim;
        const auto index = [&](std::int64_t l, int d) {
            return static_cast<std::size_t>(l * D + d);
        };
        Reference r;
        r.o = r.dq = std::vector<double>(static_cast<std::size_t>(L * D), 0.0);
        r.dk = r.dv = std::vector<double>(static_cast<std::size_t>(keys * D), 0.0);
        r.lse = r.delta = std::vector<double>(static_cast<std::size_t>(L), 0.0);
        for (std::int64_t i = 0; i < L; ++i) {
            std::vector<double> s(static_cast<std::size_t>(keys), -kInf), p(s.size(), 0.0), dp(p);
            std::vector<double> slope(p), factor(p);
            std::int64_t inside = 0, kept = 0;
            double top = -kInf;
            for (std::int64_t j = 0; j < keys; ++j) {
                if (!keeps(b, i, j)) continue;
                ++kept;
                if (!in_pattern(h, i, j)) continue;
                ++inside;
                if (j >= lengths[static_cast<std::size_t>(b)]) continue;
                double dot = 0;
                for (int d = 0; d < D; ++d) dot += q.get(b, h, i, d) * k.get(b, key_head, j, d);
                const Changed element = changed(b, h, i, j, dot);
                s[static_cast<std::size_t>(j)] = element.score;
                slope[static_cast<std::size_t>(j)] = element.slope;
                factor[static_cast<std::size_t>(j)] = element.factor;
                top = std::max(top, element.score);
            }
            const bool zeros = c.softmax == SoftmaxKind::kPrunedZero && inside < kept;
            if (zeros) top = std::max(top, 0.0);
            const double sink = double{sinks[static_cast<std::size_t>(h)]};
            if (c.sink) top = std::max(top, sink);
            double z = zeros ? static_cast<double>(kept - inside) * std::exp(-top) : 0.0;
            z += c.sink ? std::exp(sink - top) : 0.0;
            for (double x : s) z += x == -kInf ? 0.0 : std::exp(x - top);
            const auto row = static_cast<std::size_t>(i);
            r.lse[row] = z == 0.0 ? -kInf : top + std::log(z);
            double delta_i = 0;
            for (std::size_t j = 0; j < s.size(); ++j) {
                if (s[j] == -kInf) continue;
                p[j] = std::exp(s[j] - r.lse[row]);
                for (int d = 0; d < D; ++d) {
                    const double value = v.get(b, key_head, static_cast<std::int64_t>(j), d);
                    r.o[index(i, d)] += factor[j] * p[j] * value;
                    dp[j] += factor[j] * d_o.get(b, h, i, d) * value;
                    r.dv[index(static_cast<std::int64_t>(j), d)] +=
                        factor[j] * p[j] * d_o.get(b, h, i, d);
                }
                delta_i += p[j] * dp[j];
            }
            r.delta[row] = delta_i;
            for (std::size_t j = 0; j < s.size(); ++j) {
                if (s[j] == -kInf) continue;
                const double ds = slope[j] * p[j] * (dp[j] - delta_i);
                const double term = slope[j] * p[j] * dp[j];
                for (int d = 0; d < D; ++d) {
                    const auto key = static_cast<std::int64_t>(j);
                    const double key_value = k.get(b, key_head, key, d), query = q.get(b, h, i, d);
                    r.dq[index(i, d)] += ds * key_value;
                    r.dk[index(key, d)] += ds * query;
                    r.dq_terms += term * key_value * term * key_value;
                    r.dk_terms += term * query * term * query;
                }
            }
        }
        return r;
    }
};

class EmulatedAttention : public testing::TestWithParam<EmulatedCase> {
  protected:
    void run(KernelRole role, Problem& problem, unsigned seed, bool baked = false) {
        const TileProgram program = with_walk(GetParam(), role, problem.blocks);
        SpionAttentionArguments args{};
        args.q = problem.q.view();
        args.k = problem.k.view();
        args.v = problem.v.view();
        args.o = problem.o.view();
        args.d_o = problem.d_o.view();
        args.d_q = problem.d_q.view();
        args.d_k = problem.d_k.view();
        args.d_v = problem.d_v.view();
        args.lse = problem.lse.data();
        args.delta = problem.delta.data();
        args.lengths = problem.c.key_padding ? problem.lengths.data() : nullptr;
        if (!baked) {
            args.order = program.order.data();
            args.offsets = program.offsets.data();
            args.gather_blocks = program.gather_blocks.data();
            args.block_row_masks = program.block_row_masks.data();
            args.tiles = program.tiles() / item_walks(program.attention, role);
        }
        args.batch = problem.batch;
        args.dropout = &problem.dropout;
        args.alibi_slopes = problem.slopes.data();
        args.sinks = problem.sinks.data();
        args.query_spans = problem.spans.queries.data();
        args.key_spans = problem.spans.keys.data();
        emulation::forget_reads();
        for (Tensor* t : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
            emulation::allow_reads(t->bytes.data(), t->bytes.size());
        }
        for (std::vector<float>* t : {&problem.lse, &problem.delta}) {
            emulation::allow_reads(t->data(), t->size() * 4);
        }
        const EmittedGeometry geometry = spion::geometry(program, emulated_target());
        const std::string name = std::string(GetParam().name) + (baked ? "_baked" : "");
        const EmulatedKernel kernel = find_emulated(name, to_string(role));
        const std::int64_t blocks = std::int64_t{problem.batch} *
                                    pattern_heads(program.attention, role) * program.tiles() /
                                    item_walks(program.attention, role);
        emulation::launch(blocks, geometry.threads, geometry.shared_bytes, seed,
                          [&] { kernel(args); });
    }
};

// ||x - reference|| / ||reference||, or over `least` where that is more; infinity if anything is not
// a number or infinities differ.
double relative_error(const std::vector<double>& x, const std::vector<double>& reference,
                      double least = 1e-30) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::isinf(reference[i]) && x[i] == reference[i]) continue;
        if (!std::isfinite(x[i]) || std::isinf(reference[i])) return kInf;
        difference += (x[i] - reference[i]) * (x[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return std::sqrt(difference) / std::max(std::sqrt(norm), least);
}

double tolerance(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
            return 1e-5;
        case DType::kTf32:
            return 2e-3;
        case DType::kBf16:
        case DType::kFp16:
            return 1e-2;
    }
    return 0;
}

std::vector<double> gather(Tensor& tensor, int b, int h) {
    std::vector<double> values;
    for (std::int64_t l = 0; l < tensor.length; ++l) {
        for (int d = 0; d < tensor.c.head_dim; ++d) values.push_back(tensor.get(b, h, l, d));
    }
    return values;
}

std::vector<double> gather(const std::vector<float>& rows, std::int64_t length, int pair) {
    const auto begin = rows.begin() + pair * length;
    return {begin, begin + length};
}

TEST_P(EmulatedAttention, ForwardAndGradientsFollowTheDefinition) {
    const EmulatedCase& c = GetParam();
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem problem(c, c.key_padding ? 3 : 1, random);
    run(KernelRole::kForward, problem, static_cast<unsigned>(seed));
    run(KernelRole::kQueryGradient, problem, static_cast<unsigned>(seed) + 1);
    run(KernelRole::kKeyValueGradient, problem, static_cast<unsigned>(seed) + 2);
    std::vector<double> got[6], want[6];
    double least[6] = {1e-30, 1e-30, 1e-30, 1e-30, 1e-30, 1e-30};
    const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
        to.insert(to.end(), from.begin(), from.end());
    };
    const int group = c.heads / problem.k.heads;
    for (int b = 0; b < problem.batch; ++b) {
        Reference sums;  // dK and dV of a group's heads so far
        for (int h = 0; h < c.heads; ++h) {
            const Reference r = problem.reference(b, h);
            const int pair = b * c.heads + h;
            append(got[0], gather(problem.o, b, h));
            append(got[1], gather(problem.lse, c.length, pair));
            append(got[2], gather(problem.d_q, b, h));
            append(got[5], gather(problem.delta, c.length, pair));
            append(want[0], r.o);
            append(want[1], r.lse);
            append(want[2], r.dq);
            append(want[5], r.delta);
            least[2] = std::hypot(least[2], std::sqrt(r.dq_terms));
            least[3] = std::hypot(least[3], std::sqrt(r.dk_terms));
            for (auto [sum, one] : {std::pair(&sums.dk, &r.dk), std::pair(&sums.dv, &r.dv)}) {
                if (h % group == 0) sum->assign(one->size(), 0.0);
                for (std::size_t n = 0; n < one->size(); ++n) (*sum)[n] += (*one)[n];
            }
            if (h % group + 1 < group) continue;
            append(got[3], gather(problem.d_k, b, h / group));
            append(got[4], gather(problem.d_v, b, h / group));
            append(want[3], sums.dk);
            append(want[4], sums.dv);
        }
    }
    const char* names[] = {"o", "lse", "dq", "dk", "dv", "delta"};
    for (int i = 0; i < 6; ++i) {
        EXPECT_LT(relative_error(got[i], want[i], least[i]), tolerance(c.dtype)) << names[i];
    }
}

using EmulatedBaked = EmulatedAttention;

TEST_P(EmulatedBaked, GivesTheBitsOfPassedTables) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem passed(GetParam(), GetParam().key_padding ? 3 : 1, random);
    passed.blocks = {baked_blocks(GetParam())};
    Problem baked = passed;
    for (int role = 0; role < 3; ++role) {
        run(static_cast<KernelRole>(role), passed, static_cast<unsigned>(seed), false);
        run(static_cast<KernelRole>(role), baked, static_cast<unsigned>(seed) + 1, true);
    }
    const Tensor Problem::*tensors[] = {&Problem::o, &Problem::d_q, &Problem::d_k, &Problem::d_v};
    const Tensor untouched(GetParam(), passed.batch, false);
    EXPECT_NE(baked.o.bytes, untouched.bytes);
    for (const Tensor Problem::*tensor : tensors) {
        EXPECT_TRUE((passed.*tensor).bytes == (baked.*tensor).bytes);
    }
    const auto same_bits = [](const std::vector<float>& a, const std::vector<float>& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    EXPECT_TRUE(same_bits(passed.lse, baked.lse));
    EXPECT_TRUE(same_bits(passed.delta, baked.delta));
}

std::vector<EmulatedCase> cases_that_are_baked() {
    std::vector<EmulatedCase> cases = emulated_cases();
    std::erase_if(cases, [](const EmulatedCase& c) {
        return std::find(std::begin(kBakedCases), std::end(kBakedCases), std::string(c.name)) ==
               std::end(kBakedCases);
    });
    return cases;
}

std::string case_name(const testing::TestParamInfo<EmulatedCase>& info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Cases, EmulatedAttention, testing::ValuesIn(emulated_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Cases, EmulatedBaked, testing::ValuesIn(cases_that_are_baked()),
                         case_name);

}  // namespace
}  // namespace spion
