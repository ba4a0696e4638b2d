#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/printable.h"
#include "io/safetensors.h"
#include "ir/error.h"
#include "ir/sizes.h"
#include "runtime/atomic_file.h"
#include "train/settings_file.h"
#include "train/task.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// 2: layers have a pattern a head, [H, nb, nb]. What needs none is written as 1, as before there were
// such.
constexpr int kFormat = 1, kFormatOfHeads = 2;
int format_of(const TrainSettings& settings) {
    return settings.per_head ? kFormatOfHeads : kFormat;
}
constexpr std::string_view kFirstMoment = "first_moment.", kSecondMoment = "second_moment.";

json shape_json(const TileShape& shape) {
    return {shape.stationary_rows, shape.streamed_rows,   shape.gather_rows, shape.warps,
            shape.stages,          to_string(shape.unit), shape.packed_rows};
}

TileShape shape_of(const json& fields) {
    return {.stationary_rows = fields.at(0),
            .streamed_rows = fields.at(1),
            .gather_rows = fields.at(2),
            .warps = fields.at(3),
            .stages = fields.at(4),
            .unit = parse_matrix_unit(fields.at(5).get<std::string>()),
            .packed_rows = fields.at(6)};
}

std::string state_text(const CheckpointState& state) {
    json text = {{"step", state.step},
                 {"seconds", state.seconds},
                 {"processes", state.processes},
                 {"transition_step", nullptr},
                 {"distances", state.distances},
                 {"not_finite_gradients", state.not_finite_gradients},
                 {"best_accuracy", state.best_accuracy},
                 {"best_step", state.best_step},
                 {"tuned", json::array()}};
    if (state.transition_step) text["transition_step"] = *state.transition_step;
    if (state.loss_scale) {
        text["loss_scale"] = {{"scale", state.loss_scale->scale},
                              {"good_steps", state.loss_scale->good_steps},
                              {"skipped", state.loss_scale->skipped}};
    }
    for (const TunedLaunches& layer : state.tuned) {
        json shapes = json::array();
        for (const TileShape& shape : layer.shapes) shapes.push_back(shape_json(shape));
        text["tuned"].push_back({{"fused", layer.fused}, {"shapes", std::move(shapes)}});
    }
    return text.dump();
}

CheckpointState parse_state(const std::string& text, const std::string& origin) {
    try {
        const json fields = json::parse(text);
        CheckpointState state{.step = fields.at("step"),
                              .seconds = fields.at("seconds"),
                              .processes = fields.value("processes", 1),
                              .transition_step = {},
                              .distances = fields.at("distances"),
                              .not_finite_gradients = fields.at("not_finite_gradients"),
                              .best_accuracy = fields.at("best_accuracy"),
                              .best_step = fields.at("best_step"),
                              .tuned = {}};
        if (!fields.at("transition_step").is_null()) {
            state.transition_step = fields.at("transition_step").get<std::int64_t>();
        }
        if (const auto found = fields.find("loss_scale"); found != fields.end()) {
            state.loss_scale = SpionLossScale{.scale = found->at("scale"),
                                              .good_steps = found->at("good_steps"),
                                              .skipped = found->at("skipped")};
        }
        for (const json& layer : fields.at("tuned")) {
            TunedLaunches& launches = state.tuned.emplace_back();
            launches.fused = layer.at("fused");
            for (const json& shape : layer.at("shapes")) {
                launches.shapes.push_back(shape_of(shape));
            }
        }
        return state;
    } catch (const json::exception&) {
        throw UserError("{}: the checkpoint's state cannot be read: take an earlier checkpoint",
                        origin);
    }
}

std::string_view bytes_of(const float* values, std::int64_t count) {
    return {reinterpret_cast<const char*>(values), static_cast<std::size_t>(count) * sizeof(float)};
}

void add_parameters(const ParameterLayout& layout, std::string_view prefix,
                    const std::vector<float>& flat, std::vector<SavedTensor>& tensors) {
    if (static_cast<std::int64_t>(flat.size()) != layout.size()) {
        throw InternalError("{} values for a model of {}", flat.size(), layout.size());
    }
    for (const ParameterInfo& parameter : layout.table()) {
        tensors.push_back({.name = fmt::format("{}{}", prefix, parameter.name),
                           .shape = parameter.shape,
                           .type = ElementType::kFloat32,
                           .data = bytes_of(flat.data() + parameter.offset, parameter.count())});
    }
}

std::vector<char> bits_of(const HeadPatterns& patterns) {
    std::vector<char> bits;
    for (const BlockPattern& pattern : patterns) {
        for (int row = 0; row < pattern.rows(); ++row) {
            for (int column = 0; column < pattern.columns(); ++column) {
                bits.push_back(pattern.at(row, column) ? 1 : 0);
            }
        }
    }
    return bits;
}

// Of a layer's patterns: [nb, nb], or [H, nb, nb].
std::vector<std::int64_t> pattern_shape(const TrainSettings& settings) {
    const std::int64_t block = settings.discovery.block;
    const std::int64_t rows = (settings.length + block - 1) / block;
    if (settings.per_head) return {settings.heads, rows, rows};
    return {rows, rows};
}

