#include "compiler/hopper_launch.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>

#include "compiler/share_schedule.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kGroupRows = 64;  // of a box of stationary rows of wgmma
// Of the heads whose items are handed out side by side: about what an L2 holds.
constexpr std::int64_t kTogetherBytes = 64 << 20;

struct NamedTensor {
    const char* name;
    SpionTensor SpionAttentionArguments::*tensor;
    bool stationary;
};

constexpr NamedTensor kForwardTensors[] = {{"q", &SpionAttentionArguments::q, true},
                                           {"k", &SpionAttentionArguments::k, false},
                                           {"v", &SpionAttentionArguments::v, false}};
constexpr NamedTensor kQueryGradientTensors[] = {{"q", &SpionAttentionArguments::q, true},
                                                 {"d_o", &SpionAttentionArguments::d_o, true},
                                                 {"o", &SpionAttentionArguments::o, true},
                                                 {"k", &SpionAttentionArguments::k, false},
                                                 {"v", &SpionAttentionArguments::v, false}};
constexpr NamedTensor kKeyValueGradientTensors[] = {{"k", &SpionAttentionArguments::k, true},
                                                    {"v", &SpionAttentionArguments::v, true},
                                                    {"q", &SpionAttentionArguments::q, false},
                                                    {"d_o", &SpionAttentionArguments::d_o, false}};

// In the order of SpionHopperArguments::maps.
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

bool same(const SpionTensor& a, const SpionTensor& b) {
    return a.data == b.data && a.batch_stride == b.batch_stride && a.head_stride == b.head_stride &&
           a.row_stride == b.row_stride;
}

std::int64_t listed(const TileProgram& program, int item) {
    const auto at = static_cast<std::size_t>(item);
    return program.offsets[at + 1] - program.offsets[at];
}

// Granules of the longest list.
std::int64_t longest_list(const TileProgram& program) {
    std::int64_t longest = 0;
    for (int item = 0; item < program.tiles(); ++item) {
        longest = std::max(longest, listed(program, item));
    }
    return longest;
}

// The first tiles of a head whose lists are more than twice as long as most.
unsigned long_tiles(const TileProgram& program) {
    const auto total = std::int64_t{program.offsets.back()};
    int item = 0;
    while (item + 1 < program.tiles() && listed(program, item) * program.tiles() > 2 * total) {
        ++item;
    }
    return static_cast<unsigned>(item);
}

}  // namespace

HopperLaunch::HopperLaunch(const TileProgram& program, const EmittedGeometry& emitted,
                           Device& device)
    : role_(program.role),
      attention_(program.attention),
      stationary_box_rows_(program.unit == MatrixUnit::kMmaWarp ? program.stationary_rows
                                                                : kGroupRows),
      streamed_box_rows_(program.granule),
      resident_blocks_(emitted.resident_blocks),
      items_at_once_(emitted.items_at_once),
      long_tiles_(long_tiles(program)),
      tiles_(program.tiles()),
      listed_(static_cast<std::int64_t>(program.granules.size())),
      longest_(longest_list(program)),
      counters_(device, 2 * sizeof(unsigned)) {
    device.fill(counters_.data(), 0, counters_.bytes());
    if (role_ == KernelRole::kGradients) {
        const ShareSchedule schedule = schedule_shares(program, device.target().processors);
        const std::size_t bytes = schedule.turns.size() * sizeof(std::int32_t);
        granules_ = Buffer(device, std::max(bytes, sizeof(std::int32_t)));
        ranks_ = Buffer(device, std::max(bytes, sizeof(std::int32_t)));
        device.copy_in(granules_.data(), schedule.granules.data(), bytes);
        device.copy_in(ranks_.data(), schedule.turns.data(), bytes);
        arguments_.ranks = ranks_.as<int>();
        arguments_.pairs_at_once = static_cast<unsigned>(schedule.pairs_at_once);
        query_granules_ = (attention_.length + program.granule - 1) / program.granule;
    }
}

void HopperLaunch::make_room_for_sums(std::int64_t batch, Device& device) {
    constexpr std::int64_t kPiece = 64 * 64 * sizeof(float);
    const std::int64_t pieces = batch * attention_.heads * query_granules_ * 2;
    const auto bytes = static_cast<std::size_t>(pieces) * sizeof(unsigned);
    if (turns_.bytes() < bytes) {
        turns_ = Buffer();  // before the larger one
        turns_ = Buffer(device, bytes);
        device.fill(turns_.data(), 0, bytes);
    }
    arguments_.turns = turns_.as<unsigned>();
    arguments_.sums =
        static_cast<float*>(device.workspace(static_cast<std::size_t>(pieces * kPiece)));
}

