// The pooled map of discovery without the score map (compiler/discovery/score_summary.h): a work
// item recomputes one tile of mean probabilities over batch and heads from Q, K and LSE, and leaves
// its seven weighted sums. Lanes are query rows.
#include "kernels/attention_arguments.h"
#include "kernels/host/heads.h"
#include "kernels/host/mask.h"
#include "kernels/host/score.h"
#include "kernels/host/tile.h"

extern "C" {
extern const int kBlock;   // edge of a pattern block
extern const int kTile;    // rows and columns of a work item, kStationaryRows
extern const int kFilter;  // F
}

namespace {

struct SummaryTile {
    int row, column;    // first ones
    int rows, columns;  // inside L
};

SPION_INLINE SummaryTile summary_tile(long long item) {
    const int per_side = (kLength + kTile - 1) / kTile;
    SummaryTile tile;
    tile.row = static_cast<int>(item / per_side) * kTile;
    tile.column = static_cast<int>(item % per_side) * kTile;
    tile.rows = kLength - tile.row < kTile ? kLength - tile.row : kTile;
    tile.columns = kLength - tile.column < kTile ? kLength - tile.column : kTile;
    return tile;
}

SPION_INLINE const float* row_of(const SpionTensor& tensor, int batch, int head, long long row) {
    return static_cast<const float*>(tensor.data) + batch * tensor.batch_stride +
           head * tensor.head_stride + row * tensor.row_stride;
}

// means[column][lane] += the probabilities of one head of one sample.
SPION_INLINE void add_probabilities(const SpionAttentionArguments& args, const SummaryTile& tile,
                                    int batch, int head, Operand& queries, Scores& scores,
                                    Scores& means) {
    const int keys = key_limit(args, batch);
    const int left = keys - tile.column;
    const int columns = left < tile.columns ? left : tile.columns;
    if (columns <= 0) {
        return;
    }
    const float* lse = args.lse + (static_cast<long long>(batch) * kHeads + head) * kLength;
    RowValues base2;  // LSE; rows that do not exist get one that makes their probabilities zero
    for (int row = 0; row < kStationaryRows; ++row) {
        base2.data[row] =
            row < tile.rows ? probability_shift(lse[tile.row + row]) : __builtin_inff();
    }
    load_transposed(row_of(args.q, batch, head, tile.row), args.q.row_stride, tile.rows, kHeadDim,
                    score_factor(), queries);
    score(row_of(args.k, batch, key_head(head), tile.column), args.k.row_stride, columns, kHeadDim,
          queries, scores.data);
    cap_scores(columns, scores.data, nullptr);
    add_slopes(args, head, tile.row, tile.column, columns, scores.data);
    TileSpans spans;
    load_spans(args, false, batch, tile.row, spans);
    mask_scores(spans, tile.column, columns, scores.data);
    for (int n = 0; n < columns; ++n) {
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            const int at = n * kStationaryRows + lane;
            const Floats p = probability(load(scores.data + at), load(base2.data + lane));
            store(means.data + at, load(means.data + at) + p);
        }
    }
}

// The tile's sum of means weighted for the block at (block_row, block_column), 0 outside the map.
// The weight of an element is the number of shifts f of the filter that carry it into the block:
// max(-h, r - rows + 1, c - columns + 1) <= f <= min(F - 1 - h, r, c), h = F / 2.
SPION_INLINE float weighted_sum(const SummaryTile& tile, const Scores& means, int block_row,
                                int block_column) {
    const int blocks = (kLength + kBlock - 1) / kBlock;
    if (block_row < 0 || block_row >= blocks || block_column < 0 || block_column >= blocks) {
        return 0.0F;
    }
    const int first_row = block_row * kBlock, first_column = block_column * kBlock;
    const int rows = kLength - first_row < kBlock ? kLength - first_row : kBlock;
    const int columns = kLength - first_column < kBlock ? kLength - first_column : kBlock;
    Floats sum = 0.0F;
    for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
        const Ints r = lane_numbers() + (tile.row + lane - first_row);
        const Ints first_shift = larger(r - rows + 1, Ints(-(kFilter / 2)));
        const Ints last_shift = smaller(r, Ints(kFilter - 1 - kFilter / 2));
        for (int n = 0; n < tile.columns; ++n) {
            const int c = tile.column + n - first_column;
            const Ints shifts =
                smaller(last_shift, Ints(c)) - larger(first_shift, Ints(c - columns + 1)) + 1;
            sum += __builtin_convertvector(larger(shifts, Ints(0)), Floats) *
                   load(means.data + n * kStationaryRows + lane);
        }
    }
    float total = 0.0F;
    for (int lane = 0; lane < kLanes; ++lane) {
        total += sum[lane];
    }
    return total;
}

SPION_INLINE void write_scores(const SummaryTile& tile, const Scores& means, float* scores) {
    for (int row = 0; row < tile.rows; ++row) {
        for (int n = 0; n < tile.columns; ++n) {
            scores[static_cast<long long>(tile.row + row) * kLength + tile.column + n] =
                means.data[n * kStationaryRows + row];
        }
    }
}

}  // namespace

extern "C" void score_summary(const SpionAttentionArguments* args, long long begin, long long end) {
    // kNeighbours of compiler/discovery/score_summary.h.
    constexpr int kRowOffsets[] = {0, 1, 0, 1, -1, 0, -1};
    constexpr int kColumnOffsets[] = {0, 0, 1, 1, 0, -1, -1};
    Operand queries;
    Scores scores, means;
    for (long long item = begin; item < end; ++item) {
        const SummaryTile tile = summary_tile(item);
        for (int i = 0; i < kStationaryRows * kTile; i += kLanes) {
            store(means.data + i, Floats(0.0F));
        }
        for (int batch = 0; batch < args->batch; ++batch) {
            for (int head = 0; head < kHeads; ++head) {
                add_probabilities(*args, tile, batch, head, queries, scores, means);
            }
        }
        const float share = 1.0F / (static_cast<float>(args->batch) * static_cast<float>(kHeads));
        for (int i = 0; i < kStationaryRows * kTile; i += kLanes) {
            store(means.data + i, load(means.data + i) * share);
        }
        for (int k = 0; k < 7; ++k) {
            args->summary[item * 7 + k] =
                weighted_sum(tile, means, tile.row / kBlock + kRowOffsets[k],
                             tile.column / kBlock + kColumnOffsets[k]);
        }
        if (args->scores != nullptr) {
            write_scores(tile, means, args->scores);
        }
    }
}
