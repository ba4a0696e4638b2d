#include "compiler/share_schedule.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "ir/error.h"

namespace spion {
namespace {

// Granules that a step is chosen among.
constexpr int kMostCandidates = 64;
// (batch, head) groups that expected starts are taken from.
constexpr int kRounds = 7;

std::int64_t median(std::vector<std::int64_t> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// [work items]: when each starts, in steps, in the midst of a launch: processors take the items of
// one round after the other in order, as they get free.
std::vector<std::int64_t> expected_starts(const std::vector<int>& steps, int processors,
                                          int pairs_at_once) {
    const std::size_t items = steps.size();
    std::priority_queue<std::int64_t, std::vector<std::int64_t>, std::greater<>> free;
    for (int i = 0; i < processors; ++i) {
        free.push(0);
    }
    std::vector<std::vector<std::int64_t>> starts(items);
    for (int round = 0; round < kRounds; ++round) {
        std::vector<std::int64_t> first(items);
        for (std::size_t item = 0; item < items; ++item) {
            for (int pair = 0; pair < pairs_at_once; ++pair) {
                const std::int64_t start = free.top();
                free.pop();
                free.push(start + steps[item]);
                if (pair == 0) {
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
    for (const std::vector<std::int64_t>& of_item : starts) {
        result.push_back(median(of_item));
    }
    const std::int64_t earliest = *std::min_element(result.begin(), result.end());
    for (std::int64_t& start : result) {
        start -= earliest;
    }
    return result;
}

// Whether every work item has the same granules, as under a full pattern.
bool all_alike(const TileProgram& program) {
    const auto begin = program.granules.begin();
    const std::int32_t listed = program.offsets[1];
    for (int item = 1; item < program.tiles(); ++item) {
        const auto first = begin + program.offsets[item], last = begin + program.offsets[item + 1];
        if (!std::equal(begin, begin + listed, first, last)) {
            return false;
        }
    }
    return true;
}

struct Share {
    std::int64_t at;  // step of the machine
    std::int32_t granule;
};

class Scheduler {
  public:
    Scheduler(const TileProgram& program, int processors);
    ShareSchedule run();

  private:
    void take_steps(std::int64_t now);
    void take_step(int item, std::int64_t now);
    void order_shares();

    const TileProgram& program_;
    ShareSchedule schedule_;
    int at_once_ = 1;                                 // work items of a pair
    int cooling_ = 1;                                 // steps between two shares of a granule
    std::vector<std::vector<std::int32_t>> waiting_;  // of a work item: granules without a step
    std::vector<std::vector<Share>> shares_;          // of a work item: its steps
    std::vector<std::int64_t> expected_;              // start, [work items]
    std::vector<int> active_;                         // work items
    int entered_ = 0;                                 // work items
    std::vector<std::int64_t> free_at_;               // [granules of the sequence]
    std::vector<std::int32_t> left_;                  // [granules of the sequence] without a step
};

Scheduler::Scheduler(const TileProgram& program, int processors) : program_(program) {
    const int items = program.tiles();
    const int sequence = (program.attention.length + program.granule - 1) / program.granule;
    constexpr int kWantedCooling = 3;
    schedule_.pairs_at_once = pairs_at_once(sequence, processors);
    at_once_ = processors / schedule_.pairs_at_once;
    cooling_ = std::clamp(sequence / std::min(items, at_once_), 1, kWantedCooling);
    left_.assign(sequence, 0);
    free_at_.assign(sequence, 0);
    std::vector<int> steps;
    for (int item = 0; item < items; ++item) {
        const auto begin = program.granules.begin() + program.offsets[item];
        const auto end = program.granules.begin() + program.offsets[item + 1];
        // From another place for every work item: equal lists meet less.
        const auto start = begin + (end - begin) * item / items;
        std::vector<std::int32_t> granules(start, end);
        granules.insert(granules.end(), begin, start);
        for (const std::int32_t granule : granules) {
            ++left_[granule];
        }
        steps.push_back(static_cast<int>(granules.size()));
        waiting_.push_back(std::move(granules));
    }
    shares_.resize(items);
    expected_ = expected_starts(steps, processors, schedule_.pairs_at_once);
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
    const std::int32_t granule = waiting[best];
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(best));
    free_at_[granule] = now + cooling_;
    --left_[granule];
    shares_[item].push_back({now, granule});
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

void Scheduler::order_shares() {
    struct Placed {
        Share share;
        std::size_t place;
    };
    std::vector<Placed> placed;
    for (const std::vector<Share>& shares : shares_) {
        for (const Share& share : shares) {
            placed.push_back({share, schedule_.granules.size()});
            schedule_.granules.push_back(share.granule);
        }
    }
    // Cooling keeps two shares of a granule apart, so time alone tells their order.
    std::stable_sort(placed.begin(), placed.end(),
                     [](const Placed& a, const Placed& b) { return a.share.at < b.share.at; });
    schedule_.turns.resize(placed.size());
    std::vector<std::int32_t> next(free_at_.size(), 0);
    std::vector<std::size_t> last(free_at_.size());
    for (const Placed& each : placed) {
        schedule_.turns[each.place] = next[each.share.granule]++;
        last[each.share.granule] = each.place;
    }
    for (std::size_t granule = 0; granule < next.size(); ++granule) {
        if (next[granule] > 0) {
            schedule_.turns[last[granule]] |= kLastTurn;
        }
    }
}

ShareSchedule Scheduler::run() {
    for (std::int64_t now = 0; entered_ < program_.tiles() || !active_.empty(); ++now) {
        take_steps(now);
    }
    order_shares();
    return schedule_;
}

// Work items add in the order in which they are taken.
ShareSchedule in_order(const TileProgram& program, int processors) {
    const int sequence = (program.attention.length + program.granule - 1) / program.granule;
    ShareSchedule schedule{.granules = program.granules,
                           .turns = {},
                           .pairs_at_once = pairs_at_once(sequence, processors)};
    for (int item = 0; item < program.tiles(); ++item) {
        const int listed = program.offsets[item + 1] - program.offsets[item];
        const std::int32_t turn = item + 1 == program.tiles() ? item | kLastTurn : item;
        schedule.turns.insert(schedule.turns.end(), listed, turn);
    }
    return schedule;
}

}  // namespace

// Measured on an H200: all processors on one pair, where it has granules for them, else 8 pairs; 2
// to 6 are slower in both cases.
int pairs_at_once(int sequence, int processors) {
    constexpr int kPairs = 8;
    return 2 * sequence >= 3 * processors ? 1 : std::min(kPairs, processors);
}

ShareSchedule schedule_shares(const TileProgram& program, int processors) {
    if (program.role != KernelRole::kGradients || program.granule != program.streamed_rows) {
        throw InternalError("role {}, granule {}, streamed_rows {}: no shares of dQ to schedule",
                            to_string(program.role), program.granule, program.streamed_rows);
    }
    // Equal work items follow each other through equal lists, and are soon a step apart.
    return all_alike(program) ? in_order(program, processors)
                              : Scheduler(program, processors).run();
}

}  // namespace spion