unsigned HopperLaunch::heads_together(std::int64_t heads, std::int64_t blocks) const {
    const std::int64_t more = longest_ * tiles_ - listed_;  // than the average, times tiles
    const std::int64_t wanted = listed_ == 0 ? 1 : 1 + more * blocks / (tiles_ * listed_);
    constexpr std::int64_t kTensors = 4, kBytes = 2;
    const std::int64_t held =
        kTogetherBytes / (kTensors * kBytes * attention_.length * attention_.head_dim);
    return static_cast<unsigned>(std::max<std::int64_t>(1, std::min({wanted, held, heads})));
}

SpionTensorMap HopperLaunch::describe(const SpionTensor& tensor, int rows, Device& device) const {
    constexpr int kBytes = 2;
    const std::int64_t batch = arguments_.attention.batch;
    // A dimension of one element has no stride that counts, and the map wants one it can check.
    const std::int64_t row = tensor.row_stride * kBytes;
    const TensorBoxes boxes{
        .data = tensor.data,
        .extent = {attention_.head_dim, attention_.length, attention_.heads, batch},
        .stride = {row, attention_.heads == 1 ? row : tensor.head_stride * kBytes,
                   batch == 1 ? row : tensor.batch_stride * kBytes},
        .columns = std::min(64, attention_.head_dim),
        .rows = rows};
    const std::array<std::uint64_t, 16> map = device.tensor_map(boxes);
    SpionTensorMap result;
    static_assert(sizeof(result) == sizeof(map));
    std::memcpy(&result, map.data(), sizeof(map));
    return result;
}

void HopperLaunch::describe_tensors(const SpionAttentionArguments& attention, Device& device) {
    const bool other_batch = arguments_.attention.batch != attention.batch;
    const SpionAttentionArguments before = arguments_.attention;
    arguments_.attention = attention;
    std::size_t at = 0;
    for (const NamedTensor& named : tensors_of(role_)) {
        const SpionTensor& tensor = attention.*named.tensor;
        SpionTensorMap& map = arguments_.maps[at++];
        if (!other_batch && same(before.*named.tensor, tensor)) {
            continue;
        }
        const bool aligned = reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0 &&
                             tensor.row_stride % 8 == 0 && tensor.head_stride % 8 == 0 &&
                             tensor.batch_stride % 8 == 0;
        if (!aligned) {
            arguments_.attention.batch = 0;  // nothing is known to be described
            throw UserError(
                "tensor {} is at {} with strides of {}, {} and {} elements: its address and "
                "strides "
                "must be multiples of 16 bytes",
                named.name, tensor.data, tensor.batch_stride, tensor.head_stride,
                tensor.row_stride);
        }
        map =
            describe(tensor, named.stationary ? stationary_box_rows_ : streamed_box_rows_, device);
    }
}

// Tiles taken before all others cannot be what a launch waits for at its end, but their heads' rows
// are read from memory once more. That is worth it where lists are so long that reads from the L2
// cache outweigh it, or where one of those tiles is a good part of what `workers` have to do each.
unsigned HopperLaunch::early_tiles(std::int64_t items, std::int64_t workers) const {
    constexpr double kLongList = 8, kGoodPart = 0.25;
    const double mean = static_cast<double>(listed_) / static_cast<double>(tiles_);
    const double share = mean * static_cast<double>(items) / static_cast<double>(workers);
    const bool worth = mean >= kLongList || static_cast<double>(longest_) > kGoodPart * share;
    return worth ? long_tiles_ : 0;
}

void HopperLaunch::launch(const LoadedKernel& kernel, LaunchGeometry geometry,
                          const SpionAttentionArguments& attention, Device& device) {
    if (geometry.work_items > std::numeric_limits<std::int32_t>::max()) {
        throw UserError("{} work items, at most {} in a launch: use a smaller batch",
                        geometry.work_items, std::numeric_limits<std::int32_t>::max());
    }
    describe_tensors(attention, device);
    arguments_.items = static_cast<unsigned>(geometry.work_items);
    arguments_.counters = counters_.as<unsigned>();
    const std::int64_t most = std::int64_t{device.target().processors} * resident_blocks_;
    arguments_.early_tiles = early_tiles(geometry.work_items, most * items_at_once_);
    geometry.work_items =
        std::min((geometry.work_items + items_at_once_ - 1) / items_at_once_, most);
    if (role_ == KernelRole::kGradients) {
        make_room_for_sums(attention.batch, device);
        arguments_.attention.granules = granules_.as<int>();
        geometry.all_at_once = true;
    } else {
        arguments_.heads_together = heads_together(arguments_.items / tiles_, geometry.work_items);
        geometry.overlaps_previous = true;
    }
    device.launch(kernel, geometry, arguments_);
}

}  // namespace spion
