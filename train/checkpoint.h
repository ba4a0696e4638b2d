// A checkpoint: all that training needs to go on as if it had never stopped, and all that is needed
// to use the model, in one safetensors file (docs/formats.md has its tensors and notes). Batches,
// dropout and initial values are functions of seed and step alone, so the step is the position in
// the data and the state of every random generator.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ir/head_patterns.h"
#include "ir/tile_shape.h"
#include "kernels/train_arguments.h"
#include "train/parameters.h"
#include "train/settings.h"
#include "train/step_runner.h"

namespace spion {

// The three launches of an attention: whether the backward pass is fused, and their tile shapes.
struct TunedLaunches {
    bool fused = false;
    std::vector<TileShape> shapes;
};

// What is no tensor.
struct CheckpointState {
    std::int64_t step = 0;  // steps done
    double seconds = 0;     // of training so far
    int processes = 1;      // that trained together
    std::optional<std::int64_t> transition_step;
    std::vector<double> distances;  // that the transition rule saw last, [layers] or empty
    std::int64_t not_finite_gradients = 0;
    std::optional<SpionLossScale> loss_scale = {};  // where gradients are scaled
    double best_accuracy = -1;                      // by validation; below 0 before the first
    std::int64_t best_step = 0;
    // Of each attention's launches, as tuning chose them; empty when the cost model chose. [1] while
    // dense, [layers] when sparse.
    std::vector<TunedLaunches> tuned;
};

struct Checkpoint {
    TrainSettings settings;
    int classes = 0;
    std::vector<std::string> class_names;  // [classes]; empty: their numbers
    CheckpointState state;
    std::vector<float> values, first_moment, second_moment;  // flat, as ParameterLayout says
    std::vector<HeadPatterns> patterns;    // [layers] in the sparse phase, else empty
    std::vector<std::vector<float>> maps;  // [layers] of the last evaluation, [L, L] or [nb, nb]
};

// The model of these settings.
ModelShape model_shape(const TrainSettings& settings, int classes);

// Throws UserError when the file cannot be written.
void write_checkpoint(const std::filesystem::path& file, const Checkpoint& checkpoint);

// Throws UserError that names the file and says what is the matter: no checkpoint, damaged or cut
// short, made by a later spion, or with tensors that are not those of its settings.
Checkpoint read_checkpoint(const std::filesystem::path& file);

// RUN/checkpoints/: step-00001000.safetensors and so on, and best.safetensors.
class CheckpointFolder {
  public:
    explicit CheckpointFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

    // Writes the checkpoint of its step, then removes all but the latest `keep`. Throws UserError
    // when it cannot be written; the earlier ones are kept then.
    void write(const Checkpoint& checkpoint, int keep) const;
    void write_best(const Checkpoint& checkpoint) const;
    // Files of steps, latest first.
    std::vector<std::filesystem::path> files() const;
    // The latest that can be read; `say` hears of later ones that cannot. Nothing without any.
    // Throws UserError when there are some and none can be read.
    std::optional<Checkpoint> latest(const std::function<void(std::string_view)>& say) const;

  private:
    std::filesystem::path folder_;
};

}  // namespace spion
