#include "tools/bench_step.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "ir/error.h"
#include "ir/sizes.h"
#include "runtime/measure.h"
#include "runtime/output.h"
#include "tools/bench_attention.h"
#include "tools/command_line.h"
#include "tools/oracle/random_pattern.h"
#include "tools/profiling_device.h"
#include "train/model.h"
#include "train/step_graphs.h"

namespace spion {
namespace {

using Json = nlohmann::ordered_json;

// Steps at the paper's settings (Yoon, Han, Moon: SPION, PAKDD 2024), and what they are to take on
// an H200. A sample of retrieval is two documents: two rows of the batch.
struct Task {
    const char* name;
    int batch;
    std::int64_t length;
    int layers, vocabulary, classes, block;
    double density;
    double goal_ms;
};
constexpr Task kTasks[] = {
    {"listops", 256, 2048, 4, 32, 10, 64, 0.05, 4.0},
    {"image", 128, 1024, 2, 256, 10, 32, 0.04, 0.9},
    {"retrieval", 64, 4096, 2, 512, 2, 64, 0.021, 1.3},
};

struct Options {
    std::string task = "listops";
    std::string device = "auto";
    std::optional<int> batch;            // nothing: the task's
    std::optional<std::int64_t> length;  // nothing: the task's
    int heads = ModelShape{}.heads, head_dim = ModelShape{}.head_dim;
    int feed_forward = ModelShape{}.feed_forward;
    bool dense = false;
    bool json = false;
    int repeat = 20;
};

Task task_of(const Options& options) {
    std::string known;
    for (Task task : kTasks) {
        if (task.name == options.task) {
            task.batch = options.batch.value_or(task.batch);
            task.length = options.length.value_or(task.length);
            const Attention attention{.heads = options.heads,
                                      .head_dim = options.head_dim,
                                      .length = task.length,
                                      .scale = 1};
            check(attention);
            check_batch(attention, task.batch);
            return task;
        }
        known += (known.empty() ? "" : ", ") + std::string(task.name);
    }
    throw UserError("--task is '{}', but it takes one of {}", options.task, known);
}

// Full samples of random tokens.
Batch random_batch(const Task& task) {
    std::mt19937 random(1);
    Batch batch{.size = task.batch,
                .length = task.length,
                .tokens = {},
                .lengths = std::vector<std::int32_t>(static_cast<std::size_t>(task.batch),
                                                     static_cast<std::int32_t>(task.length)),
                .labels = {}};
    batch.tokens.resize(static_cast<std::size_t>(task.batch * task.length));
    for (std::uint16_t& token : batch.tokens) {
        token = static_cast<std::uint16_t>(1 + random() % (task.vocabulary - 1));
    }
    for (int b = 0; b < task.batch; ++b) {
        batch.labels.push_back(static_cast<std::int32_t>(random() % task.classes));
    }
    return batch;
}

// The model with its attention, ready to step.
class Stepper {
  public:
    Stepper(const Task& task, const Options& options, Device& device)
        : cache_(std::nullopt),
          model_({.shape = {.layers = task.layers,
                            .heads = options.heads,
                            .head_dim = options.head_dim,
                            .feed_forward = options.feed_forward,
                            .vocabulary = task.vocabulary,
                            .classes = task.classes,
                            .length = task.length},
                  .batch = task.batch},
                 device, cache_),
          batch_(random_batch(task)),
          floats_(device, static_cast<std::size_t>(task.batch) * sizeof(float)),
          correct_(device, static_cast<std::size_t>(task.batch) * sizeof(int)),
          not_finite_(device, static_cast<std::size_t>(model_.not_finite_items()) * sizeof(int)),
          graphs_(device, true) {
        const ModelShape& shape = model_.shape();
        const Attention attention{.heads = shape.heads,
                                  .head_dim = shape.head_dim,
                                  .length = shape.length,
                                  .dtype = model_.dtype(),
                                  .scale = default_scale(shape.head_dim),
                                  .softmax = SoftmaxKind::kPrunedZero,
                                  .key_padding = true};
        std::vector<BlockPattern> patterns;
        patterns.reserve(static_cast<std::size_t>(task.layers));
        for (int layer = 0; layer < task.layers; ++layer) {
            patterns.push_back(options.dense
                                   ? BlockPattern::full(task.length, task.block)
                                   : random_pattern(task.length, task.block, task.density, layer));
        }
        attention_ = compile_attention(attention, patterns, device, cache_);
        std::vector<CompiledAttention*> layers;
        for (const auto& layer : attention_) layers.push_back(layer.get());
        model_.set_attention(std::move(layers));
    }

    // As training runs it, or with each kernel launched by itself.
    void run(bool as_graph) {
        model_.upload(batch_, pass_state(static_cast<std::uint32_t>(step_), step_, 1e-4, {}));
        ++step_;
        const auto launches = [&] {
            const StepResults results{.losses = floats_.as<float>(),
                                      .correct = correct_.as<int>(),
                                      .not_finite = not_finite_.as<int>()};
            model_.launch_gradients(0, 1, results);
            model_.launch_update({}, results);
        };
        if (!as_graph) return launches();
        graphs_.run({.buffer = model_.batch_buffer(), .samples = batch_.size}, launches);
    }
    const Model& model() const { return model_; }
    bool captures() const { return graphs_.on(); }

