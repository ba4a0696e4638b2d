#include "tools/sweep/execute.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <thread>

#include "ir/error.h"
#include "runtime/whole_file.h"
#include "tools/exit_codes.h"
#include "tools/sweep/child.h"
#include "train/interrupt.h"

namespace spion::sweep {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// The last line of a log, which is the sentence of an error.
std::string last_line(const fs::path& log) {
    std::string text = read_whole_file(log, kLargestKeptText).value_or("");
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text.substr(text.find_last_of('\n') + 1);
}

// A place, and what runs there.
struct Place {
    std::string gpu;
    std::unique_ptr<Child> child;
    std::size_t run = 0;
    bool evaluates = false;  // else it trains
};

class Executor {
  public:
    Executor(const Plan& plan, fs::path sweep, const Limits& limits,
             const std::function<void(std::string_view)>& say)
        : plan_(plan), sweep_(std::move(sweep)), limits_(limits), say_(say) {
        for (const std::string& gpu : limits.places) {
            places_.emplace_back();
            places_.back().gpu = gpu;
        }
        for (const Run& run : plan.runs) {
            outcome_.results.push_back(read_result(sweep_, run));
            taken_.push_back(is_over(taken_.size()));
        }
    }

    Outcome run() {
        const InterruptGuard interrupt;
        while (true) {
            if (interrupt.requested() && outcome_.signal == 0) stop(interrupting_signal());
            for (Place& place : places_) {
                if (place.child == nullptr) begin_next(place);
                if (place.child != nullptr) look_at(place);
            }
            const bool idle = std::all_of(places_.begin(), places_.end(), [](const Place& place) {
                return place.child == nullptr;
            });
            if (places_.empty() || (idle && (next() == plan_.runs.size() || !may_begin()))) break;
            if (!idle) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        return std::move(outcome_);
    }

  private:
    fs::path folder(std::size_t run) const { return sweep_ / "runs" / plan_.runs[run].name; }
    fs::path log(std::size_t run) const { return folder(run).string() + ".log"; }
    double minutes_left() const {
        return limits_.minutes - std::chrono::duration<double>(Clock::now() - begin_).count() / 60;
    }
    bool may_begin() const {
        return outcome_.signal == 0 && (limits_.minutes == 0 || minutes_left() > 0);
    }
    bool has_best(std::size_t run) const {
        std::error_code ignored;
        return fs::exists(folder(run) / "checkpoints" / "best.safetensors", ignored);
    }
    // Done, and its best checkpoint evaluated where there is one.
    bool is_over(std::size_t run) const {
        const RunResult& result = outcome_.results[run];
        return result.is_over() && !(result.is_done() && has_best(run) && !result.best_test);
    }

    // The runs of the arm that a run takes its density from.
    std::vector<std::size_t> sources(const Run& run) const {
        std::vector<std::size_t> found;
        for (std::size_t i = 0; i < plan_.runs.size(); ++i) {
            const Run& other = plan_.runs[i];
            if (other.task == run.task && other.rate == run.rate && other.arm == run.density_of) {
                found.push_back(i);
            }
        }
        return found;
    }
    bool waits(const Run& run) const {
        if (run.density_of.empty()) return false;
        const auto all = sources(run);
        return std::any_of(all.begin(), all.end(),
                           [&](std::size_t i) { return !outcome_.results[i].is_over(); });
    }
    std::optional<double> density_for(const Run& run) const {
        std::vector<double> densities;
        for (const std::size_t i : sources(run)) {
            const RunResult& result = outcome_.results[i];
            if (result.is_done() && !result.densities.empty())
                densities.push_back(result.density());
        }
        if (densities.empty()) return std::nullopt;
        return spread_of(densities).mean;
    }

    // The first run that nobody has and that waits for nothing; their number for none.
    std::size_t next() const {
        std::size_t i = 0;
        while (i < plan_.runs.size() && (taken_[i] || waits(plan_.runs[i]))) ++i;
        return i;
    }

    void begin_next(Place& place) {
        const std::size_t run = next();
        if (run == plan_.runs.size() || !may_begin()) return;
        taken_[run] = true;
        place.run = run;
        if (outcome_.results[run].is_done()) {
            evaluate(place);
        } else {
            train(place);
        }
    }

    void train(Place& place) {
        const Run& run = plan_.runs[place.run];
        std::vector<std::string> words{"train", run.task};
        if (outcome_.results[place.run].state == "begun") {
            words.insert(words.end(), {"--resume", folder(place.run).string()});
        } else {
            words.insert(words.end(), {"--out", folder(place.run).string()});
            for (const auto& [name, value] : run.flags) {
                const bool flag = value == "true" || value == "false";
                if (!flag) words.push_back(fmt::format("--{}={}", name, value));
                if (value == "true") words.push_back("--" + name);
            }
            if (!run.density_of.empty()) {
                const auto density = density_for(run);
                if (!density) {
                    end(place.run,
                        fmt::format("failed: no run of {} has ended with a pattern, whose "
                                    "density it takes: give it a density",
                                    run.density_of));
                    return;
                }
                words.push_back(fmt::format("--density={:.6g}", *density));
            }
        }
        // Always given: a run that goes on would keep the minutes that it was begun with.
        constexpr double kLeast = 0.001;  // 0 would be no limit
        words.push_back(fmt::format("--minutes={:.4f}",
                                    limits_.minutes > 0 ? std::max(minutes_left(), kLeast) : 0.0));
        place.evaluates = false;
        place.child = std::make_unique<Child>(words, log(place.run), log(place.run), place.gpu);
        say_(fmt::format("{} begins{}", run.name, place.gpu.empty() ? "" : " on GPU " + place.gpu));
    }

    void evaluate(Place& place) {
        const std::size_t run = place.run;
        place.evaluates = true;
        place.child = std::make_unique<Child>(
            std::vector<std::string>{"evaluate", folder(run).string(), "--device",
                                     device_of(plan_.runs[run].settings.device)},
            folder(run) / "best_test.txt", log(run), place.gpu);
    }
    static std::string device_of(DeviceChoice choice) {
        return choice == DeviceChoice::kCpu    ? "cpu"
               : choice == DeviceChoice::kCuda ? "cuda"
                                               : "auto";
    }

    void look_at(Place& place) {
        const std::optional<int> code = place.child->ended();
        if (!code) return;
        place.child.reset();
        const std::size_t run = place.run;
        outcome_.results[run] = read_result(sweep_, plan_.runs[run]);
        RunResult& result = outcome_.results[run];
        const bool stopped = outcome_.signal != 0 && *code > 128;
        if (*code != kDone && *code != kDiverged && !stopped) {
            end(run, fmt::format("failed: {}", *code > 128 ? fmt::format("signal {}", *code - 128)
                                                           : last_line(log(run))));
        } else if (is_over(run)) {
            end(run, result.state);
        } else if (result.is_done() && !place.evaluates && outcome_.signal == 0) {
            evaluate(place);
        } else {
            say_(fmt::format("{} stops after step {}", plan_.runs[run].name, result.steps));
        }
    }

    void end(std::size_t run, const std::string& state) {
        RunResult& result = outcome_.results[run];
        result.state = state;
        const auto over = std::count_if(outcome_.results.begin(), outcome_.results.end(),
                                        [](const RunResult& one) { return one.is_over(); });
        std::string figures;
        if (result.best_test) figures = fmt::format(", test {:.2f} %", 100 * *result.best_test);
        say_(fmt::format("{} of {}: {} {}{}", over, plan_.runs.size(), plan_.runs[run].name, state,
                         figures));
    }

    void stop(int signal) {
        outcome_.signal = signal;
        for (const Place& place : places_) {
            if (place.child != nullptr) place.child->tell(SIGTERM);
        }
    }

    const Plan& plan_;
    fs::path sweep_;
    const Limits& limits_;
    const std::function<void(std::string_view)>& say_;
    std::vector<Place> places_;
    std::vector<bool> taken_;  // [runs]
    Outcome outcome_;
    Clock::time_point begin_ = Clock::now();
};

}  // namespace

Outcome execute(const Plan& plan, const fs::path& sweep, const Limits& limits,
                const std::function<void(std::string_view)>& say) {
    return Executor(plan, sweep, limits, say).run();
}

}  // namespace spion::sweep
