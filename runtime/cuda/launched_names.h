// Which kernels were launched since the device was last waited for: a fault shows at the next wait alone,
// and its message names them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace spion {

class LaunchedNames {
  public:
    void remember(const std::string& entry) {
        const auto found = std::find(names_.begin(), names_.end(), entry);
        if (found != names_.end()) {
            std::rotate(found, found + 1, names_.end());
            return;
        }
        if (names_.size() == kRemembered) names_.erase(names_.begin());
        names_.push_back(entry);
    }
    // Those of a graph, again and again the same.
    void remember(const std::vector<std::string>& entries) {
        if (names_ == entries) return;
        for (const std::string& entry : entries) remember(entry);
    }
    void clear() { names_.clear(); }
    const std::vector<std::string>& names() const { return names_; }  // distinct, oldest first

  private:
    static constexpr std::size_t kRemembered = 32;
    std::vector<std::string> names_;
};

}  // namespace spion