  private:
    KernelCache cache_;
    Model model_;
    Batch batch_;
    Buffer floats_;      // fp32 [B]
    Buffer correct_;     // int32 [B]
    Buffer not_finite_;  // int32 [items]
    std::vector<std::unique_ptr<CompiledAttention>> attention_;
    StepGraphs graphs_;
    std::int64_t step_ = 0;
};

// Bytes that one launch moves, for a layer in the middle of the network, each operand once, and those
// of them that no split of the step into launches saves but that into attention and what lies between:
// not tensors that only the next launch reads. Statistics and parameters are left out; 0 for what the
// profiling device knows by itself, of which AdamW's alone are needed.
struct Bytes {
    double moved = 0, needed = 0;
};
Bytes bytes_of(const std::string& entry, const Model& model, std::int64_t rows) {
    struct Moved {
        const char* entry;
        double narrow, wide;  // tensors [N, C], tensors [N, F]
        double needed;        // tensors [N, C]
    };
    constexpr Moved kMoved[] = {
        {"embedding_forward", 1, 0, 1},
        {"token_position_forward", 1.0625, 0, 1},  // with a bit an element
        {"token_position_backward", 1.0625, 0, 1},
        {"embedding_backward", 1, 0, 1},
        {"embedding_position_backward", 1, 0, 0},
        {"residual_norm_forward", 4, 0, 3},  // two a layer: x in and twice out, and o
        {"residual_norm_backward", 5, 0,
         2},  // x and d_x; d_x is both an input and an output of a layer
        {"gelu_dropout_forward", 0, 2, 0},
        {"gelu_dropout_backward", 0, 3, 0},
        {"column_sums", 3, 0, 0},
        {"masked_mean_forward", 1, 0, 1},
        {"masked_mean_backward", 1, 0, 0},
        {"attention_forward", 4, 0, 4},
        {"attention_query_gradient", 6, 0, 5},  // Q, K, V, O's gradient and dQ
        {"attention_key_value_gradient", 6, 0, 2},
        {"attention_gradients", 8, 0, 7},
        {"attention_delta", 2, 0, 1},
        {"feed_forward", 2, 2, 0},
        // The mean of two maps, 5 narrow and 2 narrow and 2 wide; beside a fused layer o's alone.
        {"linear_backward", 3.5, 1, 0},
        {"norm_linear_forward", 4.25, 0, 4},
        {"layer_end_forward", 4.25, 0, 4},  // with what dropout keeps, a bit an element
        {"layer_end_backward", 4.25, 0, 3},
        {"norm_linear_backward", 6, 0, 6},
        {"norm_mean_forward", 1, 0, 1},
        {"norm_mean_backward", 2, 0, 1},
    };
    const double element = storage_bytes(model.dtype()) * static_cast<double>(rows);
    const double narrow = element * model.shape().channels();
    if (model.fuses_layers() && entry == "linear_backward") return {3 * narrow, 2 * narrow};
    for (const Moved& moved : kMoved) {
        if (entry != moved.entry) continue;
        return {moved.narrow * narrow + moved.wide * element * model.shape().feed_forward,
                moved.needed * narrow};
    }
    return {};
}

struct Profile {
    double step_ms = 0;               // as training runs it, not profiled
    double launched_ms = 0;           // the same, each kernel launched by itself
    bool graph = false;               // whether training captures it
    double peak_bytes = 0;            // of the device's memory
    bool fused = false;               // whether layers are
    std::vector<ProfiledWork> works;  // of one step, the longest first
};

// Medians of both ways, in turns, so that both meet the same clocks.
void measure_step(Profile& profile, Stepper& stepper, int repeat, Device& device) {
    constexpr int kRounds = 3;
    std::vector<double> launched, captured;
    for (int round = 0; round < kRounds; ++round) {
        launched.push_back(median_milliseconds(device, repeat, [&](int) { stepper.run(false); }));
        if (!profile.graph) break;
        captured.push_back(median_milliseconds(device, repeat, [&](int) { stepper.run(true); }));
    }
    profile.launched_ms = median(launched);
    profile.step_ms = profile.graph ? median(captured) : profile.launched_ms;
}

Profile measure(const Options& options, const Task& task, Device& device) {
    ProfilingDevice profiling(device);
    Stepper stepper(task, options, profiling);
    Profile profile;
    profile.graph = stepper.captures();
    measure_step(profile, stepper, options.repeat, device);
    profiling.start();
    for (int n = 0; n < options.repeat; ++n) stepper.run(false);
    profile.works = profiling.stop();
    for (ProfiledWork& work : profile.works) {
        work.launches /= options.repeat;
        work.ms /= options.repeat;
        work.bytes /= options.repeat;
        work.flop /= options.repeat;
        const Bytes bytes = bytes_of(work.name, stepper.model(), task.batch * task.length);
        if (work.bytes == 0) work.bytes = work.launches * bytes.moved;
        work.needed_bytes = work.name == "adamw" ? work.bytes : work.launches * bytes.needed;
    }
    profile.peak_bytes = static_cast<double>(device.peak_bytes());
    profile.fused = stepper.model().fuses_layers();
    std::sort(profile.works.begin(), profile.works.end(),
              [](const ProfiledWork& a, const ProfiledWork& b) { return a.ms > b.ms; });
    return profile;
}

double floor_ms(const ProfiledWork& work, const Target& target) {
    return work.bytes / rates_of(target).memory_bytes * 1e3;
}

void print_table(const Options& options, const Task& task, const Profile& profile,
                 const Device& device) {
    print_out("{}, {} step of {}: B={} L={} layers={} H={} D={} F={}\n\n", device.name(),
              options.dense ? "dense" : "sparse", task.name, task.batch, task.length, task.layers,
              options.heads, options.head_dim, options.feed_forward);
    print_out("{:<34} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "a step", "launches", "ms",
              "floor ms", "MB moved", "MB needed", "GB/s", "TFLOP/s");
    ProfiledWork sum;
    const auto print = [&](const std::string& name, const ProfiledWork& work) {
        print_out("{:<34} {:>8} {:>9.4f} {:>9.4f} {:>9.1f} {:>9.1f} {:>9.0f} {:>9.2f}\n", name,
                  work.launches, work.ms, floor_ms(work, device.target()), work.bytes * 1e-6,
                  work.needed_bytes * 1e-6, work.bytes / work.ms * 1e-6,
                  work.flop / work.ms * 1e-9);
    };
    for (const ProfiledWork& work : profile.works) {
        print(work.name, work);
        sum.launches += work.launches;
        sum.ms += work.ms;
        sum.bytes += work.bytes;
        sum.needed_bytes += work.needed_bytes;
        sum.flop += work.flop;
    }
    print("all of them", sum);
    print_out(
        "\nlayers beside attention: {}\npeak device memory: {:.2f} GB\n",
        profile.fused ? "fused, four kernels each and two behind the last" : "general kernels",
        profile.peak_bytes * 1e-9);
    print_out("the step as training runs it{}: {:.3f} ms; goal on an H200, sparse: {:.1f} ms\n",
              profile.graph ? ", a CUDA graph" : "", profile.step_ms, task.goal_ms);
    if (profile.graph)
        print_out("each kernel launched by itself: {:.3f} ms\n", profile.launched_ms);
}

void print_json(const Options& options, const Task& task, const Profile& profile,
                const Device& device) {
    Json rows = Json::array();
    for (const ProfiledWork& work : profile.works) {
        rows.push_back({{"name", work.name},
                        {"launches", work.launches},
                        {"ms", work.ms},
                        {"floor_ms", floor_ms(work, device.target())},
                        {"bytes", work.bytes},
                        {"needed_bytes", work.needed_bytes},
                        {"flop", work.flop}});
    }
    print_out("{}\n", Json{{"device", device.name()},
                           {"task", task.name},
                           {"phase", options.dense ? "dense" : "sparse"},
                           {"batch", task.batch},
                           {"length", task.length},
                           {"heads", options.heads},
                           {"head_dim", options.head_dim},
                           {"feed_forward", options.feed_forward},
                           {"step_ms", profile.step_ms},
                           {"launched_ms", profile.launched_ms},
                           {"graph", profile.graph},
                           {"peak_bytes", profile.peak_bytes},
                           {"fused", profile.fused},
                           {"goal_ms", task.goal_ms},
                           {"works", rows}}
                          .dump(2));
}

void bench_step(const Options& options) {
    if (options.repeat < 1) {
        throw UserError("--repeat is {}; give at least 1", options.repeat);
    }
    const Task task = task_of(options);
    const auto device = open_device(parse_device_choice(options.device));
    const Profile profile = measure(options, task, *device);
    (options.json ? print_json : print_table)(options, task, profile, *device);
}

}  // namespace

void add_bench_step(CLI::App& bench) {
    const auto options = std::make_shared<Options>();
    CLI::App* part =
        bench.add_subcommand("step", "a training step at the paper's settings, kernel by kernel");
    part->add_option("--task", options->task, "listops, image or retrieval")->capture_default_str();
    add_threads_option(*part);
    part->add_option("--device", options->device, "auto, cpu or cuda")->capture_default_str();
    part->add_option("--batch", options->batch, "another batch than the task's");
    part->add_option("--length", options->length, "another length than the task's");
    part->add_option("--heads", options->heads, "H")->capture_default_str();
    part->add_option("--head-dim", options->head_dim, "D; the model's width is H D")
        ->capture_default_str();
    part->add_option("--feed-forward", options->feed_forward, "the feed-forward part's width")
        ->capture_default_str();
    part->add_flag("--dense", options->dense, "a step of the dense phase");
    part->add_option("--repeat", options->repeat, "steps that the median is taken of")
        ->capture_default_str();
    part->add_flag("--json", options->json, "print JSON, and nothing else, on standard output");
    part->callback([options] { bench_step(*options); });
}

}  // namespace spion