// A checkpoint's file, and how to speak of it.
class Reader {
  public:
    explicit Reader(const fs::path& file)
        : origin_(file.string()), bytes_(read_bytes(origin_)), notes_(notes()) {}

    const std::string& origin() const { return origin_; }
    const std::string& note(const std::string& name) const {
        const auto found = notes_.find(name);
        if (found == notes_.end()) {
            throw UserError("{}: the checkpoint has no note '{}': take an earlier checkpoint",
                            origin_, name);
        }
        return found->second;
    }
    bool has(const std::string& name) const {
        return std::binary_search(names_.begin(), names_.end(), name);
    }
    std::vector<double> tensor(const std::string& name, std::span<const std::int64_t> shape) const {
        const Array array = array_of(name);
        if (!std::equal(shape.begin(), shape.end(), array.shape.begin(), array.shape.end())) {
            Array wanted;
            wanted.shape.assign(shape.begin(), shape.end());
            throw UserError(
                "{}: tensor {} has shape {}, but a model of its settings has {}: the file is not "
                "as spion wrote it",
                origin_, name, array.shape_text(), wanted.shape_text());
        }
        return array.values();
    }
    std::vector<float> floats(const std::string& name) const {
        const std::vector<double> values = array_of(name).values();
        return {values.begin(), values.end()};
    }

  private:
    std::map<std::string, std::string> notes() {
        if (!is_safetensors(bytes_.view)) {
            throw UserError(
                "{} is no checkpoint, or is cut short: name a .safetensors file that `spion train` "
                "wrote to RUN/checkpoints",
                origin_);
        }
        auto found = safetensors_metadata(bytes_.view, origin_);
        if (found.count("spion_checkpoint") == 0) {
            throw UserError(
                "{} holds tensors, but no checkpoint of spion: name a file that `spion train` "
                "wrote to RUN/checkpoints",
                origin_);
        }
        if (found["spion_checkpoint"] != std::to_string(kFormat) &&
            found["spion_checkpoint"] != std::to_string(kFormatOfHeads)) {
            throw UserError(
                "{} has checkpoint format {}, but this spion knows {} and {} only: use the spion "
                "that wrote it",
                origin_, printable(found["spion_checkpoint"]), kFormat, kFormatOfHeads);
        }
        names_ = safetensors_names(bytes_.view, origin_);
        return found;
    }
    Array array_of(const std::string& name) const {
        return parse_safetensors(bytes_, name, origin_ + ":" + name);
    }

    std::string origin_;
    Bytes bytes_;
    std::vector<std::string> names_;  // sorted; set by notes()
    std::map<std::string, std::string> notes_;
};

std::vector<float> read_parameters(const Reader& reader, const ParameterLayout& layout,
                                   std::string_view prefix) {
    std::vector<float> flat(static_cast<std::size_t>(layout.size()), 0.0F);
    for (const ParameterInfo& parameter : layout.table()) {
        const std::vector<double> values =
            reader.tensor(fmt::format("{}{}", prefix, parameter.name), parameter.shape);
        std::transform(values.begin(), values.end(), flat.begin() + parameter.offset,
                       [](double value) { return static_cast<float>(value); });
    }
    return flat;
}

HeadPatterns read_patterns(const Reader& reader, int layer, const TrainSettings& settings) {
    const std::vector<double> bits =
        reader.tensor(fmt::format("pattern.layer{}", layer), pattern_shape(settings));
    const int count = settings.per_head ? settings.heads : 1;
    const auto each = static_cast<std::ptrdiff_t>(bits.size()) / count;
    std::vector<BlockPattern> patterns;
    for (int head = 0; head < count; ++head) {
        const auto first = bits.begin() + head * each;
        patterns.emplace_back(settings.length, settings.discovery.block,
                              std::vector<std::uint8_t>(first, first + each));
    }
    return HeadPatterns(std::move(patterns));
}

int parse_classes(const Reader& reader) {
    int classes = 0;
    const std::string& text = reader.note("classes");
    std::from_chars(text.data(), text.data() + text.size(), classes);
    if (classes < 1 || classes > 1024) {
        throw UserError("{}: the checkpoint names {} classes, not 1 to 1024", reader.origin(),
                        printable(text));
    }
    return classes;
}

std::vector<std::string> parse_class_names(const Reader& reader, int classes) {
    try {
        auto names = json::parse(reader.note("class_names")).get<std::vector<std::string>>();
        if (names.empty() || names.size() == static_cast<std::size_t>(classes)) return names;
    } catch (const json::exception&) {
    }
    throw UserError("{}: the checkpoint does not name its {} classes: take an earlier checkpoint",
                    reader.origin(), classes);
}

}  // namespace

ModelShape model_shape(const TrainSettings& s, int classes) {
    return {.layers = s.layers,
            .heads = s.heads,
            .head_dim = s.head_dim,
            .feed_forward = s.feed_forward,
            .vocabulary = s.vocabulary,
            .classes = classes,
            .length = s.length,
            .towers = task_named(s.task).towers,
            .pooling = s.pooling};
}

