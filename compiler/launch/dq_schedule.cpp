#include "compiler/launch/dq_schedule.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "ir/error.h"

namespace spion {
namespace {

// Gather blocks that a step is chosen among.
constexpr int kMostCandidates = 64;
// (batch, head) groups that expected starts are taken from.
constexpr int kRounds = 7;

std::int64_t median(std::vector<std::int64_t> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// [work items]: when each starts, in steps, in the midst of a launch: SMs take the items of
// one round after the other in order, as they get free.
std::vector<std::int64_t> expected_starts(const std::vector<int>& steps, int sm_count,
                                          int batch_heads_at_once) {
    const std::size_t items = steps.size();
    std::priority_queue<std::int64_t, std::vector<std::int64_t>, std::greater<>> free;
    for (int i = 0; i < sm_count; ++i) {
        free.push(0);
    }
    std::vector<std::vector<std::int64_t>> starts(items);
    for (int round = 0; round < kRounds; ++round) {
        std::vector<std::int64_t> first(items);
        for (std::size_t item = 0; item < items; ++item) {
            for (int batch_head = 0; batch_head < batch_heads_at_once; ++batch_head) {
                const std::int64_t start = free.top();
                free.pop();
                free.push(start + steps[item]);
                if (batch_head == 0) {
                    first[item] = start;
                }
            }
        }
        const std::int64_t middle = median(first);
        for (std::size_t item = 0; item < items; ++item) {
            starts[item].push_back(first[item] - middle);
        }
    }
    std::vector<std::int64_t> result;
    result.reserve(starts.size());
    for (const std::vector<std::int64_t>& of_item : starts) {
        result.push_back(median(of_item));
    }
    const std::int64_t earliest = *std::min_element(result.begin(), result.end());
    for (std::int64_t& start : result) {
        start -= earliest;
    }
    return result;
}

// Whether every work item has the same gather blocks, as under a full pattern.
bool all_alike(const TileProgram& program) {
    const auto begin = program.gather_blocks.begin();
    const std::int32_t listed = program.offsets[1];
    for (int item = 1; item < program.tiles(); ++item) {
        const auto first = begin + program.offsets[item], last = begin + program.offsets[item + 1];
        if (!std::equal(begin, begin + listed, first, last)) {
            return false;
        }
    }
    return true;
}

struct DqPartial {
    std::int64_t at;  // step of the machine
    std::int32_t gather_block;
};

class Scheduler {
  public:
    Scheduler(const TileProgram& program, int sm_count);
    DqSchedule run();

  private:
    void take_steps(std::int64_t now);
    void take_step(int item, std::int64_t now);
    void order_partials();

    const TileProgram& program_;
    DqSchedule schedule_;
    int at_once_ = 1;  // work items of a batch-head
    int cooling_ = 1;  // steps between two partials of a gather block
    std::vector<std::vector<std::int32_t>>
        waiting_;                                   // of a work item: gather blocks without a step
    std::vector<std::vector<DqPartial>> partials_;  // of a work item: its steps
    std::vector<std::int64_t> expected_;            // start, [work items]
    std::vector<int> active_;                       // work items
    int entered_ = 0;                               // work items
    std::vector<std::int64_t> free_at_;             // [gather blocks of the sequence]
    std::vector<std::int32_t> left_;  // [gather blocks of the sequence] without a step
};

Scheduler::Scheduler(const TileProgram& program, int sm_count) : program_(program) {
    const int items = program.tiles();
    const int sequence =
        (streamed_length(program.attention, program.role) + program.gather_rows - 1) /
        program.gather_rows;
    constexpr int kWantedCooling = 2;
    schedule_.batch_heads_at_once = batch_heads_at_once(sequence, sm_count);
    at_once_ = sm_count / schedule_.batch_heads_at_once;
    cooling_ = std::clamp(sequence / std::min(items, at_once_), 1, kWantedCooling);
    left_.assign(sequence, 0);
    free_at_.assign(sequence, 0);
    std::vector<int> steps;
    for (int item = 0; item < items; ++item) {
        const auto begin = program.gather_blocks.begin() + program.offsets[item];
        const auto end = program.gather_blocks.begin() + program.offsets[item + 1];
        // Every work item starts at another entry, so that equal lists meet less.
        const auto start = begin + (end - begin) * item / items;
        std::vector<std::int32_t> gather_blocks(start, end);
        gather_blocks.insert(gather_blocks.end(), begin, start);
        for (const std::int32_t gather_block : gather_blocks) {
            ++left_[gather_block];
        }
        steps.push_back(static_cast<int>(gather_blocks.size()));
        waiting_.push_back(std::move(gather_blocks));
    }
    partials_.resize(items);
    expected_ = expected_starts(steps, sm_count, schedule_.batch_heads_at_once);
}

void Scheduler::take_step(int item, std::int64_t now) {
    std::vector<std::int32_t>& waiting = waiting_[item];
    std::size_t best = waiting.size(), seen = 0;
    for (std::size_t i = 0; i < waiting.size() && seen < kMostCandidates; ++i) {
        if (free_at_[waiting[i]] > now) {
            continue;
        }
        ++seen;
        if (best == waiting.size() || left_[waiting[i]] > left_[waiting[best]]) {
            best = i;
        }
    }
    if (best == waiting.size()) {
        return;  // the next step of the machine, then
    }
    const std::int32_t gather_block = waiting[best];
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(best));
    free_at_[gather_block] = now + cooling_;
    --left_[gather_block];
    partials_[item].push_back({now, gather_block});
}

void Scheduler::take_steps(std::int64_t now) {
    std::erase_if(active_, [&](int item) { return waiting_[item].empty(); });
    while (entered_ < program_.tiles() && static_cast<int>(active_.size()) < at_once_ &&
           expected_[entered_] <= now) {
        active_.push_back(entered_++);
    }
    // Those with most left to do choose first.
    std::stable_sort(active_.begin(), active_.end(),
                     [&](int a, int b) { return waiting_[a].size() > waiting_[b].size(); });
    for (const int item : active_) {
        take_step(item, now);
    }
}

void Scheduler::order_partials() {
    struct Placed {
        DqPartial partial;
        std::size_t place;
    };
    std::vector<Placed> placed;
    for (const std::vector<DqPartial>& partials : partials_) {
        for (const DqPartial& partial : partials) {
            placed.push_back({partial, schedule_.gather_blocks.size()});
            schedule_.gather_blocks.push_back(partial.gather_block);
        }
    }
    // Cooling keeps two partials of a gather block at different times, which tell their order.
    std::stable_sort(placed.begin(), placed.end(),
                     [](const Placed& a, const Placed& b) { return a.partial.at < b.partial.at; });
    schedule_.tickets.resize(placed.size());
    std::vector<std::int32_t> next(free_at_.size(), 0);
    std::vector<std::size_t> last(free_at_.size());
    for (const Placed& each : placed) {
        schedule_.tickets[each.place] = next[each.partial.gather_block]++;
        last[each.partial.gather_block] = each.place;
    }
    for (std::size_t gather_block = 0; gather_block < next.size(); ++gather_block) {
        if (next[gather_block] > 0) {
            schedule_.tickets[last[gather_block]] |= kLastTicket;
        }
    }
}

DqSchedule Scheduler::run() {
    for (std::int64_t now = 0; entered_ < program_.tiles() || !active_.empty(); ++now) {
        take_steps(now);
    }
    order_partials();
    return schedule_;
}

// Work items add in the order in which they are taken.
DqSchedule in_order(const TileProgram& program, int sm_count) {
    const int sequence =
        (streamed_length(program.attention, program.role) + program.gather_rows - 1) /
        program.gather_rows;
    DqSchedule schedule{.gather_blocks = program.gather_blocks,
                        .tickets = {},
                        .batch_heads_at_once = batch_heads_at_once(sequence, sm_count)};
    for (int item = 0; item < program.tiles(); ++item) {
        const int listed = program.offsets[item + 1] - program.offsets[item];
        const std::int32_t ticket = item + 1 == program.tiles() ? item | kLastTicket : item;
        schedule.tickets.insert(schedule.tickets.end(), listed, ticket);
    }
    return schedule;
}

}  // namespace

// As many batch-heads as have Q, dO and the sums of dQ in the L2 together, up to 4: with more of them,
// fewer thread blocks add to one query block. A query block has 64 KB of these, whatever D is; more
// than 40 MB were slower on an H200, whose L2 has 50, and so were 8 batch-heads.
int batch_heads_at_once(int sequence, int sm_count) {
    constexpr int kMostQueryBlocks = 640, kMostBatchHeads = 4;
    return std::min(std::clamp(kMostQueryBlocks / sequence, 1, kMostBatchHeads), sm_count);
}

DqSchedule schedule_dq(const TileProgram& program, int sm_count) {
    if (program.role != KernelRole::kGradients || program.gather_rows != program.streamed_rows) {
        throw InternalError("role {}, gather_rows {}, streamed_rows {}: no partial dQ to schedule",
                            to_string(program.role), program.gather_rows, program.streamed_rows);
    }
    // Equal work items follow each other through equal lists, and are soon a step apart.
    return all_alike(program) ? in_order(program, sm_count) : Scheduler(program, sm_count).run();
}

}  // namespace spion
