#include "train/task.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "ir/error.h"
#include "train/random.h"

namespace spion {

// Each is defined in a file of its own in train/tasks/.
extern const Task kListOpsTask, kImageTask, kTextTask, kRetrievalTask, kPathfinderTask;

namespace {

constexpr std::uint64_t kSplitStream = 3000;  // dataset.cpp and parameters.cpp use others

constexpr std::array<const Task*, 5> kTasks = {&kListOpsTask, &kImageTask, &kTextTask,
                                               &kRetrievalTask, &kPathfinderTask};

std::shared_ptr<const Samples> part(const std::shared_ptr<const Samples>& all,
                                    const std::vector<std::int64_t>& order, std::int64_t first,
                                    std::int64_t end) {
    return std::make_shared<ChosenSamples>(
        all, std::vector<std::int64_t>(order.begin() + first, order.begin() + end));
}

}  // namespace

std::span<const Task* const> tasks() {
    return kTasks;
}

const Task& task_named(std::string_view name) {
    std::vector<std::string_view> names;
    for (const Task* task : kTasks) {
        if (task->name == name) return *task;
        names.push_back(task->name);
    }
    throw UserError("'{}' is no task; choose one of {}", name, fmt::join(names, ", "));
}

TaskData split_at_random(std::shared_ptr<const Samples> all, std::int64_t validation,
                         std::int64_t test, std::uint64_t seed, std::string_view origin) {
    const std::int64_t count = all->samples();
    if (validation + test >= count) {
        throw UserError(
            "{} has {} samples, of which validation-samples ({}) and test-samples ({}) leave none "
            "to train on: lower them",
            origin, count, validation, test);
    }
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    SplitMix random(seed, kSplitStream, 0);
    for (std::size_t i = order.size() - 1; i > 0; --i) {
        std::swap(order[i], order[random.below_wide(i + 1)]);
    }
    const std::int64_t train = count - validation - test;
    // Each part in the order of the file, which reads it fastest; training shuffles anyway.
    std::sort(order.begin(), order.begin() + train);
    std::sort(order.begin() + train, order.begin() + train + validation);
    std::sort(order.begin() + train + validation, order.end());
    return {.train = part(all, order, 0, train),
            .validation = part(all, order, train, train + validation),
            .test = part(all, order, train + validation, count)};
}

std::shared_ptr<const Samples> at_most(std::shared_ptr<const Samples> all, std::int64_t most) {
    if (most == 0 || most >= all->samples()) return all;
    std::vector<std::int64_t> first(static_cast<std::size_t>(most));
    std::iota(first.begin(), first.end(), 0);
    return std::make_shared<ChosenSamples>(std::move(all), std::move(first));
}

}  // namespace spion