void write_checkpoint(const fs::path& file, const Checkpoint& checkpoint) {
    const TrainSettings& settings = checkpoint.settings;
    const ParameterLayout layout(model_shape(settings, checkpoint.classes));
    std::vector<SavedTensor> tensors;
    add_parameters(layout, "", checkpoint.values, tensors);
    add_parameters(layout, kFirstMoment, checkpoint.first_moment, tensors);
    add_parameters(layout, kSecondMoment, checkpoint.second_moment, tensors);
    std::vector<std::vector<char>> bits;
    for (const HeadPatterns& patterns : checkpoint.patterns) bits.push_back(bits_of(patterns));
    for (std::size_t layer = 0; layer < bits.size(); ++layer) {
        tensors.push_back({.name = fmt::format("pattern.layer{}", layer),
                           .shape = pattern_shape(settings),
                           .type = ElementType::kUint8,
                           .data = {bits[layer].data(), bits[layer].size()}});
    }
    for (std::size_t layer = 0; layer < checkpoint.maps.size(); ++layer) {
        const auto& map = checkpoint.maps[layer];
        const auto count = static_cast<std::int64_t>(map.size());
        tensors.push_back({.name = fmt::format("score_map.layer{}", layer),
                           .shape = {count},
                           .type = ElementType::kFloat32,
                           .data = bytes_of(map.data(), count)});
    }
    write_safetensors(
        file.string(), tensors,
        {{"spion_checkpoint", std::to_string(format_of(settings))},
         {"task", settings.task},
         {"classes", std::to_string(checkpoint.classes)},
         {"class_names",
          json(checkpoint.class_names).dump(-1, ' ', true, json::error_handler_t::replace)},
         {"settings", to_toml(settings)},
         {"state", state_text(checkpoint.state)}});
}

Checkpoint read_checkpoint(const fs::path& file) {
    const Reader reader(file);
    Checkpoint checkpoint;
    checkpoint.settings =
        settings_of_run(read_settings_text(reader.note("settings"), reader.origin()));
    const TrainSettings& s = checkpoint.settings;
    checkpoint.classes = parse_classes(reader);
    checkpoint.class_names = parse_class_names(reader, checkpoint.classes);
    checkpoint.state = parse_state(reader.note("state"), reader.origin());
    const ParameterLayout layout(model_shape(s, checkpoint.classes));
    checkpoint.values = read_parameters(reader, layout, "");
    checkpoint.first_moment = read_parameters(reader, layout, kFirstMoment);
    checkpoint.second_moment = read_parameters(reader, layout, kSecondMoment);
    for (int layer = 0; layer < s.layers; ++layer) {
        if (checkpoint.state.transition_step) {
            checkpoint.patterns.push_back(read_patterns(reader, layer, s));
        }
        const std::string map = fmt::format("score_map.layer{}", layer);
        if (reader.has(map)) checkpoint.maps.push_back(reader.floats(map));
    }
    return checkpoint;
}

void CheckpointFolder::write(const Checkpoint& checkpoint, int keep) const {
    std::error_code error;
    fs::create_directories(folder_, error);  // what fails here fails below, with a sentence
    write_checkpoint(folder_ / fmt::format("step-{:08}.safetensors", checkpoint.state.step),
                     checkpoint);
    const std::vector<fs::path> all = files();
    for (std::size_t i = static_cast<std::size_t>(keep); i < all.size(); ++i) {
        fs::remove(all[i], error);
    }
    for (fs::directory_iterator item(folder_, error), end; !error && item != end;
         item.increment(error)) {
        // Left by a process that was killed.
        if (std::error_code ignored; is_unfinished(item->path())) fs::remove(item->path(), ignored);
    }
}

void CheckpointFolder::write_best(const Checkpoint& checkpoint) const {
    std::error_code error;
    fs::create_directories(folder_, error);
    write_checkpoint(folder_ / "best.safetensors", checkpoint);
}

std::optional<Checkpoint> CheckpointFolder::latest(
    const std::function<void(std::string_view)>& say) const {
    const std::vector<fs::path> all = files();
    for (std::size_t i = 0; i < all.size(); ++i) {
        try {
            return read_checkpoint(all[i]);
        } catch (const UserError& error) {
            if (i + 1 == all.size()) throw;
            say(fmt::format("{}; the checkpoint before it is taken", error.what()));
        }
    }
    return std::nullopt;
}

std::vector<fs::path> CheckpointFolder::files() const {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator item(folder_, error), end; !error && item != end;
         item.increment(error)) {
        const std::string name = item->path().filename().string();
        if (name.starts_with("step-") && name.ends_with(".safetensors")) {
            found.push_back(item->path());
        }
    }
    // By number, as a name may have more than eight digits.
    std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) {
        const std::string x = a.filename().string(), y = b.filename().string();
        return std::pair(x.size(), x) > std::pair(y.size(), y);
    });
    return found;
}

}  // namespace spion
