// What happens to a score, for all host bodies (docs/ir.md). Scores come as q . k times kScale *
// log2(e), so that exponents are base 2.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/score_operations.h"
#include "kernels/host/tile.h"

extern "C" {
extern const float kScale;       // of Q K^T
extern const float kSoftcap;     // scores are capped there; 0: they are not
extern const bool kAlibi;        // whether a slope a head times the distance is taken from them
extern const bool kSink;         // whether every row has a sink
extern const int kRelativeBias;  // R of a bias by relative position; 0: there is none
extern const bool kExpression;   // whether the text has an expression of scores:
// Of 16 natural scores and where they stand, what they become and its derivative by the score.
void express_score(const float* score, const float* query, const float* key, const float* head,
                   const float* batch, float* changed, float* slope);
}

// What one operand of S is multiplied with, so that scores are exponents.
SPION_INLINE float score_factor() {
    return kScale * kLog2E;
}

// Caps scores [rows][lanes] and, unless null, writes d(capped) / d(score) of each.
SPION_INLINE void cap_scores(int rows, float* scores, float* slopes) {
    if (!(kSoftcap > 0.0F)) {
        return;
    }
    const float to_unit = kLn2 / kSoftcap, from_unit = kSoftcap * kLog2E;
    for (int at = 0; at < rows * kStationaryRows; at += kLanes) {
        const Floats capped = tanh_of(load(scores + at) * to_unit);
        store(scores + at, capped * from_unit);
        if (slopes != nullptr) {
            store(slopes + at, 1.0F - capped * capped);
        }
    }
}

// Where the scores [rows][lanes] of an item's step stand: lanes are positions from `lane` on, of which
// those from `lane_limit` on do not count, rows are positions from `row` on.
struct ScorePlace {
    bool rows_are_keys;
    int query_head, batch;
    long long lane, lane_limit, row;
};

// Puts scores [rows][lanes] through the expression and, unless null, writes its derivative at each.
// Scores that do not count become minus infinity: nobody says what the expression is there.
SPION_INLINE void express_scores(const ScorePlace& place, int rows, float* scores, float* slopes) {
    if (!kExpression) {
        return;
    }
    alignas(64) float head[kLanes], batch[kLanes];
    store(head, Floats(static_cast<float>(place.query_head)));
    store(batch, Floats(static_cast<float>(place.batch)));
    for (int n = 0; n < rows; ++n) {
        const Floats row = static_cast<float>(place.row + n);
        for (int first = 0; first < kStationaryRows; first += kLanes) {
            const Ints lanes = static_cast<int>(place.lane + first) + lane_numbers();
            const Ints counts = lanes < static_cast<int>(place.lane_limit);
            const Floats lane = __builtin_convertvector(lanes, Floats);
            float* const at = scores + n * kStationaryRows + first;
            alignas(64) float natural[kLanes], query[kLanes], key[kLanes], changed[kLanes],
                slope[kLanes];
            store(natural, load(at) * kLn2);
            store(query, place.rows_are_keys ? row : lane);
            store(key, place.rows_are_keys ? lane : row);
            express_score(natural, query, key, head, batch, changed, slope);
            store(at, counts ? load(changed) * kLog2E : Floats(-__builtin_inff()));
            if (slopes != nullptr) {
                store(slopes + n * kStationaryRows + first, load(slope));
            }
        }
    }
}

// Takes slope * distance from scores [rows][lanes] of a query head; lanes are positions from `row`
// on, rows from `column` on.
SPION_INLINE void add_slopes(const SpionAttentionArguments& args, int query_head, long long row,
                             long long column, int rows, float* scores) {
    if (!kAlibi) {
        return;
    }
    const float slope = args.alibi_slopes[query_head] * kLog2E;
    for (int n = 0; n < rows; ++n) {
        const int ahead = static_cast<int>(column + n - row);
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            const Ints apart = ahead - lane - lane_numbers();
            float* const at = scores + n * kStationaryRows + lane;
            store(at, load(at) - slope * __builtin_convertvector(larger(apart, -apart), Floats));
        }
    }
}

// Of a head's table of biases, which has the distances from -R to R.
SPION_INLINE int bias_entries() {
    return 2 * kRelativeBias + 1;
}

// Distances beyond R have the bias of R.
SPION_INLINE Ints clipped_distances(Ints distances) {
    return smaller(larger(distances, Ints(-kRelativeBias)), Ints(kRelativeBias));
}

// Adds the biases of a query head to scores [rows][lanes]; lanes and rows are positions as in
// add_slopes, of keys and queries where rows_are_keys, else of queries and keys.
SPION_INLINE void add_bias(const SpionAttentionArguments& args, bool rows_are_keys, int query_head,
                           long long row, long long column, int rows, float* scores) {
    if (kRelativeBias == 0) {
        return;
    }
    const float* const beside =
        args.relative_bias + static_cast<long long>(query_head) * bias_entries() + kRelativeBias;
    for (int n = 0; n < rows; ++n) {
        const int ahead = static_cast<int>(column + n - row);
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            const Ints columns_ahead = ahead - lane - lane_numbers();
            const Ints places = clipped_distances(rows_are_keys ? -columns_ahead : columns_ahead);
            float* const at = scores + n * kStationaryRows + lane;
            Floats biases;
            for (int one = 0; one < kLanes; ++one) {
                biases[one] = beside[places[one]];
            }
            store(at, load(at) + biases * kLog2E);
        }
    }
}

// The exponent of a query head's sink.
SPION_INLINE float sink_exponent(const SpionAttentionArguments& args, int query_head) {
    return kSink ? args.sinks[query_head] * kLog2E : 0.0F;
}

// 2^(score - shift): with shift = LSE log2(e) the probability, in the forward pass the same up to
// 1 / Z with shift = the row max.
SPION_INLINE Floats probability(Floats score, Floats shift) {
    return exp2_of(score - shift);
}

// dS / scale from P, dP, delta and, where scores are capped or an expression's, the slope. An
// expression need not have one where the mask drops its score.
SPION_INLINE Floats score_gradient(Floats probability, Floats gradient, Floats delta,
                                   const float* slope) {
    const Floats of_changed = probability * (gradient - delta);
    if (kExpression) {
        return probability > 0.0F ? of_changed * load(slope) : Floats(0.0F);
    }
    return kSoftcap > 0.0F ? of_changed * load(slope) : of_changed;
}
