#include "tests/kernels/emulated_problem.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace spion {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

}  // namespace

EmulatedProblem::EmulatedProblem(const EmulatedCase& c_, int batch_, std::mt19937& random)
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

void EmulatedProblem::poison_padded_keys() {
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

bool EmulatedProblem::keeps(int b, std::int64_t i, std::int64_t j) const {
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
    if (!rules.documents.empty() && rules.documents[static_cast<std::size_t>(b * c.length + i)] !=
                                        key_documents[static_cast<std::size_t>(b * c.keys() + j)]) {
        return false;
    }
    return rules.query_lengths.empty() || i < rules.query_lengths[sample];
}

bool EmulatedProblem::in_pattern(int h, std::int64_t i, std::int64_t j) const {
    const auto pattern = static_cast<std::size_t>(h / (c.heads / c.patterns));
    return blocks[pattern][static_cast<std::size_t>(i / c.block)]
                 [static_cast<std::size_t>(j / c.block)];
}

EmulatedProblem::Changed EmulatedProblem::changed(int b, int h, std::int64_t i, std::int64_t j,
                                                  double product) const {
    const auto head = static_cast<std::size_t>(h);
    const double scale = default_scale(c.head_dim);
    Changed result{scale * product, scale, 1};
    if (c.softcap > 0) {
        const double t = std::tanh(result.score / double{c.softcap});
        result = {double{c.softcap} * t, scale * (1 - t * t), 1};
    }
    if (c.alibi) result.score -= double{slopes[head]} * static_cast<double>(std::abs(i - j));
    if (c.dropout > 0 && dropout.enabled != 0) {
        const SpionRandomBits bits = spion_attention_bits(
            static_cast<unsigned>(i / 16 * 4 + i % 8 / 2),
            static_cast<unsigned>(j / 16 * 4 + j % 8 / 2), static_cast<unsigned>(b * c.heads + h),
            dropout.offset, dropout.seed);
        const unsigned word = bits.word[i % 2 * 2 + j % 2];
        const unsigned byte = word >> (i / 8 % 2 * 16 + j / 8 % 2 * 8) & 255U;
        const double lost = std::round(256.0 * double{c.dropout});
        result.factor = byte < lost ? 0 : 256 / (256 - lost);
    }
    return result;
}

EmulatedReference EmulatedProblem::reference(int b, int h) {
    const std::int64_t L = c.length, keys = c.keys();
    const int key_head = h * k.heads / c.heads;
    const int D = c.head_dim;
    const auto index = [&](std::int64_t l, int d) { return static_cast<std::size_t>(l * D + d); };
    EmulatedReference r;
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

}  // namespace spion
