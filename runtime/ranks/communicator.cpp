#include "runtime/ranks/communicator.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "ir/error.h"

namespace spion {
namespace {

// What is gathered at once, so that memory does not grow with ranks times values.
constexpr std::size_t kValuesAtOnce = std::size_t{1} << 16;

template <typename T>
std::string_view bytes_of(std::span<const T> values) {
    return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

}  // namespace

std::vector<std::string> Communicator::gather(std::string_view mine) {
    const auto count = static_cast<std::size_t>(rank_.count);
    const std::uint64_t size = mine.size();
    std::vector<std::uint64_t> sizes(count);
    const std::string all_sizes = gather_equal(bytes_of(std::span(&size, 1)));
    std::memcpy(sizes.data(), all_sizes.data(), count * sizeof(std::uint64_t));
    const std::size_t widest = *std::max_element(sizes.begin(), sizes.end());
    std::string padded(mine);
    padded.resize(widest);
    const std::string all = gather_equal(padded);
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < count; ++i) parts.push_back(all.substr(i * widest, sizes[i]));
    return parts;
}

std::vector<double> Communicator::sum(std::span<const double> mine) {
    std::vector<double> sums;
    for (std::size_t first = 0; first < mine.size(); first += kValuesAtOnce) {
        const auto part = mine.subspan(first, std::min(kValuesAtOnce, mine.size() - first));
        const std::string all = gather_equal(bytes_of(part));
        sums.resize(first + part.size(), 0.0);
        for (int rank = 0; rank < rank_.count; ++rank) {
            std::vector<double> its(part.size());
            std::memcpy(its.data(), all.data() + static_cast<std::size_t>(rank) * part.size_bytes(),
                        part.size_bytes());
            for (std::size_t i = 0; i < its.size(); ++i) sums[first + i] += its[i];
        }
    }
    return sums;
}

FirstOfMachine::FirstOfMachine(Communicator& ranks)
    : ranks_(&ranks), exceptions_(std::uncaught_exceptions()) {
    if (ranks.rank().local != 0) ranks.meet();
}

FirstOfMachine::~FirstOfMachine() noexcept(false) {
    const bool failed = std::uncaught_exceptions() > exceptions_;
    if (ranks_->rank().local == 0 && !failed) ranks_->meet();
}

}  // namespace spion
