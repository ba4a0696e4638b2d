#include "compiler/launch/kernel_launch.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>

#include "compiler/launch/dq_schedule.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kGroupRows = 64;  // of a box of stationary rows of wgmma
// Tensors of the heads whose items are handed out side by side take about what an L2 holds.
constexpr std::int64_t kLptBytes = 64 << 20;

struct NamedTensor {
    const char* name;
    SpionTensor SpionAttentionArguments::*tensor;
    bool stationary;
    bool of_keys = false;    // with as many heads as K and V
    bool of_values = false;  // with the dimension of V
};

constexpr NamedTensor kForwardTensors[] = {{"q", &SpionAttentionArguments::q, true},
                                           {"k", &SpionAttentionArguments::k, false, true},
                                           {"v", &SpionAttentionArguments::v, false, true, true}};
constexpr NamedTensor kQueryGradientTensors[] = {
    {"q", &SpionAttentionArguments::q, true},
    {"d_o", &SpionAttentionArguments::d_o, true, false, true},
    {"o", &SpionAttentionArguments::o, true, false, true},
    {"k", &SpionAttentionArguments::k, false, true},
    {"v", &SpionAttentionArguments::v, false, true, true}};
constexpr NamedTensor kKeyValueGradientTensors[] = {
    {"k", &SpionAttentionArguments::k, true, true},
    {"v", &SpionAttentionArguments::v, true, true, true},
    {"q", &SpionAttentionArguments::q, false},
    {"d_o", &SpionAttentionArguments::d_o, false, false, true}};

// The tensors of a role, in the order of SpionSm90Arguments::maps.
std::span<const NamedTensor> tensors_of(KernelRole role) {
    switch (role) {
        case KernelRole::kForward:
            return kForwardTensors;
        case KernelRole::kQueryGradient:
            return kQueryGradientTensors;
        case KernelRole::kKeyValueGradient:
        case KernelRole::kGradients:
            return kKeyValueGradientTensors;
        case KernelRole::kDelta:
            break;
    }
    throw InternalError("{} has no tensors for the copy engine", to_string(role));
}

std::int64_t listed(const TileProgram& program, int item) {
    const auto at = static_cast<std::size_t>(item);
    return program.offsets[at + 1] - program.offsets[at];
}

// How a tensor is to lie, for the copy engine.
void check_alignment(const char* name, const SpionTensor& tensor) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0 &&
                         tensor.row_stride % 8 == 0 && tensor.head_stride % 8 == 0 &&
                         tensor.batch_stride % 8 == 0;
    if (!aligned) {
        throw UserError(
            "tensor {} is at {} with strides of {}, {} and {} elements: its address and strides "
            "must be multiples of 16 bytes",
            name, tensor.data, tensor.batch_stride, tensor.head_stride, tensor.row_stride);
    }
}

}  // namespace

WorkHints work_hints(const TileProgram& program) {
    WorkHints hints{.listed = static_cast<std::int64_t>(program.gather_blocks.size())};
    for (int item = 0; item < program.tiles(); ++item) {
        hints.longest = std::max(hints.longest, listed(program, item));
    }
    // The first tiles of a head whose lists are more than twice as long as most.
    int item = 0;
    while (item + 1 < program.tiles() &&
           listed(program, item) * program.tiles() > 2 * hints.listed) {
        ++item;
    }
    hints.long_tiles = static_cast<unsigned>(item);
    return hints;
}

KernelLaunch::KernelLaunch(const TileProgram& program, const EmittedGeometry& emitted,
                           const Target& target)
    : role_(program.role),
      attention_(program.attention),
      geometry_{.threads = emitted.threads, .shared_bytes = emitted.shared_bytes},
      fetches_by_tma_(emitted.resident_blocks > 0),
      stationary_rows_(program.stationary_rows),
      stationary_box_rows_(program.unit == MatrixUnit::kMmaSyncTma ? program.stationary_rows
                                                                   : kGroupRows),
      streamed_box_rows_(program.gather_rows),
      resident_blocks_(emitted.resident_blocks),
      items_at_once_(emitted.items_at_once),
      sm_count_(target.sm_count),
      tile_width_(emitted.tile_width == 0 ? program.attention.head_dim : emitted.tile_width),
      tiles_(program.attention.pattern_count() / item_walks(program.attention, program.role) *
             program.pattern_tiles()) {
    if (role_ == KernelRole::kGradients) {
        query_blocks_ = (attention_.length + program.gather_rows - 1) / program.gather_rows;
        batch_heads_at_once_ = batch_heads_at_once(static_cast<int>(query_blocks_), sm_count_);
        geometry_.all_at_once = true;
    } else {
        geometry_.overlaps_previous = fetches_by_tma_;
    }
}

std::int64_t KernelLaunch::query_tiles(std::int64_t batch) const {
    return batch * attention_.heads * query_blocks_;
}

LaunchBytes KernelLaunch::bytes(std::int64_t batch) const {
    const std::int64_t share = streamed_box_rows_ * tile_width_ * sizeof(float);
    return {.counters = fetches_by_tma_ ? 2 * sizeof(unsigned) : 0,
            .dq_semaphore = static_cast<std::size_t>(query_tiles(batch)) * sizeof(unsigned),
            .dq_accum = static_cast<std::size_t>(query_tiles(batch) * share)};
}

unsigned KernelLaunch::lpt_heads(std::int64_t heads, std::int64_t blocks,
                                 const WorkHints& hints) const {
    const std::int64_t more = hints.longest * tiles_ - hints.listed;  // than the average, x tiles
    const std::int64_t wanted = hints.listed == 0 ? 1 : 1 + more * blocks / (tiles_ * hints.listed);
    constexpr std::int64_t kTensors = 4, kBytes = 2;
    const std::int64_t held =
        kLptBytes / (kTensors * kBytes * (attention_.length + attention_.key_value_length()) / 2 *
                     attention_.head_dim);
    return static_cast<unsigned>(std::max<std::int64_t>(1, std::min({wanted, held, heads})));
}

SpionTensorMap KernelLaunch::describe(const SpionTensor& tensor,
                                      const SpionAttentionArguments& launched, bool of_keys,
                                      int width, int rows, const Device& device) const {
    const int heads = of_keys ? attention_.key_value_heads() : attention_.heads;
    const std::int64_t positions = of_keys ? attention_.key_value_length() : attention_.length;
    const std::int64_t packed =
        of_keys && attention_.key_starts ? launched.key_rows : launched.rows;
    const std::int64_t length = attention_.varlen ? packed : positions;
    const std::int64_t batch = attention_.varlen ? 1 : launched.batch;
    constexpr int kBytes = 2;
    // A dimension of one element has no stride that counts, and the map wants one it can check.
    const std::int64_t row = tensor.row_stride * kBytes;
    const TensorBoxes boxes{.data = tensor.data,
                            .extent = {width, length, heads, batch},
                            .stride = {row, heads == 1 ? row : tensor.head_stride * kBytes,
                                       batch == 1 ? row : tensor.batch_stride * kBytes},
                            .columns = std::min(64, tile_width_),
                            .rows = rows};
    const std::array<std::uint64_t, 16> map = device.tensor_map(boxes);
    SpionTensorMap result;
    static_assert(sizeof(result) == sizeof(map));
    std::memcpy(&result, map.data(), sizeof(map));
    return result;
}

void KernelLaunch::describe_tensors(SpionSm90Arguments& arguments, const Device& device) const {
    for (const NamedTensor& named : tensors_of(role_)) {
        check_alignment(named.name, arguments.attention.*named.tensor);
    }
    std::size_t at = 0;
    for (const NamedTensor& named : tensors_of(role_)) {
        arguments.maps[at++] =
            describe(arguments.attention.*named.tensor, arguments.attention, named.of_keys,
                     named.of_values ? attention_.value_head_dim() : attention_.head_dim,
                     named.stationary ? stationary_box_rows_ : streamed_box_rows_, device);
    }
}

// Tiles taken before all others cannot be what a launch waits for at its end, but their heads' rows
// are read from memory once more. That is worth it where lists are so long that reads from the L2
// cache outweigh it, or where one of those tiles is a good part of what `workers` have to do each.
unsigned KernelLaunch::lpt_tiles(std::int64_t items, std::int64_t workers,
                                 const WorkHints& hints) const {
    constexpr double kLongList = 8, kGoodPart = 0.25;
    const double mean = static_cast<double>(hints.listed) / static_cast<double>(tiles_);
    const double share = mean * static_cast<double>(items) / static_cast<double>(workers);
    const bool worth = mean >= kLongList || static_cast<double>(hints.longest) > kGoodPart * share;
    return worth ? hints.long_tiles : 0;
}

PreparedLaunch KernelLaunch::prepare(SpionAttentionArguments args, const std::int32_t* block,
                                     const WalkTables& tables, const LaunchMemory& memory,
                                     const WorkHints& hints, const Device& device) const {
    // Of sequences that lie end to end, an item for every tile that one has, and one each more
    // (kernels/cuda/common/work_item.cuh).
    const bool of_sequences = attention_.items_of_sequences();
    const std::int64_t rows =
        attention_.key_starts && walks_columns(role_) ? args.key_rows : args.rows;
    const std::int64_t tiles = of_sequences ? rows / stationary_rows_ + args.batch : tiles_;
    const std::int64_t heads = of_sequences
                                   ? item_heads(attention_, role_)
                                   : std::int64_t{args.batch} * pattern_heads(attention_, role_);
    const std::int64_t items = heads * tiles;
    if (items > std::numeric_limits<std::int32_t>::max()) {
        throw UserError("{} work items, at most {} in a launch: use a smaller batch", items,
                        std::numeric_limits<std::int32_t>::max());
    }
    args.tiles = static_cast<int>(tiles);
    if (block != nullptr) {
        point_at(block, tables, args);
    }
    PreparedLaunch launch{
        .geometry = geometry_, .arguments = {}, .fetches_by_tma = fetches_by_tma_};
    SpionSm90Arguments& arguments = launch.arguments;
    arguments.attention = args;
    launch.geometry.work_items = items;
    if (!fetches_by_tma_) {
        return launch;
    }
    describe_tensors(arguments, device);
    arguments.items = static_cast<unsigned>(items);
    arguments.counters = memory.counters;
    const std::int64_t most = std::int64_t{sm_count_} * resident_blocks_;
    arguments.lpt_tiles = of_sequences ? 0 : lpt_tiles(items, most * items_at_once_, hints);
    launch.geometry.work_items = std::min((items + items_at_once_ - 1) / items_at_once_, most);
    if (role_ == KernelRole::kGradients) {
        arguments.dq_tickets = block + tables.tickets;
        arguments.dq_semaphore = memory.dq_semaphore;
        arguments.dq_accum = memory.dq_accum;
        arguments.batch_heads_at_once = static_cast<unsigned>(batch_heads_at_once_);
    } else {
        arguments.lpt_heads = lpt_heads(heads, launch.geometry.work_items, hints);
    }
    return launch;
}

}  // namespace spion
